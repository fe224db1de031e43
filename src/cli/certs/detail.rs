//! Everything known of one certificate, for people.

use super::table::{left_paint, shown_paint, state};
use super::time::{span, until};
use crate::admin::{
    AdviceView, CertificateState, CertificateView, FailureView, HeldView, RenewalView, StapleView,
    time,
};
use crate::cli::output::{Style, clean};
use crate::clock::UnixTime;
use crate::printable::Printable as _;
use crate::schedule::FailureClass;

/// A paragraph of facts, each on its own lines.
pub(super) fn detail(view: &CertificateView, now: UnixTime, style: Style) -> String {
    let mut fields = Fields::default();
    let chain_end = view.chain_end.as_ref();
    let meaning = match chain_end.filter(|end| view.is_usable() && end.not_after < now) {
        Some(_) => "clients refuse it because a certificate in its chain has expired",
        None if view.state == CertificateState::Valid && !view.findings.is_empty() => {
            "it is served, but see what was found"
        }
        None => meaning(view.state),
    };
    let state = shown_paint(view)(style, &state(view));
    fields.add("state", format!("{state}: {meaning}"));
    for finding in &view.findings {
        let (state, message) = (finding.state.replace('_', " "), clean(&finding.message));
        // Some are sentences of their own.
        let message = match message.strip_prefix("has a flaw: ") {
            Some(flaw) => flaw.to_owned(),
            None => format!("it {message}"),
        };
        fields.add("finding", format!("{}: {message}", clean(&state)));
    }
    fields.add("names", view.names.join(", "));
    if let (Some(begin), Some(end)) = (view.not_before, view.not_after) {
        let left = end - now;
        let told = remaining(left);
        fields.add("valid from", time(begin).to_string());
        let told = left_paint(view, left)(style, &told);
        fields.add("valid until", format!("{} ({told})", time(end)));
    }
    if let Some(end) = chain_end {
        let left = end.not_after - now;
        let told = remaining(left);
        let told = left_paint(view, left)(style, &told);
        let (subject, end) = (clean(&end.subject), time(end.not_after));
        fields.add("chain until", format!("{end} ({told}), that of {subject}"));
    }
    fields.add_some("issued by", view.issuer.as_deref());
    fields.add("source", source(view));
    fields.add_some("key", view.key.as_deref());
    fields.add_some("serial", view.serial.as_deref());
    fields.add_some("SHA-256", view.fingerprint.as_deref());
    if let Some(staple) = &view.staple {
        fields.add("OCSP", stapled(staple, now));
    }
    if let Some(renewal) = &view.renewal {
        add_renewal(&mut fields, renewal, now);
    }
    let mut text = style.bold(&view.name);
    text.push('\n');
    for (name, value) in fields.0 {
        for (number, line) in value.lines().enumerate() {
            let name = if number == 0 { name } else { "" };
            text.push_str(&format!("  {name:<13} {line}\n"));
        }
    }
    text
}

/// Facts by name.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn add(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }

    fn add_some(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, clean(value));
        }
    }
}

fn add_renewal(fields: &mut Fields, renewal: &RenewalView, now: UnixTime) {
    fields.add("issuers", renewal.issuers.join(", "));
    fields.add("stored as", renewal.subject.clone());
    if renewal.on_demand {
        fields.add("asked for", "on demand, by a client".to_owned());
    }
    let which = if renewal.failures > 0 {
        "next attempt"
    } else {
        "renewal"
    };
    let next = match renewal.next {
        Some(at) => format!("{} ({})", time(at), until(at, now)),
        None if renewal.obtaining => "under way".to_owned(),
        None => "none is planned".to_owned(),
    };
    fields.add(which, next);
    if let Some(held) = &renewal.held {
        fields.add("held", held_by(held, now));
    }
    if let Some(unread) = &renewal.unread {
        let why = clean(unread);
        fields.add(
            "storage",
            format!("it may hold this certificate but cannot be read\n{why}"),
        );
    }
    if let Some(advice) = &renewal.advice {
        fields.add("CA advises", advised(advice));
    }
    if renewal.failures > 0 {
        fields.add("failures", format!("{} in a row", renewal.failures));
    }
    if let Some(failure) = &renewal.last_failure {
        fields.add("last failure", last_failure(failure, now));
    }
}

