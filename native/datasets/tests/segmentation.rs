//! Segmentation sets, remote sensing included: import, split, and everything that can be wrong.

mod common;

use common::{Bench, jpeg, map, npy, png, rgb_png};
use oarlock_datasets::{
    Channels, SplitOptions, read_class_names, read_index, read_segment_list, split, write_split,
};
use oarlock_jobs::{ErrorCode, TaskType};
use png::{BitDepth, ColorType};
use serde_json::json;

/// Six pictures of 20×16 with classes 0, 1 and, in the even ones, 2; some ignored pixels.
fn streets() -> Bench {
    let bench = Bench::new(TaskType::Segmentation);
    for i in 0..6u32 {
        let name = format!("街 {i}");
        bench.put(&format!("JPEGImages/{name}.jpg"), jpeg(20, 16, i as usize));
        let id = |x: u32, y: u32| match (x, y) {
            (0, _) => 255,
            (_, 0..4) if i % 2 == 0 => 2,
            (1..9, _) => 1,
            _ => 0,
        };
        bench.put(&format!("Annotations/{name}.png"), map(20, 16, id));
    }
    bench
}

#[test]
fn pairs_are_imported_split_and_opened_for_training() {
    let bench = streets();
    bench.put("notes.txt", "x");
    bench.put("JPEGImages/Thumbs.db", "x");
    bench.put("Annotations/lone.png", map(2, 2, |_, _| 0));
    let result = bench.run().unwrap();
    assert!(!result.split && result.files == 15);
    let details = &result.details;
    assert_eq!(details["labels"], json!(["0", "1", "2"]));
    assert_eq!(
        details["file_info"]["JPEGImages/街 3.jpg"],
        "Annotations/街 3.png"
    );
    assert_eq!(details["label_info"]["1"].as_array().unwrap().len(), 6);
    assert_eq!(
        details["label_info"]["2"],
        json!([
            "JPEGImages/街 0.jpg",
            "JPEGImages/街 2.jpg",
            "JPEGImages/街 4.jpg"
        ])
    );
    let warnings = result.warnings.join("\n");
    assert!(
        warnings.contains("1 files in JPEGImages are no pictures")
            && warnings.contains("the first is Annotations/lone.png"),
        "{warnings}"
    );
    assert!(!bench.dest.join("channels.json").exists());

    let (index, _) = read_index(&bench.dest, TaskType::Segmentation, false).unwrap();
    let options = SplitOptions {
        val_split: 0.34,
        test_split: 0.17,
        seed: 1,
        stratify: false,
    };
    let details = write_split(
        &bench.dest,
        TaskType::Segmentation,
        &split(&index, options).unwrap(),
    )
    .unwrap();
    assert_eq!(bench.text("labels.txt"), "0\n1\n2\n");
    let line = bench.text("val_list.txt");
    let line = line.lines().next().unwrap();
    let picture = details["val_files"][0].as_str().unwrap();
    let stem = &picture["JPEGImages/".len()..picture.len() - 4];
    assert_eq!(
        line,
        format!("JPEGImages/{stem}.jpg Annotations/{stem}.png")
    );
    assert_eq!(read_class_names(&bench.dest).unwrap(), ["0", "1", "2"]);
    let lists = ["train_list.txt", "val_list.txt", "test_list.txt"];
    let lists = lists.map(|list| read_segment_list(&bench.dest, list).unwrap());
    assert_eq!(lists.each_ref().map(Vec::len), [3, 2, 1]);
    for pair in lists.iter().flatten() {
        assert!(pair.path.is_file() && pair.map.is_file(), "{pair:?}");
        assert_eq!(pair.path.file_stem(), pair.map.file_stem());
    }
    // Without its statistics the folder itself is read again, with the lists that it now has.
    let before = std::fs::read(bench.dest.join("statis.json")).unwrap();
    std::fs::remove_file(bench.dest.join("statis.json")).unwrap();
    let (again, _) = read_index(&bench.dest, TaskType::Segmentation, false).unwrap();
    assert!(again.split);
    assert_eq!(again.details()["val_files"], details["val_files"]);
    assert_eq!(
        again.details()["class_val_file_list"],
        details["class_val_file_list"]
    );
    std::fs::write(bench.dest.join("statis.json"), before).unwrap();
    let (again, _) = read_index(&bench.dest, TaskType::Segmentation, false).unwrap();
    assert_eq!(again.details(), details);
}

