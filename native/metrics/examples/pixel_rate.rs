//! Our side of the mean IoU of `npm run bench -- seg`:
//! `pixel_rate --folder FOLDER --classes N --size S`.
//! Answers every line `run N` on stdin with a line of JSON: label maps a second by the clock, peak memory, and the
//! mean IoU, so that the peer's can be compared.
//!
//! The folder holds `truths.u8` and `predictions.u8`: label maps of S×S bytes one after another.

mod turns;

use std::path::PathBuf;

use oarlock_metrics::{PixelCounter, overlap};
use turns::{Failure, turns};

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let place = args.iter().position(|a| a == name)?;
        args.get(place + 1).cloned()
    };
    let folder = PathBuf::from(option("--folder").ok_or("--folder?")?);
    let classes: usize = option("--classes").ok_or("--classes?")?.parse()?;
    let pixels = option("--size").ok_or("--size?")?.parse::<usize>()?.pow(2);
    let truths = std::fs::read(folder.join("truths.u8"))?;
    let predictions = std::fs::read(folder.join("predictions.u8"))?;
    turns(truths.len() / pixels, || {
        let mut counter = PixelCounter::new(classes);
        let maps = truths.chunks(pixels).zip(predictions.chunks(pixels));
        maps.for_each(|(truth, predicted)| counter.add(truth, predicted));
        Ok(overlap(&counter.finish()).miou)
    })
}
