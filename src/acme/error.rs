//! What an error means: when to try again, and what people have to do about it.
//!
//! Pure functions from what a CA said (or that it said nothing) to a [`Failure`]. They name the CA
//! and quote it; the domain is added where the failure leaves `acme`.

pub(super) mod class;
mod scope;

use std::fmt::{self, Write as _};

use http::StatusCode;
use instant_acme::Error;

use self::class::{class, is_missing, is_unexplained};
use self::scope::scope_of;
use super::client::AcmeClient;
use super::lenient::Unreadable;
use super::problem::{Problem, page};
use super::refusal::Refusal;
use crate::challenge::ChallengeType;
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::http_client::HttpError;
use crate::printable::one_line;
use crate::schedule::{Failure, FailureClass, Scope};

/// What a CA was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Directory,
    Account,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Poll,
    Download,
    AccountShown,
    KeyChange,
    Contact,
    Deactivation,
    Binding,
    Revocation,
    RenewalInfo,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "did not return its directory",
            Self::Account => "did not accept the account",
            Self::Order => "refused the order",
            Self::Authorization => "did not return the authorizations",
            Self::Challenge => "did not accept the challenge",
            Self::Finalize => "refused the certificate request",
            Self::Poll => "did not return the order's status",
            Self::Download => "did not return the certificate",
            Self::AccountShown => "did not return the account",
            Self::KeyChange => "did not accept the account's new key",
            Self::Contact => "did not accept the account's contacts",
            Self::Deactivation => "did not deactivate the account",
            Self::Binding => "provided no external account binding",
            Self::Revocation => "did not revoke the certificate",
            Self::RenewalInfo => "did not return renewal information",
        })
    }
}

/// The failure if a CA did not respond.
pub(super) fn unreachable(host: &str, error: &HttpError) -> Failure {
    if error.is_permanent() {
        let message = format!("cannot contact {host}: {error}; correct the issuer's configuration");
        return Failure::new(FailureClass::Configuration, message);
    }
    let message = format!(
        "{host} cannot be reached: {error}; if this persists, check that this machine can reach it \
         and trusts its certificate (the issuer's 'proxy' and 'ca_file')"
    );
    Failure::new(FailureClass::Network, message)
}

/// The failure for an error of instant-acme in `client`.
pub(super) fn failure_of(
    host: &str,
    step: Step,
    error: &Error,
    client: &AcmeClient,
    names: &[Pattern],
    now: UnixTime,
) -> Failure {
    if let Some(refusal) = client.refusal() {
        return refusal_failure(host, step, &refusal, names, now);
    }
    match error {
        Error::Other(inner) => {
            if let Some(error) = inner.downcast_ref::<HttpError>() {
                return unreachable(host, error);
            }
            let message = match inner.downcast_ref::<Unreadable>() {
                Some(unreadable) => format!(
                    "{host} {step}: unreadable response: {unreadable}; the fault is the CA's, and \
                     the request will be retried"
                ),
                None => format!("{host} {step}: {inner}"),
            };
            Failure::new(FailureClass::Network, message)
        }
        // A refusal within a success: a problem inside an order or a challenge.
        Error::Api(problem) => problem_in(host, step, &problem.into(), names, now),
        Error::Crypto | Error::KeyRejected => {
            let message = format!(
                "the stored key of the account at {host} cannot be used: {error}; remove the \
                 account from the storage to have a new one created"
            );
            Failure::new(FailureClass::Internal, message)
        }
        _ => {
            let message = format!("{host} sent an unreadable response: {error}");
            Failure::new(FailureClass::Network, message)
        }
    }
}

/// The failure for a problem that a CA states within a successful reply.
pub(super) fn problem_in(
    host: &str,
    step: Step,
    problem: &Problem,
    names: &[Pattern],
    now: UnixTime,
) -> Failure {
    let refusal = Refusal {
        status: StatusCode::OK,
        retry_after: None,
        problem: Some(problem.clone()),
        words: None,
        location: None,
        terms: None,
    };
    refusal_failure(host, step, &refusal, names, now)
}

