//! A restricted reader of Python pickles: data in, plain values out, nothing executed.
//!
//! A pickle is a program for a small stack machine. This one knows the opcodes that build plain
//! data, and of "call this function" only calls whose meaning is fixed here (ordered dict, numpy
//! array, torch tensor, …); the name of any other class or function ends the reading with
//! [`PickleError::Forbidden`]. Memory stays within a small multiple of the input: lengths are
//! checked against what is left of it, values live in one arena with a ceiling, shared values are
//! not copied, and the JSON made from them has a budget of its own.
//!
//! Format: Python's `pickletools`, protocols 0 to 5 without out-of-band buffers.

mod calls;
mod globals;
mod json;
mod machine;
pub(crate) mod numpy;
mod text;
mod value;

pub(crate) use globals::Global;
pub use globals::Profile;
pub(crate) use machine::{Limits, Loaded, run};
pub(crate) use value::{Arena, Ref, Value};

/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It names a class or function outside the allow-list.
    #[error(
        "at byte {at} it refers to '{module}.{name}', which plain data does not need; \
         nothing was executed"
    )]
    Forbidden {
        /// Python module.
        module: String,
        /// Class or function.
        name: String,
        /// Offset.
        at: usize,
    },
    /// It uses an opcode that plain data does not need.
    #[error("at byte {at} it uses the pickle operation 0x{opcode:02x}, which is not allowed")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Offset.
        at: usize,
    },
    /// It ends in the middle of a value.
    #[error("it ends early, at byte {at}")]
    Truncated {
        /// Offset of the value that is cut off.
        at: usize,
    },
    /// It is no pickle or breaks the format's rules.
    #[error("at byte {at}: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Offset.
        at: usize,
    },
    /// It is, or would unpack to, more than the limit.
    #[error("it is too large: {what}")]
    TooLarge {
        /// Which limit.
        what: String,
    },
    /// It is a sound pickle but its values are not what this kind of file holds.
    #[error("unexpected content: {what}")]
    Content {
        /// What is wrong.
        what: String,
    },
}

impl PickleError {
    pub(crate) fn content(what: impl Into<String>) -> Self {
        Self::Content { what: what.into() }
    }
}

/// Largest pickle [`read`] accepts: statistics of a million images stay below it.
const MAX_INPUT: usize = 512 << 20;

/// Reads a pickle as JSON, allowing only what files of this profile hold.
///
/// Dict keys become text (numbers in Python's notation), tuples and sets arrays, NaN and infinity
/// `null`, numpy arrays nested arrays, numpy scalars numbers, an object of an allowed class its
/// attribute dict.
///
/// # Errors
/// [`PickleError`] for anything damaged, too large or outside the profile. Never panics.
pub fn read(bytes: &[u8], profile: Profile) -> Result<serde_json::Value, PickleError> {
    if bytes.len() > MAX_INPUT {
        return Err(PickleError::TooLarge {
            what: format!("{} bytes, the limit is {MAX_INPUT}", bytes.len()),
        });
    }
    let loaded = run(bytes, profile, Limits { values: 8 << 20 })?;
    json::convert(&loaded, bytes.len())
}
