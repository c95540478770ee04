//! `out.log` and `err.log` of a task, in the line forms that PaddleX users know.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use chrono::Local;
use oarlock_jobs::Metrics;

/// Longest line, in bytes: a runaway message must not fill the disk or a browser.
const MAX_LINE: usize = 4096;

/// The log files of one training. Every line is one write to a file opened for appending, so it is
/// there at once and never torn by another writer.
#[derive(Debug)]
pub struct OutLog {
    out: File,
    err: File,
}

/// One logged training step.
#[derive(Debug, Clone, Copy)]
pub struct TrainLine<'a> {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub num_epochs: u32,
    /// Step within the epoch, from 1.
    pub step: u32,
    /// Steps of one epoch.
    pub steps: u32,
    /// Loss first, learning rate last.
    pub metrics: &'a Metrics,
    /// Seconds a step took.
    pub step_seconds: f64,
    /// Seconds of it that it waited for images.
    pub data_wait_seconds: f64,
    /// Seconds left, if known.
    pub eta: Option<f64>,
}

impl OutLog {
    /// Opens `out.log` and `err.log` in a task's folder; `append` keeps what is there.
    ///
    /// # Errors
    /// When the files cannot be created.
    pub fn open(task_dir: &Path, append: bool) -> io::Result<Self> {
        let open = |name: &str| -> io::Result<File> {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(task_dir.join(name))?;
            if !append {
                file.set_len(0)?;
            }
            Ok(file)
        };
        Ok(Self {
            out: open("out.log")?,
            err: open("err.log")?,
        })
    }

    /// `[TRAIN] Epoch=3/10, Step=18/20, loss=0.412000, …, time_each_step=0.12s, data_wait=0.00s, eta=1:23:45`
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn train_step(&mut self, line: TrainLine<'_>) -> io::Result<()> {
        let mut text = format!(
            "[TRAIN] Epoch={}/{}, Step={}/{}",
            line.epoch, line.num_epochs, line.step, line.steps
        );
        push_metrics(&mut text, line.metrics);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            ", time_each_step={:.2}s, data_wait={:.2}s",
            line.step_seconds, line.data_wait_seconds
        );
        if let Some(eta) = line.eta {
            let _ = write!(text, ", eta={}", hms(eta));
        }
        self.info(&text)
    }

    /// `[TRAIN] Epoch 3 finished, loss=…, … .`
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn epoch_finished(&mut self, epoch: u32, means: &Metrics) -> io::Result<()> {
        let mut text = format!("[TRAIN] Epoch {epoch} finished");
        push_metrics(&mut text, means);
        text.push_str(" .");
        self.info(&text)
    }

    /// `[EVAL] Finished, Epoch=2, acc1=0.910000, … .`, arrays of one value a class as `category_iou=[0.91 0.8]`.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn eval_finished(
        &mut self,
        epoch: u32,
        metrics: &Metrics,
        per_class: &[(&str, Vec<f64>)],
    ) -> io::Result<()> {
        let mut text = format!("[EVAL] Finished, Epoch={epoch}");
        push_metrics(&mut text, metrics);
        for (name, values) in per_class {
            let values: Vec<String> = values.iter().map(|v| format!("{v:.6}")).collect();
            let _ = write!(text, ", {name}=[{}]", values.join(" "));
        }
        text.push_str(" .");
        self.info(&text)
    }

    /// `Total evaluate iters=126, current=7, progress=5.56%, eta=0:12:33`
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn prune_progress(&mut self, current: u64, total: u64, eta: Option<f64>) -> io::Result<()> {
        let percent = 100.0 * current as f64 / total.max(1) as f64;
        let eta = eta
            .map(|eta| format!(", eta={}", hms(eta)))
            .unwrap_or_default();
        self.info(&format!(
            "Total evaluate iters={total}, current={current}, progress={percent:.2}%{eta}"
        ))
    }

    /// `Model saved in <dir>.`
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn saved(&mut self, dir: &Path) -> io::Result<()> {
        self.info(&format!("Model saved in {}.", dir.display()))
    }

    /// `Current evaluated best model on eval_dataset is epoch_2, acc1=0.91`
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn best(&mut self, epoch: u32, metric: &str, value: f64) -> io::Result<()> {
        self.info(&format!(
            "Current evaluated best model on eval_dataset is epoch_{epoch}, {metric}={value}"
        ))
    }

    /// A line of level INFO.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn info(&mut self, message: &str) -> io::Result<()> {
        self.out.write_all(line("INFO", message).as_bytes())
    }

    /// A line of level WARNING.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn warning(&mut self, message: &str) -> io::Result<()> {
        self.out.write_all(line("WARNING", message).as_bytes())
    }

    /// A line of level DEBUG.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn debug(&mut self, message: &str) -> io::Result<()> {
        self.out.write_all(line("DEBUG", message).as_bytes())
    }

    /// A line of level ERROR in both files; the web page shows `err.log` when a training fails.
    ///
    /// # Errors
    /// When a line cannot be written.
    pub fn error(&mut self, message: &str) -> io::Result<()> {
        let line = line("ERROR", message);
        self.err.write_all(line.as_bytes())?;
        self.out.write_all(line.as_bytes())
    }
}

