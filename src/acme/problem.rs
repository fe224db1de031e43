//! What a CA says when it refuses something: problem documents (RFC 7807; RFC 8555, section 6.7),
//! read as far as possible, and the words of whatever responds in a CA's place.
//!
//! All text is made safe to show here: it ends up in logs, events and terminals.

use std::fmt;

use serde_json::{Map, Value, json};

use super::json::{json, text};
use crate::printable::one_line;

/// The prefix of ACME's types, and the one before the RFC.
const ACME: &str = "urn:ietf:params:acme:error:";
const DRAFTS: &str = "urn:acme:error:";

/// How much of a text is kept, in characters.
const LONGEST: usize = 1000;

/// How much is shown of a reply that is not a problem document, in characters.
const EXCERPT: usize = 200;

/// The maximum number of subproblems that are read.
const MOST: usize = 200;

/// A problem document. Unreadable members are left out and hide no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problem {
    kind: Option<String>,
    pub(super) detail: Option<String>,
    /// A page about this occurrence of the problem.
    pub(super) instance: Option<String>,
    pub(super) subproblems: Vec<Subproblem>,
}

/// What it says about one of several names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subproblem {
    kind: Option<String>,
    detail: Option<String>,
    name: Option<String>,
}

impl Problem {
    /// A problem of an ACME type.
    #[cfg(test)]
    pub(super) fn of(kind: &str, detail: &str) -> Self {
        Self {
            kind: Some(format!("{ACME}{kind}")),
            detail: Some(detail.to_owned()),
            ..Self::default()
        }
    }

    /// The problem in `body`; `None` if there is none.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        Self::from_json(&json(body)?)
    }

    /// The problem in JSON. A bare string is the detail.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let Some(members) = value.as_object() else {
            let detail = Some(clean_text(value.as_str()?)?);
            return Some(Self {
                detail,
                ..Self::default()
            });
        };
        let subproblems = match members.get("subproblems") {
            Some(Value::Array(all)) => all.iter().take(MOST).filter_map(Subproblem::read).collect(),
            Some(one) => Subproblem::read(one).into_iter().collect(),
            None => Vec::new(),
        };
        let problem = Self {
            kind: kind(members),
            detail: detail(members),
            instance: members
                .get("instance")
                .and_then(Value::as_str)
                .and_then(page),
            subproblems,
        };
        let says = problem.kind.is_some() || problem.detail.is_some();
        (says || !problem.subproblems.is_empty()).then_some(problem)
    }

    /// As instant-acme reads it.
    pub(super) fn to_json(&self) -> Value {
        let subproblems = self.subproblems.iter().map(|problem| {
            let name = problem.name.as_ref();
            json!({
                "type": problem.kind, "detail": problem.detail,
                "identifier": name.map(|name| json!({ "type": "dns", "value": name })),
            })
        });
        json!({
            "type": self.kind, "detail": self.detail,
            "subproblems": subproblems.collect::<Vec<_>>(),
        })
    }

    /// Its ACME type, such as `rateLimited`; empty for other types.
    pub(super) fn kind(&self) -> &str {
        acme_kind(self.kind.as_deref())
    }

    /// The names of its subproblems, in lower case and each once.
    pub(super) fn identifiers(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let parts = self.subproblems.iter();
        let parts = parts.filter_map(|part| part.name.as_ref());
        names.extend(parts.map(|name| name.to_ascii_lowercase()));
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Subproblem {
    fn read(value: &Value) -> Option<Self> {
        let Some(members) = value.as_object() else {
            return Some(Self {
                detail: Some(clean_text(value.as_str()?)?),
                ..Self::default()
            });
        };
        let name = match members.get("identifier") {
            Some(Value::Object(identifier)) => identifier.get("value").and_then(text),
            Some(other) => text(other),
            None => None,
        };
        let problem = Self {
            kind: kind(members),
            detail: detail(members),
            name: name.as_deref().and_then(clean_text),
        };
        (problem != Self::default()).then_some(problem)
    }

    /// See [`Problem::kind`].
    pub(super) fn kind(&self) -> &str {
        acme_kind(self.kind.as_deref())
    }
}

/// The first words of a reply without a problem, such as a proxy's page.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let bare = match title(&text) {
        Some(title) => title.to_owned(),
        None if text.trim_start().starts_with('<') => without_tags(&text),
        None => text.into_owned(),
    };
    let words: Vec<&str> = bare.split_whitespace().take(EXCERPT).collect();
    Some(one_line(&words.join(" "), EXCERPT)).filter(|words| !words.is_empty())
}

