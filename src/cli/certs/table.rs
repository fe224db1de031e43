//! The table of certificates: no wider than the terminal, and complete in a pipe.

use super::time::{date, span, until};
use crate::admin::{CertificateState, CertificateView, FindingView, RenewalView};
use crate::cli::output::{Style, clean};
use crate::clock::UnixTime;
use crate::event::Severity;
use crate::schedule::FailureClass;

const DAY: i64 = 86_400;

/// The gap between columns.
const GAP: &str = "  ";

/// The minimum width of a narrowed column.
const NARROWEST: usize = 12;

const COLUMNS: usize = 8;

const HEADER: [&str; COLUMNS] = [
    "NAME", "NAMES", "ISSUER", "STATE", "STAPLE", "EXPIRES", "LEFT", "NEXT",
];

/// The columns that are narrowed on a narrow terminal, in this order.
const NARROWED: [usize; 3] = [1, 2, 0];

/// How a cell is coloured.
type Paint = fn(Style, &str) -> String;

struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            paint: |_, text| text.to_owned(),
        }
    }
}

/// A line for each certificate, in their order, under a header.
pub(super) fn table(
    views: &[CertificateView],
    now: UnixTime,
    style: Style,
    width: Option<usize>,
) -> String {
    let header = HEADER.map(|text| Cell {
        text: text.to_owned(),
        paint: Style::bold,
    });
    let rows: Vec<[Cell; COLUMNS]> = std::iter::once(header)
        .chain(views.iter().map(|view| row(view, now)))
        .collect();
    let widths = widths(&rows, width);
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        let mut blanks = 0;
        for (cell, width) in row.iter().zip(widths) {
            let text = fitting(&cell.text, width);
            line.push_str(&" ".repeat(blanks));
            line.push_str(&(cell.paint)(style, &text));
            blanks = width.saturating_sub(length(&text)) + GAP.len();
        }
        table.push_str(&line);
        table.push('\n');
    }
    table
}

fn row(view: &CertificateView, now: UnixTime) -> [Cell; COLUMNS] {
    let end = view.served_until();
    let left = end.map(|end| end - now);
    let none = || "-".to_owned();
    [
        Cell::plain(&view.name),
        Cell::plain(other_names(&view.names)),
        Cell::plain(issuer(view)),
        Cell {
            text: state(view),
            paint: shown_paint(view),
        },
        staple(view),
        Cell::plain(end.map_or_else(none, date)),
        Cell {
            text: left.map_or_else(none, span),
            paint: left.map_or(Style::red, |left| left_paint(view, left)),
        },
        Cell::plain(view.renewal.as_ref().map_or_else(none, |it| next(it, now))),
    ]
}

/// Its state; if that is well, what is wrong with it all the same.
pub(super) fn state(view: &CertificateView) -> String {
    let finding = worst_finding(view);
    let state = finding.map_or(view.state.as_str(), |finding| finding.state.as_str());
    clean(&state.replace('_', " "))
}

/// Whether there is an OCSP response to staple; `-` where the certificate names no responder.
fn staple(view: &CertificateView) -> Cell {
    let Some(staple) = &view.staple else {
        return Cell::plain("-");
    };
    let text = clean(&staple.state);
    match (&*staple.state, staple.required) {
        ("good", _) => Cell {
            text,
            paint: Style::green,
        },
        ("missing", false) => Cell {
            text,
            paint: Style::yellow,
        },
        _ => Cell {
            text,
            paint: Style::red,
        },
    }
}

/// What is gravest of all that is wrong with a certificate that is otherwise well.
fn worst_finding(view: &CertificateView) -> Option<&FindingView> {
    let is_well = matches!(
        view.state,
        CertificateState::Valid | CertificateState::Due | CertificateState::Obtaining
    );
    view.findings.first().filter(|_| is_well)
}

/// How that is coloured.
pub(super) fn shown_paint(view: &CertificateView) -> Paint {
    match worst_finding(view) {
        Some(finding) if finding.severity > Severity::Warning => Style::red,
        Some(_) => Style::yellow,
        None => state_paint(view.state),
    }
}

