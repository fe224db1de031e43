//! What a CA says when it refuses something: problem documents (RFC 7807; RFC 8555, section 6.7).

use std::fmt;

use serde::Deserialize;

/// What the types of ACME begin with.
const ACME: &str = "urn:ietf:params:acme:error:";

/// A problem document. Members that are not of the right type are a fault of the CA's and make it
/// unreadable as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Problem {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    pub(super) detail: Option<String>,
    /// A page about this very problem.
    #[serde(default)]
    pub(super) instance: Option<String>,
    #[serde(default)]
    pub(super) subproblems: Vec<Subproblem>,
}

/// What it says about one of several names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Subproblem {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    identifier: Option<Identifier>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Identifier {
    #[serde(default)]
    value: String,
}

impl Problem {
    /// A problem of one type of ACME's.
    #[cfg(test)]
    pub(super) fn of(kind: &str, detail: &str) -> Self {
        Self {
            kind: Some(format!("{ACME}{kind}")),
            detail: Some(detail.to_owned()),
            ..Self::default()
        }
    }

    /// Its type, `rateLimited`; empty where it is none of ACME's.
    pub(super) fn kind(&self) -> &str {
        short(self.kind.as_deref())
    }

    /// The names that its parts are about, in small letters and each once.
    pub(super) fn identifiers(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for part in &self.subproblems {
            let name = part
                .identifier
                .iter()
                .map(|of| of.value.to_ascii_lowercase());
            names.extend(name.filter(|name| !name.is_empty()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Subproblem {
    /// See [`Problem::kind`].
    pub(super) fn kind(&self) -> &str {
        short(self.kind.as_deref())
    }
}

fn short(kind: Option<&str>) -> &str {
    kind.and_then(|kind| kind.strip_prefix(ACME))
        .unwrap_or_default()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        say(f, self.detail.as_deref(), self.kind.as_deref())?;
        for problem in &self.subproblems {
            let name = problem.identifier.as_ref().map(|name| name.value.as_str());
            write!(f, "; {}: ", name.unwrap_or("a name"))?;
            say(f, problem.detail.as_deref(), problem.kind.as_deref())?;
        }
        Ok(())
    }
}

fn say(f: &mut fmt::Formatter<'_>, detail: Option<&str>, kind: Option<&str>) -> fmt::Result {
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
            identifier: problem.identifier.as_ref().map(|identifier| Identifier {
                value: identifier.authorized(false).to_string(),
            }),
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

    #[test]
    fn problems_are_told_with_each_name_they_are_about() {
        let problem: Problem = serde_json::from_str(
            r#"{ "type": "urn:ietf:params:acme:error:malformed", "detail": "Some were rejected.",
                 "status": 400, "subproblems": [
                   { "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                     "detail": "This CA will not issue for it",
                     "identifier": { "type": "dns", "value": "example.net" } } ] }"#,
        )
        .expect("a problem");
        assert_eq!(
            problem.to_string(),
            "Some were rejected (malformed); example.net: This CA will not issue for it \
             (rejectedIdentifier)"
        );
        assert_eq!(problem.kind(), "malformed");
        assert_eq!(problem.subproblems[0].kind(), "rejectedIdentifier");
        assert_eq!(Problem::default().to_string(), "no reason given");
    }
}
