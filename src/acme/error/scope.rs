//! The scope of a limit, by what the CA says about it: the type of the problem, its text, the page
//! that it links to, and the names that it is about. ACME itself has one type for all limits
//! (`rateLimited`, RFC 8555, section 6.6).

use http::StatusCode;

use super::{Step, is_within};
use crate::acme::problem::Problem;
use crate::host::Pattern;
use crate::schedule::Scope;

/// Pages about limits, by the fragment of their URL, longer ones before their own prefixes.
const PAGES: [(&str, Kind); 9] = [
    ("new-certificates-per-exact-set", Kind::Set),
    ("new-certificates-per-registered-domain", Kind::Domain),
    ("new-orders-per-account", Kind::Account),
    ("new-registrations-per", Kind::Registrations),
    ("consecutive-authorization-failures-per", Kind::Identifier),
    ("authorization-failures-per", Kind::Identifier),
    ("certificates-per-registered-domain", Kind::Domain),
    ("duplicate-certificate", Kind::Set),
    ("overall-requests-limit", Kind::Ca),
];

/// Words that say what is limited. The first match decides.
const WORDS: [(&str, Kind); 37] = [
    ("exact set of", Kind::Set),
    ("same set of", Kind::Set),
    ("this set of", Kind::Set),
    ("identical set of", Kind::Set),
    ("duplicate certificate", Kind::Set),
    ("new registrations", Kind::Registrations),
    ("too many registrations", Kind::Registrations),
    ("registrations from this ip", Kind::Registrations),
    ("new accounts", Kind::Registrations),
    ("accounts from this ip", Kind::Registrations),
    ("accounts per ip", Kind::Registrations),
    ("accounts created", Kind::Registrations),
    ("service busy", Kind::Ca),
    ("service is busy", Kind::Ca),
    ("server busy", Kind::Ca),
    ("server is busy", Kind::Ca),
    ("overloaded", Kind::Ca),
    ("this ip", Kind::Ca),
    ("your ip", Kind::Ca),
    ("client ip", Kind::Ca),
    ("per ip", Kind::Ca),
    ("requests per second", Kind::Ca),
    ("rate limit for '/", Kind::Ca),
    ("failed authorizations", Kind::Identifier),
    ("failed authorisations", Kind::Identifier),
    ("failed validations", Kind::Identifier),
    ("authorization failures", Kind::Identifier),
    ("certificates already issued", Kind::Domain),
    ("already issued for", Kind::Domain),
    ("certificates issued for", Kind::Domain),
    ("certificates for domain", Kind::Domain),
    ("registered domain", Kind::Domain),
    ("new orders", Kind::Account),
    ("this account", Kind::Account),
    ("your account", Kind::Account),
    ("per account", Kind::Account),
    ("pending authorizations", Kind::Account),
];

/// What is limited, without the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Set,
    Domain,
    Identifier,
    Account,
    Registrations,
    Ca,
}

/// The scope of the limit that an order for these names met; `None` if the CA does not say. A limit
/// on names holds only this set of names if it is on several or on unknown ones.
pub(super) fn scope_of(
    step: Step,
    status: StatusCode,
    problem: &Problem,
    names: &[Pattern],
) -> Option<Scope> {
    // This is another server than the CA's.
    if step == Step::Binding {
        return Some(Scope::Registrations);
    }
    // The directory is not tied to an account: whoever may not read it may request nothing.
    if status.is_server_error() || step == Step::Directory {
        return Some(Scope::Ca);
    }
    let text = problem.to_string().to_ascii_lowercase();
    let kind = kind_in(&text);
    match kind {
        Some(Kind::Ca) => return Some(Scope::Ca),
        Some(Kind::Registrations) => return Some(Scope::Registrations),
        _ => {}
    }
    if step == Step::Account {
        return Some(Scope::Registrations);
    }
    if matches!(kind, Some(Kind::Account)) {
        return Some(Scope::Account);
    }
    let mut quoted = problem.identifiers();
    if quoted.is_empty() {
        quoted = domains_in(&text, names);
    }
    match (kind, quoted.as_slice()) {
        (Some(Kind::Identifier), [name]) => Some(Scope::Identifier(name.clone())),
        (Some(Kind::Domain), [domain]) => Some(Scope::Domain(domain.clone())),
        // The limit is on a parent domain of the names.
        (None, [domain]) if !is_one_of(domain, names) => Some(Scope::Domain(domain.clone())),
        (None, [name]) => Some(Scope::Identifier(name.clone())),
        (None, []) => None,
        _ => Some(Scope::Set),
    }
}

/// What a text in lower case says is limited: the linked page takes precedence.
fn kind_in(text: &str) -> Option<Kind> {
    let pages = text.split("://").skip(1);
    let mut fragments = pages.filter_map(|page| {
        let page = page.split_whitespace().next()?;
        page.split_once('#').map(|(_, fragment)| fragment)
    });
    let by_page = fragments.find_map(|fragment| {
        let mut pages = PAGES.iter();
        pages
            .find(|(page, _)| fragment.starts_with(page))
            .map(|(_, kind)| *kind)
    });
    by_page.or_else(|| {
        let mut words = WORDS.iter();
        words
            .find(|(words, _)| text.contains(words))
            .map(|(_, kind)| *kind)
    })
}

/// The domains in a text that are one of the names or a parent of one, each once.
fn domains_in(text: &str, names: &[Pattern]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let words = text
        .split_whitespace()
        .filter(|word| !word.contains("://"))
        .flat_map(|word| word.split(|char: char| !is_of_name(char)));
    for word in words {
        let word = word.trim_matches(['.', ':']);
        let is_name = word.contains(['.', ':']) && names.iter().any(|name| is_within(name, word));
        if is_name && !found.iter().any(|one| one == word) {
            found.push(word.to_owned());
        }
    }
    found
}

