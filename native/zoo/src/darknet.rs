//! DarkNet53 (Redmon and Farhadi 2018) as PaddleClas has it, with ReLU; as a backbone of detectors with leaky
//! ReLU. Names are our own.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Library, Names, Net, Suffixes};
use crate::{Built, Origin};

const SUFFIXES: Suffixes = Suffixes {
    conv: "_conv",
    norm: "_bn",
};

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, SUFFIXES);
    let stages = features(&mut net, image, Act::Relu, Library::Clas);
    let x = net.pool_flat(stages[4]);
    let logits = net.linear(x, "fc", "_out", classes, 1.0);
    net.finish(logits)
}

/// What the five stages make.
pub(crate) fn features(net: &mut Net, image: NodeId, act: Act, library: Library) -> [NodeId; 5] {
    let det = library == Library::Det;
    let names = Names::pair("stem", if det { "conv0" } else { "_conv1" });
    let mut x = net.unit_act(image, &names, Conv::new(32, 3), act);
    let mut stage = 0;
    [1, 2, 8, 8, 4].map(|blocks| {
        let channels = 64 << stage;
        let prefix = format!("stages.{stage}");
        let paddle = match (det, stage) {
            (true, 0) => "downsample0.conv_bn_layer".to_owned(),
            (true, _) => format!("stage.{}.downsample.conv_bn_layer", stage - 1),
            (false, 0) => "_conv2".to_owned(),
            (false, _) => format!("_downsample_{}", stage - 1),
        };
        let names = Names::pair(&format!("{prefix}.downsample"), paddle);
        x = net.unit_act(x, &names, Conv::new(channels, 3).stride(2), act);
        for block in 0..blocks {
            let prefix = format!("{prefix}.blocks.{block}");
            let (paddle, conv) = match (det, block) {
                (true, 0) => (format!("stage.{stage}.basicblock0"), "conv"),
                (true, _) => (format!("stage.{stage}.stage.{stage}.{block}"), "conv"),
                (false, _) => (format!("_basic_block_{stage}{}", block + 1), "_conv"),
            };
            let names = Names::pair(&format!("{prefix}.0"), format!("{paddle}.{conv}1"));
            let y = net.unit_act(x, &names, Conv::new(channels / 2, 1), act);
            let names = Names::pair(&format!("{prefix}.1"), format!("{paddle}.{conv}2"));
            let y = net.unit_act(y, &names, Conv::new(channels, 3), act);
            x = net.b.add(x, y);
        }
        stage += 1;
        x
    })
}
