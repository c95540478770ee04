//! Pictures with their annotations or predictions drawn in, in PaddleX's colours.

use crate::draw::fit_text;
use crate::polygon::polygon_runs;
use crate::resize::resize_smooth;
use crate::{
    BBox, Colour, Image, ImageError, Pixels, Plane, Polygon, class_colour, draw_text, fill_rect,
    fit_within, outline_rect, text_width,
};

/// Longest side of the pictures that the API answers with.
pub const LABEL_PICTURE_SIDE: usize = 580;

/// Something to be drawn: a box with its name, maybe filled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DrawnObject {
    /// Box in pixels of the picture.
    pub bbox: BBox,
    /// Outline, filled with 70 % of the colour; none = the box alone.
    pub polygons: Vec<Polygon>,
    /// Filled instead of the outline; as large as the picture.
    pub mask: Option<Plane>,
    /// Name as the user wrote it, in any script; empty = no tag.
    pub name: String,
    /// Number in the colour table: for annotations the place in the sorted label list plus 1.
    pub colour: usize,
    /// Probability of a prediction, 0–1, told behind the name.
    pub score: Option<f32>,
}

/// Mixes `colour` into a pixel; `part` of 10.
fn blend(pixel: &mut [u8], colour: Colour, part: u32) {
    for (value, ink) in pixel.iter_mut().zip(colour) {
        *value = ((u32::from(*value) * (10 - part) + u32::from(ink) * part + 5) / 10) as u8;
    }
}

/// White, or black on a colour so light that white would not show.
fn ink_on(colour: Colour) -> Colour {
    let [r, g, b] = colour.map(u32::from);
    if (r * 299 + g * 587 + b * 114) / 1000 > 150 {
        [0; 3]
    } else {
        [255; 3]
    }
}

/// The picture with objects drawn in: fillings, then boxes, then names, so that nothing hides a name.
/// A picture longer than `longest` is shrunk to it; none is ever enlarged.
pub fn draw_objects(
    image: &Image,
    objects: &[DrawnObject],
    longest: Option<usize>,
) -> Result<Image, ImageError> {
    let (width, height) = (image.width(), image.height());
    let (w, h) = fit_within(width, height, longest.unwrap_or(usize::MAX).max(1));
    let mut out = if (w, h) == (width, height) {
        image.clone()
    } else {
        resize_smooth(image, w, h)?
    };
    let (sx, sy) = (w as f32 / width as f32, h as f32 / height as f32);
    for object in objects {
        fill_shape(&mut out, object, (sx, sy))?;
    }
    let long = w.max(h);
    let line = (2 * long).div_ceil(600) as i64;
    let text = (long as f32 / 36.0).max(if long < 200 { 10.0 } else { 12.0 });
    // Large boxes first: small ones inside them stay whole.
    let mut order: Vec<&DrawnObject> = objects.iter().collect();
    order.sort_by(|a, b| b.bbox.area().total_cmp(&a.bbox.area()));
    let place = |object: &DrawnObject| {
        let b = &object.bbox;
        let [x1, x2] = [b.x1 * sx, b.x2 * sx].map(|v| v.clamp(0.0, w as f32).round() as i64);
        let [y1, y2] = [b.y1 * sy, b.y2 * sy].map(|v| v.clamp(0.0, h as f32).round() as i64);
        (x1, y1, (x2 - x1).max(1), (y2 - y1).max(1))
    };
    for object in &order {
        outline_rect(&mut out, place(object), line, class_colour(object.colour));
    }
    let mut taken = Vec::new();
    for object in &order {
        draw_tag(&mut out, object, place(object), text, &mut taken);
    }
    Ok(out)
}

fn fill_shape(out: &mut Image, object: &DrawnObject, scale: (f32, f32)) -> Result<(), ImageError> {
    const PART: u32 = 7;
    let colour = class_colour(object.colour);
    let (w, h) = (out.width(), out.height());
    if let Some(mask) = &object.mask {
        let change = crate::Change::Resize {
            from: mask.whole(),
            to: (w, h),
            interpolation: crate::Interpolation::Nearest,
        };
        let mask = mask.changed(&change)?;
        let pixels = out.data_mut().chunks_exact_mut(3).zip(mask.data());
        pixels
            .filter(|(_, inside)| **inside != 0)
            .for_each(|(pixel, _)| blend(pixel, colour, PART));
        return Ok(());
    }
    let scaled = |p: &[f32; 2]| [p[0] * scale.0, p[1] * scale.1];
    let polygons = object.polygons.iter();
    let polygons: Vec<Polygon> = polygons.map(|p| p.iter().map(scaled).collect()).collect();
    polygon_runs(&polygons, (w, h), |y, from, to| {
        let run = out.row_mut(y)[from * 3..to * 3].chunks_exact_mut(3);
        run.for_each(|pixel| blend(pixel, colour, PART));
    });
    Ok(())
}

