//! What a network is measured with.

use tch::Tensor;

use crate::Result;

/// Some images of an evaluation, in the order in which they come in every pass.
pub struct Batch<'a> {
    /// Number in the pass, from 0: the same images have the same number in every pass.
    pub number: usize,
    /// How many images.
    pub images: usize,
    /// Makes the network's input; only asked for where it is needed.
    pub input: &'a dyn Fn() -> Result<Tensor>,
}

/// What is done with a batch of a measured pass: the network's outputs for it.
pub type Outputs<'a> = dyn FnMut(&Batch) -> Result<Vec<Tensor>> + 'a;

/// Images, in the same order in every pass.
pub trait Images {
    /// How many there are.
    fn count(&self) -> usize;

    /// Files that could not be read, with the reason.
    fn skipped(&self) -> &[String];

    /// Goes through all batches.
    ///
    /// # Errors
    /// Unreadable data, and what `visit` says.
    fn visit(&self, visit: &mut dyn FnMut(&Batch) -> Result<()>) -> Result<()>;
}

/// Images with their truth and the metric over them.
pub trait Evaluation {
    /// Height and width of the network's input.
    fn image_size(&self) -> [usize; 2];

    /// The images.
    fn set(&self) -> &dyn Images;

    /// Goes through all batches and compares what `outputs` (in the graph's order) says with the truth. The metric is at
    /// least 0 and the greater the better; outputs that are no numbers are wrong ones.
    ///
    /// # Errors
    /// Unreadable data, and what `outputs` says.
    fn measure(&mut self, outputs: &mut Outputs) -> Result<f64>;
}
