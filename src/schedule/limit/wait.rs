//! Why and until when a CA may not be asked.

use std::fmt;

use crate::clock::UnixTime;
use crate::schedule::Scope;

/// Why and until when a CA may not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Not before.
    pub until: UnixTime,
    pub reason: WaitReason,
}

/// What prevents asking a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Our own pace: nothing can be requested with this account until then.
    Pace,
    /// The issued certificate was not valid by our clock, with the details: no other would be.
    Clock(String),
    /// A limit of the CA, with its words.
    Limit(Scope, String),
}

impl WaitReason {
    /// Returns true if it concerns only some names, and others may be requested meanwhile.
    pub fn is_of_names(&self) -> bool {
        let Self::Limit(scope, _) = self else {
            return false;
        };
        matches!(scope, Scope::Set | Scope::Domain(_) | Scope::Identifier(_))
    }

    /// Its name in JSON and in metrics.
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
        let until = self.until;
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
