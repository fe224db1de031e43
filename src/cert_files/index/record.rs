//! What stands in the index of a certificate, in octets.
//!
//! Numbers are big-endian; a text has its length before it. What cannot be read is as if it were
//! not there.

use std::sync::Arc;

use super::super::files::{Kind, Print};
use crate::certificate::from_index::CertificateFacts;
use crate::certificate::status::StatusSources;
use crate::certificate::{CertificateWarning, Fingerprint, Flaws, KeyKind};
use crate::clock::UnixTime;
use crate::host::{HostName, Pattern};

/// The digest of a certificate of a chain.
pub(super) type Link = [u8; 32];

/// What is known of an entry's files, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Whether the stamps would differ had the files changed since.
    pub(super) sure: bool,
    pub(super) stamps: Print,
    pub(super) digest: Print,
    pub(super) misnamed: bool,
    pub(super) facts: CertificateFacts,
    pub(super) chain: Vec<Link>,
    pub(super) warnings: Vec<CertificateWarning>,
}

const SURE: u8 = 1;
const MISNAMED: u8 = 2;
const FROM_DIRECTORY: u8 = 8;
const STATED: u8 = 16;
const REQUIRES_STAPLE: u8 = 32;

impl Record {
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        let status = self.facts.status.as_deref();
        let flags = [
            (self.sure, SURE),
            (self.misnamed, MISNAMED),
            (self.kind == Kind::Directory, FROM_DIRECTORY),
            (status.is_some(), STATED),
            (
                status.is_some_and(|said| said.requires_staple),
                REQUIRES_STAPLE,
            ),
        ];
        let flags = flags.iter().filter(|(is, _)| *is);
        to.push(flags.fold(0, |all, (_, flag)| all | flag));
        to.push(match self.facts.kind {
            KeyKind::Ecdsa => 0,
            KeyKind::Ed25519 => 1,
            KeyKind::Rsa => 2,
        });
        to.extend_from_slice(&self.stamps.octets());
        to.extend_from_slice(&self.digest.octets());
        to.extend_from_slice(&self.facts.flaws.bits().to_be_bytes());
        to.extend_from_slice(&self.facts.not_before.as_secs().to_be_bytes());
        to.extend_from_slice(&self.facts.not_after.as_secs().to_be_bytes());
        to.extend_from_slice(&self.facts.fingerprint.0);
        count(to, self.facts.names.len());
        for name in &self.facts.names {
            text(to, &name.to_string());
        }
        count(to, self.chain.len());
        for link in &self.chain {
            to.extend_from_slice(link);
        }
        // Only CAs provide a chain as it is; and the status says who can be asked.
        let is_kept = |one: &&CertificateWarning| {
            !matches!(
                one,
                CertificateWarning::Order | CertificateWarning::NoResponder
            )
        };
        count(to, self.warnings.iter().filter(is_kept).count());
        for warning in self.warnings.iter().filter(is_kept) {
            let (tag, texts) = match warning {
                CertificateWarning::ChainExpired { subject, end } => (5, [subject, end]),
                CertificateWarning::Expired(end) => (0, [end, end]),
                CertificateWarning::Incomplete { issuer } => (1, [issuer, issuer]),
                CertificateWarning::Name { name, why } => (2, [name, why]),
                CertificateWarning::NotYetValid(begin) => (3, [begin, begin]),
                CertificateWarning::Superseded { subject, end } => (6, [subject, end]),
                CertificateWarning::UnknownIssuer { issuer } => (7, [issuer, issuer]),
                CertificateWarning::Unrelated { subject } => (4, [subject, subject]),
                CertificateWarning::Weak { what, why, is_key } => {
                    (if *is_key { 8 } else { 9 }, [what, why])
                }
                CertificateWarning::Order | CertificateWarning::NoResponder => continue,
            };
            to.push(tag);
            let many = if matches!(tag, 2 | 5 | 6 | 8 | 9) {
                2
            } else {
                1
            };
            texts.iter().take(many).for_each(|one| text(to, one));
        }
        if let Some(said) = status {
            text(to, said.responder.as_deref().unwrap_or_default());
            count(to, said.lists.len());
            said.lists.iter().for_each(|url| text(to, url));
        }
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut from = Reader(octets);
        let flags = from.octet()?;
        let has = |flag| flags & flag != 0;
        let key = match from.octet()? {
            0 => KeyKind::Ecdsa,
            1 => KeyKind::Ed25519,
            2 => KeyKind::Rsa,
            _ => return None,
        };
        let (stamps, digest) = (from.array()?, from.array()?);
        let flaws = Flaws::from_bits(u16::from_be_bytes(from.array()?));
        let not_before = UnixTime::from_secs(i64::from_be_bytes(from.array()?));
        let not_after = UnixTime::from_secs(i64::from_be_bytes(from.array()?));
        let fingerprint = Fingerprint(from.array()?);
        let names = from.many(|from| pattern(from.text()?))?;
        let chain = from.many(Reader::array)?;
        let mut warnings = from.many(|from| {
            let tag = from.octet()?;
            let first = from.text()?.to_owned();
            Some(match tag {
                0 => CertificateWarning::Expired(first),
                1 => CertificateWarning::Incomplete { issuer: first },
                2 => CertificateWarning::Name {
                    name: first,
                    why: from.text()?.to_owned(),
                },
                3 => CertificateWarning::NotYetValid(first),
                4 => CertificateWarning::Unrelated { subject: first },
                5 => CertificateWarning::ChainExpired {
                    subject: first,
                    end: from.text()?.to_owned(),
                },
                6 => CertificateWarning::Superseded {
                    subject: first,
                    end: from.text()?.to_owned(),
                },
                7 => CertificateWarning::UnknownIssuer { issuer: first },
                8 | 9 => CertificateWarning::Weak {
                    what: first,
                    why: from.text()?.to_owned(),
                    is_key: tag == 8,
                },
                _ => return None,
            })
        })?;
        let status = match has(STATED) {
            true => Some(Arc::new(StatusSources {
                responder: Some(from.text()?)
                    .filter(|url| !url.is_empty())
                    .map(Box::from),
                lists: from.many(|from| from.text().map(Box::from))?.into(),
                requires_staple: has(REQUIRES_STAPLE),
            })),
            false => None,
        };
        if status.as_ref().is_some_and(|said| said.cannot_be_stapled()) {
            warnings.push(CertificateWarning::NoResponder);
        }
        Some(Self {
            kind: if has(FROM_DIRECTORY) {
                Kind::Directory
            } else {
                Kind::Files
            },
            sure: has(SURE),
            stamps: Print::from_octets(stamps),
            digest: Print::from_octets(digest),
            misnamed: has(MISNAMED),
            facts: CertificateFacts {
                names: names.into(),
                kind: key,
                not_before,
                not_after,
                fingerprint,
                flaws,
                status,
            },
            chain,
            warnings,
        })
    }
}

