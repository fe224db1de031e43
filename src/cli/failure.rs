//! How a command can end other than in success, and with which exit code.

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It failed: 1.
    Failed {
        error: anyhow::Error,
        hint: Option<String>,
    },
    /// The request makes no sense: 2.
    Usage(String),
    /// The arguments make no sense, and clap has said so: 2.
    UsageShown,
    /// The configuration is invalid, and the diagnostics have been shown: 3.
    Invalid,
    /// Some certificates need attention, and have been shown: 4.
    Found,
    /// The reader of stdout has read enough: 0.
    ReaderGone,
    /// The gateway ran in a separate process, which has ended with this code and said why.
    Ended(u8),
}

impl Failure {
    /// A failure with a hint on what to do about it.
    pub(super) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self::Failed {
            error: error.into(),
            hint: Some(hint.into()),
        }
    }

    /// The process's exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Ended(code) => *code,
            Self::Failed { .. } => 1,
            Self::Usage(_) | Self::UsageShown => 2,
            Self::Invalid => 3,
            Self::Found => 4,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed { error, hint: None }
    }
}
