//! Why and until when a CA may not be asked.

use std::fmt;

use crate::clock::UnixTime;
use crate::schedule::{Scope, text};

/// Why and until when a CA may not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Not before.
    pub until: UnixTime,
    pub reason: WaitReason,
}

/// What keeps from asking a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Our own pace: nobody can be asked for at this account until then.
    Pace,
    /// What came was not valid by our clock, with what was said of it: nothing else would be.
    Clock(String),
    /// A limit of the CA's, with what it said.
    Limit(Scope, String),
}

impl WaitReason {
    /// Whether it concerns some names alone, and others may be asked for meanwhile.
    pub fn is_of_names(&self) -> bool {
        let Self::Limit(scope, _) = self else {
            return false;
        };
        matches!(scope, Scope::Set | Scope::Domain(_) | Scope::Identifier(_))
    }

    /// The word for it in JSON and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pace => "pace",
            Self::Clock(_) => "clock",
            Self::Limit(scope, _) => scope.as_str(),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = text(self.until);
        match &self.reason {
            WaitReason::Pace => write!(f, "waits for its turn until {until}"),
            WaitReason::Clock(said) => {
                write!(f, "the CA is not asked for anything until {until}: {said}")
            }
            WaitReason::Limit(scope, said) => {
                write!(f, "the CA limits {scope} until {until}: {said}")
            }
        }
    }
}
