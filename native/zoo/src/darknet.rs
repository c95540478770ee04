//! DarkNet53 (Redmon and Farhadi 2018) as PaddleClas has it: with ReLU. Names are our own.

use oarlock_graph::{Act, Conv};

use crate::net::{Names, Net, Suffixes};
use crate::{Built, Origin};

const SUFFIXES: Suffixes = Suffixes {
    conv: "_conv",
    norm: "_bn",
};

pub(crate) fn build(name: &str, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, SUFFIXES);
    let mut x = net.unit_act(
        image,
        &Names::pair("stem", "_conv1"),
        Conv::new(32, 3),
        Act::Relu,
    );
    for (stage, blocks) in [1, 2, 8, 8, 4].into_iter().enumerate() {
        let channels = 64 << stage;
        let prefix = format!("stages.{stage}");
        let paddle = if stage == 0 {
            "_conv2".to_owned()
        } else {
            format!("_downsample_{}", stage - 1)
        };
        let names = Names::pair(&format!("{prefix}.downsample"), paddle);
        x = net.unit_act(x, &names, Conv::new(channels, 3).stride(2), Act::Relu);
        for block in 0..blocks {
            let prefix = format!("{prefix}.blocks.{block}");
            let paddle = format!("_basic_block_{stage}{}", block + 1);
            let names = Names::pair(&format!("{prefix}.0"), format!("{paddle}._conv1"));
            let y = net.unit_act(x, &names, Conv::new(channels / 2, 1), Act::Relu);
            let names = Names::pair(&format!("{prefix}.1"), format!("{paddle}._conv2"));
            let y = net.unit_act(y, &names, Conv::new(channels, 3), Act::Relu);
            x = net.b.add(x, y);
        }
    }
    let x = net.pool_flat(x);
    let logits = net.linear(x, "fc", "_out", classes, 1.0);
    net.finish(logits)
}
