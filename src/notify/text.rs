//! A notification as text for people: what happened, where, since when, how often, and what to do.
//!
//! All recipients that are read by people show this text. It has a bounded length, whatever the
//! number of entries, and the gravest are shown first.

use std::fmt::Write as _;

use super::notification::{Entry, EntryState, Notification};
use crate::event::EventKind;
use crate::printable::one_line;

/// The longest subject, in characters.
const LONGEST_SUBJECT: usize = 150;

/// The longest name that a subject or a list of names has, in characters.
const LONGEST_NAME: usize = 100;

/// How much of an event's message is shown, in characters.
const LONGEST_MESSAGE: usize = 600;

/// How many entries of a kind are shown with everything that is known of them.
const DETAILED: usize = 20;

/// How many further names of a kind are listed.
const NAMED: usize = 30;

/// What is kept free for the line that says how many entries are not shown.
const LAST_LINE: usize = 100;

/// How the text is written for a service.
pub(super) struct Style {
    /// Writes somebody else's text so that it is shown as it is.
    pub(super) escape: fn(&str) -> String,
    /// Writes a heading; its text is escaped.
    pub(super) heading: fn(&str) -> String,
    /// How long a text is, as the service counts.
    pub(super) length: fn(&str) -> usize,
}

/// Text without any markup, counted in octets.
pub(super) const PLAIN: Style = Style {
    escape: str::to_owned,
    heading: str::to_owned,
    length: str::len,
};

/// The notification on one line.
pub(super) fn subject(notification: &Notification) -> String {
    let gateway = one_line(&notification.gateway, LONGEST_NAME);
    let what = match &*notification.entries {
        [entry] if notification.omitted == 0 => {
            let what = format!("{}: {}", state_or_severity(entry), phrase(entry.event.kind));
            match concerned(entry) {
                Some(name) => format!("{what}: {name}"),
                None => what,
            }
        }
        _ => {
            let severity = notification.severity;
            match count_kinds(notification) {
                counts if is_all_recovered(notification) => counts,
                counts => format!("{severity}: {counts}"),
            }
        }
    };
    one_line(&format!("[snigate {gateway}] {what}"), LONGEST_SUBJECT)
}

/// The whole text, at most `longest` long as `style` counts.
pub(super) fn body(notification: &Notification, style: &Style, longest: usize) -> String {
    let mut page = Page {
        style,
        text: String::new(),
        room: longest.saturating_sub(LAST_LINE),
        is_full: false,
    };
    let is_digest = notification.entries.len() > 1 || notification.omitted > 0;
    if is_digest {
        let gateway = (style.escape)(&one_line(&notification.gateway, LONGEST_NAME));
        let counts = count_kinds(notification);
        page.push(&format!("{gateway} reports: {counts}.\n"));
    }
    let mut hidden = notification.omitted;
    for group in groups(&notification.entries) {
        hidden += write_group(&mut page, &group, is_digest);
    }
    if !is_digest {
        let gateway = (style.escape)(&one_line(&notification.gateway, LONGEST_NAME));
        page.push(&format!("Reported by {gateway}.\n"));
    }
    let mut text = page.text;
    if hidden > 0 {
        let more = match hidden {
            1 => "1 more report is".to_owned(),
            count => format!("{count} more reports are"),
        };
        // Writing to a string does not fail.
        _ = write!(text, "\n{more} not shown; see the log.");
    }
    text.truncate(text.trim_end().len());
    text
}

/// What an entry is about; `None` for the gateway as a whole.
pub(super) fn concerned(entry: &Entry) -> Option<String> {
    let event = &entry.event;
    let name = match (&event.upstream, &event.server) {
        (Some(upstream), Some(server)) => format!("{upstream} ({server})"),
        (Some(upstream), None) => upstream.to_string(),
        (None, _) if event.domain.is_empty() => return None,
        (None, _) => event.domain.clone(),
    };
    Some(one_line(&name, LONGEST_NAME))
}

