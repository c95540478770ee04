//! Decoding, transforming and drawing images; no torch, no intermediate float images.
//!
//! Every decoder gives 8-bit RGB in display orientation; [`decode_raster`] gives all channels of
//! remote sensing pictures. Headers are checked against [`Limits`]
//! before memory is taken, so a small file that claims a huge picture costs nothing.

mod bilinear;
mod blur;
mod box_mask;
mod colour;
mod convert;
mod decode;
mod detections;
mod draw;
mod encode;
mod error;
mod exif;
mod font;
mod geometry;
mod header;
mod image;
mod jpeg;
mod label_map;
mod labeled;
mod labels;
mod nms;
mod npy;
mod outline;
mod packed;
mod pick;
mod pixels;
mod plane;
mod polygon;
mod pool;
mod raster;
mod report;
mod resize;
mod rle;
mod rle_polygon;
mod rng;
mod simd;
mod statistics;
mod taps;
mod tiff;
pub mod transform;
mod view;
mod warp;

pub use box_mask::box_mask;
pub use colour::{brightness, contrast, hue, saturation};
pub use decode::{
    DecodePlan, Limits, Rect, decode, decode_file, decode_raster, decode_region, plan, read_file,
};
pub use detections::{Chosen, Decay, Selection, matrix_nms, multiclass_nms};
pub use draw::{Colour, class_colour, draw_text, fill_rect, fill_rgb, outline_rect, text_width};
pub use encode::{encode_jpeg, encode_png};
pub use error::ImageError;
pub use font::missing_glyphs;
pub use geometry::{centre_rect, flip_horizontal, flip_vertical, random_crop_rect, rotate};
pub use header::{Format, ImageInfo, inspect, sniff};
pub use image::Image;
pub use jpeg::is_plain_jpeg;
pub use label_map::{decode_label_map, encode_label_map};
pub use labeled::{BBox, Keep, Labeled, Object};
pub use labels::{DrawnObject, LABEL_PICTURE_SIDE, draw_label_map, draw_objects, with_legend};
pub use nms::{nms, nms_by_class};
pub use outline::mask_outlines;
pub use packed::Packed;
pub use pick::pick_labels;
pub use pixels::Pixels;
pub use plane::{IGNORE, Plane};
pub use polygon::{Polygon, clip_polygon, polygon_area, polygon_runs};
pub use raster::{Raster, Samples};
pub use report::{ClassScore, classification_picture};
pub use resize::{
    fit_within, resize, resize_box_into, resize_box_to, resize_into, resize_smooth, short_side_size,
};
pub use rle::{Rle, RleError};
pub use rng::Rng;
pub use statistics::{ChannelStatistics, channel_statistics, percentile};
pub use taps::Interpolation;
pub use view::Change;
