//! Persistent records (draft-ietf-acme-dns-persist, section 3.1): their syntax, and what they
//! prove.

use super::super::DnsContext;
use crate::clock::UnixTime;

/// The content of a record.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    issuer: String,
    account: Option<String>,
    is_for_wildcards: bool,
    /// The last second in which it is valid; `None` for no limit.
    until: Option<Until>,
}

/// The end of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    At(UnixTime),
    /// The value is not a time.
    Odd,
}

/// The text of the record that validates a name.
pub(super) fn text(dns: &DnsContext) -> String {
    let issuer = dns.issuers.first().map(String::as_str).unwrap_or_default();
    let policy = if dns.is_wildcard {
        "; policy=wildcard"
    } else {
        ""
    };
    format!("{issuer}; accounturi={}{policy}", dns.account)
}

/// Until when one of these records validates a name, `None` for no limit. The error says what is
/// wrong with the closest one.
pub(super) fn judge_records(
    values: &[String],
    dns: &DnsContext,
    now: UnixTime,
) -> Result<Option<UnixTime>, String> {
    let mut best: Option<Option<UnixTime>> = None;
    let mut nearest = (0, "there is no such record".to_owned());
    for record in values.iter().filter_map(|value| Record::parse(value)) {
        let fault = match record.until {
            _ if !record.is_of(&dns.issuers) => (1, "its record is for another CA".to_owned()),
            _ if record.account.as_deref() != Some(&dns.account) => (
                2,
                "its record is for another account, or for none".to_owned(),
            ),
            _ if dns.is_wildcard && !record.is_for_wildcards => {
                (3, "its record lacks 'policy=wildcard'".to_owned())
            }
            Some(Until::Odd) => (4, "'persistUntil' of its record is not a time".to_owned()),
            Some(Until::At(until)) if until < now => {
                (5, format!("its record expired at {}", until))
            }
            Some(Until::At(until)) => {
                // No limit is longest.
                let longer = best.flatten().map_or(until, |before| before.max(until));
                best = best.map_or(Some(Some(until)), |best| Some(best.map(|_| longer)));
                continue;
            }
            None => {
                best = Some(None);
                continue;
            }
        };
        if fault.0 > nearest.0 {
            nearest = fault;
        }
    }
    best.ok_or(nearest.1)
}

impl Record {
    /// Parses `ca.example; accounturi=…; policy=wildcard; persistUntil=…`, in the syntax of CAA
    /// (RFC 8659, section 4.2). `None` for anything else, and for repeated tags.
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let issuer = parts.next().filter(|issuer| !issuer.is_empty())?;
        let mut record = Self {
            issuer: issuer.trim_end_matches('.').to_ascii_lowercase(),
            account: None,
            is_for_wildcards: false,
            until: None,
        };
        let mut seen = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let (tag, value) = part.split_once('=')?;
            let (tag, value) = (tag.trim().to_ascii_lowercase(), value.trim());
            if seen.contains(&tag) {
                return None;
            }
            match tag.as_str() {
                "accounturi" => record.account = Some(value.to_owned()),
                "policy" => record.is_for_wildcards = value.eq_ignore_ascii_case("wildcard"),
                "persistuntil" => {
                    let until = value.parse().map(UnixTime::from_secs);
                    record.until = Some(until.map_or(Until::Odd, Until::At));
                }
                // "CAs MUST ignore any unknown parameter keys."
                _ => {}
            }
            seen.push(tag);
        }
        Some(record)
    }

    fn is_of(&self, issuers: &[String]) -> bool {
        let mut issuers = issuers.iter();
        issuers.any(|issuer| {
            issuer
                .trim_end_matches('.')
                .eq_ignore_ascii_case(&self.issuer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const ACCOUNT: &str = "https://ca.example/acct/1";

    fn dns(is_wildcard: bool) -> DnsContext {
        DnsContext {
            account: ACCOUNT.to_owned(),
            is_wildcard,
            issuers: vec!["authority.example".to_owned(), "ca.example".to_owned()],
        }
    }

    fn judge_all(values: &[&str], is_wildcard: bool) -> Result<Option<UnixTime>, String> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        judge_records(&values, &dns(is_wildcard), NOW)
    }

    #[test]
    fn records_that_prove() {
        let account = format!("accounturi={ACCOUNT}");
        for (record, is_wildcard, until) in [
            (format!("authority.example; {account}"), false, None),
            (format!("CA.Example.;{account} ; new=1;"), false, None),
            (
                format!("ca.example; {account}; policy=Wildcard"),
                true,
                None,
            ),
            (
                format!("ca.example; AccountURI = {ACCOUNT}; persistUntil=1800000000"),
                false,
                Some(NOW),
            ),
            (text(&dns(true)), true, None),
            (text(&dns(false)), false, None),
        ] {
            let judged = judge_all(&["v=spf1 -all", &record], is_wildcard);
            assert_eq!(judged, Ok(until), "{record}");
        }
        let ends = format!("ca.example; {account}; persistUntil=1800000100");
        let later = format!("ca.example; {account}; persistUntil=1800000200");
        let never = format!("ca.example; {account}");
        assert_eq!(judge_all(&[&later, &ends], false), Ok(Some(NOW + 200)));
        assert_eq!(judge_all(&[&ends, &later], false), Ok(Some(NOW + 200)));
        assert_eq!(judge_all(&[&ends, &never, &later], false), Ok(None));
    }

    #[test]
    fn what_does_not_prove_says_why() {
        let account = format!("accounturi={ACCOUNT}");
        for (records, is_wildcard, why) in [
            (vec![], false, "no such record"),
            (vec!["v=spf1 -all".to_owned()], false, "for another CA"),
            (
                vec![format!("other.example; {account}")],
                false,
                "another CA",
            ),
            (
                vec![
                    format!("ca.example; {account}0"),
                    format!("other.example; {account}"),
                ],
                false,
                "another account",
            ),
            (vec!["ca.example".to_owned()], false, "another account"),
            (
                vec![format!("ca.example; {account}; {account}")],
                false,
                "no such record",
            ),
            (
                vec![format!("ca.example; {account}")],
                true,
                "lacks 'policy=wildcard'",
            ),
            (
                vec![format!("ca.example; {account}; persistUntil=soon")],
                false,
                "is not a time",
            ),
            (
                vec![format!("ca.example; {account}; persistUntil=1799999999")],
                false,
                "expired at 2027-01-15T07:59:59Z",
            ),
        ] {
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            let judged = judge_all(&records, is_wildcard).expect_err(why);
            assert!(judged.contains(why), "{records:?}: {judged}");
        }
    }
}
