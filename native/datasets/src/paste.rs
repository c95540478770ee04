//! Putting a made picture into its place of a batch.

use oarlock_imaging::Image;

/// Copies `image` into rows of `width` RGB pixels with its top left corner at `at`; `mirrored` as if the
/// whole result were flipped left to right afterwards.
pub(crate) fn paste(
    out: &mut [u8],
    width: usize,
    image: &Image,
    at: (usize, usize),
    mirrored: bool,
) {
    let left = if mirrored {
        width - at.0 - image.width()
    } else {
        at.0
    };
    let rows = out.chunks_exact_mut(width * 3).skip(at.1);
    for (row, y) in rows.zip(0..image.height()) {
        let place = &mut row[left * 3..(left + image.width()) * 3];
        if mirrored {
            let source = image.row(y).as_chunks::<3>().0.iter().rev();
            let target = place.as_chunks_mut::<3>().0.iter_mut();
            target.zip(source).for_each(|(t, s)| *t = *s);
        } else {
            place.copy_from_slice(image.row(y));
        }
    }
}
