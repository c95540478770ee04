//! Which of two ways of decoding is the faster, by trying both.

/// Who decodes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The loader's threads.
    Cpu,
    /// The GPU.
    Device,
}

/// Batches that start a way up: its threads and read-ahead are not yet in step.
const WARM_UP: usize = 2;
/// Batches that are timed.
const TIMED: usize = 4;

/// Times a few batches each way, then stays with the faster. A failure of the device settles it for the CPU.
#[derive(Debug, Clone)]
pub struct DecodeChoice {
    way: Way,
    settled: bool,
    batches: usize,
    images: usize,
    seconds: f64,
    /// Seconds an image on the CPU.
    cpu: Option<f64>,
    /// Seconds an image on the device.
    device: Option<f64>,
}

impl DecodeChoice {
    /// Fewest batches that make trying worth its time.
    pub const WORTHWHILE: usize = 4 * (WARM_UP + TIMED);

    /// For so many batches; `device` tells whether there is a device that decodes.
    pub fn new(batches: usize, device: bool) -> Self {
        Self {
            way: Way::Cpu,
            settled: !device || batches < Self::WORTHWHILE,
            batches: 0,
            images: 0,
            seconds: 0.0,
            cpu: None,
            device: None,
        }
    }

    /// Who decodes the next batch.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Tells what the batch just used took from one to the next, the network included.
    pub fn took(&mut self, images: usize, seconds: f64) {
        if self.settled {
            return;
        }
        self.batches += 1;
        if self.batches <= WARM_UP {
            return;
        }
        self.images += images;
        self.seconds += seconds;
        if self.batches == WARM_UP + TIMED {
            self.next_way();
        }
    }

    fn next_way(&mut self) {
        let each = self.seconds / self.images.max(1) as f64;
        (self.batches, self.images, self.seconds) = (0, 0, 0.0);
        match self.way {
            Way::Cpu => {
                self.cpu = Some(each);
                self.way = Way::Device;
            }
            Way::Device => {
                self.device = Some(each);
                self.settled = true;
                if self.cpu.is_some_and(|cpu| cpu <= each) {
                    self.way = Way::Cpu;
                }
            }
        }
    }

    /// The device failed: the CPU decodes from here on.
    pub fn fail(&mut self) {
        (self.way, self.settled) = (Way::Cpu, true);
    }

    /// What was measured, images a second on the CPU and on the device.
    pub fn rates(&self) -> Option<(f64, f64)> {
        let rate = |each: f64| 1.0 / each.max(1e-9);
        Some((rate(self.cpu?), rate(self.device?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the batches of an epoch; the ways that decoded them.
    fn play(choice: &mut DecodeChoice, batches: usize, cpu: f64, device: f64) -> Vec<Way> {
        let batch = |_| {
            let way = choice.way();
            choice.took(8, if way == Way::Cpu { cpu } else { device });
            way
        };
        (0..batches).map(batch).collect()
    }

    #[test]
    fn the_faster_way_is_kept_after_both_were_tried() {
        for (cpu, device, kept) in [
            (2.0, 1.0, Way::Device),
            (1.0, 2.0, Way::Cpu),
            (1.0, 1.0, Way::Cpu),
        ] {
            let mut choice = DecodeChoice::new(40, true);
            let ways = play(&mut choice, 40, cpu, device);
            let each = WARM_UP + TIMED;
            assert!(ways[..each].iter().all(|w| *w == Way::Cpu));
            assert!(ways[each..2 * each].iter().all(|w| *w == Way::Device));
            assert!(ways[2 * each..].iter().all(|w| *w == kept));
            assert_eq!(choice.rates(), Some((8.0 / cpu, 8.0 / device)));
        }
    }

    #[test]
    fn warming_up_does_not_count_and_sizes_of_batches_do() {
        let mut choice = DecodeChoice::new(1000, true);
        let first = |slow: f64, rest: f64| move |i: usize| if i < WARM_UP { slow } else { rest };
        let cpu = first(0.001, 1.0); // two batches were ready already
        (0..6).for_each(|i| choice.took(10, cpu(i)));
        assert_eq!(choice.way(), Way::Device);
        let device = first(900.0, 0.9); // the library was loaded
        (0..6).for_each(|i| choice.took(10, device(i)));
        assert!(choice.settled && choice.way() == Way::Device);

        // As many seconds for fewer images are slower.
        let mut choice = DecodeChoice::new(1000, true);
        (0..6).for_each(|_| choice.took(10, 1.0));
        (0..6).for_each(|_| choice.took(5, 1.0));
        assert_eq!(choice.way(), Way::Cpu);
    }

    #[test]
    fn a_failure_is_final() {
        let mut choice = DecodeChoice::new(1000, true);
        play(&mut choice, 8, 2.0, 1.0);
        assert_eq!(choice.way(), Way::Device);
        choice.fail();
        let ways = play(&mut choice, 100, 2.0, 1.0);
        assert!(ways.iter().all(|w| *w == Way::Cpu));
        assert_eq!(choice.rates(), None);
    }

    #[test]
    fn without_a_device_or_with_few_batches_the_cpu_decodes() {
        for (batches, device) in [(1000, false), (DecodeChoice::WORTHWHILE - 1, true)] {
            let mut choice = DecodeChoice::new(batches, device);
            assert!(choice.settled);
            let ways = play(&mut choice, 30, 9.0, 1.0);
            assert!(ways.iter().all(|w| *w == Way::Cpu));
        }
    }
}
