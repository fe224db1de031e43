//! The messages of Route 53: XML.

use std::fmt::{self, Write as _};

use roxmltree::{Document, Node};

use crate::dns::api::{failure_text, one_line};
use crate::dns::zone_file::{quote, unquote};
use crate::host::HostName;

const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";

/// The TXT records of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordSet {
    name: String,
    ttl: u32,
    /// As written there: a set can only be removed by naming its exact values.
    values: Vec<String>,
}

impl RecordSet {
    pub(super) fn empty(ttl: u32) -> Self {
        Self {
            name: String::new(),
            ttl,
            values: Vec::new(),
        }
    }

    pub(super) fn is_of(&self, name: &HostName) -> bool {
        let found = self.name.strip_suffix('.').unwrap_or(&self.name);
        found.eq_ignore_ascii_case(name.as_str())
    }

    /// The texts of the records.
    pub(super) fn texts(&self) -> Vec<String> {
        self.values.iter().map(|value| unquote(value)).collect()
    }

    /// Adds a text. Returns true if that changed anything.
    pub(super) fn insert(&mut self, text: &str) -> bool {
        let is_new = !self.values.iter().any(|value| unquote(value) == text);
        if is_new {
            self.values.push(quote(text));
        }
        is_new
    }

    /// Removes a text. Returns true if that changed anything.
    pub(super) fn remove(&mut self, text: &str) -> bool {
        let before = self.values.len();
        self.values.retain(|value| unquote(value) != text);
        self.values.len() != before
    }
}

/// A change in progress.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChangeInfo {
    pub(super) id: String,
    /// Whether all name servers have it.
    pub(super) is_in_sync: bool,
}

/// An error response.
#[derive(Debug, Default)]
pub(super) struct Failure {
    code: String,
    message: String,
}

impl Failure {
    /// Returns true if the failure is temporary.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            &*self.code,
            "PriorRequestNotComplete"
                | "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "ServiceUnavailable"
        )
    }

    /// Returns true if the set has changed in the meantime.
    pub(super) fn is_outrun(&self) -> bool {
        self.code == "InvalidChangeBatch"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.code {
            "" => f.write_str(&self.message),
            code => write!(f, "{code}: {}", self.message),
        }
    }
}

/// The request to replace one set with another. An empty set means none.
pub(super) fn change(name: &HostName, old: Option<&RecordSet>, new: &RecordSet) -> String {
    let mut changes = String::new();
    let old = old.map(|old| ("DELETE", old));
    let new = (!new.values.is_empty()).then_some(("CREATE", new));
    for (action, set) in old.into_iter().chain(new) {
        let mut records = String::new();
        for value in &set.values {
            // Writing to a string does not fail.
            let _ = write!(
                records,
                "<ResourceRecord><Value>{}</Value></ResourceRecord>",
                escape(value)
            );
        }
        let _ = write!(
            changes,
            "<Change><Action>{action}</Action><ResourceRecordSet><Name>{name}.</Name>\
             <Type>TXT</Type><TTL>{}</TTL><ResourceRecords>{records}</ResourceRecords>\
             </ResourceRecordSet></Change>",
            set.ttl
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <ChangeResourceRecordSetsRequest xmlns=\"{NAMESPACE}\"><ChangeBatch>\
         <Comment>Set by Snigate</Comment><Changes>{changes}</Changes></ChangeBatch>\
         </ChangeResourceRecordSetsRequest>"
    )
}

/// Names and identifiers of the public hosted zones in a list.
pub(super) fn public_zones(xml: &str) -> Option<Vec<(String, String)>> {
    let document = Document::parse(xml).ok()?;
    let root = root(&document, "ListHostedZonesByNameResponse")?;
    let zones = all(root, "HostedZone").filter_map(|zone| {
        let private = all(zone, "PrivateZone").next().and_then(|one| one.text());
        if private == Some("true") {
            return None;
        }
        let name = text(zone, "Name")?.trim_end_matches('.');
        Some((name.to_ascii_lowercase(), last(text(zone, "Id")?)))
    });
    Some(zones.collect())
}

/// The sets of TXT records in a list.
pub(super) fn record_sets(xml: &str) -> Option<Vec<RecordSet>> {
    let document = Document::parse(xml).ok()?;
    let root = root(&document, "ListResourceRecordSetsResponse")?;
    let sets = all(root, "ResourceRecordSet")
        .filter(|set| text(*set, "Type") == Some("TXT"))
        .filter_map(|set| {
            Some(RecordSet {
                name: text(set, "Name")?.to_owned(),
                ttl: text(set, "TTL")?.parse().ok()?,
                values: all(set, "Value")
                    .filter_map(|value| value.text())
                    .map(str::to_owned)
                    .collect(),
            })
        });
    Some(sets.collect())
}

/// The state of a change.
pub(super) fn change_info(xml: &str) -> Option<ChangeInfo> {
    let document = Document::parse(xml).ok()?;
    let info = all(document.root(), "ChangeInfo").next()?;
    Some(ChangeInfo {
        id: last(text(info, "Id")?),
        is_in_sync: text(info, "Status")? == "INSYNC",
    })
}

/// Parses an error response.
pub(super) fn error(body: &[u8]) -> Failure {
    let failure = || {
        let document = Document::parse(str::from_utf8(body).ok()?).ok()?;
        let root = document.root_element();
        // An invalid change has its own element around a list of messages.
        if root.tag_name().name() == "InvalidChangeBatch" {
            let messages: Vec<_> = all(root, "Message").filter_map(|one| one.text()).collect();
            return Some(Failure {
                code: "InvalidChangeBatch".to_owned(),
                message: one_line(&messages.join("; ")),
            });
        }
        let error = all(root, "Error").next()?;
        let message = text(error, "Message").unwrap_or_default();
        Some(Failure {
            code: text(error, "Code")?.to_owned(),
            message: one_line(message),
        })
    };
    failure().unwrap_or_else(|| Failure {
        code: String::new(),
        message: failure_text(body),
    })
}

fn root<'d>(document: &'d Document<'d>, name: &str) -> Option<Node<'d, 'd>> {
    let root = document.root_element();
    (root.tag_name().name() == name).then_some(root)
}

fn all<'d>(within: Node<'d, 'd>, name: &'static str) -> impl Iterator<Item = Node<'d, 'd>> {
    let nodes = within.descendants();
    nodes.filter(move |node| node.tag_name().name() == name)
}

fn text<'d>(within: Node<'d, 'd>, name: &'static str) -> Option<&'d str> {
    let mut children = within.children();
    children.find(|node| node.tag_name().name() == name)?.text()
}

/// `Z1` of `/hostedzone/Z1`.
fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
