//! Why a dataset or a batch cannot be had.

use std::path::PathBuf;

use oarlock_jobs::{ErrorCode, JobError};

/// A failure of the loader or of a dataset file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Too large a share of the images cannot be read.
    #[error("{bad} of {total} images cannot be read, more than the allowed {allowed:.1} %; the last one is {last}: {reason}", allowed = max_fraction * 100.0)]
    TooManyCorrupt {
        /// Images that failed.
        bad: usize,
        /// Images of the list.
        total: usize,
        /// Allowed share, 0–1.
        max_fraction: f64,
        /// The file that was one too many.
        last: String,
        /// Its reason.
        reason: String,
    },
    /// The file list or the folder is faulty.
    #[error("{0}")]
    Invalid(String),
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A worker thread ended unexpectedly.
    #[error("the data loader failed: {0}")]
    Worker(String),
}

impl From<DataError> for JobError {
    fn from(error: DataError) -> Self {
        let message = error.to_string();
        match error {
            DataError::TooManyCorrupt {
                bad, total, last, ..
            } => Self::new(ErrorCode::InvalidData, message)
                .with("bad", bad)
                .with("total", total)
                .with("path", last)
                .hint("replace or remove the damaged files and import the dataset again"),
            DataError::Invalid(_) => Self::new(ErrorCode::InvalidData, message),
            DataError::Io { source, path } => {
                let mut job = Self::from(source).with("path", path.display().to_string());
                job.message = message;
                job
            }
            DataError::Worker(_) => Self::new(ErrorCode::Internal, message),
        }
    }
}
