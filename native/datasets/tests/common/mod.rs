//! Folders with sets of all types, and imports of them.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use oarlock_datasets::import;
use oarlock_imaging::{Image, encode_jpeg, encode_png};
use oarlock_jobs::{ImportResult, ImportSpec, JobError, SourceFormat, TaskType};

/// A source folder, and the place of a dataset.
pub struct Bench {
    _folder: tempfile::TempDir,
    pub source: PathBuf,
    pub dest: PathBuf,
    pub task_type: TaskType,
    pub remote: bool,
    pub format: Option<SourceFormat>,
}

impl Bench {
    pub fn new(task_type: TaskType) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let (source, dest) = (root.join("set"), root.join("ws/D0001"));
        std::fs::create_dir_all(&source).unwrap();
        std::fs::create_dir_all(&dest).unwrap();
        Self {
            _folder: folder,
            source,
            dest,
            task_type,
            remote: false,
            format: None,
        }
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.source.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.source.join(name)).unwrap();
    }

    pub fn spec(&self) -> ImportSpec {
        let text = |p: &Path| p.to_str().unwrap().to_owned();
        ImportSpec {
            task_type: self.task_type,
            source: text(&self.source),
            dest: text(&self.dest),
            threads: 2,
            remote: self.remote,
            format: self.format,
        }
    }

    pub fn run(&self) -> Result<ImportResult, JobError> {
        import(&self.spec(), &|_| {}, &AtomicBool::new(false))
    }

    /// The failure's message; it must be one of the check, and leave nothing.
    pub fn fails(&self) -> String {
        let error = self.run().unwrap_err();
        assert_eq!(error.context["stage"], "checking", "{}", error.message);
        let left = std::fs::read_dir(self.dest.parent().unwrap()).unwrap();
        assert_eq!(left.count(), 1, "nothing half-done is left");
        error.message
    }

    /// Fails with a message that has all these parts.
    pub fn fails_with(&self, parts: &[&str]) {
        let message = self.fails();
        for part in parts {
            assert!(message.contains(part), "{part} in\n{message}");
        }
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dest.join(name)).unwrap()
    }
}

/// A JPEG with content.
pub fn jpeg(width: usize, height: usize, seed: usize) -> Vec<u8> {
    let mut image = Image::filled(width, height, [0; 3]);
    for (i, v) in image.data_mut().iter_mut().enumerate() {
        *v = ((i * (seed + 3)) % 251) as u8;
    }
    encode_jpeg(&image, 85).unwrap()
}

/// An RGB PNG of one colour.
pub fn rgb_png(width: usize, height: usize) -> Vec<u8> {
    encode_png(&Image::filled(width, height, [9, 80, 200])).unwrap()
}

/// A PNG of any kind.
pub fn png(
    colour: png::ColorType,
    depth: png::BitDepth,
    (width, height): (u32, u32),
    data: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette([9u8, 9, 9].repeat(256));
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    out
}

/// A palette PNG of class ids.
pub fn map(width: u32, height: u32, id: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data: Vec<u8> = pixels.map(|(x, y)| id(x, y)).collect();
    png(
        png::ColorType::Indexed,
        png::BitDepth::Eight,
        (width, height),
        &data,
    )
}

/// A `.npy` file of format version 1.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    while (header.len() + 11) % 64 != 0 {
        header.push(b' ');
    }
    header.push(b'\n');
    let mut out = b"\x93NUMPY\x01\0".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header);
    out.extend(data);
    out
}
