//! Operations of detectors: deformable convolution, coordinates, pooled regions.

use super::lower::{FLOAT, INT64, Lowering, all, float, int, text, window};
use crate::{Node, Op, level_areas};

impl Lowering<'_> {
    /// Appends the ONNX nodes of a detector's operation; the last one makes the value `out`.
    pub fn sampling(&mut self, node: &Node, x: &[&str], out: &str) {
        match &node.op {
            Op::DeformConv2d { .. } => self.deform_conv(node, x, out),
            Op::ConvTranspose2d {
                kernel,
                stride,
                padding,
                ..
            } => {
                let params = self.params(node);
                let attributes = window(*kernel, *stride, *padding);
                self.emit("ConvTranspose", &all(x, &params), out, attributes);
            }
            Op::Coordinates { last } => self.coordinates(*last, x[0], out),
            Op::RoiAlign { .. } => self.roi_align(node, x, out),
            _ => {}
        }
    }

    /// Sampled taps times their factors, times the weight as a matrix: not every runtime has `DeformConv`.
    fn deform_conv(&mut self, node: &Node, x: &[&str], out: &str) {
        let &Op::DeformConv2d {
            in_channels,
            out_channels,
            kernel: [kh, kw],
            stride,
            padding,
            dilation,
            ..
        } = &node.op
        else {
            return;
        };
        let params = self.params(node);
        let (taps, part) = (kh * kw, |name: &str| format!("{out}.{name}"));
        let mut sides = Vec::new();
        for (i, side) in ["y", "x"].into_iter().enumerate() {
            let part = |name: &str| part(&format!("{side}.{name}"));
            // The offsets of this axis, N×T×h×w.
            let range = [&[i][..], &[2 * taps], &[1], &[2]];
            let names = ["start", "end", "axis", "step"];
            let [start, end, axis, step] =
                [0, 1, 2, 3].map(|k| self.ints(part(names[k]), range[k]));
            let slice = [x[1], &start, &end, &axis, &step];
            self.emit("Slice", &slice, &part("offset"), Vec::new());
            // Where the taps are without them: T×h×1 and T×1×w.
            let first = |tap: usize| [tap / kw, tap % kw][i] as f32 * dilation[i] as f32;
            let first: Vec<f32> = (0..taps).map(|t| first(t) - padding[i] as f32).collect();
            let first = self.floats(part("first"), &[taps, 1, 1], &first);
            self.counter(x[1], 2 + i, &part("count"));
            let step = self.floats(part("stride"), &[], &[stride[i] as f32]);
            self.emit("Mul", &[&part("count"), &step], &part("starts"), Vec::new());
            let mut shape = [1, 1, 1];
            shape[1 + i] = -1;
            let shape = self.signed(part("shape"), &shape);
            self.emit(
                "Reshape",
                &[&part("starts"), &shape],
                &part("line"),
                Vec::new(),
            );
            self.emit("Add", &[&first, &part("line")], &part("places"), Vec::new());
            let terms = [&part("offset")[..], &part("places")];
            self.emit("Add", &terms, &part("pixels"), Vec::new());
            // Pixel p of n at (2p + 1) / n − 1.
            self.size_of(x[0], 2 + i, &part("size"));
            let [one, two] = [1.0, 2.0].map(|v| self.floats(part(&format!("{v}")), &[], &[v]));
            self.emit("Mul", &[&part("pixels"), &two], &part("twice"), Vec::new());
            self.emit("Add", &[&part("twice"), &one], &part("odd"), Vec::new());
            self.emit(
                "Div",
                &[&part("odd"), &part("size")],
                &part("share"),
                Vec::new(),
            );
            self.emit("Sub", &[&part("share"), &one], &part("at"), Vec::new());
            let last = self.ints(part("last"), &[4]);
            self.emit(
                "Unsqueeze",
                &[&part("at"), &last],
                &part("column"),
                Vec::new(),
            );
            sides.push(part("column"));
        }
        let axis = vec![int("axis", 4)];
        self.emit("Concat", &[&sides[1], &sides[0]], &part("grid5"), axis);
        // One row of samples for each tap: N×T×(h·w)×2.
        let shape = self.signed(part("grid.shape"), &[0, 0, -1, 2]);
        self.emit(
            "Reshape",
            &[&part("grid5"), &shape],
            &part("grid"),
            Vec::new(),
        );
        let attributes = vec![
            text("mode", "bilinear"),
            text("padding_mode", "zeros"),
            int("align_corners", 0),
        ];
        self.emit(
            "GridSample",
            &[x[0], &part("grid")],
            &part("samples"),
            attributes,
        );
        let shape = self.signed(part("factor.shape"), &[0, 0, -1]);
        self.emit("Reshape", &[x[2], &shape], &part("factor3"), Vec::new());
        let axis = self.ints(part("factor.axis"), &[1]);
        self.emit(
            "Unsqueeze",
            &[&part("factor3"), &axis],
            &part("factor"),
            Vec::new(),
        );
        self.emit(
            "Mul",
            &[&part("samples"), &part("factor")],
            &part("scaled"),
            Vec::new(),
        );
        let rows = (in_channels * taps) as i64;
        let shape = self.signed(part("columns.shape"), &[0, rows, -1]);
        self.emit(
            "Reshape",
            &[&part("scaled"), &shape],
            &part("columns"),
            Vec::new(),
        );
        let shape = self.ints(part("matrix.shape"), &[out_channels, in_channels * taps]);
        self.emit(
            "Reshape",
            &[&params[0], &shape],
            &part("matrix"),
            Vec::new(),
        );
        self.emit(
            "MatMul",
            &[&part("matrix"), &part("columns")],
            &part("product"),
            Vec::new(),
        );
        let mut product = part("product");
        if let Some(bias) = params.get(1) {
            let shape = self.ints(part("shift.shape"), &[out_channels, 1]);
            self.emit("Reshape", &[bias, &shape], &part("shift"), Vec::new());
            self.emit("Add", &[&product, &part("shift")], &part("sum"), Vec::new());
            product = part("sum");
        }
        let size = vec![int("start", 2), int("end", 4)];
        self.emit("Shape", &[x[1]], &part("size"), size);
        let channels = self.signed(part("channels"), &[0, out_channels as i64]);
        let axis = vec![int("axis", 0)];
        self.emit("Concat", &[&channels, &part("size")], &part("shape"), axis);
        self.emit("Reshape", &[&product, &part("shape")], out, Vec::new());
    }

    /// The map with the places of its pixels, whatever its size.
    fn coordinates(&mut self, last: f32, x: &str, out: &str) {
        let part = |name: &str| format!("{out}.{name}");
        let batch = vec![int("start", 0), int("end", 1)];
        self.emit("Shape", &[x], &part("batch"), batch);
        self.emit(
            "Shape",
            &[x],
            &part("size"),
            vec![int("start", 2), int("end", 4)],
        );
        let one = self.ints(part("single"), &[1]);
        let shape = [&part("batch")[..], &one, &part("size")];
        self.emit("Concat", &shape, &part("shape"), vec![int("axis", 0)]);
        let one = self.floats(part("1"), &[], &[1.0]);
        let whole = self.floats(part("whole"), &[], &[last + 1.0]);
        let mut maps = vec![x.to_owned()];
        for axis in [3, 2] {
            let part = |name: &str| part(&format!("axis{axis}.{name}"));
            self.counter(x, axis, &part("count"));
            self.size_of(x, axis, &part("size"));
            self.emit("Sub", &[&part("size"), &one], &part("last"), Vec::new());
            self.emit("Max", &[&part("last"), &one], &part("length"), Vec::new());
            self.emit("Div", &[&whole, &part("length")], &part("step"), Vec::new());
            self.emit(
                "Mul",
                &[&part("count"), &part("step")],
                &part("way"),
                Vec::new(),
            );
            self.emit("Sub", &[&part("way"), &one], &part("place"), Vec::new());
            let mut line = [1, 1, 1, 1];
            line[axis] = -1;
            let line = self.signed(part("line.shape"), &line);
            self.emit(
                "Reshape",
                &[&part("place"), &line],
                &part("line"),
                Vec::new(),
            );
            self.emit(
                "Expand",
                &[&part("line"), &format!("{out}.shape")],
                &part("map"),
                Vec::new(),
            );
            maps.push(part("map"));
        }
        let maps: Vec<&str> = maps.iter().map(String::as_str).collect();
        self.emit("Concat", &maps, out, vec![int("axis", 1)]);
    }

    /// Each level pools its own regions; their results then go to the regions' places.
    fn roi_align(&mut self, node: &Node, x: &[&str], out: &str) {
        let Op::RoiAlign { strides, .. } = &node.op else {
            return;
        };
        let (rois, levels) = (x[0], &x[1..]);
        let part = |name: &str| format!("{out}.{name}");
        if let [map] = levels {
            self.pool_level(node, 0, map, rois, out);
            return;
        }
        let mut edges = Vec::new();
        for (i, edge) in ["", "left", "top", "right", "bottom"]
            .into_iter()
            .enumerate()
            .skip(1)
        {
            let index = self.index(part(&format!("{edge}.index")), i);
            self.emit("Gather", &[rois, &index], &part(edge), vec![int("axis", 1)]);
            edges.push(part(edge));
        }
        let zero = self.floats(part("zero"), &[], &[0.0]);
        for (i, side) in ["width", "height"].into_iter().enumerate() {
            let difference = part(&format!("{side}.signed"));
            self.emit("Sub", &[&edges[i + 2], &edges[i]], &difference, Vec::new());
            self.emit("Max", &[&difference, &zero], &part(side), Vec::new());
        }
        self.emit(
            "Mul",
            &[&part("width"), &part("height")],
            &part("area"),
            Vec::new(),
        );
        let mut places = Vec::new();
        let mut pooled = Vec::new();
        let areas = level_areas(strides);
        for (l, map) in levels.iter().enumerate() {
            let part = |name: &str| part(&format!("level{l}.{name}"));
            let area = format!("{out}.area");
            let bound = |at: usize| areas.get(at).copied();
            let mut conditions = Vec::new();
            if let Some(least) = l.checked_sub(1).and_then(bound) {
                let least = self.floats(part("least"), &[], &[least]);
                self.emit(
                    "GreaterOrEqual",
                    &[&area, &least],
                    &part("above"),
                    Vec::new(),
                );
                conditions.push(part("above"));
            }
            if let Some(end) = bound(l) {
                let end = self.floats(part("end"), &[], &[end]);
                self.emit("Less", &[&area, &end], &part("below"), Vec::new());
                conditions.push(part("below"));
            }
            let mut chosen = conditions.swap_remove(0);
            if let Some(other) = conditions.pop() {
                self.emit("And", &[&chosen, &other], &part("within"), Vec::new());
                chosen = part("within");
            }
            self.emit("NonZero", &[&chosen], &part("nonzero"), Vec::new());
            let axes = self.ints(part("axes"), &[0]);
            self.emit(
                "Squeeze",
                &[&part("nonzero"), &axes],
                &part("places"),
                Vec::new(),
            );
            let axis = vec![int("axis", 0)];
            self.emit("Gather", &[rois, &part("places")], &part("rois"), axis);
            self.pool_level(node, l, map, &part("rois"), &part("pooled"));
            places.push(part("places"));
            pooled.push(part("pooled"));
        }
        let axis = || vec![int("axis", 0)];
        self.emit("Concat", &all(&[], &places), &part("order"), axis());
        self.emit("Concat", &all(&[], &pooled), &part("sorted"), axis());
        self.emit("Shape", &[&part("sorted")], &part("shape"), Vec::new());
        self.emit(
            "ConstantOfShape",
            &[&part("shape")],
            &part("empty"),
            Vec::new(),
        );
        let last = self.ints(part("last"), &[1]);
        self.emit(
            "Unsqueeze",
            &[&part("order"), &last],
            &part("rows"),
            Vec::new(),
        );
        let inputs = [part("empty"), part("rows"), part("sorted")];
        self.emit("ScatterND", &all(&[], &inputs), out, Vec::new());
    }

    /// RoIAlign on one level.
    fn pool_level(&mut self, node: &Node, level: usize, map: &str, rois: &str, out: &str) {
        let Op::RoiAlign {
            size: [height, width],
            sampling,
            strides,
            aligned,
        } = &node.op
        else {
            return;
        };
        let part = |name: &str| format!("{out}.{name}");
        let first = self.index(part("image.index"), 0);
        self.emit(
            "Gather",
            &[rois, &first],
            &part("image.float"),
            vec![int("axis", 1)],
        );
        let cast = vec![int("to", INT64 as usize)];
        self.emit("Cast", &[&part("image.float")], &part("image"), cast);
        let [start, end, axis] = [("start", 1), ("end", 5), ("axis", 1)]
            .map(|(name, v)| self.ints(part(&format!("box.{name}")), &[v]));
        self.emit(
            "Slice",
            &[rois, &start, &end, &axis],
            &part("boxes"),
            Vec::new(),
        );
        let mode = if *aligned {
            "half_pixel"
        } else {
            "output_half_pixel"
        };
        let attributes = vec![
            text("mode", "avg"),
            text("coordinate_transformation_mode", mode),
            int("output_height", *height),
            int("output_width", *width),
            int("sampling_ratio", *sampling),
            float("spatial_scale", 1.0 / strides[level] as f32),
        ];
        let inputs = [map, &part("boxes"), &part("image")];
        self.emit("RoiAlign", &inputs, out, attributes);
    }

    /// 0, 1, 2 … up to the size of an axis of `x`, floats.
    fn counter(&mut self, x: &str, axis: usize, out: &str) {
        let size = format!("{out}.end");
        self.size_of(x, axis, &size);
        let zero = self.floats(format!("{out}.zero"), &[], &[0.0]);
        let one = self.floats(format!("{out}.one"), &[], &[1.0]);
        self.emit("Range", &[&zero, &size, &one], out, Vec::new());
    }

    /// The size of an axis of `x`, a float scalar.
    fn size_of(&mut self, x: &str, axis: usize, out: &str) {
        let part = |name: &str| format!("{out}.{name}");
        self.emit("Shape", &[x], &part("all"), Vec::new());
        let index = self.index(part("index"), axis);
        self.emit(
            "Gather",
            &[&part("all"), &index],
            &part("whole"),
            vec![int("axis", 0)],
        );
        let cast = vec![int("to", FLOAT as usize)];
        self.emit("Cast", &[&part("whole")], out, cast);
    }

    /// A scalar index.
    fn index(&mut self, name: String, value: usize) -> String {
        let raw = (value as i64).to_le_bytes().to_vec();
        self.constant(name, &[], INT64, raw)
    }

    /// Whole numbers that may be negative.
    fn signed(&mut self, name: String, data: &[i64]) -> String {
        let raw = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, &[data.len()], INT64, raw)
    }
}