/// Left, top, width, height.
type Place = (i64, i64, i64, i64);

/// The name on a filled tag above the box; where there is no room or another tag, at its top inside or
/// below it.
fn draw_tag(out: &mut Image, object: &DrawnObject, rect: Place, size: f32, taken: &mut Vec<Place>) {
    if object.name.is_empty() {
        return;
    }
    let colour = class_colour(object.colour);
    let pad = (size / 5.0).ceil();
    let score = object.score.filter(|s| s.is_finite());
    let score = score.map_or(String::new(), |s| {
        format!(" {:.0} %", s.clamp(0.0, 1.0) * 100.0)
    });
    let room = out.width() as f32 - 2.0 * pad - text_width(&score, size);
    let name = fit_text(&object.name, size, room.max(0.0)) + &score;
    let width = (text_width(&name, size) + 2.0 * pad).ceil() as i64;
    let height = (size + pad).ceil() as i64;
    let x = rect.0.min(out.width() as i64 - width).max(0);
    let lowest = (out.height() as i64 - height).max(0);
    let free = |y: i64| {
        let over =
            |t: &Place| x < t.0 + t.2 && t.0 < x + width && y < t.1 + t.3 && t.1 < y + height;
        (0..=lowest).contains(&y) && !taken.iter().any(over)
    };
    let tries = [rect.1 - height, rect.1, rect.1 + rect.3, rect.1 + height];
    let y = tries.into_iter().find(|y| free(*y));
    let y = y.unwrap_or_else(|| rect.1.clamp(0, lowest));
    taken.push((x, y, width, height));
    fill_rect(out, x, y, width, height, colour);
    let (tx, ty) = (x as f32 + pad, y as f32 + pad / 2.0);
    draw_text(out, &name, tx, ty, size, ink_on(colour));
}

/// Half the picture, half the colour of each pixel's class id (255 included). Errors: another size.
pub fn draw_label_map(image: &Image, map: &Plane) -> Result<Image, ImageError> {
    let (width, height) = (image.width(), image.height());
    if map.size() != (width, height) {
        let (w, h) = map.size();
        let text = format!("a {w}×{h} label map does not fit a {width}×{height} picture");
        return Err(ImageError::Argument(text));
    }
    let colours: [Colour; 256] = std::array::from_fn(class_colour);
    let mut out = image.clone();
    for (pixel, id) in out.data_mut().chunks_exact_mut(3).zip(map.data()) {
        blend(pixel, colours[usize::from(*id)], 5);
    }
    Ok(out)
}

