//! Backbones of the one-stage detectors, with PaddleDetection's names. Names here: those of the classifier, after
//! `backbone.`.

use oarlock_graph::NodeId;

use super::esnet;
use super::yolo::{LEAKY, SUFFIXES};
use crate::mobilenet_v3::Variant;
use crate::net::{Library, NORMED, Net, PLAIN, UNDERSCORED};
use crate::resnet::Trunk;
use crate::{darknet, mobilenet_v1, mobilenet_v3, pplcnet};

/// Maps at a 32nd of the image's size, a 16th and, of three, an 8th: coarsest first.
pub(super) fn features(net: &mut Net, image: NodeId, backbone: &str, maps: usize) -> Vec<NodeId> {
    let mut all = net.within("backbone", |net| pyramid(net, image, backbone));
    all.reverse();
    all.truncate(maps);
    all
}

/// The maps at an 8th of the image's size, a 16th and a 32nd.
fn pyramid(net: &mut Net, image: NodeId, backbone: &str) -> Vec<NodeId> {
    let pick = |blocks: Vec<NodeId>, which: [usize; 3]| which.map(|i| blocks[i]).to_vec();
    match backbone {
        "MobileNetV1" | "MobileNetV1_ssld" => {
            net.suffixes = UNDERSCORED;
            let blocks = mobilenet_v1::features(net, image, Library::Det);
            pick(blocks, [3, 5, 12])
        }
        "DarkNet53" => {
            net.suffixes = SUFFIXES;
            darknet::features(net, image, LEAKY, Library::Det)[2..].to_vec()
        }
        "LCNet" => {
            net.suffixes = PLAIN;
            pick(pplcnet::features(net, image, 1.5), [4, 10, 12])
        }
        "ESNet_s" | "ESNet_m" | "ESNet_l" => {
            net.suffixes = UNDERSCORED;
            esnet::features(net, image, backbone)
        }
        _ if backbone.starts_with("MobileNetV3") => {
            net.suffixes = PLAIN;
            let large = !backbone.starts_with("MobileNetV3_small");
            let variant = Variant {
                large,
                scale: if backbone.ends_with("_x0.5") {
                    0.5
                } else {
                    1.0
                },
                library: Library::Det,
            };
            let blocks = mobilenet_v3::features(net, image, variant, 32);
            pick(blocks, if large { [5, 11, 14] } else { [2, 7, 10] })
        }
        _ => {
            net.suffixes = NORMED;
            resnet(net, image, backbone)
        }
    }
}

fn resnet(net: &mut Net, image: NodeId, backbone: &str) -> Vec<NodeId> {
    let digits = backbone.trim_start_matches("ResNet").split('_').next();
    let trunk = Trunk {
        depth: digits.and_then(|d| d.parse().ok()).unwrap_or(50),
        vd: backbone.contains("_vd"),
        dilations: [1; 4],
        library: Library::Det,
    };
    let mut x = trunk.stem(net, image);
    let stages = (0..4).map(|stage| {
        x = trunk.stage_of(net, x, stage, stage == 3 && backbone.ends_with("_dcn"));
        x
    });
    stages.skip(1).collect()
}
