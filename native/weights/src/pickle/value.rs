//! What a pickle builds.

use std::borrow::Cow;

use super::globals::Global;
use super::text;

/// Index of a value in the arena.
pub(crate) type Ref = u32;

/// A value; references point into the arena and may form cycles.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number beyond 64 bits, little-endian two's complement.
    Big(&'a [u8]),
    Float(f64),
    Str(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Bytes written as text of code points below 256; decoded only where they are used.
    Latin1(Ref),
    List(Vec<Ref>),
    Tuple(Vec<Ref>),
    Set(Vec<Ref>),
    Dict(Vec<(Ref, Ref)>),
    Global(Global),
    /// A reference out of the pickle (torch storages).
    Persistent(Ref),
    /// A call that is understood, never made; `state` is what BUILD would set.
    Call {
        global: Global,
        args: Ref,
        state: Option<Ref>,
    },
}

/// All values of a pickle.
#[derive(Debug)]
pub(crate) struct Arena<'a>(pub(super) Vec<Value<'a>>);

impl<'a> Arena<'a> {
    pub(crate) fn get(&self, r: Ref) -> &Value<'a> {
        // Every `Ref` was made by `push` on this arena, which never shrinks.
        &self.0[r as usize]
    }

    /// All values.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref> {
        0..self.0.len() as Ref
    }

    /// The items of a tuple or list.
    pub(crate) fn items(&self, r: Ref) -> Option<&[Ref]> {
        match self.get(r) {
            Value::Tuple(v) | Value::List(v) => Some(v),
            _ => None,
        }
    }

    /// Text, also where Python 2 wrote it as bytes.
    pub(crate) fn str(&self, r: Ref) -> Option<&str> {
        match self.get(r) {
            Value::Str(s) => Some(s),
            Value::Bytes(b) => std::str::from_utf8(b).ok(),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn usize(&self, r: Ref) -> Option<usize> {
        match self.get(r) {
            Value::Int(i) => usize::try_from(*i).ok(),
            Value::Bool(b) => Some(usize::from(*b)),
            _ => None,
        }
    }

    /// A tuple or list of sizes.
    pub(crate) fn sizes(&self, r: Ref) -> Option<Vec<usize>> {
        let items = match self.get(r) {
            // torch.Size((…)) keeps its one argument.
            Value::Call {
                global: Global::TorchSize,
                args,
                ..
            } => self.items(*self.items(*args)?.first()?)?,
            _ => self.items(r)?,
        };
        items.iter().map(|&i| self.usize(i)).collect()
    }

    /// Raw bytes, decoding those written as text.
    pub(crate) fn bytes(&self, r: Ref) -> Option<Cow<'_, [u8]>> {
        match self.get(r) {
            Value::Bytes(b) => Some(Cow::Borrowed(b)),
            Value::Latin1(s) => match self.get(*s) {
                Value::Str(s) if s.is_ascii() => Some(Cow::Borrowed(s.as_bytes())),
                Value::Str(s) => text::latin1(s).map(Cow::Owned),
                _ => None,
            },
            Value::Call {
                global: Global::Bytes,
                args,
                ..
            } => match self.items(*args)? {
                [] => Some(Cow::Borrowed(&[])),
                [one] => match self.get(*one) {
                    Value::Bytes(b) => Some(Cow::Borrowed(b)),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }
}