/// The other names after the first, or their number if they are many.
fn other_names(names: &[String]) -> String {
    match names.get(1..).unwrap_or_default() {
        [] => "-".to_owned(),
        [one] => format!("+ {one}"),
        [one, two] => format!("+ {one}, {two}"),
        many => format!("+ {} more", many.len()),
    }
}

/// The issuer by its best-known name: that of the configuration, or else that in the certificate.
fn issuer(view: &CertificateView) -> String {
    if let Some(renewal) = &view.renewal {
        let mark = if renewal.on_demand {
            " (on demand)"
        } else {
            ""
        };
        return format!("{}{mark}", view.source);
    }
    let Some(issuer) = &view.issuer else {
        return "-".to_owned();
    };
    let part = |name: &str| {
        let mut parts = issuer.split(", ");
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    part("CN")
        .or_else(|| part("O"))
        .map_or_else(|| clean(issuer), clean)
}

fn next(renewal: &RenewalView, now: UnixTime) -> String {
    let when = match renewal.next {
        None => "-".to_owned(),
        Some(at) if at - now >= 2 * DAY => date(at),
        Some(at) => until(at, now),
    };
    let failures = match renewal.failures {
        0 => None,
        1 => Some("1 failure".to_owned()),
        failures => Some(format!("{failures} failures")),
    };
    let last = renewal.last_failure.as_ref();
    let is_vetoed = last.is_some_and(|last| last.class == FailureClass::Vetoed);
    let held = match (&renewal.held, is_vetoed) {
        (Some(_), _) => Some("held by the CA".to_owned()),
        (None, true) => Some("held by a hook".to_owned()),
        (None, false) => None,
    };
    let unread = renewal.unread.as_ref();
    let unread = unread.map(|_| "storage cannot be read".to_owned());
    let why: Vec<String> = failures.into_iter().chain(held).chain(unread).collect();
    match why.is_empty() {
        true => when,
        false => format!("{when} ({})", why.join(", ")),
    }
}

fn state_paint(state: CertificateState) -> Paint {
    match state {
        CertificateState::Valid => Style::green,
        CertificateState::Due | CertificateState::Obtaining => Style::cyan,
        CertificateState::NotYetValid => Style::yellow,
        CertificateState::Missing
        | CertificateState::Failed
        | CertificateState::Paused
        | CertificateState::Revoked
        | CertificateState::Withheld
        | CertificateState::Expired => Style::red,
    }
}

/// Green above 30 days, red below 7; earlier for short lifetimes.
pub(super) fn left_paint(view: &CertificateView, left: i64) -> Paint {
    let begin = view.not_before.unwrap_or_default();
    let lifetime = view.not_after.unwrap_or_default() - begin;
    if left < (7 * DAY).min(lifetime / 10) {
        Style::red
    } else if left < (30 * DAY).min(lifetime / 3) {
        Style::yellow
    } else {
        Style::green
    }
}

/// The width of each column, narrowed until the table is no wider than `most`.
fn widths(rows: &[[Cell; COLUMNS]], most: Option<usize>) -> [usize; COLUMNS] {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = length(&cell.text).max(*width);
        }
    }
    let total = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
    let mut excess = most.map_or(0, |most| total.saturating_sub(most));
    for column in NARROWED {
        if let Some(width) = widths.get_mut(column) {
            let cut = excess.min(width.saturating_sub(NARROWEST));
            *width -= cut;
            excess -= cut;
        }
    }
    widths
}

