//! MobileNetV3 small and large (Howard et al. 2019).
//!
//! Names: torchvision. PaddleClas's network differs from torchvision's: the squeeze layers are not
//! rounded to multiples of 8 and their gate has slope 0.2 instead of 1/6, the first block always
//! expands, batch norm's epsilon is 1e-5 instead of 1e-3, the last hidden layer has no bias (and 1280
//! units also in the small network).

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Library, Names, Net, PLAIN, make_divisible};
use crate::{Built, Origin};

/// Kernel, expanded channels, output channels, squeeze-and-excitation, hard swish, stride.
type Row = (usize, usize, usize, bool, bool, usize);

const LARGE: [Row; 15] = [
    (3, 16, 16, false, false, 1),
    (3, 64, 24, false, false, 2),
    (3, 72, 24, false, false, 1),
    (5, 72, 40, true, false, 2),
    (5, 120, 40, true, false, 1),
    (5, 120, 40, true, false, 1),
    (3, 240, 80, false, true, 2),
    (3, 200, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 480, 112, true, true, 1),
    (3, 672, 112, true, true, 1),
    (5, 672, 160, true, true, 2),
    (5, 960, 160, true, true, 1),
    (5, 960, 160, true, true, 1),
];

const SMALL: [Row; 11] = [
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

pub(crate) fn build(name: &str, large: bool, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let blocks = features(&mut net, image, Variant::of(large), 32);
    let mut x = blocks[blocks.len() - 1];
    let last = format!("features.{}", blocks.len() + 1);
    let squeezed = if large { 960 } else { 576 };
    let names = Names::sequence(&last, 0, "last_second_conv");
    x = net.unit_act(x, &names, Conv::new(squeezed, 1), Act::HardSwish);
    x = if origin == Origin::Torch {
        let x = net.pool_flat(x);
        net.b
            .linear("classifier.0", x, if large { 1280 } else { 1024 })
    } else {
        let x = net.b.global_avg_pool(x);
        let x = net.conv(x, "classifier.0", "last_conv", Conv::new(1280, 1));
        net.b.flatten(x)
    };
    x = net.b.act(x, Act::HardSwish);
    x = net.b.dropout(x, 0.2);
    let logits = net.linear(x, "classifier.3", "fc", classes, 0.8);
    net.finish(logits)
}

/// Which of the networks it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub large: bool,
    /// Factor of all numbers of channels.
    pub scale: f64,
    pub library: Library,
}

impl Variant {
    /// The full width, with PaddleClas's names.
    pub fn of(large: bool) -> Self {
        Self {
            large,
            scale: 1.0,
            library: Library::Clas,
        }
    }
}

/// What the blocks make: 15 of the large network, 11 of the small one. From where the map would become
/// smaller than 1/`output_stride` of the image, blocks are dilated instead.
pub(crate) fn features(
    net: &mut Net,
    image: NodeId,
    variant: Variant,
    output_stride: usize,
) -> Vec<NodeId> {
    let rows: &[Row] = if variant.large { &LARGE } else { &SMALL };
    net.eps = match net.origin {
        Origin::Torch => 1e-3,
        Origin::Paddle => 1e-5,
    };
    let scaled = |channels: usize| make_divisible(channels as f64 * variant.scale);
    let det = variant.library == Library::Det;
    let names = Names::sequence("features.0", 0, if det { "conv1" } else { "conv" });
    let conv = Conv::new(scaled(16), 3).stride(2);
    let mut x = net.unit_act(image, &names, conv, Act::HardSwish);
    let (mut reached, mut dilation) = (2, 1);
    let mut blocks = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let mut row = *row;
        (row.1, row.2) = (scaled(row.1), scaled(row.2));
        if reached * row.5 > output_stride {
            dilation *= std::mem::replace(&mut row.5, 1);
        }
        reached *= row.5;
        let paddle = if det {
            format!("conv{}", index + 2)
        } else {
            format!("blocks.{index}")
        };
        x = block(net, x, (index, &paddle), row, dilation);
        blocks.push(x);
    }
    blocks
}

fn block(
    net: &mut Net,
    input: NodeId,
    (index, paddle): (usize, &str),
    row: Row,
    dilation: usize,
) -> NodeId {
    let (kernel, expanded, out, squeeze, hard_swish, stride) = row;
    let torch = net.origin == Origin::Torch;
    let act = if hard_swish {
        Act::HardSwish
    } else {
        Act::Relu
    };
    let in_channels = net.b.channels(input);
    let expands = expanded != in_channels || !torch;
    // torchvision numbers what is there; a block without expansion begins at 0 with its depthwise
    // layer. PaddleClas's extra expansion gets a name of its own, so that all others stay the same.
    let numbered = expanded != in_channels;
    let mut part = 0;
    let name = |part: usize| format!("features.{}.block.{part}", index + 1);
    let mut x = input;
    if expands {
        let prefix = if numbered {
            name(0)
        } else {
            format!("features.{}.expand", index + 1)
        };
        let names = Names::sequence(&prefix, 0, format!("{paddle}.expand_conv"));
        x = net.unit_act(x, &names, Conv::new(expanded, 1), act);
        part += usize::from(numbered);
    }
    let names = Names::sequence(&name(part), 0, format!("{paddle}.bottleneck_conv"));
    let conv = Conv::depthwise(expanded, kernel).stride(stride);
    x = net.unit_act(x, &names, conv.dilation(dilation), act);
    part += 1;
    if squeeze {
        let (squeezed, slope) = if torch {
            (make_divisible(expanded as f64 / 4.0), 1.0 / 6.0)
        } else {
            (expanded / 4, 0.2)
        };
        let names = [format!("{}.fc1", name(part)), format!("{}.fc2", name(part))];
        x = net.squeeze_excite(x, names, &format!("{paddle}.mid_se"), squeezed, slope);
        part += 1;
    }
    let names = Names::sequence(&name(part), 0, format!("{paddle}.linear_conv"));
    x = net.unit(x, &names, Conv::new(out, 1));
    if stride == 1 && in_channels == out {
        net.b.add(input, x)
    } else {
        x
    }
}