/// Which response is stapled until when, and why there is no newer one.
fn stapled(staple: &StapleView, now: UnixTime) -> String {
    let mut text = match (staple.next_update, &*staple.state) {
        (_, "revoked") => "the CA says that it is revoked".to_owned(),
        (Some(end), _) => format!("stapled until {} ({})", time(end), until(end, now)),
        (None, _) if staple.required => "no response, so it is not served".to_owned(),
        (None, _) => "no response".to_owned(),
    };
    if staple.required {
        text.push_str("; required (Must-Staple)");
    }
    if let Some(serial) = &staple.served_instead {
        let serial = clean(serial);
        text.push_str(&format!(
            "\nclients get the certificate with serial {serial} instead"
        ));
    }
    if let Some(fault) = &staple.fault {
        text.push_str(&format!("\n{}", clean(fault)));
    }
    if let Some(responder) = &staple.responder {
        text.push_str(&format!("\nfrom {}", clean(responder)));
    }
    text
}

/// Which limit of which CA holds it back, and until when.
fn held_by(held: &HeldView, now: UnixTime) -> String {
    let scope = match held.scope.as_str() {
        "set" => "a limit on this exact set of names",
        "domain" => "a limit on the domain",
        "identifier" => "a limit on one of the names",
        "account" => "a limit on the account",
        "registrations" => "a limit on new accounts",
        "ca" => "a limit on all requests",
        "clock" => "the clock: the certificate issued is not valid by this machine's clock",
        other => other,
    };
    let (until, left) = (time(held.until), until(held.until, now));
    format!(
        "until {until} ({left}), at {} by {scope}\n{}",
        held.issuer,
        clean(&held.message)
    )
}

/// When the CA suggests to renew, and where it explains why.
fn advised(advice: &AdviceView) -> String {
    let (start, end) = (time(advice.start), time(advice.end));
    let mut text = format!("{start} to {end}\n{} was chosen", time(advice.drawn));
    if let Some(url) = &advice.url {
        text.push_str(&format!("\nsee {}", clean(url)));
    }
    text
}

/// The last failure in full: when, at which issuer, of what kind; then the CA's words.
pub(super) fn last_failure(failure: &FailureView, now: UnixTime) -> String {
    let ago = span((now - failure.at).max(0));
    let issuer = failure.issuer.as_deref();
    let at = issuer.map_or_else(String::new, |issuer| format!(" at {issuer}"));
    let mut text = format!("{ago} ago{at}: {}\n", kind(failure.class));
    text.push_str(&clean(&failure.message));
    if let Some(after) = failure.retry_after {
        text.push_str(&format!("\nnot to be asked again before {}", time(after)));
    }
    if let Some(url) = &failure.url {
        text.push_str(&format!("\nsee {}", clean(url)));
    }
    text
}

fn source(view: &CertificateView) -> String {
    match (&view.file, &view.renewal) {
        (Some(file), _) => format!("{} {}", view.source, file.printable()),
        (None, Some(_)) => format!("issuer {}", view.source),
        (None, None) => view.source.clone(),
    }
}

fn meaning(state: CertificateState) -> &'static str {
    match state {
        CertificateState::Valid => "nothing to do",
        CertificateState::Due => "waiting for renewal",
        CertificateState::Obtaining => "an order is in progress",
        CertificateState::Missing => "a site needs it, but there is none",
        CertificateState::Failed => "the last attempt failed; it will be retried",
        CertificateState::Paused => "the CA requires action first; it is not retried",
        CertificateState::Revoked => "it was revoked and is served until it is replaced",
        CertificateState::Withheld => {
            "it is not served, because it requires an OCSP response and has none"
        }
        CertificateState::Expired => "clients refuse it",
        CertificateState::NotYetValid => "clients refuse it until it becomes valid",
    }
}

fn kind(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Network => "the CA cannot be reached or has a fault",
        FailureClass::Validation => "the CA could not verify that the names point here",
        FailureClass::Refused => "the CA refuses",
        FailureClass::RateLimited => "too many requests for the CA's limits",
        FailureClass::Paused => "the CA has paused the account or the name",
        FailureClass::Configuration => "the account or the request is not accepted",
        FailureClass::Storage => "the storage cannot be used",
        FailureClass::Clock => "the certificate issued is not valid by this machine's clock",
        FailureClass::Vetoed => "held by a hook, which objects",
        FailureClass::Internal => "the certificate issued is not the one requested",
    }
}