/// What happened, on one line: the name and the message.
pub(super) fn headline(entry: &Entry) -> String {
    let message = one_line(&entry.event.message, LONGEST_MESSAGE);
    match concerned(entry) {
        Some(name) => format!("{name}: {message}"),
        None => message,
    }
}

/// A kind of event in words.
pub(super) fn phrase(kind: EventKind) -> String {
    kind.as_str().replace('_', " ")
}

/// The entries, the gravest first, those that are over last.
pub(super) fn by_gravity(entries: &[Entry]) -> Vec<&Entry> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|one, other| {
        let is_over = |entry: &Entry| entry.state == EntryState::Recovered;
        is_over(one)
            .cmp(&is_over(other))
            .then(other.event.severity.cmp(&one.event.severity))
            .then(one.since.cmp(&other.since))
    });
    sorted
}

/// Entries of one kind, or those that are over.
struct Group<'a> {
    kind: Option<EventKind>,
    entries: Vec<&'a Entry>,
}

/// The entries by kind; the kind with the gravest one first, what is over last.
fn groups(entries: &[Entry]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for entry in by_gravity(entries) {
        let kind = (entry.state != EntryState::Recovered).then_some(entry.event.kind);
        match groups.iter_mut().find(|group| group.kind == kind) {
            Some(group) => group.entries.push(entry),
            None => groups.push(Group {
                kind,
                entries: vec![entry],
            }),
        }
    }
    groups
}

/// Writes the entries of a group. Returns how many are not shown.
fn write_group(page: &mut Page<'_>, group: &Group<'_>, has_heading: bool) -> usize {
    if has_heading {
        let title = match group.kind {
            Some(kind) => phrase(kind),
            None => "recovered".to_owned(),
        };
        let title = format!("{title} ({})", group.entries.len());
        let heading = (page.style.heading)(&title);
        page.push(&format!("\n{heading}\n"));
    }
    let mut entries = group.entries.iter();
    let mut shown = 0;
    for entry in entries.by_ref().take(DETAILED) {
        let lines = match group.kind {
            Some(_) => report(entry, page.style),
            None => recovery(entry, page.style),
        };
        if !page.push(&lines) {
            break;
        }
        shown += 1;
    }
    let rest = group.entries.get(shown..).unwrap_or_default();
    let mut named = 0;
    // Names without details help only where all details before them were shown.
    if shown == DETAILED && !rest.is_empty() {
        let names: Vec<_> = rest
            .iter()
            .take(NAMED)
            .filter_map(|entry| concerned(entry))
            .map(|name| (page.style.escape)(&name))
            .collect();
        if !names.is_empty() && page.push(&format!("Also: {}\n", names.join(", "))) {
            named = names.len();
        }
    }
    if let Some(step) = group.kind.and_then(next_step) {
        page.push(&format!("{}\n", (page.style.escape)(step)));
    }
    rest.len().saturating_sub(named)
}

/// An entry with everything that is known of it.
fn report(entry: &Entry, style: &Style) -> String {
    let event = &entry.event;
    let mut facts = Vec::new();
    match entry.state {
        EntryState::Ongoing => facts.push(format!("since {}", entry.since)),
        EntryState::Happened | EntryState::Recovered => facts.push(format!("at {}", event.at)),
    }
    match entry.repeats {
        0 => {}
        1 => facts.push("reported once before".to_owned()),
        times => facts.push(format!("reported {times} times before")),
    }
    if let Some(issuer) = &event.issuer {
        facts.push(format!("issuer {issuer}"));
    }
    if let Some(attempt) = event.attempt {
        facts.push(format!("attempt {attempt}"));
    }
    if let Some(next) = event.next {
        facts.push(format!("next attempt at {next}"));
    }
    if let Some(end) = event.not_after {
        facts.push(format!("valid until {end}"));
    }
    let facts = one_line(&facts.join(", "), LONGEST_MESSAGE);
    let mut text = format!(
        "{}: {}\n  {}\n",
        state_or_severity(entry),
        (style.escape)(&headline(entry)),
        (style.escape)(&facts)
    );
    if let Some(url) = &event.url {
        let url = one_line(url, LONGEST_MESSAGE);
        // Writing to a string does not fail.
        _ = writeln!(text, "  {}", (style.escape)(&url));
    }
    text
}