/// A page for people to open: an HTTP URL whose characters all display as they are.
pub(super) fn page(url: &str) -> Option<String> {
    let url = url.trim();
    let scheme = url.parse::<http::Uri>().ok()?.scheme_str()?.to_owned();
    let is_one =
        matches!(&*scheme, "https" | "http") && url.bytes().all(|octet| octet.is_ascii_graphic());
    is_one.then(|| url.to_owned())
}

fn kind(members: &Map<String, Value>) -> Option<String> {
    let kind = clean_text(members.get("type")?.as_str()?)?;
    let cut = |prefix: &str| {
        let (start, rest) = kind.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    };
    let bare = cut(ACME).or_else(|| cut(DRAFTS));
    // Some CAs leave out the prefix.
    let bare = bare.or_else(|| {
        kind.bytes()
            .all(|octet| octet.is_ascii_alphanumeric())
            .then_some(&*kind)
    });
    match bare {
        Some(bare) => Some(format!("{ACME}{bare}")),
        // By definition, this type says nothing (RFC 9457, section 4.2.1).
        None if kind == "about:blank" => None,
        None => Some(kind),
    }
}

/// The description: `detail`, or the member that non-ACME servers use instead.
fn detail(members: &Map<String, Value>) -> Option<String> {
    let names = ["detail", "title", "message", "error_description", "error"];
    let texts = names.iter().filter_map(|name| text(members.get(*name)?));
    texts.filter_map(|text| clean_text(&text)).next()
}

fn clean_text(text: &str) -> Option<String> {
    Some(one_line(text.trim(), LONGEST)).filter(|said| !said.is_empty())
}

fn title(page: &str) -> Option<&str> {
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title>")? + "<title>".len();
    let end = start + lower.get(start..)?.find("</title>")?;
    page.get(start..end)
        .map(str::trim)
        .filter(|title| !title.is_empty())
}

fn without_tags(page: &str) -> String {
    let parts = page
        .split('<')
        .map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    parts.collect::<Vec<_>>().join(" ")
}

fn acme_kind(kind: Option<&str>) -> &str {
    kind.and_then(|kind| kind.strip_prefix(ACME))
        .unwrap_or_default()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, self.detail.as_deref(), self.kind.as_deref())?;
        for problem in &self.subproblems {
            write!(f, "; {}: ", problem.name.as_deref().unwrap_or("a name"))?;
            write_text(f, problem.detail.as_deref(), problem.kind.as_deref())?;
        }
        Ok(())
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, detail: Option<&str>, kind: Option<&str>) -> fmt::Result {
    let kind = kind.map(|kind| kind.strip_prefix(ACME).unwrap_or(kind));
    match (detail.map(|text| text.trim().trim_end_matches('.')), kind) {
        (Some(detail), Some(kind)) => write!(f, "{detail} ({kind})"),
        (Some(text), None) | (None, Some(text)) => f.write_str(text),
        (None, None) => f.write_str("no reason given"),
    }
}

