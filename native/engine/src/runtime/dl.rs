//! Shared libraries opened at run time.

use std::ffi::{CStr, CString, c_int, c_void};

/// An open library. Never closed: its code may be in use anywhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library(*mut c_void);

// SAFETY: a handle of dlopen may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens a library by name or path; `global` lends its symbols to libraries opened later.
    ///
    /// # Errors
    /// The loader's own words.
    pub(super) fn open(name: &str, global: bool) -> Result<Self, String> {
        let c_name = CString::new(name).map_err(|_| format!("`{name}` is no file name"))?;
        let flags = libc::RTLD_NOW
            | if global {
                libc::RTLD_GLOBAL
            } else {
                libc::RTLD_LOCAL
            };
        // SAFETY: a NUL-terminated name; the libraries opened here are the driver's and libtorch's.
        let handle = unsafe { libc::dlopen(c_name.as_ptr(), flags) };
        if handle.is_null() {
            Err(last_error())
        } else {
            Ok(Self(handle))
        }
    }

    /// The function `name`.
    ///
    /// # Safety
    /// `F` must be the function's true type (`unsafe extern "C" fn …`).
    ///
    /// # Errors
    /// When the library has no such function.
    pub(super) unsafe fn function<F: Copy>(self, name: &CStr) -> Result<F, String> {
        // SAFETY: an open library and a NUL-terminated name.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if address.is_null() {
            return Err(last_error());
        }
        if size_of::<F>() != size_of::<*mut c_void>() {
            return Err("not a function pointer".to_owned());
        }
        // SAFETY: of a pointer's size, and of the right type by this function's own contract.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
    }
}

fn last_error() -> String {
    // SAFETY: dlerror returns null or a string that stays until this thread's next call.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "unknown error".to_owned()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// The folder of the library that holds the function at `address`.
pub(super) fn folder_of(address: *const c_void) -> Option<String> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `info` is a valid place; any address may be asked for.
    let found: c_int = unsafe { libc::dladdr(address, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a string of the loader that lives as long as the library.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }
        .to_string_lossy()
        .into_owned();
    let folder = std::path::Path::new(&path).parent()?;
    Some(folder.display().to_string())
}