/// `, key=value` for each metric in C's `%8.6f`; what is no number is padded as C pads `nan`.
fn push_metrics(text: &mut String, metrics: &Metrics) {
    for (key, value) in metrics {
        let _ = match value {
            Some(v) => write!(text, ", {key}={v:8.6}"),
            None => write!(text, ", {key}={:>8}", "nan"),
        };
    }
}

/// `h:mm:ss`.
pub(crate) fn hms(seconds: f64) -> String {
    // A float casts to the nearest number an integer can hold, NaN to 0.
    let s = seconds.max(0.0).round() as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// One complete line: time, level, tab, text without control characters, end.
fn line(level: &str, message: &str) -> String {
    let mut text = format!("{} [{level}]\t", Local::now().format("%Y-%m-%d %H:%M:%S"));
    for c in message.trim_end().chars() {
        if text.len() > MAX_LINE - 8 {
            text.push('…');
            break;
        }
        text.push(if c.is_control() { ' ' } else { c });
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(pairs: &[(&str, Option<f64>)]) -> Metrics {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v)).collect()
    }

    fn lines(dir: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|l| {
                // `YYYY-MM-DD HH:MM:SS [LEVEL]<TAB>`
                assert!(l.as_bytes()[4] == b'-' && l.as_bytes()[10] == b' ');
                assert_eq!(
                    l.find('\t').map(|t| l[t - 1..t].to_owned()),
                    Some("]".into())
                );
                l[20..].to_owned()
            })
            .collect()
    }

    #[test]
    fn writes_the_lines_that_users_know() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = OutLog::open(dir.path(), false).unwrap();
        let m = metrics(&[("loss", Some(0.412)), ("acc1", None), ("lr", Some(0.0008))]);
        log.train_step(TrainLine {
            epoch: 3,
            num_epochs: 10,
            step: 18,
            steps: 20,
            metrics: &m,
            step_seconds: 0.123,
            data_wait_seconds: 0.012,
            eta: Some(5025.4),
        })
        .unwrap();
        log.epoch_finished(3, &metrics(&[("loss", Some(12.5))]))
            .unwrap();
        log.eval_finished(2, &metrics(&[("acc1", Some(0.91))]), &[])
            .unwrap();
        let classes = [("category_iou", vec![0.5, 1.0])];
        log.eval_finished(4, &metrics(&[("miou", Some(0.75))]), &classes)
            .unwrap();
        log.saved(Path::new("/w/output/epoch_2")).unwrap();
        log.best(2, "acc1", 0.91).unwrap();
        log.prune_progress(7, 126, Some(753.0)).unwrap();
        assert_eq!(
            lines(dir.path(), "out.log"),
            [
                "[INFO]\t[TRAIN] Epoch=3/10, Step=18/20, loss=0.412000, acc1=     nan, lr=0.000800, time_each_step=0.12s, data_wait=0.01s, eta=1:23:45",
                "[INFO]\t[TRAIN] Epoch 3 finished, loss=12.500000 .",
                "[INFO]\t[EVAL] Finished, Epoch=2, acc1=0.910000 .",
                "[INFO]\t[EVAL] Finished, Epoch=4, miou=0.750000, category_iou=[0.500000 1.000000] .",
                "[INFO]\tModel saved in /w/output/epoch_2.",
                "[INFO]\tCurrent evaluated best model on eval_dataset is epoch_2, acc1=0.91",
                "[INFO]\tTotal evaluate iters=126, current=7, progress=5.56%, eta=0:12:33",
            ]
        );
    }

    #[test]
    fn appends_on_resume_and_truncates_on_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        OutLog::open(dir.path(), false)
            .unwrap()
            .error("one")
            .unwrap();
        OutLog::open(dir.path(), true).unwrap().info("two").unwrap();
        assert_eq!(
            lines(dir.path(), "out.log"),
            ["[ERROR]\tone", "[INFO]\ttwo"]
        );
        assert_eq!(lines(dir.path(), "err.log"), ["[ERROR]\tone"]);
        OutLog::open(dir.path(), false).unwrap();
        assert!(lines(dir.path(), "out.log").is_empty());
        assert!(lines(dir.path(), "err.log").is_empty());
    }

    #[test]
    fn keeps_lines_single_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = OutLog::open(dir.path(), false).unwrap();
        log.info("a\nb\u{1b}[31m").unwrap();
        log.info(&"漢".repeat(100_000)).unwrap();
        let lines = lines(dir.path(), "out.log");
        assert_eq!(lines[0], "[INFO]\ta b [31m");
        assert!(lines[1].len() < MAX_LINE && lines[1].ends_with('…'));
    }

    #[test]
    fn shows_times_as_hours_minutes_seconds() {
        assert_eq!(hms(0.0), "0:00:00");
        assert_eq!(hms(753.0), "0:12:33");
        assert_eq!(hms(400_000.0), "111:06:40");
        assert_eq!(hms(f64::NAN), "0:00:00");
    }
}
