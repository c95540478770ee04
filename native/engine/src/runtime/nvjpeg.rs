//! JPEG files decoded by the GPU: NVIDIA's nvJPEG, opened at run time and never needed.
//!
//! Functions and types are those of `nvjpeg.h` of CUDA 13.0 (nvJPEG 13.0.1). The contract with the library is tested
//! against a stand-in of the same interface; see [`Decoder`] for what has and has not run on a GPU.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::OnceLock;

use oarlock_jobs::ErrorCode;
use tch::{Device, Kind, Tensor};

use super::dl::{self, Library};
use crate::{EngineError, Result, ffi};

type Handle = *mut c_void;
type State = *mut c_void;
type Stream = *mut c_void;

const MAX_COMPONENTS: usize = 4;
const SUCCESS: c_int = 0;
const INVALID_PARAMETER: c_int = 2;
/// The library's own choice of algorithm.
const BACKEND_DEFAULT: c_int = 0;
/// Interleaved red, green, blue.
const OUTPUT_RGBI: c_int = 5;
/// Damaged files are errors, not grey areas.
const FLAG_STRICT: c_uint = 1 << 2;
/// Chroma is interpolated, as libjpeg-turbo does.
const FLAG_INTERPOLATION: c_uint = 1 << 5;
/// Most bytes of pixels decoded at a time.
const CHUNK_BYTES: usize = 256 << 20;

/// `nvjpegImage_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Image {
    channel: [*mut u8; MAX_COMPONENTS],
    pitch: [usize; MAX_COMPONENTS],
}

type Destroy = unsafe extern "C" fn(*mut c_void) -> c_int;

/// The library's functions.
#[derive(Clone, Copy)]
struct Api {
    create: unsafe extern "C" fn(
        backend: c_int,
        device_allocator: *mut c_void,
        pinned_allocator: *mut c_void,
        flags: c_uint,
        handle: *mut Handle,
    ) -> c_int,
    create_simple: unsafe extern "C" fn(*mut Handle) -> c_int,
    destroy: Destroy,
    state_create: unsafe extern "C" fn(Handle, *mut State) -> c_int,
    state_destroy: Destroy,
    image_info: unsafe extern "C" fn(
        handle: Handle,
        data: *const u8,
        length: usize,
        components: *mut c_int,
        subsampling: *mut c_int,
        widths: *mut c_int,
        heights: *mut c_int,
    ) -> c_int,
    batch_initialize: unsafe extern "C" fn(
        handle: Handle,
        state: State,
        batch_size: c_int,
        cpu_threads: c_int,
        format: c_int,
    ) -> c_int,
    batch_decode: unsafe extern "C" fn(
        handle: Handle,
        state: State,
        data: *const *const u8,
        lengths: *const usize,
        destinations: *mut Image,
        stream: Stream,
    ) -> c_int,
}

impl Api {
    fn open(path: &str) -> std::result::Result<Self, String> {
        let library = Library::open(path, false)?;
        // SAFETY: the types are those of nvjpeg.h, the same since CUDA 11.
        unsafe {
            Ok(Self {
                create: library.function(c"nvjpegCreateEx")?,
                create_simple: library.function(c"nvjpegCreateSimple")?,
                destroy: library.function(c"nvjpegDestroy")?,
                state_create: library.function(c"nvjpegJpegStateCreate")?,
                state_destroy: library.function(c"nvjpegJpegStateDestroy")?,
                image_info: library.function(c"nvjpegGetImageInfo")?,
                batch_initialize: library.function(c"nvjpegDecodeBatchedInitialize")?,
                batch_decode: library.function(c"nvjpegDecodeBatched")?,
            })
        }
    }

    /// The library of the pinned wheel beside libtorch's, else the system's.
    fn installed() -> std::result::Result<Self, String> {
        static INSTALLED: OnceLock<std::result::Result<Api, String>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                const NAME: &str = "libnvjpeg.so.13";
                let folder = dl::folder_of(ffi::libtorch_address()).unwrap_or_default();
                Self::open(&format!("{folder}/../../nvidia/cu13/lib/{NAME}"))
                    .or_else(|first| Self::open(NAME).map_err(|_| first))
            })
            .clone()
    }
}

/// Why it is no longer used in this process.
static GIVEN_UP: OnceLock<String> = OnceLock::new();

