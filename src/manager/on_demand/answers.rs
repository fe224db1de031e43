//! Answers the clients that wait for a name.

use std::time::Duration;

use super::super::TlsManager;
use crate::clock::UnixTime;
use crate::host::HostName;
use crate::on_demand::ObtainError;
use crate::renewal::NameStatus;

impl TlsManager {
    /// Answers all clients that wait for a name that is decided.
    pub(in crate::manager) fn answer_all_waiting(&mut self, now: UnixTime) {
        for name in self.requests.pending_names() {
            self.answer_waiting(&name, now, false);
        }
    }

    /// Tells who waits for `name` how it stands, where that is decided; `is_begun` where that is
    /// after work on it.
    pub(super) fn answer_waiting(&self, name: &HostName, now: UnixTime, is_begun: bool) {
        let known = self.names.known.get(name);
        let stand = known.map_or(NameStatus::Unknown, |known| {
            self.renewals.name_status(&known.spec, now)
        });
        match stand {
            NameStatus::Pending => {}
            NameStatus::Served => self.requests.answer_name(name, &Ok(())),
            NameStatus::Deferred(deferred) => {
                let retry_after = deferred
                    .next
                    .map(|next| duration_of_seconds(next.saturating_sub(now)));
                self.send_refusal(name, &deferred.why, retry_after, is_begun);
            }
            NameStatus::Unknown => {
                self.refuse_waiting(name, "it is no longer allowed to have one", None)
            }
        }
    }

    /// Tells who waits for `name` that nothing was begun for it, and why.
    pub(super) fn refuse_waiting(&self, name: &HostName, why: &str, retry_after: Option<Duration>) {
        self.send_refusal(name, why, retry_after, false);
    }

    fn send_refusal(
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
        self.requests.answer_name(name, &Err(not_made));
    }
}

pub(super) fn duration_of_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
