//! HRNet (Wang et al. 2020): four resolutions side by side, fused again and again.
//!
//! Names: the authors' and timm's (`hrnet_w18` …). The head convolutions of their classifiers have a bias
//! before the batch norm; PaddleClas's have none. Classifiers enlarge maps to the nearest pixel, so sizes must
//! be multiples of 32, or the branches do not meet; segmenters interpolate to the size that is there.

use oarlock_graph::{Act, Conv, NodeId, Op};

use crate::net::{Library, Names, Net, PLAIN};
use crate::{Built, Origin};

pub(crate) fn build(name: &str, width: usize, origin: Origin, classes: usize) -> Built {
    let (mut net, image) = Net::new(name, origin, PLAIN);
    let branches = features(&mut net, image, width, Library::Clas);
    let logits = head(&mut net, &branches, classes);
    net.finish(logits)
}

/// The four branches after the last stage, from high resolution (1/4) to low, `width` channels and more. In
/// detectors they are enlarged to the nearest pixel, as in classifiers.
pub(crate) fn features(
    net: &mut Net,
    image: NodeId,
    width: usize,
    library: Library,
) -> Vec<NodeId> {
    let names = Names::new("conv1", "bn1", "conv_layer1_1");
    let x = halved(net, image, &names, 64, library);
    let x = net.b.act(x, Act::Relu);
    let names = Names::new("conv2", "bn2", "conv_layer1_2");
    let x = halved(net, x, &names, 64, library);
    let mut x = net.b.act(x, Act::Relu);
    for index in 0..4 {
        let ours = format!("layer1.{index}");
        let paddle = match library {
            Library::Clas => ours.clone(),
            Library::Seg => format!("la1.bb_layer2_{}", index + 1),
            Library::Det => format!("la1.block_layer2_{}", index + 1),
        };
        x = bottleneck(net, x, &ours, &paddle, 64);
    }

    let transition = |stage: usize, branch: usize| match (library, stage) {
        (Library::Seg | Library::Det, _) => {
            format!("tr{stage}.transition_tr{stage}_layer_{branch}")
        }
        (Library::Clas, 1) => format!("conv_tr1_{branch}"),
        (Library::Clas, _) => format!("conv_tr{stage}"),
    };
    let names = Names::sequence("transition1.0", 0, transition(1, 1));
    let high = net.unit_act(x, &names, Conv::new(width, 3), Act::Relu);
    let names = Names::sequence("transition1.1.0", 0, transition(1, 2));
    let low = halved(net, x, &names, 2 * width, library);
    let mut branches = vec![high, net.b.act(low, Act::Relu)];
    for (stage, modules) in [(2, 1), (3, 4), (4, 3)] {
        if stage > 2 {
            let prefix = format!("transition{0}.{0}.0", stage - 1);
            let names = Names::sequence(&prefix, 0, transition(stage - 1, stage));
            let lowest = branches[branches.len() - 1];
            let lower = halved(net, lowest, &names, width << (stage - 1), library);
            branches.push(net.b.act(lower, Act::Relu));
        }
        for number in 0..modules {
            let module = Module {
                stage,
                number,
                library,
            };
            branches = module.build(net, &branches);
        }
    }
    branches
}

/// A 3×3 convolution of stride 2 with its batch norm. PaddleSeg pads it with `'same'`.
fn halved(net: &mut Net, x: NodeId, names: &Names, out: usize, library: Library) -> NodeId {
    let (x, padding) = match library {
        Library::Clas | Library::Det => (x, 1),
        Library::Seg => net.same_pad(x, 3, 2),
    };
    net.unit(x, names, Conv::new(out, 3).stride(2).padding(padding))
}

/// Widens each branch, then adds them up from high to low resolution.
fn head(net: &mut Net, branches: &[NodeId], classes: usize) -> NodeId {
    let torch = net.origin == Origin::Torch;
    let head_conv = |conv: Conv| if torch { conv.bias() } else { conv };
    let mut sum = None;
    for (index, &branch) in branches.iter().enumerate() {
        let (ours, paddle) = (
            format!("incre_modules.{index}.0"),
            format!("last_cls.func_list.{index}"),
        );
        let wide = bottleneck(net, branch, &ours, &paddle, 32 << index);
        sum = Some(match sum {
            None => wide,
            Some(higher) => {
                let names = Names::sequence(
                    &format!("downsamp_modules.{}", index - 1),
                    0,
                    format!("cls_head_conv_list.{}", index - 1),
                );
                let conv = head_conv(Conv::new(128 << index, 3).stride(2));
                let down = net.unit_act(higher, &names, conv, Act::Relu);
                net.b.add(wide, down)
            }
        });
    }
    let names = Names::sequence("final_layer", 0, "conv_last");
    let x = sum.unwrap_or(branches[0]); // there are four branches
    let x = net.unit_act(x, &names, head_conv(Conv::new(2048, 1)), Act::Relu);
    let x = net.pool_flat(x);
    net.linear(x, "classifier", "fc", classes, 1.0)
}

/// Four basic blocks on each branch, then every branch receives all others.
struct Module {
    stage: usize,
    number: usize,
    library: Library,
}