/// An entry that is over.
fn recovery(entry: &Entry, style: &Style) -> String {
    let what = (style.escape)(&headline(entry));
    format!("recovered: {what} (since {})\n", entry.since)
}

fn state_or_severity(entry: &Entry) -> String {
    match entry.state {
        EntryState::Recovered => "recovered".to_owned(),
        EntryState::Happened | EntryState::Ongoing => entry.event.severity.to_string(),
    }
}

fn is_all_recovered(notification: &Notification) -> bool {
    let mut entries = notification.entries.iter();
    entries.all(|entry| entry.state == EntryState::Recovered)
}

/// How many entries there are of each kind; the gravest first.
fn count_kinds(notification: &Notification) -> String {
    let groups = groups(&notification.entries);
    let mut counts: Vec<_> = groups
        .iter()
        .map(|group| match group.kind {
            Some(kind) => format!("{} {}", group.entries.len(), phrase(kind)),
            None => format!("{} recovered", group.entries.len()),
        })
        .collect();
    if notification.omitted > 0 {
        counts.push(format!("{} more", notification.omitted));
    }
    counts.join(", ")
}

/// What to do about events of a kind, where their messages leave that open.
fn next_step(kind: EventKind) -> Option<&'static str> {
    match kind {
        EventKind::CertificateFailed
        | EventKind::CertificateExpiring
        | EventKind::CertificateExpired
        | EventKind::CertificateNotYetValid
        | EventKind::CertificateRevoked
        | EventKind::CertificateFlawed
        | EventKind::CertificateRenewalOverdue
        | EventKind::CertificateVetoed => {
            Some("'snigate certs show NAME' has more about a certificate.")
        }
        EventKind::UpstreamDown => Some("'snigate upstreams' shows all servers."),
        EventKind::StorageFailed => {
            Some("Check that the storage has room and that Snigate may write to it.")
        }
        EventKind::ConfigRejected => Some("'snigate check' shows all mistakes."),
        EventKind::CertificateLoaded
        | EventKind::CertificateRenewalAdvised
        | EventKind::CertificateObtaining
        | EventKind::CertificateProgress
        | EventKind::CertificateObtained
        | EventKind::CertificateRenewed
        | EventKind::CaLimited
        | EventKind::CertificateDropped
        | EventKind::ValidationExpiring
        | EventKind::StorageRecovered
        | EventKind::UpstreamUp
        | EventKind::CertificateRecovered
        | EventKind::StapleFailed
        | EventKind::StapleRecovered
        | EventKind::ConfigReloaded
        | EventKind::NotificationTest => None,
    }
}

/// Text within its limit.
struct Page<'a> {
    style: &'a Style,
    text: String,
    room: usize,
    /// Whether something had no room: nothing follows it.
    is_full: bool,
}

