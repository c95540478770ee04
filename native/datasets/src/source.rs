//! One picture on its way into an input: its size is known first, then the needed part is decoded.

use std::borrow::Cow;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use oarlock_imaging::{
    DecodePlan, Format, Image, ImageError, ImageInfo, Limits, Plane, Rect, decode_label_map,
    decode_region, inspect, read_file,
};

use crate::ImageCache;
use crate::pipeline::Timing;

/// A picture whose header has been read.
pub(crate) struct Source<'a> {
    info: ImageInfo,
    content: Content<'a>,
}

enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    /// Read only when the cache does not hold the needed scale.
    File(&'a Path, Option<Vec<u8>>, Option<&'a ImageCache>),
    /// Made already, e.g. by mixup.
    Ready(Image),
}

/// Pixels of a planned picture: the needed part, or more.
pub(crate) struct Part {
    image: Held,
    /// The planned picture's pixel at the top left of `image`.
    pub corner: (usize, usize),
}

enum Held {
    Own(Image),
    Shared(Arc<Image>),
}

impl Deref for Part {
    type Target = Image;

    fn deref(&self) -> &Image {
        match &self.image {
            Held::Own(image) => image,
            Held::Shared(image) => image,
        }
    }
}

impl Part {
    /// Keeps the memory for the thread's next picture.
    pub fn recycle(self) {
        if let Held::Own(image) = self.image {
            image.recycle();
        }
    }

    /// The pixels for changing, copied where the cache holds them.
    pub fn into_image(self) -> Image {
        match self.image {
            Held::Own(image) => image,
            Held::Shared(image) => Image::clone(&image),
        }
    }

    /// Exactly this rectangle of the planned picture, which must be in the part.
    pub fn cut(self, rect: Rect) -> Image {
        let rect = Rect {
            x: rect.x - self.corner.0,
            y: rect.y - self.corner.1,
            ..rect
        };
        let (width, height) = (self.width(), self.height());
        if (rect.x, rect.y, rect.width, rect.height) == (0, 0, width, height) {
            return self.into_image();
        }
        let out = self.crop(rect);
        self.recycle();
        out
    }
}

impl<'a> Source<'a> {
    /// Opens a file; errors as the picture's header has it.
    pub fn open(
        path: &'a Path,
        cache: Option<&'a ImageCache>,
        timing: &mut Timing,
    ) -> Result<Self, ImageError> {
        if let Some(info) = cache.and_then(|c| c.info(path)) {
            let content = Content::File(path, None, cache);
            return Ok(Self { info, content });
        }
        timed(timing, || {
            let bytes = read_file(path, &Limits::default())?;
            let info = checked(&bytes)?;
            let content = Content::File(path, Some(bytes), cache);
            Ok(Self { info, content })
        })
    }

    /// A picture that is in memory.
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, ImageError> {
        Ok(Self {
            info: checked(bytes)?,
            content: Content::Bytes(Cow::Borrowed(bytes)),
        })
    }

    /// A decoded picture.
    pub fn ready(image: Image) -> Self {
        let info = ImageInfo {
            format: Format::Bmp, // any that is never scaled
            width: image.width(),
            height: image.height(),
            channels: 3,
            depth: 8,
            orientation: 1,
        };
        Self {
            info,
            content: Content::Ready(image),
        }
    }

    /// (width, height) as displayed, before any scaling by the decoder.
    pub fn full(&self) -> (usize, usize) {
        self.info.display_size()
    }

    /// The cheapest decode that covers this (width, height); `None` = full size.
    pub fn plan(&self, cover: Option<(usize, usize)>) -> DecodePlan {
        DecodePlan::of(self.info, cover)
    }

    /// Decodes at least `needed` of the planned picture; the same pixels wherever they come from.
    pub fn decode(
        self,
        plan: &DecodePlan,
        needed: Rect,
        timing: &mut Timing,
    ) -> Result<Part, ImageError> {
        let corner = (needed.x, needed.y);
        let own = |image, corner| Part {
            image: Held::Own(image),
            corner,
        };
        match self.content {
            Content::Ready(image) => Ok(own(image, (0, 0))),
            Content::Bytes(bytes) => timed(timing, || {
                Ok(own(decode_region(&bytes, plan, Some(needed))?, corner))
            }),
            Content::File(path, bytes, cache) => {
                if let Some(image) = cache.and_then(|c| c.picture(path, plan.denominator)) {
                    timing.hits += 1;
                    let image = Held::Shared(image);
                    return Ok(Part {
                        image,
                        corner: (0, 0),
                    });
                }
                timing.misses += u32::from(cache.is_some());
                timed(timing, || {
                    let bytes = match bytes {
                        Some(bytes) => bytes,
                        None => read_again(path, self.info)?,
                    };
                    let Some(cache) = cache.filter(|c| c.has_room(plan.width * plan.height * 3))
                    else {
                        return Ok(own(decode_region(&bytes, plan, Some(needed))?, corner));
                    };
                    let mut image = decode_region(&bytes, plan, None)?;
                    image.shrink();
                    let image = Arc::new(image);
                    cache.insert_picture(path, plan, &image);
                    Ok(Part {
                        image: Held::Shared(image),
                        corner: (0, 0),
                    })
                })
            }
        }
    }

    /// The whole picture at full size.
    pub fn whole(self, timing: &mut Timing) -> Result<Part, ImageError> {
        let plan = self.plan(None);
        let whole = Rect {
            x: 0,
            y: 0,
            width: plan.width,
            height: plan.height,
        };
        self.decode(&plan, whole, timing)
    }
}

/// The label map of a file, from the cache where it is there.
pub(crate) fn label_map(
    path: &Path,
    cache: Option<&ImageCache>,
    timing: &mut Timing,
) -> Result<Arc<Plane>, ImageError> {
    if let Some(map) = cache.and_then(|c| c.map(path)) {
        return Ok(map);
    }
    timed(timing, || {
        let limits = Limits::default();
        let map = Arc::new(decode_label_map(&read_file(path, &limits)?, &limits)?);
        if let Some(cache) = cache {
            cache.insert_map(path, &map);
        }
        Ok(map)
    })
}

fn checked(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    Ok(oarlock_imaging::plan(bytes, &Limits::default(), None)?.info)
}

/// A file whose header was read in an earlier epoch. Errors: it is another picture now.
fn read_again(path: &Path, info: ImageInfo) -> Result<Vec<u8>, ImageError> {
    let bytes = read_file(path, &Limits::default())?;
    if inspect(&bytes)? == info {
        return Ok(bytes);
    }
    Err(ImageError::Argument(
        "the file was replaced by another picture during the training".into(),
    ))
}

fn timed<T>(timing: &mut Timing, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    timing.decode_seconds += started.elapsed().as_secs_f64();
    result
}
