//! The contract with the library, against a stand-in compiled here; no GPU and no libnvjpeg needed.

use std::ffi::c_long;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oarlock_imaging::{Limits, decode};

use super::*;

/// The stand-in, for one test at a time.
pub(crate) struct Fake {
    library: Library,
    pub path: String,
    _alone: MutexGuard<'static, ()>,
}

impl Fake {
    /// Compiles it once; `None`, and a word why, on a machine without a C compiler.
    pub fn new() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        static BUILT: OnceLock<Option<(tempfile::TempDir, String)>> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, path) = BUILT.get_or_init(build).as_ref()?;
        let fake = Self {
            library: Library::open(path, false).unwrap(),
            path: path.clone(),
            _alone: alone,
        };
        // SAFETY: `void fake_reset(void)`.
        unsafe { fake.call::<unsafe extern "C" fn()>(c"fake_reset")() };
        Some(fake)
    }

    /// # Safety
    /// As [`Library::function`].
    unsafe fn call<F: Copy>(&self, name: &std::ffi::CStr) -> F {
        // SAFETY: by the caller's promise.
        unsafe { self.library.function(name).unwrap() }
    }

    /// Tells it a file with the pixels that libjpeg-turbo reads from it.
    pub fn know(&self, file: &[u8]) -> oarlock_imaging::Image {
        let image = decode(file, &Limits::default(), None).unwrap();
        let (width, height) = (image.width() as c_int, image.height() as c_int);
        type Know = unsafe extern "C" fn(*const u8, usize, *const u8, c_int, c_int);
        // SAFETY: its true type; the bytes are copied.
        unsafe {
            self.call::<Know>(c"fake_know")(
                file.as_ptr(),
                file.len(),
                image.data().as_ptr(),
                width,
                height,
            );
        }
        image
    }

    /// The next decodings end with this status.
    pub fn fail_decode(&self, status: c_int) {
        // SAFETY: `void fake_fail_decode(int)`.
        unsafe { self.call::<unsafe extern "C" fn(c_int)>(c"fake_fail_decode")(status) };
    }

    fn set(&self, name: &std::ffi::CStr) {
        // SAFETY: its functions without arguments.
        unsafe { self.call::<unsafe extern "C" fn()>(name)() };
    }

    /// Alive, initialized, batches, images, wrong arguments, flags.
    pub fn counts(&self) -> [c_long; 6] {
        // SAFETY: `long fake_counts[6]`, which no other thread changes: tests have it one at a time.
        unsafe { *self.call::<*const [c_long; 6]>(c"fake_counts") }
    }
}

fn build() -> Option<(tempfile::TempDir, String)> {
    let dir = tempfile::tempdir().unwrap();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/runtime/testdata/fake_nvjpeg.c"
    );
    let path = dir.path().join("libnvjpeg.so").display().to_string();
    let arguments = [
        "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &path, source,
    ];
    let Ok(done) = Command::new("cc").args(arguments).output() else {
        eprintln!("skipped: there is no C compiler (`cc`) to build the stand-in for libnvjpeg");
        return None;
    };
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Some((dir, path))
}

/// A JPEG with content.
pub(crate) fn jpeg(width: usize, height: usize, seed: usize) -> Vec<u8> {
    let at = |i: usize| {
        let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
        let wave = ((x * (c + 2) + seed * 31) as f64 / 17.0).sin() + (y as f64 / 11.0).cos();
        (127.0 + 60.0 * wave) as u8
    };
    let data = (0..width * height * 3).map(at).collect();
    let image = oarlock_imaging::Image::new(width, height, data).unwrap();
    oarlock_imaging::encode_jpeg(&image, 90).unwrap()
}

fn file(bytes: &[u8], width: usize, height: usize) -> File<'_> {
    File {
        bytes,
        width,
        height,
    }
}

fn decoder_of(fake: &Fake) -> Decoder {
    Decoder::of_library(&fake.path, Device::Cpu).unwrap()
}