/// The failure for a refusal; `names` are those of the certificate.
pub(super) fn refusal_failure(
    host: &str,
    step: Step,
    refusal: &Refusal,
    names: &[Pattern],
    now: UnixTime,
) -> Failure {
    let problem = refusal.problem.clone().unwrap_or_default();
    let detail = problem.detail.as_deref().unwrap_or_default();
    let class = match pause(&problem) {
        true => FailureClass::Paused,
        false => class(refusal.problem.as_ref(), refusal.status, step),
    };
    let mut message = match refusal.problem {
        Some(_) => format!("{host} {step}: {problem}"),
        None => format!("{host} {step}: its response is {}", answer_text(refusal)),
    };
    let mut failure = Failure::new(class, "");
    failure.retry_after = refusal.retry_after.filter(|at| *at > now);
    failure.url = match class {
        FailureClass::Paused => portal(detail).or_else(|| problem.instance.clone()),
        _ if problem.kind() == "userActionRequired" => {
            let terms = || refusal.terms.as_deref().and_then(page);
            problem.instance.clone().or_else(terms)
        }
        _ => problem.instance.clone(),
    };
    if class == FailureClass::RateLimited {
        failure.retry_after = failure
            .retry_after
            .or_else(|| date_in(detail).filter(|at| *at > now));
        failure.scope = scope_of(step, refusal.status, &problem, names);
    }
    // A CA that is too busy says when to come back.
    if class == FailureClass::Network
        && step != Step::Binding
        && refusal.status.is_server_error()
        && failure.retry_after.is_some()
    {
        failure.scope = Some(Scope::Ca);
    }
    let advice = match (class, problem.kind()) {
        _ if refusal.status.is_redirection() => {
            "signed requests do not follow redirects: set the issuer's 'directory' to where the CA \
             is now"
        }
        (FailureClass::Paused, _) => {
            "no attempt is made until it is unpaused there; first find out why it failed so often"
        }
        (FailureClass::RateLimited, _) => "it will be retried when the CA allows it",
        (FailureClass::Refused, "caa") => {
            "let the domain's CAA records name this CA, or choose another"
        }
        (FailureClass::Refused, _) => "choose another CA for it, or remove the name",
        (_, "externalAccountRequired") => {
            "get a key for external account binding from the CA and set the issuer's 'eab'"
        }
        (_, "userActionRequired") => "follow the instructions on its page",
        (_, "unsupportedContact" | "invalidContact") => "correct the issuer's 'email'",
        (_, "badCSR" | "badPublicKey") => "choose another 'key_type' for the issuer",
        (_, "badRevocationReason") => "choose another reason",
        (FailureClass::Internal, _) if step == Step::Revocation => {
            "check that this CA issued the certificate and that it has not expired"
        }
        (_, "invalidProfile") => "choose another 'profile' for the issuer, or none",
        (FailureClass::Configuration, _) if step == Step::Account => {
            "check the issuer's 'eab' and 'email'"
        }
        (FailureClass::Configuration, _) if is_unexplained(refusal) => {
            "change what the CA does not accept (the certificate's 'names', or the issuer's \
             'profile', 'lifetime' or 'key_type'), or choose another CA"
        }
        (FailureClass::Configuration, "unauthorized") => {
            "if the account was deactivated, run `snigate acme account create` to create a new one"
        }
        (FailureClass::Configuration, _) => "check the issuer's configuration",
        (FailureClass::Network, _) if is_missing(refusal.status) && refusal.problem.is_some() => {
            "the CA does not recognize a URL that it gave itself, and the request will be retried"
        }
        (FailureClass::Network, _)
            if refusal.problem.is_none() && refusal.status.is_client_error() =>
        {
            "that is not an ACME response: if this persists, check what responds in place of the \
             CA (the issuer's 'directory' and 'proxy')"
        }
        (FailureClass::Network, _) => "the fault is the CA's and is usually temporary",
        (FailureClass::Validation, _) => "check that the names point to this gateway",
        (
            FailureClass::Clock
            | FailureClass::Storage
            | FailureClass::Vetoed
            | FailureClass::Internal,
            _,
        ) => "please report this as a bug, with this message",
    };
    // Writing to a string does not fail.
    let _ = write!(message, "; {advice}");
    failure.message = message;
    failure
}