/// A name of a certificate: never that of every host.
fn pattern(text: &str) -> Option<Pattern> {
    match text.parse().ok()? {
        Pattern::Any => None,
        Pattern::Exact(name) => Some(Pattern::Exact(same(name, text)?)),
        other => Some(other),
    }
}

/// `name`, where it is as it was written.
fn same(name: HostName, text: &str) -> Option<HostName> {
    (name.as_str() == text).then_some(name)
}

fn count(to: &mut Vec<u8>, many: usize) {
    to.extend_from_slice(&u32::try_from(many).unwrap_or(u32::MAX).to_be_bytes());
}

fn text(to: &mut Vec<u8>, text: &str) {
    count(to, text.len());
    to.extend_from_slice(text.as_bytes());
}

/// Reads what was written; `None` where there is no more.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn octet(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let many = self.count()?;
        // Each takes an octet at least.
        let mut all = Vec::with_capacity(many.min(self.0.len()));
        for _ in 0..many {
            all.push(one(self)?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn what_is_written_is_read_and_less_is_nothing() {
        let names = ["a.example", "*.b.example", "192.0.2.1"];
        let names = names.map(|name| name.parse().expect("a name"));
        let text = |text: &str| text.to_owned();
        let record = Record {
            kind: Kind::Directory,
            sure: true,
            stamps: Print::from_octets([1; 16]),
            digest: Print::from_octets([2; 16]),
            misnamed: false,
            facts: CertificateFacts {
                names: names.into(),
                kind: KeyKind::Rsa,
                not_before: unix(-5),
                not_after: unix(1_800_000_000),
                fingerprint: Fingerprint([3; 32]),
                flaws: Flaws::from_bits(5),
                status: Some(Arc::new(StatusSources {
                    responder: None,
                    lists: ["http://a/1.crl".into(), "http://a/2.crl".into()].into(),
                    requires_staple: true,
                })),
            },
            chain: vec![[4; 32], [5; 32]],
            warnings: vec![
                CertificateWarning::Expired(text("then")),
                CertificateWarning::Incomplete { issuer: text("x") },
                CertificateWarning::Name {
                    name: text("a b"),
                    why: text("has a space"),
                },
                CertificateWarning::NotYetValid(text("soon")),
                CertificateWarning::Unrelated { subject: text("y") },
                CertificateWarning::ChainExpired {
                    subject: text("i"),
                    end: text("then"),
                },
                CertificateWarning::Superseded {
                    subject: text("j"),
                    end: text("before"),
                },
                CertificateWarning::UnknownIssuer { issuer: text("z") },
                CertificateWarning::Weak {
                    what: text("the key"),
                    why: text("is short"),
                    is_key: true,
                },
                CertificateWarning::NoResponder,
            ],
        };
        let mut octets = Vec::new();
        record.encode(&mut octets);
        assert_eq!(Record::decode(&octets), Some(record.clone()));
        for length in 0..octets.len() {
            let less = octets.get(..length).expect("less");
            assert_eq!(Record::decode(less), None, "{length}");
        }
        let mut other = Vec::new();
        Record {
            kind: Kind::Files,
            sure: false,
            misnamed: true,
            ..record
        }
        .encode(&mut other);
        let other = Record::decode(&other).expect("whole");
        assert!(other.kind == Kind::Files && !other.sure && other.misnamed);
    }
}
