//! Why an image cannot be used.

use oarlock_jobs::{ErrorCode, JobError};

use crate::Format;

/// A failure of a decoder or encoder. Messages do not name the file: the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The file has no content.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// The content has no image signature.
    #[error("not an image: the content is {0}")]
    NotAnImage(String),
    /// An image, but of a kind that is not read.
    #[error("unsupported {format} image: {what}")]
    Unsupported {
        /// Its format.
        format: Format,
        /// What is not read.
        what: String,
    },
    /// The header announces more pixels than allowed.
    #[error("{width}×{height} pixels are more than the limit of {limit} pixels")]
    TooManyPixels {
        /// Announced width.
        width: u64,
        /// Announced height.
        height: u64,
        /// The limit.
        limit: u64,
    },
    /// The file is larger than allowed.
    #[error("{bytes} bytes are more than the limit of {limit} bytes for one image")]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The content is truncated or otherwise damaged.
    #[error("damaged {format} image: {reason}")]
    Damaged {
        /// Its format.
        format: Format,
        /// What the decoder said.
        reason: String,
    },
    /// The file cannot be read.
    #[error("{0}")]
    Io(String, std::io::ErrorKind),
    /// An argument makes no sense (size 0, buffer of a wrong length).
    #[error("{0}")]
    Argument(String),
}

impl ImageError {
    pub(crate) fn damaged(format: Format, reason: impl Into<String>) -> Self {
        Self::Damaged {
            format,
            reason: reason.into(),
        }
    }

    pub(crate) fn unsupported(format: Format, what: impl Into<String>) -> Self {
        Self::Unsupported {
            format,
            what: what.into(),
        }
    }
}

impl From<std::io::Error> for ImageError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = error.kind();
        match kind {
            ErrorKind::NotFound => Self::Io("there is no such file".into(), kind),
            ErrorKind::PermissionDenied => Self::Io("no permission to read the file".into(), kind),
            _ => Self::Io(error.to_string(), kind),
        }
    }
}

impl From<ImageError> for JobError {
    fn from(error: ImageError) -> Self {
        let code = match &error {
            ImageError::Io(_, std::io::ErrorKind::NotFound) => ErrorCode::NotFound,
            ImageError::Io(..) => ErrorCode::Internal,
            ImageError::TooManyPixels { .. } | ImageError::TooManyBytes { .. } => {
                ErrorCode::InvalidData
            }
            ImageError::Unsupported { .. } => ErrorCode::Unsupported,
            ImageError::Argument(_) => ErrorCode::InvalidArgument,
            _ => ErrorCode::InvalidData,
        };
        Self::new(code, error.to_string())
    }
}
