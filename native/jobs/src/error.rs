//! Errors as data: the same object in Rust, over the job protocol and in the HTTP answer.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Stable, machine-readable reason of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// An argument is missing, mistyped or out of range.
    InvalidArgument,
    /// A file, folder, layer or record is not there.
    NotFound,
    /// A prerequisite is missing (no checkpoint, no split …).
    NotReady,
    /// The model or type cannot do this.
    Unsupported,
    /// A file exists but its content cannot be used (damaged image, wrong list line …).
    InvalidData,
    /// The path lies outside the allowed roots.
    ForbiddenPath,
    /// Host memory, GPU memory, disk or a configured limit is exhausted.
    ResourceExhausted,
    /// Loss or weights became NaN or infinite.
    NonFinite,
    /// The device failed; the process that saw this must end.
    DeviceFault,
    /// The job was asked to stop.
    Cancelled,
    /// Anything else; the message is for the log.
    Internal,
}

/// A failure with everything a client needs to react to it.
#[derive(Debug, Clone, Serialize, Deserialize, TS, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// Stable reason.
    pub code: ErrorCode,
    /// One human sentence naming what is wrong.
    pub message: String,
    /// Names and numbers belonging to the message (field, path, state, bytes …).
    #[serde(default)]
    #[ts(type = "Record<string, unknown>")]
    pub context: serde_json::Map<String, serde_json::Value>,
    /// Whether the same call can succeed later without a change.
    #[serde(default)]
    pub retryable: bool,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

impl JobError {
    /// A failure with code and message only.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            context: serde_json::Map::new(),
            retryable: code == ErrorCode::ResourceExhausted,
            hint: None,
        }
    }

    /// Adds one named value to the context.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.context.insert(key.to_owned(), value.into());
        self
    }

    /// Adds the advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The job was asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorCode::Cancelled, "the job was stopped")
    }
}

impl From<std::io::Error> for JobError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let code = match error.kind() {
            ErrorKind::NotFound => ErrorCode::NotFound,
            ErrorKind::StorageFull | ErrorKind::OutOfMemory | ErrorKind::QuotaExceeded => {
                ErrorCode::ResourceExhausted
            }
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}