fn all(decoder: &mut Decoder, files: &[File<'_>]) -> Result<Vec<Tensor>> {
    let mut images = vec![];
    decoder.decode(files, |i, image| {
        assert_eq!(i, images.len());
        images.push(image);
        Ok(())
    })?;
    Ok(images)
}

#[test]
fn files_become_tensors_and_every_object_is_destroyed() {
    let Some(fake) = Fake::new() else { return };
    let (a, b) = (jpeg(61, 35, 1), jpeg(20, 90, 2));
    let expected = [fake.know(&a), fake.know(&b)];
    let mut decoder = decoder_of(&fake);
    assert_eq!(
        fake.counts()[5],
        c_long::from(FLAG_STRICT | FLAG_INTERPOLATION)
    );
    let files = [file(&a, 61, 35), file(&b, 20, 90)];
    for _ in 0..2 {
        let images = all(&mut decoder, &files).unwrap();
        for (image, expected) in images.iter().zip(&expected) {
            let size = [expected.height() as i64, expected.width() as i64, 3];
            assert_eq!(image.size(), size);
            let bytes = Vec::<u8>::try_from(image.flatten(0, -1)).unwrap();
            assert_eq!(bytes, expected.data());
        }
    }
    assert_eq!(all(&mut decoder, &files[..1]).unwrap().len(), 1);
    assert!(all(&mut decoder, &[]).unwrap().is_empty());
    // Prepared anew only for another number of images.
    assert_eq!(fake.counts()[..5], [2, 2, 3, 5, 0]);
    drop(decoder);
    assert_eq!((fake.counts()[0], fake.counts()[4]), (0, 0));
}

#[test]
fn failures_are_typed_and_leave_the_decoder_usable() {
    let Some(fake) = Fake::new() else { return };
    let a = jpeg(40, 30, 3);
    fake.know(&a);
    let mut decoder = decoder_of(&fake);
    let codes = [
        (3, ErrorCode::InvalidData),
        (4, ErrorCode::Unsupported),
        (5, ErrorCode::ResourceExhausted),
        (6, ErrorCode::DeviceFault),
        (10, ErrorCode::InvalidData),
        (77, ErrorCode::Internal),
    ];
    for (status, code) in codes {
        fake.fail_decode(status);
        let error = all(&mut decoder, &[file(&a, 40, 30)]).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(error.0.context["status"], status);
        assert_eq!(error.0.context["call"], "nvjpegDecodeBatched");
    }
    fake.fail_decode(0);
    assert_eq!(all(&mut decoder, &[file(&a, 40, 30)]).unwrap().len(), 1);
    let unknown = jpeg(40, 30, 4);
    let error = all(&mut decoder, &[file(&unknown, 40, 30)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidData);
    assert_eq!(fake.counts()[4], 0);
}

#[test]
fn a_size_that_differs_from_the_header_is_never_written() {
    let Some(fake) = Fake::new() else { return };
    let a = jpeg(40, 30, 3);
    fake.know(&a);
    let mut decoder = decoder_of(&fake);
    fake.set(c"fake_lie_about_size");
    let error = all(&mut decoder, &[file(&a, 40, 30)]).unwrap_err();
    assert!(error.to_string().contains("41×30"), "{error}");
    assert_eq!(fake.counts()[3], 0);
}

#[test]
fn an_older_library_without_the_flags_serves_too() {
    let Some(fake) = Fake::new() else { return };
    fake.set(c"fake_refuse_flags");
    let a = jpeg(16, 16, 5);
    fake.know(&a);
    let images = all(&mut decoder_of(&fake), &[file(&a, 16, 16)]).unwrap();
    assert_eq!(images.len(), 1);
}

#[test]
fn large_pictures_are_decoded_in_parts() {
    let of = |width, height| File {
        bytes: &[],
        width,
        height,
    };
    let (huge, small) = (of(12_000, 12_000), of(4000, 3000));
    assert_eq!(chunk_length(&[huge, small]), 1);
    assert_eq!(chunk_length(&[small; 10]), 7);
    assert_eq!(chunk_length(&[small, huge]), 1);
}

#[test]
fn a_library_that_is_missing_or_another_one_is_told() {
    assert!(Api::open("/nowhere/libnvjpeg.so.13").is_err());
    let error = Api::open("libc.so.6").err().unwrap();
    assert!(error.contains("nvjpegCreateEx"), "{error}");
}
