//! Every kind of weight file, made by the real libraries (`fixtures/make.py`), against the values
//! that the reference writer of safetensors stored.

use std::path::{Path, PathBuf};

use oarlock_graph::WeightMap;
use oarlock_weights::{WeightError, load, save_safetensors};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn read(name: &str) -> WeightMap {
    load(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn assert_same(found: &WeightMap, wanted: &WeightMap, what: &str) {
    let mut names: Vec<_> = found.keys().collect();
    let mut wanted_names: Vec<_> = wanted.keys().collect();
    names.sort();
    wanted_names.sort();
    assert_eq!(names, wanted_names, "{what}");
    for (name, tensor) in wanted {
        assert_eq!(&found[name], tensor, "{what}: {name}");
    }
}

#[test]
fn reads_both_forms_of_torch_save() {
    let wanted = read("torch_expected.safetensors");
    assert_same(&read("torch_zip.pth"), &wanted, "zip form");
    assert_same(&read("torch_legacy.pth"), &wanted, "stream form");
    assert_eq!(wanted["fc.weight"].shape, [2, 3]);
    assert_eq!(wanted["expanded"].data, [1.5; 12]);
    // The order is that in which the file was written.
    let order: Vec<_> = read("torch_zip.pth").keys().take(3).cloned().collect();
    assert_eq!(order, ["conv.weight", "conv.half", "bn.weight"]);
}

#[test]
fn finds_the_state_dict_in_a_training_checkpoint() {
    let weights = read("torch_checkpoint.pth");
    assert_eq!(weights["0.weight"].shape, [2, 1, 3, 3]);
    assert_eq!(weights["1.running_var"].data, [1.0, 1.0]);
    assert_eq!(weights["1.num_batches_tracked"].data, [0.0]);
    assert_eq!(weights["2.weight"].shape, [3, 2]);
    assert_eq!(weights.len(), 9);
}

#[test]
fn refuses_what_is_no_state_dict_and_says_what_to_do() {
    for (name, hint) in [
        ("torch_no_state.pth", "state_dict"),
        ("torch_script.pth", "TorchScript"),
        ("torch_module.pth", "torch.nn.modules.container.Sequential"),
        ("make.py", "safetensors"),
        ("statis_4.pkl", "no tensors"),
    ] {
        let error = load(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains(hint), "{name}: {error}");
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn reads_paddle_parameters_in_every_protocol() {
    let stored = read("paddle_expected.safetensors");
    for name in [
        "paddle_2",
        "paddle_3",
        "paddle_4",
        "paddle_5",
        "paddle_sliced",
    ] {
        let found = read(&format!("{name}.pdparams"));
        assert_eq!(found.len(), stored.len(), "{name}");
        for (key, tensor) in &stored {
            if key == "fc.weight" {
                // [in, out] became [out, in].
                assert_eq!(found[key].shape, [3, 4]);
                for (i, &v) in tensor.data.iter().enumerate() {
                    assert_eq!(found[key].data[i % 3 * 4 + i / 3], v);
                }
            } else {
                assert_eq!(&found[key], tensor, "{name}: {key}");
            }
        }
    }
}

#[test]
fn reads_tensors_inside_other_paddle_objects() {
    let found = read("paddle_tensors.pdparams");
    let bias = &read("paddle_expected.safetensors")["fc.bias"];
    assert_eq!(&found["a"], bias);
    assert_eq!(&found["b"], bias);
    let found = read("paddle_bf16.pdparams");
    assert_eq!(found["x"].data, [1.0, -2.5, 0.15625]);
    assert_eq!(found["order"].shape, [2, 3, 4]);
    let ascending: Vec<f32> = (0..24).map(|i| i as f32).collect();
    assert_eq!(
        found["order"].data, ascending,
        "column-major arrays are put in order"
    );
}

#[test]
fn reads_every_number_format_of_safetensors() {
    let mixed = read("mixed.safetensors");
    let wanted = read("torch_expected.safetensors");
    for (name, tensor) in &mixed {
        assert_eq!(tensor, &wanted[name], "{name}");
    }
    assert_eq!(mixed["ints"].data, [-1.0, 2.0, 300.0]);
    assert_eq!(mixed["flags"].data, [1.0, 0.0]);
    assert_eq!(mixed.len(), 6);
}

#[test]
fn writes_safetensors_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let weights = read("torch_zip.pth");
    save_safetensors(&path, &weights, &[("epoch", "3")]).unwrap();
    let again = load(&path).unwrap();
    assert_same(&again, &weights, "written and read");
    // Empty tensors share their place with the next one; all others keep the map's order.
    let order = |m: &WeightMap| -> Vec<String> {
        m.iter()
            .filter(|(_, t)| !t.data.is_empty())
            .map(|(n, _)| n.clone())
            .collect()
    };
    assert_eq!(order(&again), order(&weights));
    assert_eq!(
        load(dir.path()).unwrap().len(),
        weights.len(),
        "a checkpoint folder"
    );

    let before = std::fs::read(&path).unwrap();
    let mut wrong = weights.clone();
    wrong["scalar"].shape = vec![2];
    assert!(matches!(
        save_safetensors(&path, &wrong, &[]),
        Err(WeightError::Invalid { .. })
    ));
    assert_eq!(
        std::fs::read(&path).unwrap(),
        before,
        "a failed write leaves the old file"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "and no temporary one"
    );
    let nowhere = dir.path().join("missing/model.safetensors");
    assert!(save_safetensors(&nowhere, &weights, &[]).is_err());
}

#[test]
fn names_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("no.pth")] {
        assert!(matches!(load(&path), Err(WeightError::NotFound { .. })));
    }
    std::fs::write(dir.path().join("a.pth"), b"").unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("empty"),
        "the only weight file of a folder is taken: {error}"
    );
    std::fs::write(dir.path().join("b.pth"), b"").unwrap();
    assert!(
        load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("several")
    );
}
