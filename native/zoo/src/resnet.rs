//! ResNet (He et al. 2015, with the stride in the 3×3 convolution as both torchvision and PaddleClas
//! have it) and its `vd` variant (He et al. 2018, "Bag of Tricks": three 3×3 convolutions in the
//! stem, 2×2 average pooling before the shortcut's convolution).
//!
//! Names: torchvision; the `vd` networks use those of timm's `resnet*d`, the same network.
//! As a backbone of PaddleSeg it is the same network with dilated stages; of PaddleDetection, the very same.
//! PaddleClas puts a convolution into the very first shortcut of the 18- and 34-layer networks too;
//! torchvision and timm do not.

use oarlock_graph::{Act, Conv, NodeId};

use crate::net::{Library, Names, Net, PLAIN};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, depth: u32, vd: bool, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let stages = features(&mut net, image, depth, vd, [1; 4], Library::Clas);
    let x = net.pool_flat(stages[3]);
    let logits = net.linear(x, "fc", "fc", classes, 1.0);
    net.finish(logits)
}

/// What the four stages make. A stage with a dilation above 1 keeps the size of its input.
pub(crate) fn features(
    net: &mut Net,
    image: NodeId,
    depth: u32,
    vd: bool,
    dilations: [usize; 4],
    library: Library,
) -> [NodeId; 4] {
    let trunk = Trunk {
        depth,
        vd,
        dilations,
        library,
    };
    let mut x = trunk.stem(net, image);
    [0, 1, 2, 3].map(|stage| {
        x = trunk.stage(net, x, stage);
        x
    })
}

/// Everything before the classifier, piece by piece.
pub(crate) struct Trunk {
    pub depth: u32,
    pub vd: bool,
    pub dilations: [usize; 4],
    pub library: Library,
}

impl Trunk {
    /// Blocks of each stage, and whether they are bottlenecks.
    fn blocks(&self) -> ([usize; 4], bool) {
        match self.depth {
            18 => ([2, 2, 2, 2], false),
            34 => ([3, 4, 6, 3], false),
            50 => ([3, 4, 6, 3], true),
            101 => ([3, 4, 23, 3], true),
            152 => ([3, 8, 36, 3], true),
            _ => ([3, 12, 48, 3], true), // 200
        }
    }

    /// Convolutions and pooling before the first stage.
    pub fn stem(&self, net: &mut Net, image: NodeId) -> NodeId {
        let paddle = |i: usize| match self.library {
            Library::Clas => format!("stem.{i}"),
            Library::Seg => format!("conv1_{}", i + 1),
            Library::Det if self.vd => format!("conv1.conv1_{}", i + 1),
            Library::Det => "conv1.conv1".to_owned(),
        };
        let x = if self.vd {
            let names = Names::sequence("conv1", 0, paddle(0));
            let x = net.unit_act(image, &names, Conv::new(32, 3).stride(2), Act::Relu);
            let names = Names::sequence("conv1", 3, paddle(1));
            let x = net.unit_act(x, &names, Conv::new(32, 3), Act::Relu);
            let names = Names::new("conv1.6", "bn1", paddle(2));
            net.unit_act(x, &names, Conv::new(64, 3), Act::Relu)
        } else {
            let names = Names::new("conv1", "bn1", paddle(0));
            net.unit_act(image, &names, Conv::new(64, 7).stride(2), Act::Relu)
        };
        net.b.max_pool(x, 3, 2, 1)
    }

    /// Stage 0, 1, 2 or 3.
    pub fn stage(&self, net: &mut Net, x: NodeId, stage: usize) -> NodeId {
        self.stage_of(net, x, stage, false)
    }