/// After a failure: nobody decodes with it again in this process. Whether this is news.
pub fn give_up(reason: &str) -> bool {
    GIVEN_UP.set(reason.to_owned()).is_ok()
}

/// A decoder for `device`, a GPU whose libtorch part is loaded.
///
/// # Errors
/// `Unsupported` without the library or after a failure, with the reason; what the library says.
pub fn decoder(device: Device) -> Result<Decoder> {
    let unusable = |reason: &str| EngineError::new(ErrorCode::Unsupported, reason);
    if let Some(reason) = GIVEN_UP.get() {
        return Err(unusable(&format!("it failed before: {reason}")));
    }
    let api = Api::installed()
        .map_err(|reason| unusable(&format!("nvJPEG cannot be loaded: {reason}")))?;
    Decoder::with(api, device)
}

/// Turns a status into a typed error.
fn check(status: c_int, call: &str) -> Result<()> {
    let (code, what) = match status {
        SUCCESS => return Ok(()),
        1 => (ErrorCode::Internal, "it was not initialized"),
        2 => (ErrorCode::Internal, "an argument is wrong"),
        3 => (ErrorCode::InvalidData, "the file is damaged"),
        4 => (ErrorCode::Unsupported, "this kind of JPEG is not supported"),
        5 => (ErrorCode::ResourceExhausted, "out of GPU memory"),
        6 | 8 => (ErrorCode::DeviceFault, "the GPU failed"),
        7 => (ErrorCode::Unsupported, "the GPU is too old for it"),
        9 => (ErrorCode::Unsupported, "it is not implemented"),
        10 => (ErrorCode::InvalidData, "the file is cut off"),
        _ => (ErrorCode::Internal, "an unknown status"),
    };
    Err(
        EngineError::new(code, format!("nvJPEG: {what} ({call}, status {status})"))
            .with("call", call)
            .with("status", status),
    )
}

/// A file with the size that its header states.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// The file.
    pub bytes: &'a [u8],
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// A decoder on one device.
///
/// No GPU has run it yet: the real library has only been opened, and every call is checked against a stand-in.
#[derive(Debug)]
pub struct Decoder {
    session: Session,
    device: Device,
    /// Images that the state is prepared for.
    prepared: usize,
}

/// The library's objects; destroyed on drop.
struct Session {
    api: Api,
    handle: Handle,
    state: State,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nvJPEG")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: both were made by this library and are used no more; null was never made.
        unsafe {
            if !self.state.is_null() {
                (self.api.state_destroy)(self.state);
            }
            (self.api.destroy)(self.handle);
        }
    }
}

impl Decoder {
    /// A decoder of the library at `path`; the CPU as the device stands for a GPU in tests.
    #[cfg(test)]
    pub(crate) fn of_library(path: &str, device: Device) -> Result<Self> {
        Self::with(Api::open(path).map_err(EngineError::internal)?, device)
    }

    fn with(api: Api, device: Device) -> Result<Self> {
        let session = on(device, |_| Session::new(api))?;
        Ok(Self {
            session,
            device,
            prepared: 0,
        })
    }

