//! Run-length masks against pycocotools, against each other, and against rubbish.

use oarlock_imaging::{Plane, Rle, RleError, Rng};
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/rle.json")).unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap() as u32
}

fn size(case: &Value) -> (u32, u32) {
    (number(&case["width"]), number(&case["height"]))
}

fn check(mask: &Rle, case: &Value) {
    assert_eq!(mask.compressed(), case["counts"].as_str().unwrap());
    assert_eq!(mask.area(), number(&case["area"]));
    let bbox: Vec<u32> = case["bbox"]
        .as_array()
        .unwrap()
        .iter()
        .map(number)
        .collect();
    assert_eq!(mask.bbox().to_vec(), bbox);
}

#[test]
fn polygons_become_the_masks_of_pycocotools() {
    for (i, case) in fixture()["polygons"].as_array().unwrap().iter().enumerate() {
        let (width, height) = size(case);
        let flat = |p: &Value| -> Vec<f64> {
            p.as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap())
                .collect()
        };
        let polygons: Vec<Vec<f64>> = case["polygons"]
            .as_array()
            .unwrap()
            .iter()
            .map(flat)
            .collect();
        let mask = Rle::from_polygons(width, height, &polygons).unwrap();
        assert_eq!(
            mask.compressed(),
            case["counts"].as_str().unwrap(),
            "polygons {i}: {case}"
        );
        check(&mask, case);
        let parts: Vec<Rle> = polygons
            .iter()
            .map(|p| Rle::from_polygons(width, height, &[p]).unwrap())
            .collect();
        assert_eq!(Rle::union(&parts), Some(mask));
    }
}

#[test]
fn masks_are_packed_and_unpacked_as_by_pycocotools() {
    for case in fixture()["masks"].as_array().unwrap() {
        let (width, height) = size(case);
        let text = case["counts"].as_str().unwrap();
        let mask = Rle::from_compressed(width, height, text).unwrap();
        check(&mask, case);
        let plane = mask.to_plane().unwrap();
        assert_eq!(Rle::from_plane(&plane).unwrap(), mask);
        if let Some(rows) = case["rows"].as_array() {
            let bits: Vec<u8> = rows
                .iter()
                .flat_map(|row| row.as_str().unwrap().bytes().map(|b| b - b'0'))
                .collect();
            assert_eq!(plane.data(), bits);
        }
    }
}

#[test]
fn overlap_is_that_of_pycocotools() {
    let pairs = &fixture()["pairs"];
    let (width, height) = size(pairs);
    for pair in pairs["all"].as_array().unwrap() {
        let [a, b] = ["a", "b"]
            .map(|k| Rle::from_compressed(width, height, pair[k].as_str().unwrap()).unwrap());
        assert!((a.iou(&b, false) - pair["iou"].as_f64().unwrap()).abs() < 1e-12);
        assert!((a.iou(&b, true) - pair["crowd"].as_f64().unwrap()).abs() < 1e-12);
        assert_eq!(a.intersection(&b), b.intersection(&a));
    }
}

#[test]
fn random_masks_come_back_from_every_form() {
    let mut rng = Rng::of(&[11]);
    for _ in 0..200 {
        let (width, height) = (1 + rng.below(40), 1 + rng.below(40));
        let density = rng.uniform(0.0, 1.0);
        let data = (0..width * height).map(|_| u8::from(rng.uniform(0.0, 1.0) < density));
        let plane = Plane::new(width, height, data.collect()).unwrap();
        let mask = Rle::from_plane(&plane).unwrap();
        assert_eq!(mask.to_plane().unwrap(), plane);
        let (w, h) = (width as u32, height as u32);
        assert_eq!(Rle::new(w, h, mask.counts()).unwrap(), mask);
        assert_eq!(
            Rle::from_compressed(w, h, &mask.compressed()).unwrap(),
            mask
        );
        let ones = plane.data().iter().filter(|&&v| v == 1).count();
        assert_eq!(mask.area() as usize, ones);
        assert_eq!(mask.intersection(&mask) as usize, ones);
    }
}

#[test]
fn empty_runs_are_joined() {
    let mask = Rle::new(3, 2, &[1, 0, 1, 2, 0, 1, 1, 0]).unwrap();
    assert_eq!(mask.counts(), [2, 3, 1]);
    assert_eq!(Rle::new(3, 2, &[6]).unwrap().bbox(), [0; 4]);
    assert_eq!(Rle::new(3, 2, &[0, 6]).unwrap().bbox(), [0, 0, 3, 2]);
}

#[test]
fn rubbish_is_refused_at_once() {
    let sum = Rle::new(3, 2, &[u32::MAX; 3]).unwrap_err();
    assert!(sum.to_string().contains("12884901885"), "{sum}");
    assert!(matches!(Rle::new(0, 5, &[]), Err(RleError::Size { .. })));
    assert!(matches!(
        Rle::new(u32::MAX, u32::MAX, &[1]),
        Err(RleError::Size { .. })
    ));
    for text in ["o", "\u{7f}1", "oooooooooooooo0", "6é", "O6", "06666", " "] {
        let error = Rle::from_compressed(3, 2, text).unwrap_err();
        assert!(
            matches!(error, RleError::Text { .. } | RleError::Sum { .. }),
            "{text}: {error}"
        );
    }
    let mut rng = Rng::of(&[5]);
    for _ in 0..20_000 {
        let text: String = (0..rng.below(12))
            .map(|_| char::from(44 + rng.below(72) as u8))
            .collect();
        if let Ok(mask) = Rle::from_compressed(4, 3, &text) {
            assert_eq!(mask.counts().iter().sum::<u32>(), 12);
            mask.to_plane().unwrap();
        }
    }
}

#[test]
fn polygons_may_be_anywhere() {
    let far = [[-1e300, -1e300, 1e300, -1e300, 1e300, 1e300, -1e300, 1e300]];
    assert_eq!(Rle::from_polygons(7, 5, &far).unwrap().area(), 35);
    let aside = [[-50.0, 1.0, -40.0, 1.0, -40.0, 4.0]];
    assert_eq!(Rle::from_polygons(7, 5, &aside).unwrap().area(), 0);
    let line = [[1.0, 1.0, 4.0, 1.0]];
    let error = Rle::from_polygons(7, 5, &line).unwrap_err();
    assert_eq!(error.to_string(), "polygon 0 has fewer than 3 corners");
    let nan = [[1.0, 1.0, f64::NAN, 4.0, 2.0, 2.0]];
    assert!(Rle::from_polygons(7, 5, &nan).is_err());
    let sawtooth: Vec<f64> = (0..20_000)
        .flat_map(|i| [f64::from(i % 2) * 1e6, f64::from(i)])
        .collect();
    assert!(matches!(
        Rle::from_polygons(10_000, 10_000, &[sawtooth]),
        Err(RleError::Polygon { index: 0, .. })
    ));
    let none: [Vec<f64>; 0] = [];
    assert_eq!(Rle::from_polygons(7, 5, &none).unwrap().counts(), [35]);
}