/// The failure if a CA did not validate `name`.
pub(super) fn validation_failure(
    host: &str,
    name: &str,
    kind: ChallengeType,
    problem: &Problem,
) -> Failure {
    let class = match class(Some(problem), StatusCode::OK, Step::Challenge) {
        FailureClass::Configuration | FailureClass::Internal => FailureClass::Validation,
        class => class,
    };
    let port = match kind {
        ChallengeType::TlsAlpn01 => 443,
        _ => 80,
    };
    let advice = match (class, problem.kind()) {
        (_, "caa") => format!("let the CAA records of {name} name this CA, or choose another"),
        (FailureClass::Refused, _) => "choose another CA for it, or remove the name".to_owned(),
        _ if kind == ChallengeType::DnsPersist01 => {
            "check that all name servers of the zone have the record that this gateway found"
                .to_owned()
        }
        _ if kind.is_over_dns() => "the name servers that were asked had the record: check that \
                                    these are the ones the world uses, and allow time for slow \
                                    ones ('propagation' of the entry in 'dns')"
            .to_owned(),
        (_, "dns") => format!("give {name} A or AAAA records that point to this gateway"),
        _ if is_about_names(&problem.to_string()) => {
            format!(
                "the CA cannot look up {name}: check its A and AAAA records and its name servers"
            )
        }
        (_, "connection") => format!(
            "check that all addresses of {name} point to this gateway and that its port {port} can \
             be reached from the internet"
        ),
        _ => format!(
            "another server seems to respond for {name} on port {port}: check that all its \
             addresses point to this gateway and that nothing in between responds itself"
        ),
    };
    let kind = kind.as_str();
    let message = format!("{host} did not validate {name} by {kind}: {problem}; {advice}");
    Failure::new(class, message)
}

/// Whether a CA says of a validation that it could not look up the name. Some do so with the type
/// `unauthorized` or `connection`.
fn is_about_names(said: &str) -> bool {
    const WORDS: [&str; 5] = [
        "resolving",
        "no such host",
        "lookup ",
        "NXDOMAIN",
        "SERVFAIL",
    ];
    WORDS.iter().any(|word| said.contains(word))
}

/// Returns true if another type of challenge may succeed after one failed with this problem.
pub(super) fn may_fall_back(problem: &Problem) -> bool {
    !matches!(
        problem.kind(),
        "caa" | "rejectedIdentifier" | "rateLimited" | "unsupportedIdentifier"
    )
}

/// Returns true if the CA does not know the account.
pub(super) fn is_account_lost(error: &Error, client: &AcmeClient) -> bool {
    let kind = match (client.refusal(), error) {
        (Some(refusal), _) => refusal.problem.map(|problem| problem.kind().to_owned()),
        (None, Error::Api(problem)) => Some(Problem::from(problem).kind().to_owned()),
        (None, _) => None,
    };
    kind.as_deref() == Some("accountDoesNotExist")
}

/// Returns true if the CA rejected the nonce, which says nothing about the request.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if Problem::from(problem).kind() == "badNonce")
}

/// Describes a refusal for people who wonder what responds there.
pub(super) fn answer_text(refusal: &Refusal) -> String {
    let Refusal { status, words, .. } = refusal;
    let place = refusal
        .location
        .as_deref()
        .map(|place| one_line(place, 300));
    let problem = refusal.problem.as_ref().map(ToString::to_string);
    match (place, problem.as_ref().or(words.as_ref())) {
        (Some(place), _) if status.is_redirection() => format!("{status}, a redirect to {place}"),
        (_, Some(words)) => format!("{status} ({words})"),
        (_, None) => status.to_string(),
    }
}

/// Returns true if the CA has paused issuance until somebody acts, as Let's Encrypt does after a
/// great many failures; ACME has no type for it.
fn pause(problem: &Problem) -> bool {
    let detail = problem.detail.as_deref().unwrap_or_default();
    matches!(problem.kind(), "rateLimited" | "unauthorized")
        && (portal(detail).is_some()
            || detail.contains(" paused")
            || detail.contains("unpause")
            || detail.contains("temporarily prevented from requesting"))
}

