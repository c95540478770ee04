//! JPEG files for tests, made by libjpeg-turbo.

use turbojpeg::Subsamp;

use crate::{Image, Rng};

/// A picture with flat and busy parts as JPEG, grey for no subsampling at all.
pub(super) fn jpeg(size: (usize, usize), subsampling: Option<Subsamp>, quality: i32) -> Vec<u8> {
    let mut rng = Rng::of(&[size.0 as u64, quality as u64]);
    let mut image = Image::filled(size.0, size.1, [0; 3]);
    for y in 0..size.1 {
        let busy = [4, 250][y / 64 % 2];
        for (x, value) in image.row_mut(y).iter_mut().enumerate() {
            *value = ((x / 7 + y / 3) % (256 - busy) + rng.below(busy)) as u8;
        }
    }
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_quality(quality).unwrap();
    compressor
        .set_subsamp(subsampling.unwrap_or(Subsamp::Gray))
        .unwrap();
    let image = turbojpeg::Image {
        pixels: image.data(),
        width: size.0,
        pitch: size.0 * 3,
        height: size.1,
        format: turbojpeg::PixelFormat::RGB,
    };
    compressor.compress_to_vec(image).unwrap()
}

/// The same picture with a restart marker after each row of MCUs, by libjpeg-turbo.
pub(super) fn with_restarts(bytes: &[u8]) -> Vec<u8> {
    use turbojpeg::raw;
    let image = crate::jpeg::decode_turbo(bytes, 1, None).unwrap();
    let (mut out, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: a fresh handle, pixels of the told size, and a buffer that libjpeg-turbo allocates.
    unsafe {
        let handle = raw::tj3Init(raw::TJINIT_TJINIT_COMPRESS as i32);
        let set = |param: raw::TJPARAM, value| raw::tj3Set(handle, param as i32, value);
        set(raw::TJPARAM_TJPARAM_QUALITY, 85);
        set(raw::TJPARAM_TJPARAM_SUBSAMP, raw::TJSAMP_TJSAMP_444);
        set(raw::TJPARAM_TJPARAM_RESTARTROWS, 1);
        let (width, height) = (image.width() as i32, image.height() as i32);
        let format = raw::TJPF_TJPF_RGB;
        let pixels = image.data().as_ptr();
        let code = raw::tj3Compress8(
            handle,
            pixels,
            width,
            0,
            height,
            format,
            &mut out,
            &mut length,
        );
        assert_eq!(code, 0);
        let made = std::slice::from_raw_parts(out, length as usize).to_vec();
        raw::tj3Free(out.cast());
        raw::tj3Destroy(handle);
        made
    }
}
