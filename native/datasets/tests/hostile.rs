//! Readers of label and list files on hostile content: no panic, no hang, no memory beyond the files'.
//!
//! Mutations are seeded, so a failure repeats. `OARLOCK_FUZZ_ROUNDS` sets how many there are (300).

use std::path::Path;
use std::time::{Duration, Instant};

use oarlock_datasets::{SplitDataset, decode_text, read_index};
use oarlock_imaging::Rng;
use oarlock_jobs::TaskType;

const LISTS: [&str; 4] = [
    "labels.txt",
    "train_list.txt",
    "val_list.txt",
    "test_list.txt",
];

/// Pieces that readers of such files stumble over.
const PIECES: [&[u8]; 22] = [
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"..",
    b"/",
    b"\\",
    b"./",
    b"-1",
    b"18446744073709551616",
    b"9999999999",
    b"0x1",
    b"1e3",
    b"\x81\x30\x81\x30",
    b"\xe7\x8e\xab",
    b"\xf0\x9f\x8c\xb9",
    b"rose/r1.jpg 0\n",
    b"#",
];

fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(6) {
        let at = rng.below(out.len() + 1);
        match rng.below(6) {
            0 => out.truncate(at),
            1 => {
                let piece = PIECES[rng.below(PIECES.len())];
                out.splice(at..at, piece.iter().copied());
            }
            2 => {
                let end = (at + rng.below(12)).min(out.len());
                out.drain(at..end);
            }
            3 => {
                let end = (at + rng.below(40)).min(out.len());
                let copy = out[at..end].to_vec();
                let place = rng.below(out.len() + 1);
                out.splice(place..place, copy);
            }
            4 => out
                .splice(at..at, (0..rng.below(20)).map(|_| 0))
                .for_each(drop),
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = rng.below(256) as u8;
                }
            }
        }
    }
    out
}

fn make(folder: &Path) {
    for (class, count) in [("rose", 4), ("tulip", 3), ("玫瑰", 2)] {
        std::fs::create_dir(folder.join(class)).unwrap();
        for i in 1..=count {
            // The readers of lists never open pictures.
            std::fs::write(folder.join(class).join(format!("r{i}.jpg")), b"").unwrap();
        }
    }
    let texts = [
        "rose\ntulip\n玫瑰\n",
        "rose/r1.jpg 0\nrose/r2.jpg 0\ntulip/r1.jpg 1\n玫瑰/r1.jpg 2\n",
        "rose/r3.jpg 0\ntulip/r2.jpg 1\n",
        "rose/r4.jpg 0\ntulip/r3.jpg 1\n玫瑰/r2.jpg 2\n",
    ];
    for (name, text) in LISTS.into_iter().zip(texts) {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn mutated_lists_never_panic_or_lead_out_of_the_dataset() {
    let rounds = std::env::var("OARLOCK_FUZZ_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(300);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    make(&root);
    let texts = LISTS.map(|name| std::fs::read(root.join(name)).unwrap());
    assert!(
        read_index(&root, TaskType::Classification, false).is_ok()
            && SplitDataset::open(&root).is_ok()
    );
    let (mut good, mut bad) = (0, 0);
    for round in 0..rounds {
        let mut rng = Rng::of(&[round, 77]);
        for (name, text) in LISTS.into_iter().zip(&texts) {
            let content = if rng.chance(0.4) {
                mutate(text, &mut rng)
            } else {
                text.clone()
            };
            std::fs::write(root.join(name), content).unwrap();
        }
        let started = Instant::now();
        match read_index(&root, TaskType::Classification, false) {
            Ok((index, _)) => {
                good += 1;
                let labels = index.labels.len();
                for file in &index.files {
                    let path = &file.picture;
                    let inside = file.classes.iter().all(|label| *label < labels);
                    assert!(inside, "round {round}: {file:?}");
                    let real = root.join(path).canonicalize().unwrap();
                    assert!(real.starts_with(&root), "round {round}: {path}");
                }
            }
            Err(error) => {
                bad += 1;
                assert!(!error.message.is_empty());
            }
        }
        if let Ok(split) = SplitDataset::open(&root) {
            for sample in split.train.iter().chain(&*split.val).chain(&*split.test) {
                assert!(sample.path.starts_with(&root), "round {round}: {sample:?}");
                let up = sample.path.components().any(|c| c.as_os_str() == "..");
                assert!(!up, "round {round}: {sample:?}");
                assert!((0..split.labels.len() as i64).contains(&sample.label));
            }
        }
        assert!(started.elapsed() < Duration::from_secs(2), "round {round}");
    }
    assert!(
        good > 20 && bad > 20,
        "{good} read, {bad} refused: the mutations reach both ends"
    );
}

#[test]
fn texts_of_any_bytes_are_decoded_or_refused() {
    for round in 0..2000u64 {
        let mut rng = Rng::of(&[round, 78]);
        let bytes: Vec<u8> = (0..rng.below(60)).map(|_| rng.below(256) as u8).collect();
        if let Some(text) = decode_text(&bytes) {
            assert!(text.len() <= bytes.len() * 3);
        }
        let piece = PIECES[rng.below(PIECES.len())];
        let _ = decode_text(&[piece, &bytes].concat()); // only that it comes back
    }
}
