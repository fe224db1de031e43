//! Which CAs may issue for a name: its CAA records (RFC 8659), with the parameters that bind them
//! to an account and to validation methods (RFC 8657).

use std::fmt;

use hickory_proto::rr::RData;

use crate::host::HostName;

/// The tags that CAs know (RFC 8659 and 9495, and the CA/Browser Forum's contact tags).
const KNOWN_TAGS: [&str; 6] = [
    "issue",
    "issuewild",
    "iodef",
    "issuemail",
    "contactemail",
    "contactphone",
];

/// The CAA records that apply to a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caa {
    /// The name that has them: the name itself or a parent. `None` if there are none.
    pub at: Option<HostName>,
    pub records: Vec<CaaRecord>,
}

/// A CAA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaRecord {
    /// Whether a CA that does not know the tag must not issue.
    pub critical: bool,
    /// In lower case.
    pub tag: String,
    pub value: String,
}

impl fmt::Display for CaaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.critical { 128 } else { 0 };
        write!(f, "{flags} {} {:?}", self.tag, self.value)
    }
}

pub(super) fn record(data: &RData) -> Option<CaaRecord> {
    let RData::CAA(caa) = data else {
        return None;
    };
    Some(CaaRecord {
        critical: caa.issuer_critical,
        tag: caa.tag.to_ascii_lowercase(),
        value: String::from_utf8_lossy(&caa.value).into_owned(),
    })
}

impl Caa {
    /// Checks whether a CA may issue for the name, or for a wildcard below it.
    ///
    /// `issuers` are the names that identify the CA in such records. If they are unknown, only
    /// records that let nobody issue refuse. `account` is the URL of the account there, and
    /// `method` the type of the challenge.
    ///
    /// # Errors
    /// If it may not, with the record that says so, for people.
    pub fn allows(
        &self,
        issuers: &[&str],
        wildcard: bool,
        account: Option<&str>,
        method: &str,
    ) -> Result<(), String> {
        let at = self.at.as_ref().map_or("", HostName::as_str);
        let known = |record: &&CaaRecord| KNOWN_TAGS.contains(&&*record.tag);
        if let Some(record) = self.records.iter().find(|r| r.critical && !known(r)) {
            return Err(format!(
                "the CAA record at {at} `{record}` must be understood (flag 128), but CAs do not \
                 know its tag"
            ));
        }
        let tagged = |tag: &str| -> Vec<&CaaRecord> {
            self.records.iter().filter(|r| r.tag == tag).collect()
        };
        let mut counting = if wildcard {
            tagged("issuewild")
        } else {
            Vec::new()
        };
        if counting.is_empty() {
            counting = tagged("issue");
        }
        if counting.is_empty() {
            return Ok(());
        }
        let mut near = Vec::new();
        for record in &counting {
            let Some(property) = Property::parse(&record.value) else {
                continue;
            };
            let is_ours = issuers
                .iter()
                .any(|issuer| issuer.eq_ignore_ascii_case(property.issuer));
            if !is_ours && !issuers.is_empty() {
                continue;
            }
            match property.binds(account, method) {
                None => return Ok(()),
                Some(_) if issuers.is_empty() => return Ok(()),
                Some(why) => near.push(format!("`{record}` {why}")),
            }
        }
        if !near.is_empty() {
            return Err(format!("the CAA record at {at} {}", near.join(", and ")));
        }
        let all: Vec<_> = counting
            .iter()
            .map(|record| format!("`{record}`"))
            .collect();
        let what = if wildcard {
            "wildcards"
        } else {
            "certificates"
        };
        Err(format!(
            "the CAA records at {at} do not let this CA issue {what}: {}{}",
            all.join(", "),
            match issuers.first() {
                Some(issuer) => format!("; `0 issue \"{issuer}\"` would"),
                None => String::new(),
            }
        ))
    }
}