    /// Decodes to height × width × 3 bytes (RGB) on the device. `done` gets the images in order and should keep
    /// something smaller: only a part of them is in memory at a time.
    ///
    /// # Errors
    /// `InvalidData` or `Unsupported` for a file; out of memory; failures of the device; those of `done`.
    pub fn decode(
        &mut self,
        files: &[File<'_>],
        mut done: impl FnMut(usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        while start < files.len() {
            let chunk = &files[start..start + chunk_length(&files[start..])];
            let images = on(self.device, |stream| self.decode_chunk(chunk, stream))?;
            for (i, image) in images.into_iter().enumerate() {
                done(start + i, image)?;
            }
            start += chunk.len();
        }
        Ok(())
    }

    fn decode_chunk(&mut self, files: &[File<'_>], stream: Stream) -> Result<Vec<Tensor>> {
        let Session { api, handle, state } = self.session;
        for file in files {
            self.session.check_size(file)?;
        }
        if self.prepared != files.len() {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            self.prepared = 0;
            // SAFETY: the objects live; numbers otherwise.
            let status = unsafe {
                (api.batch_initialize)(
                    handle,
                    state,
                    files.len() as c_int,
                    threads as c_int,
                    OUTPUT_RGBI,
                )
            };
            check(status, "nvjpegDecodeBatchedInitialize")?;
            self.prepared = files.len();
        }
        let images = files
            .iter()
            .map(|file| {
                let shape = [file.height as i64, file.width as i64, 3];
                Tensor::f_empty(shape, (Kind::Uint8, self.device))
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let mut places: Vec<Image> = images.iter().zip(files).map(place).collect();
        let data: Vec<*const u8> = files.iter().map(|f| f.bytes.as_ptr()).collect();
        let lengths: Vec<usize> = files.iter().map(|f| f.bytes.len()).collect();
        // SAFETY: all arrays have as many entries as the state was prepared for; every place has room for the size
        // that the library itself has just reported; everything lives until the stream has been waited for.
        let status = unsafe {
            (api.batch_decode)(
                handle,
                state,
                data.as_ptr(),
                lengths.as_ptr(),
                places.as_mut_ptr(),
                stream,
            )
        };
        // Also after a failure: work that was begun still reads the files and writes the images.
        let waited = match self.device {
            Device::Cuda(ordinal) => ffi::cuda_wait(ordinal),
            _ => Ok(()),
        };
        if status != SUCCESS {
            // Preparing also resets a failed batch.
            self.prepared = 0;
        }
        check(status, "nvjpegDecodeBatched")?;
        waited.map(|()| images)
    }
}

/// Where the library writes an image.
fn place((image, file): (&Tensor, &File<'_>)) -> Image {
    let mut place = Image {
        channel: [std::ptr::null_mut(); MAX_COMPONENTS],
        pitch: [0; MAX_COMPONENTS],
    };
    place.channel[0] = image.data_ptr().cast();
    place.pitch[0] = file.width * 3;
    place
}

/// How many of `files`, at least one, are decoded together.
fn chunk_length(files: &[File<'_>]) -> usize {
    let mut bytes = 0;
    let fits = files.iter().take_while(|file| {
        bytes += file.width * file.height * 3;
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}

/// Runs `work` with the device's stream.
fn on<T>(device: Device, work: impl FnOnce(Stream) -> Result<T>) -> Result<T> {
    match device {
        Device::Cuda(ordinal) => ffi::on_cuda_stream(ordinal, work),
        _ => work(std::ptr::null_mut()),
    }
}

impl Session {
    fn new(api: Api) -> Result<Self> {
        let (mut handle, null) = (std::ptr::null_mut(), std::ptr::null_mut());
        let flags = FLAG_STRICT | FLAG_INTERPOLATION;
        // SAFETY: null allocators ask for the library's own; a valid place for the handle.
        let mut status = unsafe { (api.create)(BACKEND_DEFAULT, null, null, flags, &mut handle) };
        if status == INVALID_PARAMETER {
            // An older library without these flags.
            // SAFETY: a valid place for the handle.
            status = unsafe { (api.create_simple)(&mut handle) };
        }
        check(status, "nvjpegCreateEx")?;
        let mut session = Self {
            api,
            handle,
            state: null,
        };
        // SAFETY: a live handle and a valid place for the state.
        let status = unsafe { (api.state_create)(handle, &mut session.state) };
        check(status, "nvjpegJpegStateCreate")?;
        Ok(session)
    }

    /// Compares what the library reads from a header with what was read before: memory depends on it.
    fn check_size(&self, file: &File<'_>) -> Result<()> {
        let (mut components, mut subsampling) = (0, 0);
        let (mut widths, mut heights) = ([0; MAX_COMPONENTS], [0; MAX_COMPONENTS]);
        // SAFETY: the file's bytes and valid places of the sizes that the library documents.
        let status = unsafe {
            (self.api.image_info)(
                self.handle,
                file.bytes.as_ptr(),
                file.bytes.len(),
                &mut components,
                &mut subsampling,
                widths.as_mut_ptr(),
                heights.as_mut_ptr(),
            )
        };
        check(status, "nvjpegGetImageInfo")?;
        let (width, height) = (file.width, file.height);
        if (widths[0], heights[0]) == (width as c_int, height as c_int) {
            return Ok(());
        }
        Err(EngineError::new(
            ErrorCode::InvalidData,
            format!(
                "nvJPEG reads a size of {}×{} in a file of {width}×{height}",
                widths[0], heights[0]
            ),
        ))
    }
}

#[cfg(test)]
#[path = "nvjpeg_tests.rs"]
pub(crate) mod tests;