/// The URL of a CA's portal in its text.
fn portal(detail: &str) -> Option<String> {
    let start = detail.find("https://portal.")?;
    let rest = detail.get(start..)?;
    let url = rest.split([' ', '\n', '"', '<', '>']).next()?;
    page(url.trim_end_matches(['.', ',', ')', ';']))
}

/// Returns true if a name is `domain` or below it.
pub(super) fn is_within(name: &Pattern, domain: &str) -> bool {
    let name = match name {
        Pattern::Exact(name) | Pattern::Wildcard(name) => name.as_str(),
        Pattern::Ip(address) => return address.to_string() == domain,
        Pattern::Any => return false,
    };
    name.strip_suffix(domain)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The time after "retry after" in a CA's text, as Let's Encrypt writes it.
fn date_in(detail: &str) -> Option<UnixTime> {
    let (_, rest) = detail.split_once("retry after ")?;
    let word = rest.split([' ', ',', ';']).next().unwrap_or(rest);
    if let Ok(time) = word.trim_end_matches(['.', ':']).parse::<jiff::Timestamp>() {
        return Some(UnixTime::from_secs(time.as_second()));
    }
    let date = rest.get(.."2026-01-01 00:00:00 UTC".len())?;
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S UTC", date).ok()?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(UnixTime::from_secs(zoned.timestamp().as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn names() -> Vec<Pattern> {
        ["www.a.example", "b.example"]
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect()
    }

    fn refuse(step: Step, status: u16, problem: Option<Problem>) -> Failure {
        let refusal = Refusal {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after: None,
            problem,
            words: None,
            location: None,
            terms: Some("https://ca/terms".to_owned()),
        };
        refusal_failure("ca.example", step, &refusal, &names(), NOW)
    }

    #[test]
    fn types_of_problems_have_their_class() {
        use FailureClass::{Configuration, Internal, Network, RateLimited, Refused, Validation};
        for (kind, status, step, class) in [
            ("rateLimited", 429, Step::Order, RateLimited),
            ("rejectedIdentifier", 400, Step::Order, Refused),
            ("caa", 403, Step::Finalize, Refused),
            ("serverInternal", 500, Step::Order, Network),
            ("badNonce", 400, Step::Order, Network),
            ("externalAccountRequired", 403, Step::Account, Configuration),
            ("malformed", 400, Step::Account, Configuration),
            ("malformed", 400, Step::Order, Configuration),
            ("malformed", 400, Step::Finalize, Configuration),
            ("malformed", 400, Step::Contact, Internal),
            ("malformed", 404, Step::Poll, Network),
            ("malformed", 404, Step::Authorization, Network),
            ("malformed", 404, Step::Download, Network),
            ("malformed", 404, Step::RenewalInfo, Network),
            ("badCSR", 400, Step::Finalize, Configuration),
            ("badSignatureAlgorithm", 400, Step::Finalize, Configuration),
            ("unauthorized", 403, Step::Order, Configuration),
            ("invalidContact", 400, Step::Account, Configuration),
            ("connection", 400, Step::Finalize, Validation),
            ("of tomorrow", 400, Step::Order, Configuration),
            ("of tomorrow", 503, Step::Order, Network),
        ] {
            let failure = refuse(step, status, Some(Problem::of(kind, "because")));
            assert_eq!(failure.class, class, "{kind} {status}");
            let message = &failure.message;
            assert!(
                message.contains("ca.example") && message.contains("because"),
                "{message}"
            );
        }
        assert_eq!(refuse(Step::Order, 502, None).class, Network);
        assert_eq!(refuse(Step::Order, 429, None).class, RateLimited);
    }

    #[test]
    fn a_name_that_a_ca_cannot_look_up_is_no_other_servers_fault() {
        let advice = |kind, detail| {
            let problem = Problem::of(kind, detail);
            let failure = validation_failure("ca", "a.test", ChallengeType::TlsAlpn01, &problem);
            failure.message
        };
        for (kind, detail) in [
            (
                "unauthorized",
                "Error occurred while resolving URL \"https://a.test\": read udp",
            ),
            ("connection", "dial tcp: lookup a.test: no such host"),
        ] {
            let message = advice(kind, detail);
            assert!(message.contains("cannot look up a.test"), "{message}");
        }
        let message = advice("unauthorized", "the wrong certificate");
        assert!(
            message.contains("another server seems to respond"),
            "{message}"
        );
    }

    #[test]
    fn the_worst_of_several_names_decides() {
        let problem = Problem::read(
            br#"{ "type": "urn:ietf:params:acme:error:malformed", "subproblems": [
                { "type": "urn:ietf:params:acme:error:malformed" },
                { "type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no",
                  "identifier": { "type": "dns", "value": "b.example" } } ] }"#,
        )
        .expect("a problem");
        let failure = refuse(Step::Order, 400, Some(problem));
        assert_eq!(failure.class, FailureClass::Refused);
        assert!(failure.message.contains("b.example: no"), "{failure}");
    }

    #[test]
    fn a_limit_has_a_scope_and_an_end() {
        let limited =
            |detail: &str| refuse(Step::Order, 429, Some(Problem::of("rateLimited", detail)));
        let failure = limited(
            "too many certificates (50) already issued for \"a.example\" in the last 168h0m0s, \
             retry after 2026-11-25 10:00:00 UTC: see https://b.example/docs",
        );
        assert_eq!(failure.scope, Some(Scope::Domain("a.example".to_owned())));
        assert_eq!(failure.retry_after, Some(unix(1_795_600_800)));
        let failure = limited("limited for b.example, retry after 2026-11-25T10:00:00Z: see");
        assert_eq!(failure.retry_after, Some(unix(1_795_600_800)));
        let failure = limited("slow down");
        assert_eq!((failure.scope, failure.retry_after), (None, None));
    }

    #[test]
    fn a_ca_that_is_too_busy_and_says_until_when_is_limited_as_a_whole() {
        let refuse = |status: StatusCode, retry_after| {
            let refusal = Refusal {
                status,
                retry_after,
                problem: None,
                words: None,
                location: None,
                terms: None,
            };
            refusal_failure("ca.example", Step::Order, &refusal, &names(), NOW)
        };
        let failure = refuse(StatusCode::SERVICE_UNAVAILABLE, Some(NOW + 30));
        assert_eq!(failure.class, FailureClass::Network);
        assert_eq!(failure.scope, Some(Scope::Ca));
        let failure = refuse(StatusCode::SERVICE_UNAVAILABLE, None);
        assert_eq!(failure.scope, None, "that is a fault, and no limit");
        assert_eq!(refuse(StatusCode::NOT_FOUND, Some(NOW + 30)).scope, None);
    }

    #[test]
    fn a_pause_leads_to_the_portal() {
        let detail = "Your account is temporarily prevented from requesting certificates for \
                      www.a.example and possibly others. Please visit: \
                      https://portal.letsencrypt.org/sfe/v1/unpause?jwt=a.b.c";
        let failure = refuse(Step::Order, 429, Some(Problem::of("rateLimited", detail)));
        assert_eq!(failure.class, FailureClass::Paused);
        assert_eq!(
            failure.url.as_deref(),
            Some("https://portal.letsencrypt.org/sfe/v1/unpause?jwt=a.b.c")
        );
        let problem = Problem::of("userActionRequired", "terms changed");
        let failure = refuse(Step::Order, 403, Some(problem));
        assert_eq!(failure.url.as_deref(), Some("https://ca/terms"));
    }

    #[test]
    fn what_was_not_validated_says_where_to_look() {
        let problem = Problem::of("connection", "10.0.0.1: Connection refused");
        let failure = validation_failure("ca", "b.example", ChallengeType::Http01, &problem);
        assert_eq!(failure.class, FailureClass::Validation);
        for part in ["b.example", "http-01", "port 80", "10.0.0.1", "ca "] {
            assert!(failure.message.contains(part), "{part}: {failure}");
        }
        let caa = Problem::of("caa", "CAA record prevents issuance");
        let failure = validation_failure("ca", "b.example", ChallengeType::Http01, &caa);
        assert_eq!(failure.class, FailureClass::Refused);
        assert!(!may_fall_back(&caa) && may_fall_back(&problem));
    }
}