    /// The same; with deformable 3×3 convolutions in its bottlenecks where that is asked for.
    pub fn stage_of(&self, net: &mut Net, mut x: NodeId, stage: usize, deformable: bool) -> NodeId {
        let (blocks, bottleneck) = self.blocks();
        let before: usize = blocks[..stage].iter().sum();
        for index in 0..blocks[stage] {
            let block = Block {
                name: format!("layer{}.{index}", stage + 1),
                paddle: match self.library {
                    Library::Clas => format!("blocks.{}", before + index),
                    Library::Seg => format!("bb_{stage}_{index}"),
                    Library::Det => paddle_detection_block(stage, index, blocks[stage]),
                },
                filters: 64 << stage,
                stride: if index == 0 && stage > 0 && self.dilations[stage] == 1 {
                    2
                } else {
                    1
                },
                dilation: self.dilations[stage],
                first: index == 0,
                vd: self.vd,
                library: self.library,
                deformable,
            };
            x = block.build(net, x, bottleneck);
        }
        x
    }
}

/// PaddleDetection's name of a block: by letters, or by numbers in a long fourth stage.
fn paddle_detection_block(stage: usize, index: usize, blocks: usize) -> String {
    let prefix = format!("res{0}.res{0}", stage + 2);
    match index {
        0 => format!("{prefix}a"),
        _ if blocks > 10 && stage == 2 => format!("{prefix}b{index}"),
        _ => format!("{prefix}{}", char::from(b'a' + index as u8)),
    }
}

struct Block {
    name: String,
    paddle: String,
    filters: usize,
    stride: usize,
    dilation: usize,
    first: bool,
    vd: bool,
    library: Library,
    deformable: bool,
}

impl Block {
    fn build(&self, net: &mut Net, input: NodeId, bottleneck: bool) -> NodeId {
        let (f, s, d) = (self.filters, self.stride, self.dilation);
        let convs: Vec<Conv> = if bottleneck {
            vec![
                Conv::new(f, 1),
                Conv::new(f, 3).stride(s).dilation(d),
                Conv::new(4 * f, 1),
            ]
        } else {
            vec![
                Conv::new(f, 3).stride(s).dilation(d),
                Conv::new(f, 3).dilation(d),
            ]
        };
        let out = if bottleneck { 4 * f } else { f };
        let mut x = input;
        for (i, &conv) in convs.iter().enumerate() {
            let names = Names::new(
                format!("{}.conv{}", self.name, i + 1),
                format!("{}.bn{}", self.name, i + 1),
                format!("{}.{}", self.paddle, self.paddle_conv(i)),
            );
            x = if self.deformable && bottleneck && i == 1 {
                net.deformable_unit(x, &names, f, 3, s)
            } else {
                net.unit(x, &names, conv)
            };
            if i + 1 < convs.len() {
                x = net.b.act(x, Act::Relu);
            }
        }
        let changes = s != 1 || net.b.channels(input) != out;
        let shortcut = if changes || (self.first && net.origin == Origin::Paddle) {
            self.shortcut(net, input, out)
        } else {
            input
        };
        let x = net.b.add(x, shortcut);
        net.b.act(x, Act::Relu)
    }

    fn paddle_conv(&self, index: usize) -> String {
        match self.library {
            Library::Clas | Library::Seg => format!("conv{index}"),
            Library::Det => format!("branch2{}", char::from(b'a' + index as u8)),
        }
    }

    fn shortcut(&self, net: &mut Net, mut x: NodeId, out: usize) -> NodeId {
        let prefix = format!("{}.downsample", self.name);
        let mut paddle = format!("{}.short", self.paddle);
        if self.library == Library::Det && self.vd && self.stride != 1 {
            paddle += ".conv"; // the pooling is a layer of its own
        }
        if self.vd {
            if self.stride != 1 {
                x = net.b.avg_pool(x, 2, 2, true);
            }
            return net.unit(x, &Names::sequence(&prefix, 1, paddle), Conv::new(out, 1));
        }
        let conv = Conv::new(out, 1).stride(self.stride);
        net.unit(x, &Names::sequence(&prefix, 0, paddle), conv)
    }
}