/// A text that is too long ends in an ellipsis.
fn fitting(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Host names are ASCII; issuers' names mostly.
fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, issued};
    use super::*;
    use crate::admin::{ChainEnd, HeldView, StapleView};
    use crate::cli::output::Output;

    fn plain(views: &[CertificateView], width: Option<usize>) -> Vec<String> {
        let table = table(views, NOW, Output::plain().style(), width);
        table.lines().map(str::to_owned).collect()
    }

    fn some() -> Vec<CertificateView> {
        let mut failed = issued("failed.example", 6);
        failed.state = CertificateState::Failed;
        if let Some(renewal) = &mut failed.renewal {
            renewal.failures = 3;
            renewal.next = Some(NOW + 720);
        }
        let mut file = issued("file.example", 300);
        file.renewal = None;
        file.names.push("www.file.example".to_owned());
        file.staple = Some(StapleView {
            state: "good".to_owned(),
            responder: Some("http://ocsp.example/".to_owned()),
            required: false,
            this_update: Some(NOW),
            next_update: Some(NOW + DAY),
            fault: None,
            served_instead: None,
        });
        vec![
            CertificateView::missing(vec!["missing.example".to_owned()]),
            failed,
            issued("a.example", 60),
            file,
        ]
    }

    #[test]
    fn each_certificate_has_a_line() {
        assert_eq!(
            plain(&some(), None),
            [
                "NAME             NAMES               ISSUER       STATE    STAPLE  EXPIRES     LEFT   NEXT",
                "missing.example  -                   -            missing  -       -           -      -",
                "failed.example   -                   letsencrypt  failed   -       2025-09-21  6 d    in 12 min (3 failures)",
                "a.example        -                   letsencrypt  valid    -       2025-11-14  60 d   2025-10-15",
                "file.example     + www.file.example  R11          valid    good    2026-07-12  300 d  -",
            ]
        );
    }

    #[test]
    fn a_chain_that_ends_sooner_leaves_the_time_to_its_end() {
        let mut view = issued("a.example", 60);
        view.chain_end = Some(ChainEnd {
            subject: "CN=Short CA".to_owned(),
            not_after: NOW + 4 * DAY,
        });
        view.findings = vec![FindingView {
            state: "expiring".to_owned(),
            severity: Severity::Error,
            message: "ends".to_owned(),
        }];
        let line = plain(&[view], None).remove(1);
        assert!(line.contains("expiring  -       2025-09-19  4 d"), "{line}");
    }

    #[test]
    fn what_a_limit_holds_says_so() {
        let mut view = issued("a.example", 60);
        let renewal = view.renewal.as_mut().expect("it is renewed");
        (renewal.next, renewal.failures) = (Some(NOW + 34 * 3600), 1);
        renewal.held = Some(HeldView {
            issuer: "letsencrypt".to_owned(),
            scope: "set".to_owned(),
            until: NOW + 34 * 3600,
            message: "too many".to_owned(),
        });
        let table = plain(&[view], None);
        assert!(
            table[1].ends_with("in 34 h (1 failure, held by the CA)"),
            "{table:#?}"
        );
    }

    #[test]
    fn what_the_storage_may_hold_unread_says_so() {
        let mut view = issued("a.example", 60);
        let renewal = view.renewal.as_mut().expect("it is renewed");
        renewal.next = None;
        renewal.unread = Some("cannot read /data/a.pem: Permission denied".to_owned());
        let table = plain(&[view], None);
        assert!(
            table[1].ends_with("- (storage cannot be read)"),
            "{table:#?}"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_a_narrow_table() {
        let all = plain(&some(), Some(500));
        assert_eq!(all, plain(&some(), None));
        let narrow = plain(&some(), Some(102));
        assert!(
            narrow.iter().all(|line| line.chars().count() <= 102),
            "{narrow:#?}"
        );
        assert!(narrow[4].contains("+ www.file.…"), "{narrow:#?}");
        // Columns at their minimum stay whole.
        let tiny = plain(&some(), Some(1));
        assert!(tiny[2].contains("3 failures"), "{tiny:#?}");
    }

    #[test]
    fn many_names_are_counted() {
        let names = |number: usize| -> Vec<String> {
            (0..number).map(|one| format!("{one}.example")).collect()
        };
        assert_eq!(other_names(&names(0)), "-");
        assert_eq!(other_names(&names(3)), "+ 1.example, 2.example");
        assert_eq!(other_names(&names(100)), "+ 99 more");
    }

    #[test]
    fn colour_warns_in_time() {
        let colour = |left| left_paint(&issued("a.example", left), left * DAY)(Style::always(), "");
        let named = |paint: Paint| paint(Style::always(), "");
        assert_eq!(colour(31), named(Style::green));
        assert_eq!(colour(29), named(Style::yellow));
        assert_eq!(colour(6), named(Style::red));
        let mut short = issued("a.example", 2);
        short.not_before = Some(NOW - 4 * DAY);
        assert_eq!(
            left_paint(&short, 2 * DAY)(Style::always(), ""),
            named(Style::green)
        );
    }
}