/// The value of an `issue` or `issuewild` record (RFC 8659, section 4.2).
struct Property<'a> {
    issuer: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Property<'a> {
    /// `None` if it names nobody, or is malformed, which means the same.
    fn parse(value: &'a str) -> Option<Self> {
        let (issuer, rest) = value.split_once(';').unwrap_or((value, ""));
        let issuer = trim(issuer);
        if issuer.is_empty() || !issuer.split('.').all(is_label) {
            return None;
        }
        let mut parameters = Vec::new();
        if !trim(rest).is_empty() {
            for parameter in rest.split(';') {
                let (tag, value) = parameter.split_once('=')?;
                let (tag, value) = (trim(tag), trim(value));
                // Only printable characters without spaces are allowed.
                if !is_label(tag) || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return None;
                }
                parameters.push((tag, value));
            }
        }
        Some(Self { issuer, parameters })
    }

    /// Why the parameters refuse this account or method. Parameters for the CA alone are ignored.
    fn binds(&self, account: Option<&str>, method: &str) -> Option<String> {
        let of = |tag: &'static str| {
            self.parameters
                .iter()
                .filter(move |(name, _)| name.eq_ignore_ascii_case(tag))
                .map(|(_, value)| *value)
        };
        let accounts: Vec<_> = of("accounturi").collect();
        match (&*accounts, account) {
            ([], _) => {}
            ([one], Some(ours)) if *one == ours => {}
            ([_], Some(ours)) => return Some(format!("is for another account; ours is {ours}")),
            ([_], None) => {
                return Some("is for one account, but there is none at the CA yet".to_owned());
            }
            _ => return Some("names several accounts, which none can satisfy".to_owned()),
        }
        let mut methods = of("validationmethods").peekable();
        methods.peek()?;
        let allowed = methods.all(|methods| methods.split(',').any(|one| one == method));
        (!allowed).then(|| format!("does not let it validate by {method}"))
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Letters, digits, and hyphens within.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: [&str; 2] = ["ca.example", "ca-old.example"];

    fn caa(records: &[&str]) -> Caa {
        let records = records.iter().map(|text| {
            let mut parts = text.splitn(3, ' ');
            let mut part = || parts.next().expect("three parts").to_owned();
            CaaRecord {
                critical: part() == "128",
                tag: part(),
                value: part(),
            }
        });
        Caa {
            at: Some("example.test".parse().expect("a name")),
            records: records.collect(),
        }
    }

    fn allowed(records: &[&str]) -> Result<(), String> {
        caa(records).allows(&CA, false, Some("https://ca.example/acct/1"), "dns-01")
    }

    fn wildcard(records: &[&str]) -> Result<(), String> {
        caa(records).allows(&CA, true, Some("https://ca.example/acct/1"), "dns-01")
    }

    #[test]
    fn without_a_record_that_counts_everybody_may_issue() {
        assert_eq!(Caa::default().allows(&CA, false, None, "http-01"), Ok(()));
        assert_eq!(
            allowed(&["0 iodef mailto:a@example.test", "0 later x"]),
            Ok(())
        );
        assert_eq!(allowed(&["0 issuewild other.example"]), Ok(()));
    }

    #[test]
    fn any_record_that_names_the_ca_is_enough() {
        assert_eq!(allowed(&["0 issue ;", "0 issue \t CA.example "]), Ok(()));
        assert_eq!(allowed(&["0 issue ca-old.example; policy=ev"]), Ok(()));
    }

    #[test]
    fn a_refusal_names_the_records_and_the_way_out() {
        assert_eq!(
            allowed(&["0 issue other.example", "0 issue ;"]).unwrap_err(),
            "the CAA records at example.test do not let this CA issue certificates: \
             `0 issue \"other.example\"`, `0 issue \";\"`; `0 issue \"ca.example\"` would"
        );
    }

    #[test]
    fn what_is_malformed_names_nobody() {
        for value in [
            "%%%%%",
            "ca.example ca.example",
            "ca.example;x",
            "ca.example; a=b c",
            "ca..example",
            "-ca.example",
            "ca.example; a=b;",
        ] {
            assert!(allowed(&[&format!("0 issue {value}")]).is_err(), "{value}");
        }
    }

    #[test]
    fn a_wildcard_has_records_of_its_own() {
        assert_eq!(wildcard(&["0 issue ca.example"]), Ok(()));
        assert_eq!(
            wildcard(&["0 issue other.example", "0 issuewild ca.example"]),
            Ok(())
        );
        let refused = wildcard(&["0 issue ca.example", "0 issuewild ;"]).unwrap_err();
        assert!(
            refused.contains("wildcards: `0 issuewild \";\"`"),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_tag_refuses_only_where_it_is_critical() {
        assert_eq!(allowed(&["0 tbs unknown"]), Ok(()));
        assert_eq!(allowed(&["128 issue ca.example"]), Ok(()));
        let refused = allowed(&["0 issue ca.example", "128 tbs unknown"]).unwrap_err();
        assert!(refused.contains("`128 tbs \"unknown\"`"), "{refused}");
    }

    #[test]
    fn a_record_may_be_for_one_account() {
        let ours = "0 issue ca.example; accounturi=https://ca.example/acct/1";
        let other = "0 issue ca.example; accounturi=https://ca.example/acct/2";
        assert_eq!(allowed(&[ours]), Ok(()));
        assert_eq!(allowed(&[other, ours]), Ok(()));
        let refused = allowed(&[other]).unwrap_err();
        assert!(
            refused.ends_with("is for another account; ours is https://ca.example/acct/1"),
            "{refused}"
        );
        let refused = caa(&[ours]).allows(&CA, false, None, "dns-01").unwrap_err();
        assert!(refused.contains("there is none at the CA yet"), "{refused}");
        let both = format!("{ours}; accounturi=https://ca.example/acct/2");
        assert!(allowed(&[&both]).is_err());
    }

    #[test]
    fn a_record_may_be_for_ways_of_validation() {
        assert_eq!(
            allowed(&["0 issue ca.example; validationmethods=http-01,dns-01"]),
            Ok(())
        );
        let refused = allowed(&["0 issue ca.example; validationmethods=http-01"]).unwrap_err();
        assert!(
            refused.ends_with("does not let it validate by dns-01"),
            "{refused}"
        );
    }

    #[test]
    fn of_an_unknown_ca_only_what_forbids_all_is_known() {
        let unknown = |records: &[&str]| caa(records).allows(&[], false, None, "http-01");
        assert_eq!(unknown(&["0 issue other.example; accounturi=x"]), Ok(()));
        assert!(unknown(&["0 issue ;"]).is_err());
    }
}
