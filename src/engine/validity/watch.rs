//! What was reported of which name, so that each change is reported once, and its end too.

use std::collections::HashMap;

use crate::certificate::{Finding, Reason};
use crate::host::Pattern;

/// What a report is about: the first name of a certificate or a host, and what is wrong.
pub(super) type Topic = (Pattern, Reason);

/// What was reported and lasts.
#[derive(Default)]
pub(super) struct Watch {
    reported: HashMap<Topic, Finding>,
}

/// What is different from the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// What is to be reported.
    pub(super) begun: Vec<Topic>,
    /// What was reported and is over.
    pub(super) over: Vec<(Pattern, Finding)>,
}

impl Watch {
    /// Takes note that somebody else has reported that the certificate with this name is revoked.
    pub(super) fn note_revoked(&mut self, name: Pattern) {
        let finding = Finding::REVOKED;
        self.reported.insert((name, finding.reason), finding);
    }

    /// Takes all that is found now, and returns what is to be reported of it.
    pub(super) fn update<'a>(&mut self, found: impl Iterator<Item = (&'a Topic, Finding)>) -> News {
        let mut news = News::default();
        let mut before = std::mem::take(&mut self.reported);
        for (topic, finding) in found {
            if before.remove(topic) != Some(finding) {
                news.begun.push(topic.clone());
            }
            self.reported.insert(topic.clone(), finding);
        }
        let over = before.into_iter();
        news.over = over.map(|((name, _), finding)| (name, finding)).collect();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::RenewalFacts;
    use crate::certificate::finding::findings;
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::event::{EventKind, Severity};
    use crate::schedule::WarnFrom;

    #[test]
    fn the_end_of_a_revocation_is_told_however_soon_it_comes() {
        let name: Pattern = "a.test".parse().expect("a name");
        let topic = (name.clone(), Reason::Revoked);
        let mut watch = Watch::default();
        watch.note_revoked(name.clone());
        let found = [(&topic, Finding::REVOKED)];
        assert_eq!(watch.update(found.into_iter()), News::default());
        assert_eq!(watch.update([].into_iter()).over.len(), 1);
        watch.note_revoked(name);
        assert_eq!(watch.update([].into_iter()).over.len(), 1);
        assert_eq!(watch.update([].into_iter()), News::default());
    }

    #[test]
    fn each_change_is_told_once() {
        let (ca, loader) = (TestCa::new("watch"), Loader::new().expect("a loader"));
        let name: Pattern = "a.test".parse().expect("a name");
        let mut watch = Watch::default();
        let mut check = |certificate: Option<&crate::certificate::TlsCertificate>, now| {
            let found = certificate.map(|one| {
                findings(one, &RenewalFacts::BY_HAND, WarnFrom::default(), now)
                    .into_iter()
                    .map(|finding| ((name.clone(), finding.reason), finding))
                    .collect::<Vec<_>>()
            });
            let found = found.unwrap_or_default();
            watch.update(found.iter().map(|(topic, finding)| (topic, *finding)))
        };
        let certificate = ca.certificate(&loader, &["a.test"], NOW, NOW + 90 * DAY);
        let mut told = Vec::new();
        for day in 0..95 {
            let now = NOW + day * DAY;
            let news = check(Some(&certificate), now);
            assert_eq!(news.over, [], "{day}");
            for _ in news.begun {
                let found = findings(
                    &certificate,
                    &RenewalFacts::BY_HAND,
                    WarnFrom::default(),
                    now,
                );
                told.push((90 - day, found[0].severity, found[0].kind));
            }
        }
        let expiring = EventKind::CertificateExpiring;
        assert_eq!(
            told,
            [
                (14, Severity::Warning, expiring),
                (7, Severity::Error, expiring),
                (1, Severity::Critical, expiring),
                (-1, Severity::Critical, EventKind::CertificateExpired),
            ]
        );

        // Replaced, and years later the same again.
        let next = ca.certificate(&loader, &["a.test"], NOW + 95 * DAY, NOW + 185 * DAY);
        let news = check(Some(&next), NOW + 95 * DAY);
        assert_eq!(news.begun, []);
        assert_eq!(news.over.len(), 1);
        assert_eq!(news.over[0].1.state(), "expired");
        assert_eq!(check(Some(&next), NOW + 96 * DAY), News::default());
        assert_eq!(check(Some(&next), NOW + 182 * DAY).begun.len(), 1);
        // No longer served: over, and said once.
        assert_eq!(check(None, NOW + 183 * DAY).over.len(), 1);
        assert_eq!(check(None, NOW + 184 * DAY), News::default());
    }
}