impl Module {
    fn build(&self, net: &mut Net, inputs: &[NodeId]) -> Vec<NodeId> {
        let mut branches = inputs.to_vec();
        for (i, x) in branches.iter_mut().enumerate() {
            for block in 0..4 {
                let ours = format!("{}.branches.{i}.{block}", self.ours());
                *x = basic_block(net, *x, &ours, &self.paddle_block(i, block));
            }
        }
        let mut number = 0;
        let mut fused = Vec::with_capacity(branches.len());
        for to in 0..branches.len() {
            let mut sum: Option<NodeId> = None;
            // The branch's own map first, as Paddle adds; then by resolution.
            let others = (0..branches.len()).filter(|&from| from != to);
            for from in std::iter::once(to).chain(others) {
                let x = self.path(net, &branches, from, to, &mut number);
                sum = Some(sum.map_or(x, |sum| net.b.add(sum, x)));
            }
            fused.push(net.b.act(sum.unwrap_or(branches[to]), Act::Relu));
        }
        fused
    }

    fn ours(&self) -> String {
        format!("stage{}.{}", self.stage, self.number)
    }

    /// PaddleSeg's and PaddleDetection's names repeat where they are.
    fn paddle(&self) -> (String, String) {
        let (stage, number) = (self.stage, self.number);
        let tag = format!("st{stage}_{}", number + 1);
        let prefix = match self.library {
            Library::Clas => format!("st{stage}.stage_func_list.{number}"),
            Library::Seg | Library::Det => format!("st{stage}.stage_{tag}"),
        };
        (prefix, tag)
    }

    fn paddle_block(&self, branch: usize, block: usize) -> String {
        let (prefix, tag) = self.paddle();
        match self.library {
            Library::Clas => format!("{prefix}.basic_block_list.{branch}.{block}"),
            Library::Seg | Library::Det => {
                let (branch, block) = (branch + 1, block + 1);
                format!("{prefix}.branches_func.bb_{tag}_branch_layer_{branch}_{block}")
            }
        }
    }

    /// The convolution that is `number` in PaddleClas's list: of the path between two branches, its `step`
    /// if it has more than one.
    fn paddle_path(&self, from: usize, to: usize, step: Option<usize>, number: usize) -> String {
        let (prefix, tag) = self.paddle();
        match self.library {
            Library::Clas => format!("{prefix}.fuse_func.residual_func_list.{number}"),
            Library::Seg | Library::Det => {
                let step = step.map_or(String::new(), |step| format!("_{}", step + 1));
                let (to, from) = (to + 1, from + 1);
                format!("{prefix}.fuse_func.residual_{tag}_layer_{to}_{from}{step}")
            }
        }
    }

    /// Brings branch `from` to the resolution and width of branch `to`.
    fn path(
        &self,
        net: &mut Net,
        branches: &[NodeId],
        from: usize,
        to: usize,
        number: &mut usize,
    ) -> NodeId {
        let mut x = branches[from];
        let out = net.b.channels(branches[to]);
        let prefix = format!("{}.fuse_layers.{to}.{from}", self.ours());
        let mut next = |step| {
            *number += 1;
            self.paddle_path(from, to, step, *number - 1)
        };
        if from > to {
            let names = Names::sequence(&prefix, 0, next(None));
            x = net.unit(x, &names, Conv::new(out, 1));
            if self.library == Library::Seg {
                return net.b.resize(x, branches[to], false);
            }
            let enlarge = Op::Upsample {
                scale: 1 << (from - to),
                bilinear: false,
            };
            return net.b.plain(enlarge, &[x]);
        }
        for step in 0..to - from {
            let names = Names::sequence(&format!("{prefix}.{step}"), 0, next(Some(step)));
            let last = step + 1 == to - from;
            let channels = if last {
                out
            } else {
                net.b.channels(branches[from])
            };
            x = halved(net, x, &names, channels, self.library);
            if !last {
                x = net.b.act(x, Act::Relu);
            }
        }
        x
    }
}

fn basic_block(net: &mut Net, input: NodeId, ours: &str, paddle: &str) -> NodeId {
    let channels = net.b.channels(input);
    let names = |i: usize| {
        Names::new(
            format!("{ours}.conv{i}"),
            format!("{ours}.bn{i}"),
            format!("{paddle}.conv{i}"),
        )
    };
    let x = net.unit_act(input, &names(1), Conv::new(channels, 3), Act::Relu);
    let x = net.unit(x, &names(2), Conv::new(channels, 3));
    let x = net.b.add(x, input);
    net.b.act(x, Act::Relu)
}

fn bottleneck(net: &mut Net, input: NodeId, ours: &str, paddle: &str, filters: usize) -> NodeId {
    let names = |i: usize| {
        Names::new(
            format!("{ours}.conv{i}"),
            format!("{ours}.bn{i}"),
            format!("{paddle}.conv{i}"),
        )
    };
    let x = net.unit_act(input, &names(1), Conv::new(filters, 1), Act::Relu);
    let x = net.unit_act(x, &names(2), Conv::new(filters, 3), Act::Relu);
    let x = net.unit(x, &names(3), Conv::new(4 * filters, 1));
    let shortcut = if net.b.channels(input) == 4 * filters {
        input
    } else {
        let prefix = format!("{ours}.downsample");
        let names = Names::sequence(&prefix, 0, format!("{paddle}.conv_down"));
        net.unit(input, &names, Conv::new(4 * filters, 1))
    };
    let x = net.b.add(x, shortcut);
    net.b.act(x, Act::Relu)
}
