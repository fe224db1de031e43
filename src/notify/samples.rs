//! Values for tests.

use std::time::Duration;

use crate::config::model::{Hook, NotifyExec, Recipient};
use crate::event::{EventKind, Severity};

/// A hook that wants these events at once.
pub(super) fn hook(on: &[EventKind]) -> Hook {
    Hook {
        name: "test".into(),
        id: "0123456789abcdef".into(),
        on: on.iter().copied().collect(),
        named: on.iter().copied().collect(),
        severity: Severity::Info,
        sites: [].into(),
        repeat: Some(Duration::from_secs(3600)),
        digest: Duration::ZERO,
        recipient: Recipient::Exec(NotifyExec {
            program: "/bin/true".into(),
            arguments: Vec::new(),
            env: Vec::new(),
            timeout: Duration::from_secs(5),
        }),
    }
}