#[test]
fn split_sets_keep_their_lists_and_labels() {
    let bench = streets();
    bench.put("labels.txt", "\u{feff}背景\r\nroad\r\ncar \r\nbus\r\n");
    bench.put(
        "train_list.txt",
        "JPEGImages\\街 0.jpg Annotations\\街 0.png\r\nJPEGImages/街 1.jpg\tAnnotations/街 1.png\n./JPEGImages/街 2.jpg ./Annotations/街 1.png\n",
    );
    bench.put("val_list.txt", "JPEGImages/街 3.jpg Annotations/街 3.png\n");
    let result = bench.run().unwrap();
    assert!(result.split);
    let details = &result.details;
    assert_eq!(details["labels"], json!(["背景", "road", "car", "bus"]));
    assert_eq!(details["label_info"]["bus"], json!([]));
    assert_eq!(
        details["class_train_file_list"]["car"],
        json!(["JPEGImages/街 0.jpg"])
    );
    assert_eq!(
        details["file_info"]["JPEGImages/街 2.jpg"],
        "Annotations/街 1.png"
    );
    assert_eq!(
        bench.text("train_list.txt"),
        "JPEGImages/街 0.jpg Annotations/街 0.png\nJPEGImages/街 1.jpg Annotations/街 1.png\nJPEGImages/街 2.jpg Annotations/街 1.png\n"
    );
    let warnings = result.warnings.join("\n");
    assert!(
        warnings.contains("2 pictures are in no list")
            && warnings.contains("1 of 4 classes occur in no label map: bus"),
        "{warnings}"
    );
    assert_eq!(
        read_segment_list(&bench.dest, "train_list.txt")
            .unwrap()
            .len(),
        3
    );
    // labels.txt may be missing even then.
    bench.remove("labels.txt");
    assert_eq!(
        bench.run().unwrap().details["labels"],
        json!(["0", "1", "2"])
    );
    assert_eq!(bench.text("labels.txt"), "0\n1\n2\n");
}

