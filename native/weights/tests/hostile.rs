//! promise 3: a hostile pickle executes nothing, never panics and takes bounded memory; it ends in
//! a clear error.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use oarlock_weights::load;
use oarlock_weights::pickle::{PickleError, Profile, read};

/// Counts the memory in use, to see its peak.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `ptr` came from `alloc` above with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests run in turn, so that the peak belongs to one of them.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

const PROFILES: [Profile; 7] = [
    Profile::Statistics,
    Profile::Params,
    Profile::Report,
    Profile::Sensitivities,
    Profile::SensitivityStatus,
    Profile::Torch,
    Profile::Paddle,
];

/// Reads in every profile (large inputs in two: names do not matter to them), all of which must
/// refuse; returns the errors and the greatest growth of memory.
fn refuse(name: &str, bytes: &[u8]) -> (Vec<PickleError>, usize) {
    let start = Instant::now();
    let mut errors = Vec::new();
    let mut growth = 0;
    let profiles = if bytes.len() > 1 << 20 {
        &PROFILES[4..6]
    } else {
        &PROFILES[..]
    };
    for profile in profiles {
        let before = USED.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        match read(bytes, *profile) {
            Err(e) => errors.push(e),
            Ok(_) => panic!("{name} was accepted as {profile:?}"),
        }
        growth = growth.max(PEAK.load(Ordering::Relaxed).saturating_sub(before));
    }
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "took {:?}",
        start.elapsed()
    );
    (errors, growth)
}

fn short_text(s: &str) -> Vec<u8> {
    [&[0x8c, s.len() as u8], s.as_bytes()].concat()
}

#[test]
fn refuses_every_way_to_name_or_call_something() {
    let _alone = alone();
    let canary = std::env::temp_dir().join(format!("oarlock-canary-{}", std::process::id()));
    let command = format!("touch {}", canary.display());
    let argument = [b"(S'".as_slice(), command.as_bytes(), b"'\ntR."].concat();
    let with = |head: &[u8]| [head, &argument].concat();
    let mut corpus: Vec<(&str, Vec<u8>)> = vec![
        ("os.system", with(b"cos\nsystem\n")),
        ("posix.system", with(b"\x80\x02cposix\nsystem\n")),
        ("nt.system", with(b"cnt\nsystem\n")),
        ("subprocess.Popen", with(b"csubprocess\nPopen\n")),
        ("builtins.exec", with(b"cbuiltins\nexec\n")),
        ("builtins.eval", with(b"cbuiltins\neval\n")),
        ("__builtin__.eval", with(b"c__builtin__\neval\n")),
        ("builtins.getattr", with(b"cbuiltins\ngetattr\n")),
        ("builtins.__import__", with(b"cbuiltins\n__import__\n")),
        ("importlib", with(b"cimportlib\nimport_module\n")),
        ("runpy", with(b"crunpy\n_run_code\n")),
        ("pickle.loads", with(b"cpickle\nloads\n")),
        (
            "torch._load_global_deps",
            with(b"ctorch\n_load_global_deps\n"),
        ),
        (
            "torch.storage._load_from_bytes",
            with(b"ctorch.storage\n_load_from_bytes\n"),
        ),
        ("numpy.load", with(b"cnumpy\nload\n")),
        (
            "numpy.testing",
            with(b"cnumpy.testing._private.utils\nrunstring\n"),
        ),
        ("dotted name", with(b"cbuiltins\nobject.__subclasses__\n")),
        ("class of another module", with(b"cos\nClsParams\n")),
        (
            "class of a twin module",
            with(b"cevilproject.train.params\nClsParams\n"),
        ),
        ("empty names", with(b"c\n\n")),
        ("INST", b"(S'id'\nios\nsystem\n.".to_vec()),
        ("OBJ", b"(cos\nsystem\nS'id'\no.".to_vec()),
        (
            "NEWOBJ_EX",
            b"\x80\x04ccollections\nOrderedDict\n)}\x92.".to_vec(),
        ),
        ("EXT1", b"\x80\x02\x82\x01.".to_vec()),
        ("EXT4", b"\x80\x02\x84\x01\x00\x00\x00.".to_vec()),
        ("PERSID", b"Pevil\n.".to_vec()),
        ("out-of-band buffer", b"\x80\x05\x97.".to_vec()),
        (
            "eval of another text",
            b"cbuiltins\neval\n(Vdata+1\n}Vdata\nK\x01stR.".to_vec(),
        ),
        (
            "eval of another name",
            b"cbuiltins\neval\n(Vdata\n}Vdatb\nK\x01stR.".to_vec(),
        ),
        (
            "numpy object array",
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO8\ntRC\x01atR.".to_vec(),
        ),
        ("call of data", b"(lp0\n)R.".to_vec()),
        ("state for a list", b"](}b.".to_vec()),
        (
            "constructor by BUILD",
            b"ccollections\nOrderedDict\n)R(dV__setstate__\ncos\nsystem\nsb.".to_vec(),
        ),
    ];
    let stack_global = [
        b"\x80\x04".to_vec(),
        short_text("os"),
        short_text("system"),
        b"\x93".to_vec(),
        argument.clone(),
    ];
    corpus.push(("STACK_GLOBAL", stack_global.concat()));
    let computed = [
        b"\x80\x04".to_vec(),
        short_text("builtins"),
        b"\x94h\x00K\x01\x93.".to_vec(),
    ];
    corpus.push(("STACK_GLOBAL of a number", computed.concat()));
    for (name, bytes) in &corpus {
        let (errors, growth) = refuse(name, bytes);
        assert!(growth < 1 << 20, "{name} took {growth} bytes");
        for error in errors {
            assert!(!error.to_string().is_empty());
        }
        // The same bytes as a weight file.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.pdparams");
        std::fs::write(&path, bytes).unwrap();
        assert!(load(&path).is_err(), "{name}");
    }
    assert!(!canary.exists(), "something was executed");
    let error = read(&with(b"cos\nsystem\n"), Profile::Report).unwrap_err();
    assert!(error.to_string().contains("'os.system'"), "{error}");
    assert!(
        error.to_string().contains("nothing was executed"),
        "{error}"
    );
}

