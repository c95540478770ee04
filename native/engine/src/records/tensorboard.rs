//! TensorBoard event files (`output/vdl_log`), readable by TensorBoard.
//!
//! Format: TFRecord framing (length, masked CRC-32C of it, payload, masked CRC-32C of that) around
//! `Event` messages of TensorFlow's `event.proto`. Four fields are all a curve needs, so the few
//! protobuf bytes are written directly.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use oarlock_jobs::Metrics;

/// Appends scalars to one event file; each call is one write, so a crash tears at most the last
/// record, which readers skip.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
}

static FILES: AtomicU32 = AtomicU32::new(0);

impl EventWriter {
    /// Starts a new event file in `dir`, which is created.
    ///
    /// With `purge_from`, TensorBoard drops points at that global step and later that older files of
    /// the folder hold: the part of a curve that a resumed training draws anew.
    ///
    /// # Errors
    /// When the folder or file cannot be created.
    pub fn create(dir: &Path, purge_from: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host
            .trim()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let name = format!(
            "events.out.tfevents.{:010}.{}.{}.{}",
            now() as u64,
            if host.is_empty() { "localhost" } else { &host },
            std::process::id(),
            FILES.fetch_add(1, Ordering::Relaxed)
        );
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(dir.join(name))?;
        let mut writer = Self { file };
        let mut first = event(0);
        bytes_field(&mut first, 3, b"brain.Event:2"); // file_version
        let mut out = record(&first);
        if let Some(step) = purge_from {
            let mut start = event(step);
            bytes_field(&mut start, 7, &[0x08, 1]); // session_log { status: START }
            out.extend(record(&start));
        }
        writer.file.write_all(&out)?;
        Ok(writer)
    }

    /// `-Metrics/Training(Step): <key>` for each metric; x is the global step.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn train(&mut self, step: u64, metrics: &Metrics) -> io::Result<()> {
        self.metrics("-Metrics/Training(Step): ", step, metrics)
    }

    /// `-Metrics/Eval(Epoch): <key>` for each metric; x is the epoch.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn eval(&mut self, epoch: u64, metrics: &Metrics) -> io::Result<()> {
        self.metrics("-Metrics/Eval(Epoch): ", epoch, metrics)
    }

    fn metrics(&mut self, prefix: &str, step: u64, metrics: &Metrics) -> io::Result<()> {
        let mut summary = Vec::new();
        for (key, value) in metrics {
            let Some(value) = value else { continue };
            let mut point = Vec::new();
            bytes_field(&mut point, 1, format!("{prefix}{key}").as_bytes());
            point.push(2 << 3 | 5); // simple_value, 32 bit
            point.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &point);
        }
        let mut event = event(step);
        bytes_field(&mut event, 5, &summary);
        self.file.write_all(&record(&event))
    }
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// An `Event` with wall time and step.
fn event(step: u64) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(now().to_le_bytes());
    out.push(2 << 3);
    varint(&mut out, step);
    out
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// A length-delimited field.
fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn record(payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend(len);
    out.extend(masked_crc(&len).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend(masked_crc(payload).to_le_bytes());
    out
}

/// TFRecord's mask: a checksum of data that itself holds checksums.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x82f6_3b78
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, &b| {
        TABLE[usize::from(crc as u8 ^ b)] ^ crc >> 8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_matches_the_standard() {
        // RFC 3720 B.4: 32 bytes of zeros, of ones, ascending; and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn frames_records_and_encodes_events() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("vdl_log"), Some(300)).unwrap();
        let metrics: Metrics = [("loss".to_owned(), Some(0.5)), ("acc1".to_owned(), None)]
            .into_iter()
            .collect();
        writer.train(300, &metrics).unwrap();
        let path = fs::read_dir(dir.path().join("vdl_log"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert!(
            path.file_name()
                .to_string_lossy()
                .starts_with("events.out.tfevents.")
        );
        let bytes = fs::read(path.path()).unwrap();
        let mut rest = bytes.as_slice();
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let payload = &rest[12..12 + len];
            assert_eq!(rest[12 + len..16 + len], masked_crc(payload).to_le_bytes());
            payloads.push(payload[9..].to_vec()); // after the wall time
            rest = &rest[16 + len..];
        }
        assert_eq!(payloads[0], b"\x10\x00\x1a\x0dbrain.Event:2");
        assert_eq!(payloads[1], b"\x10\xac\x02\x3a\x02\x08\x01");
        let mut wanted =
            b"\x10\xac\x02\x2a\x26\x0a\x24\x0a\x1d-Metrics/Training(Step): loss\x15".to_vec();
        wanted.extend(0.5f32.to_le_bytes());
        assert_eq!(payloads[2], wanted);
        assert_eq!(payloads.len(), 3);
    }
}