/// Returns true if the character may be part of a host name or an address.
fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | ':' | '_')
}

fn is_one_of(domain: &str, names: &[Pattern]) -> bool {
    names.iter().any(|name| match name {
        Pattern::Exact(name) | Pattern::Wildcard(name) => name.as_str() == domain,
        Pattern::Ip(address) => address.to_string() == domain,
        Pattern::Any => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(step: Step, status: u16, detail: &str) -> Option<Scope> {
        let names: Vec<Pattern> = ["www.a.example", "b.example", "2001:db8::1"]
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        let problem = Problem::of("rateLimited", detail);
        scope_of(step, status, &problem, &names)
    }

    /// What CAs write, according to public reports.
    #[test]
    fn what_cas_say_has_its_scope() {
        let domain = |name: &str| Some(Scope::Domain(name.to_owned()));
        let name = |name: &str| Some(Scope::Identifier(name.to_owned()));
        let table = [
            (
                "too many certificates (5) already issued for this exact set of identifiers in the \
                 last 168h0m0s, retry after 2025-09-18 09:13:16 UTC: see \
                 https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers",
                Some(Scope::Set),
            ),
            (
                "too many certificates already issued for exact set of domains: www.a.example: see \
                 https://letsencrypt.org/docs/rate-limits/",
                Some(Scope::Set),
            ),
            (
                "too many certificates (5) already issued for this exact set of domains in the last \
                 168 hours: b.example,www.a.example, retry after 2024-01-01T00:00:00Z: see \
                 https://letsencrypt.org/docs/duplicate-certificate-limit/",
                Some(Scope::Set),
            ),
            (
                "too many certificates (50) already issued for \"a.example\" in the last 168h0m0s, \
                 retry after 2026-11-25 10:00:00 UTC: see \
                 https://letsencrypt.org/docs/rate-limits/#new-certificates-per-registered-domain",
                domain("a.example"),
            ),
            (
                "too many certificates already issued for: b.example: see \
                 https://letsencrypt.org/docs/rate-limits/",
                domain("b.example"),
            ),
            (
                "too many new orders (300) from this account in the last 3h0m0s, retry after \
                 2026-11-25 10:00:00 UTC: see \
                 https://letsencrypt.org/docs/rate-limits/#new-orders-per-account",
                Some(Scope::Account),
            ),
            ("too many new orders recently", Some(Scope::Account)),
            (
                "too many currently pending authorizations",
                Some(Scope::Account),
            ),
            (
                "too many failed authorizations (5) for \"b.example\" in the last 1h0m0s, retry \
                 after 2026-11-25 10:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/\
                 #authorization-failures-per-identifier-per-account",
                name("b.example"),
            ),
            ("too many failed authorizations recently", Some(Scope::Set)),
            ("Service busy; retry later.", Some(Scope::Ca)),
            ("Rate limit for '/acme' reached", Some(Scope::Ca)),
            (
                "Your IP, 192.0.2.7, has sent too many requests",
                Some(Scope::Ca),
            ),
            (
                "too many new registrations (10) from this IP address in the last 3h0m0s",
                Some(Scope::Registrations),
            ),
            ("limited for a.example", domain("a.example")),
            ("limited for www.a.example", name("www.a.example")),
            ("limited for 2001:db8::1.", name("2001:db8::1")),
            ("limited for www.a.example and b.example", Some(Scope::Set)),
            // A domain with the same ending is not necessarily a parent of one of the names.
            ("limited for example.org and w.a.example", None),
            ("Too Many Requests", None),
            ("", None),
        ];
        for (detail, expected) in table {
            assert_eq!(scope(Step::Order, 429, detail), expected, "{detail}");
        }
    }

    #[test]
    fn the_step_and_the_status_tell_of_the_rest() {
        let unsaid = "slow down";
        for (step, status, expected) in [
            (Step::Account, 429, Some(Scope::Registrations)),
            (Step::Binding, 429, Some(Scope::Registrations)),
            (Step::Directory, 429, Some(Scope::Ca)),
            (Step::Order, 503, Some(Scope::Ca)),
            (Step::Order, 429, None),
            (Step::Finalize, 429, None),
        ] {
            assert_eq!(scope(step, status, unsaid), expected, "{step} {status}");
        }
        let busy = "Service busy; retry later.";
        assert_eq!(scope(Step::Account, 429, busy), Some(Scope::Ca));
        let registered = "too many new registrations (10) from this IP address";
        let expected = Some(Scope::Registrations);
        assert_eq!(scope(Step::Account, 429, registered), expected);
    }

    #[test]
    fn the_names_that_problems_are_about_go_before_words() {
        let of = |json: &str| {
            let problem = Problem::read(json.as_bytes()).expect("a problem");
            let names = ["a.example", "b.example"].map(|name| name.parse().expect("a name"));
            scope_of(Step::Order, StatusCode::TOO_MANY_REQUESTS, &problem, &names)
        };
        let limited = |name: &str| {
            format!(
                r#"{{ "type": "urn:ietf:params:acme:error:rateLimited",
                      "detail": "too many failed authorizations",
                      "identifier": {{ "type": "dns", "value": "{name}" }} }}"#
            )
        };
        let all = |subproblems: &[String]| {
            let subproblems = subproblems.join(",");
            format!(
                r#"{{ "type": "urn:ietf:params:acme:error:rateLimited",
                      "subproblems": [{subproblems}] }}"#
            )
        };
        assert_eq!(
            of(&all(&[limited("b.example")])),
            Some(Scope::Identifier("b.example".to_owned()))
        );
        assert_eq!(
            of(&all(&[limited("a.example"), limited("b.example")])),
            Some(Scope::Set)
        );
    }
}
