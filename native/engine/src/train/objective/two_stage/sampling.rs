//! A few of many anchors or regions, objects among them.

use oarlock_imaging::Rng;

/// How many are drawn of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampling {
    /// Together.
    pub count: usize,
    /// Greatest share of those that show an object.
    pub objects: f32,
}

impl Sampling {
    /// Draws from both kinds, as many of the second as the first leaves room for; without `random` the first ones.
    pub fn draw(
        &self,
        objects: Vec<u32>,
        background: Vec<u32>,
        mut random: Option<&mut Rng>,
    ) -> (Vec<u32>, Vec<u32>) {
        let most = (self.count as f32 * self.objects) as usize;
        let objects = some(objects, most, random.as_deref_mut());
        let background = some(background, self.count - objects.len(), random);
        (objects, background)
    }
}

fn some(mut of: Vec<u32>, count: usize, random: Option<&mut Rng>) -> Vec<u32> {
    let count = count.min(of.len());
    if let Some(random) = random
        && count < of.len()
    {
        for i in 0..count {
            let other = i + random.below(of.len() - i);
            of.swap(i, other);
        }
    }
    of.truncate(count);
    of
}
