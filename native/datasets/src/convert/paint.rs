//! Label maps out of shapes, as palette PNG files.

use oarlock_imaging::{Plane, class_colour, polygon_runs};

use super::Shape;

/// Later shapes paint over earlier ones; `id` gives the class id of a name.
pub fn paint(
    (width, height): (usize, usize),
    shapes: &[Shape],
    id: impl Fn(&str) -> Option<u8>,
) -> Plane {
    let mut map = Plane::filled(width, height, 0);
    for shape in shapes {
        let Some(id) = id(&shape.name) else { continue };
        for polygons in shape.painted() {
            polygon_runs(&polygons, (width, height), |y, from, to| {
                map.data_mut()[y * width + from..y * width + to].fill(id);
            });
        }
    }
    map
}

/// The map as a PNG with the colour table of `datasets.md` 7.
pub fn palette_png(map: &Plane) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let (width, height) = (map.width() as u32, map.height() as u32);
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette((0..256).flat_map(class_colour).collect::<Vec<u8>>());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(map.data())?;
    writer.finish()?;
    Ok(out)
}
