//! The stack machine.

use std::borrow::Cow;
use std::collections::HashMap;

use super::globals::{Profile, lookup};
use super::value::{Arena, Ref, Value};
use super::{PickleError, text};

/// Ceilings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Values in the arena.
    pub values: usize,
}

/// The result of running one pickle.
#[derive(Debug)]
pub(crate) struct Loaded<'a> {
    pub arena: Arena<'a>,
    /// The value on top at STOP.
    pub root: Ref,
    /// Bytes used, STOP included.
    pub consumed: usize,
}

/// Runs the pickle at the start of `input`; what follows its STOP is not looked at.
pub(crate) fn run(
    input: &[u8],
    profile: Profile,
    limits: Limits,
) -> Result<Loaded<'_>, PickleError> {
    let mut machine = Machine {
        input,
        at: 0,
        op_at: 0,
        profile,
        limits,
        arena: Arena(Vec::new()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    let root = machine.execute()?;
    Ok(Loaded {
        arena: machine.arena,
        root,
        consumed: machine.at,
    })
}

pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    pub(super) op_at: usize,
    profile: Profile,
    limits: Limits,
    pub(super) arena: Arena<'a>,
    stack: Vec<Ref>,
    marks: Vec<usize>,
    memo: HashMap<u64, Ref>,
    /// Cells copied out of containers by calls, which may name one container again and again.
    copied: usize,
}

