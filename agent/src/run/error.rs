//! Why a run ended without doing what was asked, and the exit status that says so.

use std::process::ExitCode;

/// A run that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The caller asked for something that makes no sense or is not there.
    #[error("{0}")]
    Usage(String),
    /// This process may not do it, or this kernel cannot.
    #[error("{0}")]
    Unsupported(String),
    /// Something went wrong.
    #[error("{0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RunError {
    /// Something went wrong.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// The exit status: 1 failed, 2 bad usage, 3 not permitted or not supported.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unsupported(_) => 3,
        })
    }
}