#[test]
fn refuses_bombs_within_bounded_memory() {
    let _alone = alone();
    // Each level holds ten references to the one below: 10^60 values when written out.
    let mut laughs = b"\x80\x04]\x94".to_vec();
    for level in 0..60u8 {
        laughs.push(b'(');
        laughs.extend([b'h', level].repeat(10));
        laughs.extend(b"l\x94");
    }
    laughs.push(b'.');
    // One long text mentioned again and again.
    let mut echo = b"\x80\x04".to_vec();
    echo.push(b'X');
    echo.extend(1_000_000u32.to_le_bytes());
    echo.extend(vec![b'a'; 1_000_000]);
    echo.extend(b"\x94(");
    echo.extend(b"h\x00".repeat(1_000_000));
    echo.extend(b"l.");
    // The same through bytes that protocol 2 writes as text, in arrays.
    let mut arrays = b"\x80\x02X".to_vec();
    arrays.extend(1_000_000u32.to_le_bytes());
    arrays.extend("é".repeat(500_000).as_bytes());
    arrays.extend(b"q\x00(");
    arrays.extend(b"c_codecs\nencode\n(h\x00Vlatin1\ntR".repeat(20_000));
    arrays.extend(b"l.");
    // A large dict copied by a constructor again and again.
    let mut copies = b"\x80\x02](".to_vec();
    copies.extend(b"K\x01K\x02\x86".repeat(100_000));
    copies.extend(b"eq\x00(ccollections\nOrderedDict\nq\x01");
    copies.extend(b"h\x01h\x00\x85R".repeat(100_000));
    copies.extend(b"l.");
    let huge = |op: u8, width: usize, len: u64| {
        [&[0x80, 4, op], &len.to_le_bytes()[..width], b"x."].concat()
    };
    let bombs: Vec<(&str, Vec<u8>)> = vec![
        ("billion laughs", laughs),
        ("one text a million times", echo),
        ("one buffer many times", arrays),
        ("copied dicts", copies),
        ("marks", [vec![b'('; 9_000_000], b".".to_vec()].concat()),
        ("duplicates", [b"N".to_vec(), vec![b'2'; 9_000_000], b".".to_vec()].concat()),
        ("lists", [vec![b']'; 9_000_000], b".".to_vec()].concat()),
        ("memo entries", [b"N".to_vec(), vec![0x94; 9_000_000], b".".to_vec()].concat()),
        ("deep nesting", [vec![b']'; 1_000_000], vec![b'a'; 999_999], b".".to_vec()].concat()),
        ("deep tuples", [b"N".to_vec(), vec![0x85; 1_000_000], b".".to_vec()].concat()),
        ("a list in itself", b"]q\x00h\x00a.".to_vec()),
        ("a dict in itself", b"}q\x00Va\nh\x00s.".to_vec()),
        ("huge memo index", b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.".to_vec()),
        ("BINBYTES8 of 2^62", huge(0x8e, 8, 1 << 62)),
        ("BINUNICODE8 of 2^64 - 1", huge(0x8d, 8, u64::MAX)),
        ("BINUNICODE of 4 GiB", huge(b'X', 4, 0xffff_ffff)),
        ("LONG4 of -1", huge(0x8b, 4, 0xffff_ffff)),
        ("BYTEARRAY8", huge(0x96, 8, 1 << 40)),
        ("FRAME of 2^64 - 1", huge(0x95, 8, u64::MAX)),
        (
            "array of 2^62 numbers",
            b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40tcnumpy\ndtype\n(Vf4\ntR\x89C\x04aaaatb.".to_vec(),
        ),
        (
            "array of empty rows",
            b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40K\x00tcnumpy\ndtype\n(Vf4\ntR\x89C\x00tb.".to_vec(),
        ),
    ];
    for (name, bytes) in &bombs {
        let (_, growth) = refuse(name, bytes);
        assert!(
            growth < 768 << 20,
            "{name} of {} bytes took {growth} bytes",
            bytes.len()
        );
        if bytes.len() < 1 << 16 {
            assert!(
                growth < 64 << 20,
                "{name} of {} bytes took {growth} bytes",
                bytes.len()
            );
        }
    }
}

#[test]
fn refuses_weights_that_share_one_buffer_without_end() {
    let _alone = alone();
    // One array of 250,000 numbers under ten thousand names: 10 GB when unpacked.
    let mut bytes = b"\x80\x04}(Va\n".to_vec();
    bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(J");
    bytes.extend(250_000u32.to_le_bytes());
    bytes.extend(b"tcnumpy\ndtype\n(Vf4\ntR\x89B");
    bytes.extend(1_000_000u32.to_le_bytes());
    bytes.extend(vec![0; 1_000_000]);
    bytes.extend(b"tb\x94");
    for i in 0..10_000 {
        bytes.extend(format!("V{i}\nh").into_bytes());
        bytes.push(0);
    }
    bytes.extend(b"u.");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pdparams");
    std::fs::write(&path, &bytes).unwrap();
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let error = load(&path).unwrap_err();
    assert!(error.to_string().contains("far more"), "{error}");
    let growth = PEAK.load(Ordering::Relaxed) - before;
    assert!(growth < 64 << 20, "took {growth} bytes");
}

#[test]
fn refuses_every_truncation() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for (name, profile) in [
        ("statis_0.pkl", Profile::Statistics),
        ("statis_4.pkl", Profile::Statistics),
        ("params_new_2.pkl", Profile::Params),
        ("eval_res_2.pkl", Profile::Report),
        ("eval_res_5.pkl", Profile::Report),
        ("model.sensi.data", Profile::SensitivityStatus),
    ] {
        let bytes = std::fs::read(fixtures.join(name)).unwrap();
        for len in 0..bytes.len() {
            assert!(
                read(&bytes[..len], profile).is_err(),
                "{name} cut to {len} bytes"
            );
        }
    }
    for name in [
        "torch_zip.pth",
        "torch_legacy.pth",
        "paddle_2.pdparams",
        "paddle_4.pdparams",
        "torch_expected.safetensors",
    ] {
        let bytes = std::fs::read(fixtures.join(name)).unwrap();
        for len in (0..bytes.len()).step_by(7) {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(load(&path).is_err(), "{name} cut to {len} bytes");
        }
    }
}

#[test]
fn survives_mutated_files() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut seed = 0x0123_4567_89ab_cdefu64;
    let mut random = move || {
        // Knuth's MMIX generator: reproducible, good enough to pick places.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut names: Vec<_> = fixtures
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.retain(|p| p.extension().is_some_and(|e| e != "py"));
    names.sort();
    assert!(names.len() > 25);
    for fixture in &names {
        let base = std::fs::read(fixture).unwrap();
        let weights = !matches!(fixture.extension().unwrap().to_str(), Some("pkl" | "data"));
        let path = dir.path().join("file");
        for _ in 0..if weights { 200 } else { 700 } {
            let mut bytes = base.clone();
            for _ in 0..1 + random() % 6 {
                let at = random() % bytes.len();
                match random() % 4 {
                    0 => bytes[at] = random() as u8,
                    1 => bytes[at] ^= 1 << (random() % 8),
                    2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random() % 4],
                    _ => {
                        let from = random() % bytes.len();
                        let len = (random() % 16)
                            .min(bytes.len() - at)
                            .min(bytes.len() - from);
                        bytes.copy_within(from..from + len, at);
                    }
                }
            }
            let before = USED.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            if weights {
                std::fs::write(&path, &bytes).unwrap();
                // Reading may succeed (a changed number) or fail; both are answers.
                let _ = load(&path);
            } else {
                for profile in PROFILES {
                    let _ = read(&bytes, profile);
                }
            }
            let growth = PEAK.load(Ordering::Relaxed).saturating_sub(before);
            assert!(
                growth < 16 << 20,
                "{} took {growth} bytes",
                fixture.display()
            );
        }
    }
}