impl Page<'_> {
    /// Appends `lines` if there is room for all of them.
    fn push(&mut self, lines: &str) -> bool {
        let length = (self.style.length)(lines);
        if self.is_full || length > self.room {
            self.is_full = true;
            return false;
        }
        self.room -= length;
        self.text.push_str(lines);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, hostile, notification, one, thousand};
    use super::*;
    use crate::event::Severity;

    #[test]
    fn one_trouble_says_what_since_when_how_often_and_what_to_do() {
        let one = one();
        assert_eq!(
            subject(&one),
            "[snigate gw1.example.net] critical: certificate failed: a.example"
        );
        assert_eq!(
            body(&one, &PLAIN, 4096),
            "critical: a.example: no new certificate for a.example: the CA refuses; choose another \
             CA\n  since 2026-09-21T13:13:20Z, reported 3 times before, issuer letsencrypt, attempt \
             4, next attempt at 2026-09-21T14:23:20Z, valid until 2026-09-22T14:13:20Z\n  \
             https://letsencrypt.org/docs/caa/\n'snigate certs show NAME' has more about a \
             certificate.\nReported by gw1.example.net."
        );
    }

    #[test]
    fn a_thousand_are_counted_by_kind_the_gravest_first_within_the_limit() {
        let thousand = thousand();
        assert_eq!(
            subject(&thousand),
            "[snigate gw1.example.net] critical: 100 certificate expired, 790 certificate failed, \
             100 certificate expiring, 10 recovered"
        );
        for longest in [500, 2000, 4096, 65_536] {
            let text = body(&thousand, &PLAIN, longest);
            assert!(text.len() <= longest, "{longest}: {}", text.len());
            let counts = "gw1.example.net reports: 100 certificate expired, 790 certificate \
                          failed, 100 certificate expiring, 10 recovered.";
            assert!(text.starts_with(counts), "{text}");
            assert!(text.ends_with("not shown; see the log."), "{text}");
        }
        let text = body(&thousand, &PLAIN, 65_536);
        let place = |words: &str| {
            text.find(words)
                .unwrap_or_else(|| panic!("{words}: {text}"))
        };
        assert!(place("\ncertificate expired (100)\n") < place("\ncertificate failed (790)\n"));
        assert!(place("\ncertificate failed (790)\n") < place("\nrecovered (10)\n"));
        assert_eq!(
            text.matches("\nrecovered: site-").count(),
            10,
            "a line each"
        );
        assert_eq!(text.matches("\nAlso: site-").count(), 3);
        // 20 of each kind in detail, 30 by name.
        assert!(text.contains(&format!("\n{} more reports are not shown", 990 - 3 * 50)));
    }

    #[test]
    fn nothing_that_others_write_leaves_its_line() {
        let hostile = hostile();
        for text in [subject(&hostile), body(&hostile, &PLAIN, 65_536)] {
            assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text}");
        }
        assert!(!subject(&hostile).contains('\n'));
        assert!(subject(&hostile).chars().count() <= LONGEST_SUBJECT + 1);
        let mut long = hostile;
        long.gateway = "x".repeat(5000);
        assert!(body(&long, &PLAIN, 4096).len() <= 4096);
    }

    #[test]
    fn what_was_left_out_before_is_counted_too() {
        let kind = EventKind::UpstreamDown;
        let mut down = entry(kind, Severity::Error, "", "it does not answer");
        down.event.upstream = Some("app".into());
        down.event.server = Some("10.0.0.1:80".into());
        let mut some = notification(vec![down]);
        some.omitted = 7;
        assert_eq!(
            subject(&some),
            "[snigate gw1.example.net] error: 1 upstream down, 7 more"
        );
        let text = body(&some, &PLAIN, 4096);
        assert!(
            text.contains("error: app (10.0.0.1:80): it does not answer\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n7 more reports are not shown; see the log."),
            "{text}"
        );
    }

    #[test]
    fn what_is_over_has_no_severity() {
        let kind = EventKind::CertificateRenewed;
        let mut over = entry(kind, Severity::Info, "a.example", "renewed");
        over.state = EntryState::Recovered;
        let over = notification(vec![over]);
        assert_eq!(
            subject(&over),
            "[snigate gw1.example.net] recovered: certificate renewed: a.example"
        );
        assert_eq!(
            body(&over, &PLAIN, 4096),
            "recovered: a.example: renewed (since 2026-09-21T13:13:20Z)\nReported by \
             gw1.example.net."
        );
    }
}
