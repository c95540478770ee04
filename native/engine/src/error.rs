//! One error type for the engine; it crosses every boundary as an [`oarlock_jobs::JobError`].

use oarlock_jobs::{ErrorCode, JobError};
use tch::TchError;

/// A failure of engine code, boxed so that a `Result` stays small.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub Box<JobError>);

/// Result of engine code.
pub type Result<T> = std::result::Result<T, EngineError>;

impl EngineError {
    /// A failure with code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(JobError::new(code, message)))
    }

    /// Something the engine itself got wrong.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// Adds one named value to the context.
    #[must_use]
    pub fn with(self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        Self(Box::new(self.0.with(key, value)))
    }

    /// Adds the advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self(Box::new(self.0.hint(hint)))
    }

    /// Stable reason.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }
}

impl From<JobError> for EngineError {
    fn from(error: JobError) -> Self {
        Self(Box::new(error))
    }
}

impl From<EngineError> for JobError {
    fn from(error: EngineError) -> Self {
        *error.0
    }
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self(Box::new(error.into()))
    }
}

impl From<TchError> for EngineError {
    fn from(error: TchError) -> Self {
        match error {
            TchError::Torch(message) => Self::from_libtorch(&message),
            TchError::Io(error) => error.into(),
            other => Self::internal(other.to_string()),
        }
    }
}

impl EngineError {
    /// Classifies a message of libtorch. libtorch tells its failures apart only by text once they
    /// have passed through a C interface (and a failed CPU allocation has no type of its own even in C++);
    /// this is the one place that reads it.
    pub fn from_libtorch(message: &str) -> Self {
        let first = message.lines().next().unwrap_or(message);
        // A C++ backtrace may follow; it is for the log, not for people.
        let short = first
            .split(" (")
            .next()
            .filter(|s| s.len() > 20)
            .unwrap_or(first);
        let lower = message.to_ascii_lowercase();
        if lower.contains("out of memory")
            || lower.contains("can't allocate memory")
            || lower.contains("not enough memory")
            || lower.contains("bad_alloc")
        {
            return Self::new(
                ErrorCode::ResourceExhausted,
                format!("out of memory: {short}"),
            )
            .hint("use a smaller batch_size or image_shape");
        }
        if lower.contains("cuda error")
            || lower.contains("cudnn_status_")
            || lower.contains("device-side assert")
        {
            return Self::new(ErrorCode::DeviceFault, format!("the GPU failed: {short}"));
        }
        Self::internal(format!("libtorch: {short}")).with("libtorch", message)
    }
}