#[test]
fn every_kind_of_bad_file_is_named() {
    let bench = streets();
    bench.put("labels.txt", "background\nroad\ncar\n");
    bench.put("Annotations/街 0.png", map(16, 20, |_, _| 0));
    bench.put("Annotations/街 1.png", map(20, 16, |x, _| x as u8 * 13));
    let colour = png(
        ColorType::Rgba,
        BitDepth::Eight,
        (20, 16),
        &[1; 20 * 16 * 4],
    );
    bench.put("Annotations/街 2.png", colour);
    let grey_alpha = [1; 20 * 16 * 2];
    bench.put(
        "Annotations/街 3.png",
        png(
            ColorType::GrayscaleAlpha,
            BitDepth::Eight,
            (20, 16),
            &grey_alpha,
        ),
    );
    let deep = png(
        ColorType::Grayscale,
        BitDepth::Sixteen,
        (20, 16),
        &[0; 20 * 16 * 2],
    );
    bench.put("Annotations/街 4.png", deep);
    bench.put("Annotations/街 5.png", jpeg(20, 16, 0));
    for (name, mask, picture) in [
        ("cut", map(20, 16, |_, _| 0)[..60].to_vec(), jpeg(20, 16, 0)),
        ("rgb", rgb_png(20, 16), jpeg(20, 16, 0)),
        (
            "half",
            map(20, 16, |_, _| 0),
            jpeg(20, 16, 0)[..300].to_vec(),
        ),
        ("zero", Vec::new(), jpeg(20, 16, 0)),
    ] {
        bench.put(&format!("Annotations/{name}.png"), mask);
        bench.put(&format!("JPEGImages/{name}.jpg"), picture);
    }
    bench.put("JPEGImages/alone.jpg", jpeg(4, 4, 0));
    bench.fails_with(&[
        "The dataset has 11 problems",
        "JPEGImages/街 0.jpg: it is 20×16, but its label map Annotations/街 0.png is 16×20; make both the same size",
        "Annotations/街 1.png: it holds class ids that labels.txt does not name: 13, 26, 39, 52, 65, 78, 91, 104, 117, 130 …; its 3 classes are 0–2",
        "Annotations/街 2.png: unsupported PNG image: more than one channel; class ids are one grey or palette value a pixel; save class ids as an 8-bit grey or palette PNG without alpha",
        "Annotations/街 3.png: unsupported PNG image: more than one channel",
        "Annotations/街 4.png: unsupported PNG image: 16 bits a pixel; class ids have 8",
        "Annotations/街 5.png: unsupported JPEG image: label maps are PNG files",
        "Annotations/cut.png: damaged PNG image",
        "Annotations/rgb.png: unsupported PNG image: more than one channel",
        "JPEGImages/half.jpg: damaged JPEG image",
        "Annotations/zero.png: the file is empty",
        "JPEGImages/alone.jpg: its annotation Annotations/alone.png is missing; add it or remove the picture",
    ]);
}

#[test]
fn sets_without_folders_pictures_or_classes_say_what_is_needed() {
    let bench = Bench::new(TaskType::Segmentation);
    bench.put("rose/a.jpg", jpeg(4, 4, 0));
    bench.fails_with(&[
        "JPEGImages: there is no such folder; put the pictures into a folder of this name",
        "Annotations: there is no such folder",
    ]);
    bench.put("JPEGImages/readme.txt", "x");
    bench.put("Annotations/readme.txt", "x");
    bench.fails_with(&["JPEGImages: there are no pictures in it; put pictures (.jpg"]);
    bench.put("JPEGImages/a.jpg", jpeg(4, 4, 0));
    bench.put(
        "Annotations/a.png",
        map(4, 4, |x, _| if x > 1 { 255 } else { 0 }),
    );
    bench.fails_with(&[
        "Annotations/a.png: this and every other label map holds only class 0 and 255, which means ignored; at least two classes are needed",
    ]);
    bench.put("Annotations/a.png", map(4, 4, |_, _| 3));
    bench.fails_with(&["holds only class 3; give at least two classes their own ids"]);
    bench.put("labels.txt", "all\n");
    bench.put("Annotations/a.png", map(4, 4, |_, _| 0));
    bench.fails_with(&["labels.txt: it names only one class, all"]);
    bench.put("labels.txt", "all\nother\nall\n");
    bench.fails_with(&["labels.txt, line 3: class all is named already in line 1"]);
    bench.put("labels.txt", "\n");
    bench.fails_with(&["labels.txt: it names no class"]);
    let many: String = (0..256).map(|i| format!("c{i}\n")).collect();
    bench.put("labels.txt", many);
    bench.fails_with(&["labels.txt: it names 256 classes, but label maps can hold 255"]);
}

