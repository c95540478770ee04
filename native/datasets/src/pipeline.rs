//! What the loader asks of the way from a listed file to one input of a network.

use std::path::Path;

use oarlock_imaging::{ImageError, Rng};

use crate::ImageCache;

/// An entry of a list of samples.
pub trait Listed: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The picture, as it is named when it cannot be read.
    fn path(&self) -> &Path;
}

/// From a listed file to one input with its target.
pub trait Pipeline: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// What is listed.
    type Sample: Listed;
    /// What belongs to one image beside its pixels and, where there is one, its label map.
    type Target: Send + 'static;

    /// Size and kind of the images of a batch; depends on nothing but its argument.
    fn layout(&self, batch: &BatchKey) -> Layout;

    /// Makes one image. The same job gives the same result, with a cache or without one.
    /// Errors: what is wrong with the file; it is then skipped.
    fn run(
        &self,
        job: &mut Job<'_, Self::Sample>,
        out: &mut Canvas<'_>,
    ) -> Result<Self::Target, ImageError>;
}

/// A batch, as its random numbers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchKey {
    /// Seed of the training.
    pub seed: u64,
    /// Running epoch.
    pub epoch: u64,
    /// Number within the epoch, from 0.
    pub index: usize,
}

/// One image to be made.
#[derive(Debug)]
pub struct Job<'a, S> {
    /// The whole list: a second image for mixup comes from it too.
    pub samples: &'a [S],
    /// Place of this image in the list.
    pub index: usize,
    /// Size and kind of the batch.
    pub layout: Layout,
    /// Decoded pictures.
    pub cache: Option<&'a ImageCache>,
    /// Everything random, a stream of its own for (seed, epoch, place in the list).
    pub rng: Rng,
    /// What it cost.
    pub timing: Timing,
}

impl<'a, S> Job<'a, S> {
    /// The sample of this image.
    pub fn sample(&self) -> &'a S {
        &self.samples[self.index]
    }
}

/// What decoding one image cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Reading and decoding.
    pub decode_seconds: f64,
    /// Pictures found in the cache.
    pub hits: u32,
    /// Pictures that had to be decoded.
    pub misses: u32,
}

/// How one sample is stored in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// 8-bit unsigned integers.
    #[default]
    U8,
    /// 16-bit unsigned integers, in the machine's byte order (remote sensing).
    U16,
    /// 32-bit floats, in the machine's byte order (remote sensing).
    F32,
}

impl Depth {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Sides of the images of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All the same.
    Fixed {
        /// Height.
        height: usize,
        /// Width.
        width: usize,
        /// Whether a label map of the same sides belongs to each.
        map: bool,
    },
    /// Every image has its own; in the batch they are padded right and below to the largest.
    Largest {
        /// The batch's sides are multiples of this.
        multiple: usize,
        /// Colour of the padding.
        fill: [u8; 3],
    },
}

/// Size and kind of the images of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Sides.
    pub size: Size,
    /// Values of one pixel; 3 where the size is [`Size::Largest`].
    pub channels: usize,
    /// Kind of these values; [`Depth::U8`] where the size is [`Size::Largest`].
    pub depth: Depth,
}

impl Layout {
    /// 8-bit RGB of one size.
    pub fn rgb(height: usize, width: usize) -> Self {
        let size = Size::Fixed {
            height,
            width,
            map: false,
        };
        Self {
            size,
            channels: 3,
            depth: Depth::U8,
        }
    }

    /// The same with a label map beside every image.
    #[must_use]
    pub fn with_map(mut self) -> Self {
        if let Size::Fixed { map, .. } = &mut self.size {
            *map = true;
        }
        self
    }

    /// Bytes of one pixel.
    pub fn pixel_bytes(&self) -> usize {
        self.channels * self.depth.bytes()
    }

    /// Bytes of one image, where all are equal.
    pub fn image_bytes(&self) -> Option<usize> {
        match self.size {
            Size::Fixed { height, width, .. } => Some(height * width * self.pixel_bytes()),
            Size::Largest { .. } => None,
        }
    }

    /// Bytes of one label map.
    pub fn map_bytes(&self) -> usize {
        match self.size {
            Size::Fixed {
                height,
                width,
                map: true,
            } => height * width,
            _ => 0,
        }
    }

    /// Whether an image of it has a pixel.
    pub(crate) fn is_possible(&self) -> bool {
        match self.size {
            Size::Fixed { .. } => self.image_bytes() > Some(0),
            Size::Largest { multiple, .. } => {
                multiple > 0 && (self.channels, self.depth) == (3, Depth::U8)
            }
        }
    }
}

/// Where a pipeline writes its image.
#[derive(Debug)]
pub struct Canvas<'a>(Place<'a>);

#[derive(Debug)]
enum Place<'a> {
    Fixed {
        height: usize,
        width: usize,
        image: &'a mut [u8],
        map: &'a mut [u8],
    },
    Own {
        pixel: usize,
        height: &'a mut usize,
        width: &'a mut usize,
        bytes: &'a mut Vec<u8>,
    },
}

impl<'a> Canvas<'a> {
    /// Memory for an image of one size, and for its label map (empty for none).
    pub fn fixed(height: usize, width: usize, image: &'a mut [u8], map: &'a mut [u8]) -> Self {
        Self(Place::Fixed {
            height,
            width,
            image,
            map,
        })
    }

    /// Memory that takes the size of its image.
    pub(crate) fn own(
        pixel: usize,
        height: &'a mut usize,
        width: &'a mut usize,
        bytes: &'a mut Vec<u8>,
    ) -> Self {
        Self(Place::Own {
            pixel,
            height,
            width,
            bytes,
        })
    }

    /// Memory of any content for an image of this size. Errors: the batch has images of another one.
    pub fn image(&mut self, height: usize, width: usize) -> Result<&mut [u8], ImageError> {
        self.with_map(height, width).map(|(image, _)| image)
    }

    /// The same together with that for the label map, empty in a batch without.
    pub fn with_map(
        &mut self,
        height: usize,
        width: usize,
    ) -> Result<(&mut [u8], &mut [u8]), ImageError> {
        match &mut self.0 {
            Place::Fixed {
                height: h,
                width: w,
                image,
                map,
            } if (*h, *w) == (height, width) => Ok((image, map)),
            Place::Fixed {
                height: h,
                width: w,
                ..
            } => Err(ImageError::Argument(format!(
                "an image of {width}×{height} in a batch of {w}×{h}"
            ))),
            Place::Own {
                pixel,
                height: h,
                width: w,
                bytes,
            } => {
                (**h, **w) = (height, width);
                bytes.resize(height * width * *pixel, 0);
                Ok((bytes, &mut []))
            }
        }
    }
}