/// A picture with a legend at its right: one row of colour and name for each id of `ids`.
/// `names` by id; an id without a name is shown as its number.
pub fn with_legend(image: &Image, ids: &[u8], names: &[String]) -> Image {
    const PAPER: Colour = [255; 3];
    let size = (image.width().max(image.height()) as f32 / 36.0).max(14.0);
    let (row, margin) = ((size * 1.5) as usize, (size * 0.6) as usize);
    let texts = ids.iter().map(|id| match names.get(usize::from(*id)) {
        Some(name) => name.clone(),
        None if *id == crate::IGNORE => "ignored".to_owned(),
        None => id.to_string(),
    });
    let widest = size * 14.0;
    let texts: Vec<String> = texts.map(|t| fit_text(&t, size, widest)).collect();
    let text = texts
        .iter()
        .map(|t| text_width(t, size))
        .fold(0.0, f32::max);
    let panel = text.ceil() as usize + size as usize + 3 * margin;
    let height = image.height().max(ids.len() * row + 2 * margin);
    let mut out = Image::filled(image.width() + panel, height, PAPER);
    out.paste(image, 0, (height - image.height()) / 2);
    let left = (image.width() + margin) as i64;
    let side = size as i64;
    for (i, (id, text)) in ids.iter().zip(&texts).enumerate() {
        let y = (margin + i * row) as i64;
        fill_rect(&mut out, left, y, side, side, class_colour((*id).into()));
        let x = (left + side) as f32 + margin as f32;
        draw_text(&mut out, text, x, y as f32, size, [32, 33, 36]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bbox: [f32; 4], name: &str, colour: usize) -> DrawnObject {
        let [x1, y1, x2, y2] = bbox;
        DrawnObject {
            bbox: BBox::new(x1, y1, x2, y2),
            name: name.into(),
            colour,
            ..DrawnObject::default()
        }
    }

    #[test]
    fn boxes_are_drawn_in_their_colours_with_names_on_tags() {
        let image = Image::filled(1160, 800, [90, 120, 90]);
        let objects = [
            object([200.0, 200.0, 600.0, 600.0], "螺丝钉", 1),
            object([900.0, 5.0, 1150.0, 300.0], "hammer", 2),
        ];
        let out = draw_objects(&image, &objects, Some(LABEL_PICTURE_SIDE)).unwrap();
        assert_eq!((out.width(), out.height()), (580, 400));
        // R, G, B: dark blue and green; ceil(2·580/600) = 2 pixels wide.
        for (x, y) in [(100, 250), (101, 250), (250, 299)] {
            assert_eq!(out.pixel(x, y), [0, 0, 128], "{x},{y}");
        }
        assert_eq!(
            (out.pixel(102, 250), out.pixel(99, 250)),
            ([90, 120, 90], [90, 120, 90])
        );
        assert_eq!(out.pixel(450, 100), [0, 128, 0]);
        let count = |ys: std::ops::Range<usize>, colour: Colour| {
            let pixels = ys.flat_map(|y| (0..580).map(move |x| (x, y)));
            let close = |(x, y): &(usize, usize)| {
                out.pixel(*x, *y)
                    .iter()
                    .zip(colour)
                    .all(|(a, b)| a.abs_diff(b) < 60)
            };
            pixels.filter(close).count()
        };
        assert!(
            count(78..100, [0, 0, 128]) > 300,
            "a tag above the first box"
        );
        assert!(count(78..100, [255; 3]) > 40, "a white name on it");
        assert!(
            count(0..24, [255; 3]) > 40,
            "no room above: inside the second box"
        );
    }

    #[test]
    fn shapes_are_filled_with_seven_tenths() {
        let image = Image::filled(60, 40, [100; 3]);
        let mut shape = object([10.0, 10.0, 30.0, 30.0], "", 1);
        shape.polygons = vec![vec![[10.0, 10.0], [30.0, 10.0], [30.0, 30.0], [10.0, 30.0]]];
        let out = draw_objects(&image, std::slice::from_ref(&shape), None).unwrap();
        assert_eq!(
            (out.pixel(20, 20), out.pixel(40, 20)),
            ([30, 30, 120], [100; 3])
        );
        let mut mask = Plane::filled(60, 40, 0);
        (10..30).for_each(|y| mask.data_mut()[y * 60 + 10..y * 60 + 30].fill(1));
        shape.polygons.clear();
        shape.mask = Some(mask);
        assert_eq!(draw_objects(&image, &[shape], None).unwrap(), out);
    }

    #[test]
    fn label_maps_are_blended_by_half_and_explained() {
        let image = Image::filled(4, 2, [100; 3]);
        let map = Plane::new(4, 2, vec![0, 1, 2, 255, 0, 1, 2, 255]).unwrap();
        let out = draw_label_map(&image, &map).unwrap();
        let row: Vec<Colour> = (0..4).map(|x| out.pixel(x, 0)).collect();
        // Half of 100 plus half of (0,0,128), (0,128,0), (192,224,224).
        assert_eq!(
            row,
            [[50; 3], [50, 50, 114], [50, 114, 50], [146, 162, 162]]
        );
        assert!(draw_label_map(&image, &Plane::filled(4, 3, 0)).is_err());
        let legend = with_legend(&out, &[0, 1, 255], &["背景".into(), "road".into()]);
        assert!(legend.width() > 40 && legend.height() >= 60);
        let ink = legend
            .data()
            .chunks_exact(3)
            .filter(|p| p[0] < 90 && p[1] < 90 && p[2] < 90)
            .count();
        assert!(ink > 250, "{ink}");
    }

    #[test]
    fn strange_boxes_and_tiny_pictures_do_no_harm() {
        let objects = [
            object([f32::NAN; 4], "nan", 3),
            object(
                [-50.0, -50.0, 9e9, 9e9],
                "a name far longer than the picture is wide",
                250,
            ),
            object([5.0, 5.0, 2.0, 2.0], "turned", 4),
            object([1e30, 0.0, 1e31, 5.0], "outside", usize::MAX),
        ];
        for (w, h) in [(1, 1), (8, 3), (28, 28), (3, 900), (2000, 4)] {
            let image = Image::filled(w, h, [9; 3]);
            let out = draw_objects(&image, &objects, Some(580)).unwrap();
            assert!(out.width() <= w && out.height() <= h.min(580));
        }
        assert!(draw_objects(&Image::filled(5, 5, [0; 3]), &[], Some(0)).is_ok());
    }
}