pub(super) type Res<T> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    pub(super) fn malformed(&self, what: &str) -> PickleError {
        PickleError::Malformed {
            what: what.to_owned(),
            at: self.op_at,
        }
    }

    fn take(&mut self, n: usize) -> Res<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.input.len());
        let end = end.ok_or(PickleError::Truncated { at: self.op_at })?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    /// A little-endian unsigned number of `n` ≤ 8 bytes.
    fn number(&mut self, n: usize) -> Res<u64> {
        Ok(self
            .take(n)?
            .iter()
            .rev()
            .fold(0u64, |v, &b| v << 8 | u64::from(b)))
    }

    /// Bytes with a length of `n` bytes before them.
    fn counted(&mut self, n: usize) -> Res<&'a [u8]> {
        let len = self.number(n)?;
        let len = usize::try_from(len).map_err(|_| PickleError::Truncated { at: self.op_at })?;
        self.take(len)
    }

    fn line(&mut self) -> Res<&'a [u8]> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|&b| b == b'\n');
        let len = len.ok_or(PickleError::Truncated { at: self.op_at })?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    fn text_line(&mut self) -> Res<&'a str> {
        let line = self.line()?;
        std::str::from_utf8(line).map_err(|_| self.malformed("text that is not UTF-8"))
    }

    fn check(&self, len: usize, what: &str) -> Res<()> {
        if len < self.limits.values {
            return Ok(());
        }
        Err(PickleError::TooLarge {
            what: format!("more than {} {what}", self.limits.values),
        })
    }

    pub(super) fn push(&mut self, value: Value<'a>) -> Res<()> {
        self.check(self.arena.0.len(), "values")?;
        self.arena.0.push(value);
        self.push_ref((self.arena.0.len() - 1) as Ref)
    }

    pub(super) fn push_ref(&mut self, r: Ref) -> Res<()> {
        self.check(self.stack.len(), "values")?;
        self.stack.push(r);
        Ok(())
    }

    pub(super) fn charge_copy(&mut self, cells: usize) -> Res<()> {
        self.copied = self.copied.saturating_add(cells);
        self.check(self.copied, "copied values")
    }

    fn push_str(&mut self, bytes: &'a [u8]) -> Res<()> {
        // Python writes lone surrogates of undecodable file names; they cannot be kept in UTF-8.
        self.push(Value::Str(String::from_utf8_lossy(bytes)))
    }

    pub(super) fn pop(&mut self) -> Res<Ref> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.malformed("an operation lacks its operands"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.malformed("an operation lacks its operands"))
    }

    pub(super) fn top(&self) -> Res<Ref> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| self.malformed("an operation lacks its operand"))
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Res<Vec<Ref>> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.malformed("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(&self, items: &[Ref]) -> Res<Vec<(Ref, Ref)>> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.malformed("a dict with a key but no value"));
        }
        Ok(pairs.iter().map(|&[k, v]| (k, v)).collect())
    }

    fn global(&mut self, module: &str, name: &str) -> Res<()> {
        let found = lookup(self.profile, module, name).ok_or_else(|| {
            let short = |s: &str| s.chars().take(120).collect::<String>();
            PickleError::Forbidden {
                module: short(module),
                name: short(name),
                at: self.op_at,
            }
        })?;
        self.push(Value::Global(found))
    }

    fn memo_put(&mut self, index: u64) -> Res<()> {
        let top = self.top()?;
        self.check(self.memo.len(), "memo entries")?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn memo_get(&mut self, index: u64) -> Res<()> {
        let r = *self
            .memo
            .get(&index)
            .ok_or_else(|| self.malformed("an unknown memo entry"))?;
        self.push_ref(r)
    }

    fn memo_index(&mut self) -> Res<u64> {
        let line = self.text_line()?;
        line.trim()
            .parse()
            .map_err(|_| self.malformed("a memo index that is no number"))
    }

    fn long(&mut self, bytes: &'a [u8]) -> Res<()> {
        if bytes.len() > 8 {
            return self.push(Value::Big(bytes));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut raw = [if negative { 0xff } else { 0 }; 8];
        raw[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(raw)))
    }

    /// Extends the container under the new items in place (it may be shared through the memo).
    fn extend(&mut self, target: Ref, items: &[Ref], op: u8) -> Res<()> {
        let pairs = if matches!(op, b's' | b'u') {
            self.pairs(items)?
        } else {
            Vec::new()
        };
        match (op, &mut self.arena.0[target as usize]) {
            (b'a' | b'e', Value::List(list)) => list.extend_from_slice(items),
            (0x90, Value::Set(set)) => set.extend_from_slice(items),
            (b's' | b'u', Value::Dict(dict)) => dict.extend(pairs),
            _ => return Err(self.malformed("items for something that holds none")),
        }
        Ok(())
    }

    fn execute(&mut self) -> Res<Ref> {
        loop {
            self.op_at = self.at;
            let op = self.take(1)?[0];
            match op {
                b'.' => return self.pop(),
                0x80 => {
                    let protocol = self.number(1)?;
                    if protocol > 5 {
                        return Err(self.malformed("a pickle protocol newer than 5"));
                    }
                }
                0x95 => {
                    self.take(8)?; // FRAME: only a hint for readers of streams
                }
                b'(' => {
                    self.check(self.marks.len(), "marks")?;
                    self.marks.push(self.stack.len());
                }
                b'0' => {
                    // POP also removes a mark that is on top.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.push_ref(top)?;
                }
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'I' | b'L' => self.integer_line()?,
                b'J' => {
                    let v = self.number(4)? as u32 as i32;
                    self.push(Value::Int(i64::from(v)))?;
                }
                b'K' | b'M' => {
                    let v = self.number(if op == b'K' { 1 } else { 2 })?;
                    self.push(Value::Int(v as i64))?;
                }
                0x8a | 0x8b => {
                    let bytes = self.counted(if op == 0x8a { 1 } else { 4 })?;
                    self.long(bytes)?;
                }
                b'F' => {
                    let line = self.text_line()?;
                    let v = line.trim().parse();
                    self.push(Value::Float(
                        v.map_err(|_| self.malformed("a damaged number"))?,
                    ))?;
                }
                b'G' => {
                    let v = f64::from_bits(self.number(8)?.swap_bytes());
                    self.push(Value::Float(v))?;
                }
                b'S' => {
                    let line = self.line()?;
                    let v = text::string_literal(line);
                    let v = v.ok_or_else(|| self.malformed("a damaged string"))?;
                    self.push(Value::Bytes(Cow::Owned(v)))?;
                }
                b'V' => {
                    let line = self.line()?;
                    let v = text::raw_unicode(line);
                    let v = v.ok_or_else(|| self.malformed("a damaged string"))?;
                    self.push(Value::Str(Cow::Owned(v)))?;
                }
                b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => {
                    let width = match op {
                        b'U' | b'C' => 1,
                        b'T' | b'B' => 4,
                        _ => 8,
                    };
                    let bytes = self.counted(width)?;
                    self.push(Value::Bytes(Cow::Borrowed(bytes)))?;
                }
                b'X' | 0x8c | 0x8d => {
                    let width = match op {
                        0x8c => 1,
                        b'X' => 4,
                        _ => 8,
                    };
                    let bytes = self.counted(width)?;
                    self.push_str(bytes)?;
                }
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                0x8f => self.push(Value::Set(Vec::new()))?,
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Value::List(items))?;
                }
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.push(Value::Dict(pairs))?;
                }
                0x91 => {
                    let items = self.pop_mark()?;
                    self.push(Value::Set(items))?;
                }
                0x85..=0x87 => {
                    let mut items = Vec::with_capacity(3);
                    for _ in 0..op - 0x84 {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    self.push(Value::Tuple(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    let target = self.top()?;
                    self.extend(target, &[item], op)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    let target = self.top()?;
                    self.extend(target, &[key, value], op)?;
                }
                b'e' | b'u' | 0x90 => {
                    let items = self.pop_mark()?;
                    let target = self.top()?;
                    self.extend(target, &items, op)?;
                }
                b'p' => {
                    let index = self.memo_index()?;
                    self.memo_put(index)?;
                }
                b'g' => {
                    let index = self.memo_index()?;
                    self.memo_get(index)?;
                }
                b'q' | b'r' => {
                    let index = self.number(if op == b'q' { 1 } else { 4 })?;
                    self.memo_put(index)?;
                }
                b'h' | b'j' => {
                    let index = self.number(if op == b'h' { 1 } else { 4 })?;
                    self.memo_get(index)?;
                }
                0x94 => {
                    let index = self.memo.len() as u64;
                    self.memo_put(index)?;
                }
                b'c' => {
                    let module = self.text_line()?;
                    let name = self.text_line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let name = self.pop()?;
                    let module = self.pop()?;
                    let text = |r| self.arena.str(r).map(str::to_owned);
                    let (Some(module), Some(name)) = (text(module), text(name)) else {
                        return Err(self.malformed("a name that is no text"));
                    };
                    self.global(&module, &name)?;
                }
                b'R' | 0x81 => {
                    let args = self.pop()?;
                    let callee = self.pop()?;
                    self.call(callee, args)?;
                }
                b'b' => self.build()?,
                b'Q' if self.profile == Profile::Torch => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id))?;
                }
                // Everything else reaches outside: INST, OBJ, NEWOBJ_EX, PERSID, EXT, buffers.
                opcode => {
                    return Err(PickleError::Opcode {
                        opcode,
                        at: self.op_at,
                    });
                }
            }
        }
    }

    fn integer_line(&mut self) -> Res<()> {
        let line = self.text_line()?;
        match line {
            "00" => return self.push(Value::Bool(false)),
            "01" => return self.push(Value::Bool(true)),
            _ => {}
        }
        let digits = line.trim().trim_end_matches('L');
        let v = digits
            .parse()
            .map_err(|_| self.malformed("a damaged whole number"))?;
        self.push(Value::Int(v))
    }
}