#[test]
fn every_rule_of_the_lists_names_file_and_line() {
    let bench = streets();
    bench.put("JPEGImages/folder.jpg/x.txt", "x");
    bench.put("JPEGImages/deep/x.jpg", jpeg(4, 4, 0));
    bench.put(
        "train_list.txt",
        "JPEGImages/街 0.jpg Annotations/街 0.png\nonecolumn\nJPEGImages/街 1.jpg Annotations/街 1.xml\nnotes.txt Annotations/街 0.png\nJPEGImages/街 9.jpg Annotations/街 1.png\nJPEGImages/街 1.jpg Annotations/none.png\n../a.jpg Annotations/街 1.png\nJPEGImages/街 1.jpg /etc/x.png\nJPEGImages/folder.jpg Annotations/街 1.png\nJPEGImages/deep/x.jpg Annotations/街 1.png\nJPEGImages/.h.jpg Annotations/街 1.png\n",
    );
    bench.fails_with(&[
        "val_list.txt: it is missing; a dataset with train_list.txt also needs val_list.txt",
        "train_list.txt, line 2: `onecolumn` has one column instead of two; write path of the picture, blank, path of its annotation",
        "train_list.txt, line 3: Annotations/街 1.xml is no .png file",
        "train_list.txt, line 4: notes.txt is no picture name",
        "train_list.txt, line 5: JPEGImages/街 9.jpg is not there",
        "train_list.txt, line 6: Annotations/none.png is not there",
        "train_list.txt, line 7: ../a.jpg leads out of the dataset",
        "train_list.txt, line 8: /etc/x.png leads out of the dataset",
        "train_list.txt, line 9: JPEGImages/folder.jpg is a folder",
        "train_list.txt, line 10: JPEGImages/deep/x.jpg lies deeper",
        "train_list.txt, line 11: JPEGImages/.h.jpg is no picture name",
    ]);
    bench.put(
        "train_list.txt",
        "JPEGImages/街 0.jpg Annotations/街 0.png\n",
    );
    bench.put("val_list.txt", "\n");
    bench.fails_with(&[
        "val_list.txt: it names no picture; write one line a picture: path, blank, annotation path",
    ]);
}

#[test]
fn pictures_of_one_pixel_pass_with_a_remark() {
    let bench = streets();
    bench.put("JPEGImages/dot.png", rgb_png(1, 1));
    bench.put("Annotations/dot.png", map(1, 1, |_, _| 1));
    let warnings = bench.run().unwrap().warnings.join("\n");
    assert!(
        warnings.contains("JPEGImages/dot.png is only 1×1 pixels large"),
        "{warnings}"
    );
}

/// Pictures of `channels` bands of 16 bits, 6×4, with label maps.
fn bands(bench: &Bench, name: &str, channels: usize, base: u16) {
    let data: Vec<u8> = (0..24 * channels)
        .flat_map(|i| (base + (i % channels) as u16 * 1000 + (i / channels) as u16).to_le_bytes())
        .collect();
    bench.put(
        &format!("JPEGImages/{name}.npy"),
        npy("<u2", &format!("(4, 6, {channels})"), &data),
    );
    bench.put(
        &format!("Annotations/{name}.png"),
        map(6, 4, |x, _| u8::from(x > 2)),
    );
}

#[test]
fn remote_sensing_sets_get_the_numbers_of_their_channels() {
    let mut bench = Bench::new(TaskType::Segmentation);
    bands(&bench, "a", 6, 0);
    bands(&bench, "b", 6, 24);
    bench.fails_with(&["2 of the files are .npy or .tif; those are read by datasets of the type remote_segmentation"]);
    bench.remote = true;
    let result = bench.run().unwrap();
    assert_eq!(
        result.details["file_info"]["JPEGImages/a.npy"],
        "Annotations/a.png"
    );
    let numbers = Channels::read(&bench.dest).unwrap();
    assert_eq!(
        (numbers.channels, numbers.kind.as_str(), numbers.pictures),
        (6, "uint16", 2)
    );
    for c in 0..6 {
        // Values c·1000 + 0 … 47, each once.
        let base = c as f64 * 1000.0;
        assert_eq!(
            (f64::from(numbers.minimum[c]), f64::from(numbers.maximum[c])),
            (base, base + 47.0)
        );
        assert!((numbers.mean[c] - base - 23.5).abs() < 1e-9);
        assert!((numbers.std[c] - (48f64 * 48.0 - 1.0).sqrt() / 12f64.sqrt()).abs() < 1e-9);
        assert!((f64::from(numbers.clip_min[c]) - base - 0.94).abs() < 1e-3);
        assert!((f64::from(numbers.clip_max[c]) - base - 46.06).abs() < 1e-3);
    }
    let (index, _) = read_index(&bench.dest, TaskType::Segmentation, true).unwrap();
    let options = SplitOptions {
        val_split: 0.5,
        test_split: 0.0,
        seed: 1,
        stratify: false,
    };
    write_split(
        &bench.dest,
        TaskType::Segmentation,
        &split(&index, options).unwrap(),
    )
    .unwrap();
    for list in ["train_list.txt", "val_list.txt"] {
        assert_eq!(read_segment_list(&bench.dest, list).unwrap().len(), 1);
    }
}

