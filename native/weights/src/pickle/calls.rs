//! Calls whose meaning is known. None is ever made: each is turned into the data it stands for.

use super::PickleError;
use super::globals::Global;
use super::machine::{Machine, Res};
use super::value::{Ref, Value};

/// Most arguments of any call that is understood.
const MAX_ARGS: usize = 16;

impl Machine<'_> {
    /// REDUCE and NEWOBJ: a call whose meaning is known.
    pub(super) fn call(&mut self, callee: Ref, args: Ref) -> Res<()> {
        let Value::Global(global) = *self.arena.get(callee) else {
            return Err(self.malformed("a call of something that is no function"));
        };
        let Value::Tuple(items) = self.arena.get(args) else {
            return Err(self.malformed("a call without an argument tuple"));
        };
        if items.len() > MAX_ARGS {
            return Err(self.malformed("a call with arguments that make no sense"));
        }
        let items = items.clone();
        match (global, items.as_slice()) {
            (Global::Dict, []) => self.push(Value::Dict(Vec::new())),
            (Global::Dict, &[source]) => {
                let pairs = self.dict_argument(source)?;
                self.charge_copy(pairs.len())?;
                self.push(Value::Dict(pairs))
            }
            (Global::DefaultDict, [] | [_]) => self.push(Value::Dict(Vec::new())),
            (Global::Set, []) => self.push(Value::Set(Vec::new())),
            (Global::Set, &[source]) => {
                let list = self.arena.items(source).map(<[Ref]>::to_vec);
                let list = list.ok_or_else(|| self.malformed("a set made of no list"))?;
                self.charge_copy(list.len())?;
                self.push(Value::Set(list))
            }
            (Global::Sequence, []) => self.push(Value::List(Vec::new())),
            (Global::Sequence, &[source]) if self.arena.items(source).is_some() => {
                self.push_ref(source)
            }
            (Global::Encode, &[source, ..]) if items.len() <= 2 => {
                let latin1 = items.get(1).is_some_and(|&e| {
                    matches!(self.arena.str(e), Some("latin1" | "latin-1" | "iso-8859-1"))
                });
                match self.arena.get(source) {
                    Value::Str(_) if latin1 => self.push(Value::Latin1(source)),
                    _ => Err(self.malformed("an encoding other than latin1")),
                }
            }
            (Global::Reconstructor, &[class, ..]) => match self.arena.get(class) {
                Value::Global(Global::DataClass) => self.push(Value::Call {
                    global: Global::DataClass,
                    args,
                    state: None,
                }),
                _ => Err(self.malformed("an object of a class that is not read")),
            },
            (Global::PaddleTensor, &[expression, names]) => self.paddle_tensor(expression, names),
            (
                Global::DataClass
                | Global::Bytes
                | Global::NumpyReconstruct
                | Global::NumpyFromBuffer
                | Global::NumpyScalar
                | Global::NumpyDtype
                | Global::TorchTensor
                | Global::TorchTensorV3
                | Global::TorchParameter
                | Global::TorchSize
                | Global::Opaque,
                _,
            ) => self.push(Value::Call {
                global,
                args,
                state: None,
            }),
            _ => Err(self.malformed("a call with arguments that make no sense")),
        }
    }

    fn dict_argument(&self, source: Ref) -> Res<Vec<(Ref, Ref)>> {
        match self.arena.get(source) {
            Value::Dict(pairs) => Ok(pairs.clone()),
            Value::List(entries) => entries
                .iter()
                .map(|&entry| match self.arena.items(entry) {
                    Some(&[k, v]) => Ok((k, v)),
                    _ => Err(self.malformed("a dict made of something other than pairs")),
                })
                .collect(),
            _ => Err(self.malformed("a dict made of something other than pairs")),
        }
    }

    /// Paddle writes a tensor as the call `eval('data', {'data': array})`. Only this one text is
    /// understood, and it is read as the array; there is nothing here that evaluates.
    fn paddle_tensor(&mut self, expression: Ref, names: Ref) -> Res<()> {
        if let (Some("data"), Value::Dict(pairs)) =
            (self.arena.str(expression), self.arena.get(names))
            && let &[(key, array)] = pairs.as_slice()
            && self.arena.str(key) == Some("data")
        {
            return self.push_ref(array);
        }
        Err(PickleError::Forbidden {
            module: "builtins".into(),
            name: "eval".into(),
            at: self.op_at,
        })
    }

    pub(super) fn build(&mut self) -> Res<()> {
        let new_state = self.pop()?;
        let target = self.top()?;
        match &mut self.arena.0[target as usize] {
            Value::Call { state, .. } => *state = Some(new_state),
            // Attributes of dict subclasses (`_metadata` of state dicts) are of no interest.
            Value::Dict(_) => {}
            _ => return Err(self.malformed("a state for something that has none")),
        }
        Ok(())
    }
}
