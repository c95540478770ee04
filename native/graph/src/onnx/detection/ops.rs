//! Short names for the ONNX operations that post-processing is made of. Every method returns the name of its result.

use super::super::lower::{INT64, Lowering, int};
use super::super::proto::AttributeProto;

/// Nodes behind a network.
pub(super) struct Tail<'l, 'a> {
    lowering: &'l mut Lowering<'a>,
    /// Height and width of the network's input.
    pub image_size: [usize; 2],
    stage: &'static str,
    count: usize,
}

impl<'l, 'a> Tail<'l, 'a> {
    pub fn new(lowering: &'l mut Lowering<'a>, image_size: [usize; 2]) -> Self {
        Self::staged(lowering, image_size, "detect")
    }

    /// One of several in a file, each with its own name.
    pub fn staged(
        lowering: &'l mut Lowering<'a>,
        image_size: [usize; 2],
        stage: &'static str,
    ) -> Self {
        Self {
            lowering,
            image_size,
            stage,
            count: 0,
        }
    }

    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("{}/{}", self.stage, self.count)
    }

    pub fn op(&mut self, kind: &str, inputs: &[&str]) -> String {
        self.op_with(kind, inputs, Vec::new())
    }

    pub fn op_with(
        &mut self,
        kind: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let out = self.fresh();
        self.lowering.emit(kind, inputs, &out, attributes);
        out
    }

    /// Gives a value its final name.
    pub fn name(&mut self, value: &str, name: &str) {
        self.lowering.emit("Identity", &[value], name, Vec::new());
    }

    pub fn floats(&mut self, dims: &[usize], data: &[f32]) -> String {
        let name = self.fresh();
        self.lowering.floats(name, dims, data)
    }

    pub fn scalar(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    pub fn ints(&mut self, data: &[i64]) -> String {
        let name = self.fresh();
        let raw = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.lowering.constant(name, &[data.len()], INT64, raw)
    }

    pub fn add(&mut self, a: &str, b: &str) -> String {
        self.op("Add", &[a, b])
    }

    pub fn sub(&mut self, a: &str, b: &str) -> String {
        self.op("Sub", &[a, b])
    }

    pub fn mul(&mut self, a: &str, b: &str) -> String {
        self.op("Mul", &[a, b])
    }

    pub fn div(&mut self, a: &str, b: &str) -> String {
        self.op("Div", &[a, b])
    }

    /// `a · factor + offset`.
    pub fn affine(&mut self, a: &str, factor: f32, offset: f32) -> String {
        let factor = self.scalar(factor);
        let offset = self.scalar(offset);
        let scaled = self.mul(a, &factor);
        self.add(&scaled, &offset)
    }

    pub fn sigmoid(&mut self, a: &str) -> String {
        self.op("Sigmoid", &[a])
    }

    pub fn reshape(&mut self, a: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.op("Reshape", &[a, &shape])
    }

    pub fn transpose(&mut self, a: &str, order: &[usize]) -> String {
        self.op_with(
            "Transpose",
            &[a],
            vec![super::super::lower::ints("perm", order)],
        )
    }

    /// `a[start..end]` along `axis`.
    pub fn slice(&mut self, a: &str, axis: i64, start: usize, end: usize) -> String {
        let (start, end) = (self.ints(&[start as i64]), self.ints(&[end as i64]));
        let axis = self.ints(&[axis]);
        self.op("Slice", &[a, &start, &end, &axis])
    }

    pub fn concat(&mut self, parts: &[String], axis: usize) -> String {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.op_with("Concat", &parts, vec![int("axis", axis)])
    }

    pub fn gather(&mut self, a: &str, indices: &str, axis: usize) -> String {
        self.op_with("Gather", &[a, indices], vec![int("axis", axis)])
    }

    pub fn select(&mut self, condition: &str, a: &str, b: &str) -> String {
        self.op("Where", &[condition, a, b])
    }

    pub fn unsqueeze(&mut self, a: &str, axis: i64) -> String {
        let axis = self.ints(&[axis]);
        self.op("Unsqueeze", &[a, &axis])
    }

    pub fn squeeze(&mut self, a: &str, axis: i64) -> String {
        let axis = self.ints(&[axis]);
        self.op("Squeeze", &[a, &axis])
    }

    /// Largest (`ReduceMax`) or smallest (`ReduceMin`) values along an axis, which goes.
    pub fn reduce(&mut self, kind: &str, a: &str, axis: usize) -> String {
        let attributes = vec![
            super::super::lower::ints("axes", &[axis]),
            int("keepdims", 0),
        ];
        self.op_with(kind, &[a], attributes)
    }

    /// The `count` (an int64 [1]) greatest along the last axis, falling, and their places.
    pub fn top(&mut self, a: &str, count: &str) -> (String, String) {
        let (values, places) = (self.fresh(), self.fresh());
        self.lowering
            .emit_all("TopK", &[a, count], &[&values, &places], Vec::new());
        (values, places)
    }

    /// The smaller one of `limit` and the size of the last axis of a vector, int64 [1].
    pub fn at_most(&mut self, vector: &str, limit: usize) -> String {
        let length = self.op("Shape", &[vector]);
        let limit = self.ints(&[limit as i64]);
        self.op("Min", &[&length, &limit])
    }

    pub fn cast(&mut self, a: &str, kind: i32) -> String {
        self.op_with("Cast", &[a], vec![int("to", kind as usize)])
    }
}
