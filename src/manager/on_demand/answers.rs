//! What those are told who wait for a name.

use std::time::Duration;

use super::super::TlsManager;
use super::super::renewal::NameStatus;
use crate::clock::UnixTime;
use crate::host::HostName;
use crate::on_demand::ObtainError;

impl TlsManager {
    /// Tells all who wait how their names stand, where that is decided.
    pub(in crate::manager) fn answer_all(&mut self, now: UnixTime) {
        for name in self.requests.waited_for() {
            self.answer(&name, now, false);
        }
    }

    /// Tells who waits for `name` how it stands, where that is decided; `is_begun` where that is
    /// after work on it.
    pub(super) fn answer(&self, name: &HostName, now: UnixTime, is_begun: bool) {
        let known = self.names.known.get(name);
        let stand = known.map_or(NameStatus::Unknown, |known| {
            self.renewals.stand(&known.spec, now)
        });
        match stand {
            NameStatus::Pending => {}
            NameStatus::Served => self.requests.answer(name, &Ok(())),
            NameStatus::Deferred(deferred) => {
                let retry_after = deferred.next.map(|next| seconds(next.saturating_sub(now)));
                self.tell_refused(name, &deferred.why, retry_after, is_begun);
            }
            NameStatus::Unknown => self.refuse(name, "it may no longer have one", None),
        }
    }

    /// Tells who waits for `name` that nothing was begun for it, and why.
    pub(super) fn refuse(&self, name: &HostName, why: &str, retry_after: Option<Duration>) {
        self.tell_refused(name, why, retry_after, false);
    }

    fn tell_refused(
        &self,
        name: &HostName,
        why: &str,
        retry_after: Option<Duration>,
        is_begun: bool,
    ) {
        let not_made = ObtainError {
            why: why.to_owned(),
            retry_after,
            is_begun,
        };
        self.requests.answer(name, &Err(not_made));
    }
}

pub(super) fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