impl From<&instant_acme::Problem> for Problem {
    fn from(problem: &instant_acme::Problem) -> Self {
        let subproblem = |problem: &instant_acme::Subproblem| Subproblem {
            kind: problem.r#type.clone(),
            detail: problem.detail.clone(),
            name: problem
                .identifier
                .as_ref()
                .map(|identifier| identifier.authorized(false).to_string()),
        };
        Self {
            kind: problem.r#type.clone(),
            detail: problem.detail.clone(),
            instance: None,
            subproblems: problem.subproblems.iter().map(subproblem).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Problem {
        Problem::read(body.as_bytes()).unwrap_or_else(|| panic!("no problem: {body}"))
    }

    #[test]
    fn problems_are_told_with_each_name_they_are_about() {
        let problem = read(
            r#"{ "type": "urn:ietf:params:acme:error:malformed", "detail": "Some were rejected.",
                 "status": 400, "subproblems": [
                   { "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                     "detail": "This CA will not issue for it",
                     "identifier": { "type": "dns", "value": "example.net" } } ] }"#,
        );
        assert_eq!(
            problem.to_string(),
            "Some were rejected (malformed); example.net: This CA will not issue for it \
             (rejectedIdentifier)"
        );
        assert_eq!(problem.kind(), "malformed");
        assert_eq!(problem.subproblems[0].kind(), "rejectedIdentifier");
        assert_eq!(Problem::default().to_string(), "no reason given");
    }

    #[test]
    fn a_member_that_cannot_be_read_hides_no_other() {
        for odd in [
            r#""subproblems":null"#,
            r#""subproblems":17"#,
            r#""subproblems":{}"#,
            r#""subproblems":[null,17,[],{"identifier":null},{"identifier":{"value":null}}]"#,
            r#""subproblems":[{"identifier":{"type":"ip","value":17.5,"x":null}}]"#,
            r#""instance":17"#,
            r#""instance":{"a":1}"#,
            r#""status":"400""#,
            r#""status":null"#,
            r#""status":4e9"#,
            r#""title":[]"#,
            r#""identifier":"a.test""#,
            r#""algorithms":17"#,
        ] {
            let body = format!(
                r#"{{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no",{odd}}}"#
            );
            let problem = read(&body);
            assert_eq!(problem.kind(), "rejectedIdentifier", "{odd}");
            assert_eq!(problem.detail.as_deref(), Some("no"), "{odd}");
            let theirs: instant_acme::Problem =
                serde_json::from_value(problem.to_json()).expect("as instant-acme wants it");
            assert_eq!(Problem::from(&theirs).kind(), "rejectedIdentifier", "{odd}");
        }
        let problem = read(r#"{"type":17,"detail":"no"}"#);
        assert_eq!(
            (problem.kind(), problem.detail.as_deref()),
            ("", Some("no"))
        );
        let problem = read(r#"{"type":"urn:ietf:params:acme:error:badNonce","detail":null}"#);
        assert_eq!(problem.kind(), "badNonce");
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        for identifier in [
            r#"{"type":"dns","value":"a.test"}"#,
            r#"{"type":null,"value":"a.test"}"#,
            r#""a.test""#,
        ] {
            let problem = read(&format!(
                r#"{{"subproblems":[{{"detail":"no","identifier":{identifier}}}]}}"#
            ));
            assert_eq!(problem.to_string(), "no reason given; a.test: no");
        }
    }

    #[test]
    fn types_are_known_by_all_that_they_begin_with() {
        for kind in [
            "urn:ietf:params:acme:error:rateLimited",
            "URN:ietf:params:ACME:error:rateLimited",
            " urn:acme:error:rateLimited",
            "rateLimited",
        ] {
            assert_eq!(
                read(&format!(r#"{{"type":"{kind}"}}"#)).kind(),
                "rateLimited",
                "{kind}"
            );
        }
        assert_eq!(read(r#"{"type":"https://ca/e/1","detail":"x"}"#).kind(), "");
        assert_eq!(
            read(r#"{"type":"about:blank","detail":"x"}"#).to_string(),
            "x"
        );
    }

    #[test]
    fn the_words_of_those_who_do_not_speak_acme_are_told() {
        for (body, said) in [
            (r#"{"message":"Forbidden"}"#, "Forbidden"),
            (r#"{"title":"Busy","status":503}"#, "Busy"),
            (r#""not today""#, "not today"),
            ("\u{feff} {\"detail\":\"with a mark\"}\r\n\0", "with a mark"),
        ] {
            assert_eq!(read(body).to_string(), said, "{body}");
        }
        for body in ["", "null", "[]", "{}", "17", r#"{"status":403}"#, "<html>"] {
            assert_eq!(Problem::read(body.as_bytes()), None, "{body}");
        }
        let page = "<!doctype html>\n<head><TITLE>\n 403 Forbidden </title><body>no";
        for (body, said) in [
            (page, Some("403 Forbidden")),
            ("<p>go\n<b>away</b></p>", Some("go away")),
            ("upstream  connect\r\nerror", Some("upstream connect error")),
            (" \n", None),
        ] {
            assert_eq!(words(body.as_bytes()).as_deref(), said, "{body}");
        }
        let latin1 = words(b"d\xe9sol\xe9").expect("words");
        assert_eq!(latin1, "d\u{fffd}sol\u{fffd}");
    }

    #[test]
    fn what_is_said_can_be_shown() {
        let problem = read(
            "{\"type\":\"urn:ietf:params:acme:error:x\u{202e}\",\"detail\":\"a\u{200b}\u{202e}b\\n\",\
             \"instance\":\"https://ca/\u{202e}\",\
             \"subproblems\":[{\"identifier\":\"\u{2066}a.test\"}]}",
        );
        let said = problem.to_string();
        assert!(
            said.chars().all(|char| !crate::printable::is_control(char)),
            "{said:?}"
        );
        assert_eq!(problem.instance, None);
        for (url, is_one) in [
            ("https://ca/docs?a=b#c", true),
            ("http://ca/", true),
            ("javascript:alert(1)", false),
            ("/docs", false),
            ("https://ca/\u{200b}", false),
        ] {
            assert_eq!(page(url).is_some(), is_one, "{url}");
        }
    }
}
