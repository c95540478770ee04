//! Why weights could not be read or written.

use std::path::{Path, PathBuf};

use oarlock_jobs::{ErrorCode, JobError};

use crate::pickle::PickleError;

/// A weight file that cannot be used, with the file and the reason.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// There is no such file, or the folder holds no weights.
    #[error("no weights at '{}': {why}", path.display())]
    NotFound {
        /// What was looked for.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The file is of a kind that is not read.
    #[error("'{}' cannot be used as weights: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: String,
    },
    /// The file is damaged or does not hold what its kind promises.
    #[error("the weight file '{}' is damaged or malformed: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The pickled part of the file was refused.
    #[error("the weight file '{}' was refused: {source}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: PickleError,
    },
    /// Reading or writing failed.
    #[error("'{}': {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl WeightError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            return Self::NotFound {
                path: path.to_owned(),
                why: "the file does not exist".into(),
            };
        }
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn invalid(path: &Path, what: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

impl From<WeightError> for JobError {
    fn from(error: WeightError) -> Self {
        let message = error.to_string();
        let (code, path) = match &error {
            WeightError::NotFound { path, .. } => (ErrorCode::NotFound, path),
            WeightError::Unsupported { path, .. } => (ErrorCode::Unsupported, path),
            WeightError::Invalid { path, .. } | WeightError::Pickle { path, .. } => {
                (ErrorCode::InvalidData, path)
            }
            WeightError::Io { path, source } => {
                let code = match source.kind() {
                    std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::OutOfMemory => ErrorCode::ResourceExhausted,
                    _ => ErrorCode::Internal,
                };
                (code, path)
            }
        };
        JobError::new(code, message).with("path", path.display().to_string())
    }
}