/// How much of a life is left, or how long ago it ended.
fn remaining(left: i64) -> String {
    match left {
        ..0 => format!("expired {}", span(left)),
        _ => format!("{} left", span(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DAY, NOW, issued};
    use super::*;
    use crate::cli::output::Output;

    fn plain(view: &CertificateView) -> String {
        detail(view, NOW, Output::plain().style())
    }

    #[test]
    fn a_certificate_is_told_in_full() {
        let mut view = issued("a.example", 60);
        view.names.push("www.a.example".to_owned());
        assert_eq!(
            plain(&view),
            format!(
                "a.example\n\
                 \x20 state         valid: nothing to do\n\
                 \x20 names         a.example, www.a.example\n\
                 \x20 valid from    2025-08-16T00:00:00Z\n\
                 \x20 valid until   2025-11-14T00:00:00Z (60 d left)\n\
                 \x20 issued by     CN=R11, O=Let's Encrypt, C=US\n\
                 \x20 source        issuer letsencrypt\n\
                 \x20 key           ecdsa\n\
                 \x20 serial        0A\n\
                 \x20 SHA-256       {}\n\
                 \x20 issuers       letsencrypt, zerossl\n\
                 \x20 stored as     a.example\n\
                 \x20 renewal       2025-10-15T00:00:00Z (in 30 d)\n",
                "ab".repeat(32)
            )
        );
        let mut ended = issued("a.example", -3);
        ended.state = CertificateState::Expired;
        assert!(
            plain(&ended).contains("(expired 3 d ago)"),
            "{}",
            plain(&ended)
        );
    }

    #[test]
    fn a_stapled_response_is_told_with_its_end_and_its_fault() {
        let mut view = issued("a.example", 60);
        view.staple = Some(StapleView {
            state: "good".to_owned(),
            responder: Some("http://ocsp.example/".to_owned()),
            required: true,
            this_update: Some(NOW - DAY),
            next_update: Some(NOW + 3 * DAY),
            fault: Some("the response has expired".to_owned()),
            served_instead: Some("0A".to_owned()),
        });
        let text = plain(&view);
        let told = "\
\x20 OCSP          stapled until 2025-09-18T00:00:00Z (in 3 d); required (Must-Staple)
\x20               clients get the certificate with serial 0A instead
\x20               the response has expired
\x20               from http://ocsp.example/
";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn the_advice_of_the_ca_is_told_with_its_page() {
        let mut view = issued("a.example", 60);
        let at = |day: i64| NOW + day * DAY;
        if let Some(renewal) = &mut view.renewal {
            renewal.advice = Some(AdviceView {
                start: at(29),
                end: at(31),
                drawn: at(30),
                url: Some("https://ca.example/why".to_owned()),
            });
        }
        let text = plain(&view);
        let told = "\
\x20 renewal       2025-10-15T00:00:00Z (in 30 d)
\x20 CA advises    2025-10-14T00:00:00Z to 2025-10-16T00:00:00Z
\x20               2025-10-15T00:00:00Z was chosen
\x20               see https://ca.example/why
";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn a_limit_that_holds_it_is_told_with_its_end() {
        let mut view = issued("a.example", 60);
        if let Some(renewal) = &mut view.renewal {
            renewal.next = Some(NOW + 34 * 3600);
            renewal.held = Some(HeldView {
                issuer: "letsencrypt".to_owned(),
                scope: "account".to_owned(),
                until: NOW + 34 * 3600,
                message: "the CA limits this account".to_owned(),
            });
        }
        let text = plain(&view);
        let told = "\
\x20 held          until 2025-09-16T10:00:00Z (in 34 h), at letsencrypt by a limit on the account
\x20               the CA limits this account
";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn a_storage_that_cannot_be_read_is_told_with_the_reason() {
        let mut view = CertificateView {
            renewal: issued("a.example", 0).renewal,
            ..CertificateView::missing(vec!["a.example".to_owned()])
        };
        if let Some(renewal) = &mut view.renewal {
            renewal.next = None;
            renewal.unread = Some("cannot read /data/a.pem: Permission denied".to_owned());
        }
        let text = plain(&view);
        let told = "\
\x20 renewal       none is planned
\x20 storage       it may hold this certificate but cannot be read
\x20               cannot read /data/a.pem: Permission denied
";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn a_failure_is_told_with_the_words_of_the_ca() {
        let mut view = CertificateView {
            state: CertificateState::Failed,
            renewal: issued("a.example", 0).renewal,
            ..CertificateView::missing(vec!["a.example".to_owned()])
        };
        if let Some(renewal) = &mut view.renewal {
            renewal.failures = 4;
            renewal.next = Some(NOW + 2 * DAY);
            renewal.last_failure = Some(FailureView {
                at: NOW - 300,
                issuer: Some("zerossl".to_owned()),
                class: FailureClass::RateLimited,
                message: "too many certificates\nfor a.example".to_owned(),
                url: Some("https://ca.example/limits".to_owned()),
                retry_after: Some(NOW + DAY),
            });
        }
        let text = plain(&view);
        let told = "\
\x20 next attempt  2025-09-17T00:00:00Z (in 2 d)
\x20 failures      4 in a row
\x20 last failure  5 min ago at zerossl: too many requests for the CA's limits
\x20               too many certificates
\x20               for a.example
\x20               not to be asked again before 2025-09-16T00:00:00Z
\x20               see https://ca.example/limits
";
        assert!(text.ends_with(told), "{text}");
        assert!(!text.contains("valid until"), "{text}");
    }
}