#[test]
fn remote_sensing_files_that_differ_or_cannot_be_read_are_named() {
    let mut bench = Bench::new(TaskType::Segmentation);
    bench.remote = true;
    bands(&bench, "a", 6, 0);
    bands(&bench, "b", 6, 0);
    bands(&bench, "c", 4, 0);
    bench.put("JPEGImages/o.npy", npy("|O", "(1, 1)", &[0; 8]));
    bench.put("Annotations/o.png", map(1, 1, |_, _| 0));
    bench.put("JPEGImages/t.tif", b"II*\0\x08\0\0\0");
    bench.put("Annotations/t.png", map(1, 1, |_, _| 0));
    bands(&bench, "s", 6, 0);
    bench.put("Annotations/s.png", map(4, 6, |_, _| 0));
    bench.fails_with(&[
        "JPEGImages/c.npy: it has 4 channels, most pictures have 6; all pictures of a set need the same channels",
        "JPEGImages/o.npy: unsupported NumPy image: an array of Python objects",
        "JPEGImages/t.tif: damaged TIFF image",
        "JPEGImages/s.npy: it is 6×4, but its label map Annotations/s.png is 4×6",
    ]);
    for name in ["c", "o", "s"] {
        bench.remove(&format!("JPEGImages/{name}.npy"));
        bench.remove(&format!("Annotations/{name}.png"));
    }
    bench.remove("JPEGImages/t.tif");
    let mut floats: Vec<u8> = (0..24 * 6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    floats[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    bench.put("JPEGImages/b.npy", npy("<f4", "(4, 6, 6)", &floats));
    let result = bench.run().unwrap();
    let warnings = result.warnings.join("\n");
    assert!(
        warnings.contains("JPEGImages/b.npy holds 1 values that are no finite numbers"),
        "{warnings}"
    );
    assert_eq!(Channels::read(&bench.dest).unwrap().kind, "float32");
    std::fs::write(bench.dest.join("channels.json"), "{\"channels\": 3}").unwrap();
    assert!(
        Channels::read(&bench.dest)
            .unwrap_err()
            .to_string()
            .contains("import the dataset again")
    );
}

#[test]
fn a_set_read_again_in_its_own_place_stays_as_it_is() {
    let bench = streets();
    bench.run().unwrap();
    let mut spec = bench.spec();
    spec.source = spec.dest.clone();
    let result =
        oarlock_datasets::import(&spec, &|_| {}, &std::sync::atomic::AtomicBool::new(false));
    assert_eq!(result.unwrap().files, 0);
    spec.source = "/nowhere/at/all".into();
    let error =
        oarlock_datasets::import(&spec, &|_| {}, &std::sync::atomic::AtomicBool::new(false));
    assert_eq!(error.unwrap_err().code, ErrorCode::InvalidData);
}

#[test]
fn previews_blend_the_palette_over_the_whole_picture() {
    use oarlock_datasets::{PreviewOptions, draw_labels};
    use oarlock_imaging::{Limits, class_colour, decode};
    let bench = streets();
    bench.put("JPEGImages/flat.png", rgb_png(700, 9));
    bench.put(
        "Annotations/flat.png",
        map(700, 9, |x, _| if x < 350 { 1 } else { 255 }),
    );
    bench.run().unwrap();
    let draw = |path: &str, options: &PreviewOptions| {
        draw_labels(&bench.dest, TaskType::Segmentation, path, options)
    };
    let plain = PreviewOptions::default();
    let full = bench.dest.join("JPEGImages/flat.png");
    for path in [
        "JPEGImages/flat.png",
        "flat.png",
        full.to_str().unwrap(),
        "C:\\old\\flat.png",
    ] {
        let drawn = decode(&draw(path, &plain).unwrap(), &Limits::default(), None).unwrap();
        assert_eq!((drawn.width(), drawn.height()), (700, 9), "full size");
        let half = |c: [u8; 3]| {
            let mut out = [9u8, 80, 200];
            out.iter_mut()
                .zip(c)
                .for_each(|(v, c)| *v = (u16::from(*v) + u16::from(c)).div_ceil(2) as u8);
            out
        };
        assert_eq!(drawn.pixel(3, 3), half(class_colour(1)));
        assert_eq!(drawn.pixel(600, 8), half(class_colour(255)));
    }
    let legend = PreviewOptions {
        legend: true,
        ..PreviewOptions::default()
    };
    let drawn = decode(
        &draw("flat.png", &legend).unwrap(),
        &Limits::default(),
        None,
    )
    .unwrap();
    assert!(drawn.width() > 700);
    let error = draw("JPEGImages/none.jpg", &plain).unwrap_err();
    assert!(error.code == ErrorCode::NotFound && error.message.contains("JPEGImages/none.jpg"));
    let error = draw_labels(&bench.dest, TaskType::Classification, "flat.png", &plain).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
    std::fs::write(bench.dest.join("Annotations/flat.png"), map(9, 9, |_, _| 0)).unwrap();
    assert!(
        draw("flat.png", &plain)
            .unwrap_err()
            .message
            .starts_with("Annotations/flat.png: a 9×9 label map")
    );
    std::os::unix::fs::symlink("/etc/hostname", bench.dest.join("link.png")).unwrap();
    let text = bench
        .text("statis.json")
        .replace("Annotations/flat.png", "link.png");
    std::fs::write(bench.dest.join("statis.json"), text).unwrap();
    assert_eq!(
        draw("flat.png", &plain).unwrap_err().code,
        ErrorCode::ForbiddenPath
    );
}

#[test]
fn previews_of_rasters_are_stretched() {
    use oarlock_datasets::{PreviewOptions, draw_labels};
    use oarlock_imaging::{Limits, decode};
    let mut bench = Bench::new(TaskType::Segmentation);
    bench.remote = true;
    bands(&bench, "a", 6, 0);
    bench.run().unwrap();
    let draw = |channels| {
        let options = PreviewOptions {
            channels,
            legend: false,
        };
        let png = draw_labels(
            &bench.dest,
            TaskType::Segmentation,
            "JPEGImages/a.npy",
            &options,
        )?;
        Ok::<_, oarlock_jobs::JobError>(decode(&png, &Limits::default(), None).unwrap())
    };
    let image = draw(None).unwrap();
    assert_eq!((image.width(), image.height()), (6, 4));
    // Half of black and half of white, under half of class 0 (black) and class 1 (dark blue).
    assert_eq!(
        (image.pixel(0, 0), image.pixel(5, 3)),
        ([0; 3], [128, 128, 192])
    );
    assert_eq!(
        draw(Some([5, 4, 3])).unwrap(),
        image,
        "the channels differ by a constant"
    );
    assert!(
        draw(Some([0, 1, 6]))
            .unwrap_err()
            .message
            .contains("there is no channel 6; the picture has 6")
    );
}
