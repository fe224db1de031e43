//! What routes change in requests and responses: compiled with the route, filled in once for each
//! request, and applied by whichever lane carries it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use pingora_core::Result;
use pingora_http::RequestHeader;

use super::granted::Granted;
use super::path;
use super::refusal::Refusal;
use super::request::is_well_formed;
use super::template::{Value, Values};
use crate::config::model::{self, Placeholder, Template};
use crate::field::is_authority;

/// What a route changes.
#[derive(Debug)]
pub(crate) struct Rewriting {
    /// The prefix to remove, percent-decoded.
    prefix: Option<Box<[u8]>>,
    target: Option<Template>,
    /// Whether the path of `target` ends with a slash, whatever the client's does.
    ends_with_slash: bool,
    /// Whether the client's query follows `target`.
    keeps_query: bool,
    host: Option<Value>,
    request: Arc<FieldEdits>,
    response: Arc<FieldEdits>,
}

/// Changes of fields.
#[derive(Debug)]
struct FieldEdits {
    /// Names of those that are replaced or dropped.
    replaced: Box<[Box<str>]>,
    written: Box<[(Box<str>, Value)]>,
}

/// What is changed for one request.
#[derive(Debug)]
pub(crate) struct Rewritten {
    target: Option<Vec<u8>>,
    host: Option<HeaderValue>,
    /// In the order of `written` in the [`FieldEdits`].
    request: Arc<[HeaderValue]>,
    response: Arc<[HeaderValue]>,
}

/// What is changed in the head of a request on its way to a server.
#[derive(Clone, Copy, Default)]
pub(crate) struct RequestChanges<'a> {
    /// The target that the server gets.
    pub(crate) target: Option<&'a [u8]>,
    /// Whether it is the route that ends the path of `target` with a slash.
    pub(crate) ends_with_slash: bool,
    /// The `Host` that the server gets.
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) fields: FieldChanges<'a>,
}

/// What is changed in the fields of one message.
#[derive(Clone, Copy, Default)]
pub(crate) struct FieldChanges<'a> {
    edits: Option<(&'a Arc<FieldEdits>, &'a Arc<[HeaderValue]>)>,
    /// What an authentication service sets, unless the route sets it too.
    granted: Option<&'a Arc<Granted>>,
}

/// The same, for as long as it is of use.
#[derive(Default)]
pub(crate) struct KeptFieldChanges {
    edits: Option<(Arc<FieldEdits>, Arc<[HeaderValue]>)>,
    granted: Option<Arc<Granted>>,
}

/// Says which prefix was removed, so that the server can make URLs of its own.
const FORWARDED_PREFIX: &str = "X-Forwarded-Prefix";

/// Why a request is refused: what its route would make of it is not valid.
const BAD_TARGET: Refusal =
    Refusal::Unfit("The path or the query cannot be passed on to the server of this route.");
const BAD_HOST: Refusal =
    Refusal::Unfit("This host cannot be passed on to the server of this route.");
const BAD_FIELD: Refusal = Refusal::Unfit("The request has what must not stand in a field.");

impl Rewriting {
    pub(crate) fn new(model: &model::Rewriting) -> Self {
        let has_query = |template: &Template| {
            let has_text = template
                .parts()
                .iter()
                .any(|part| matches!(part, model::Part::Text(text) if text.contains('?')));
            has_text
                || template.has(Placeholder::Query)
                || template.has(Placeholder::QuestionedQuery)
        };
        Self {
            prefix: model
                .strip_prefix
                .as_deref()
                .map(|prefix| path::read_plainly(prefix.as_bytes()).into()),
            ends_with_slash: model.target.as_ref().is_some_and(path_ends_with_slash),
            keeps_query: !model.target.as_ref().is_some_and(has_query),
            target: model.target.clone(),
            host: model.host.as_ref().map(Value::of),
            request: Arc::new(
                FieldEdits::new(&model.request_headers).with_prefix(model.strip_prefix.as_deref()),
            ),
            response: Arc::new(FieldEdits::new(&model.response_headers)),
        }
    }

    /// Fills in what is changed for one request.
    ///
    /// # Errors
    /// If what the client sent cannot stand where it would.
    pub(crate) fn fill(&self, values: &Values<'_>) -> std::result::Result<Rewritten, Refusal> {
        let target = self.target(values);
        if target
            .as_deref()
            .is_some_and(|target| !is_safe_target(target))
        {
            return Err(BAD_TARGET);
        }
        let host = match &self.host {
            Some(host) => {
                let host = host.fill(values);
                let host = host.filter(|host| is_authority(host.as_bytes()));
                Some(host.ok_or(BAD_HOST)?)
            }
            None => None,
        };
        Ok(Rewritten {
            target,
            host,
            request: self.request.fill(values).ok_or(BAD_FIELD)?,
            response: self.response.fill(values).ok_or(BAD_FIELD)?,
        })
    }

    /// The target that the server gets, if it is not the client's.
    fn target(&self, values: &Values<'_>) -> Option<Vec<u8>> {
        let stripped = self.prefix.as_deref().map(|prefix| {
            let rest = path::strip_prefix(values.path, prefix).unwrap_or(values.path);
            let begin = rest.iter().take_while(|&&octet| octet == b'/').count();
            [&b"/"[..], rest.get(begin..).unwrap_or_default()].concat()
        });
        let mut target = match &self.target {
            Some(template) => {
                let path = stripped.as_deref().unwrap_or(values.path);
                values.with_path(path).fill_target(template)
            }
            None => stripped?,
        };
        if self.keeps_query {
            values.put_query(&mut target);
        }
        Some(target)
    }

    /// What is changed in a request, as `rewritten` says.
    pub(crate) fn request_changes<'a>(&'a self, rewritten: &'a Rewritten) -> RequestChanges<'a> {
        RequestChanges {
            target: rewritten.target.as_deref(),
            ends_with_slash: self.ends_with_slash,
            host: rewritten.host.as_ref(),
            fields: FieldChanges::of(&self.request, &rewritten.request),
        }
    }

    /// What is changed in a response, as `rewritten` says.
    pub(crate) fn response_changes<'a>(&'a self, rewritten: &'a Rewritten) -> FieldChanges<'a> {
        FieldChanges::of(&self.response, &rewritten.response)
    }
}

/// Whether a target that was made of a client's is one that every server reads in the same way, and
/// no server reads as one beside or above what the route says.
fn is_safe_target(target: &[u8]) -> bool {
    target.starts_with(b"/")
        && is_well_formed(target)
        && !path::has_parent_segment(path::without_query(target))
}

/// Whether the path of a target ends with a slash, whatever stands for its placeholders.
fn path_ends_with_slash(template: &Template) -> bool {
    let mut ends = false;
    for part in template.parts() {
        match part {
            model::Part::Text(text) => match text.split_once('?') {
                Some(("", _)) => return ends,
                Some((path, _)) => return path.ends_with('/'),
                None => ends = text.ends_with('/'),
            },
            model::Part::Placeholder(Placeholder::QuestionedQuery) => return ends,
            model::Part::Placeholder(_) | model::Part::Claim(_) | model::Part::Group { .. } => {
                ends = false;
            }
        }
    }
    ends
}

impl FieldEdits {
    fn new(model: &model::FieldEdits) -> Self {
        let set = model.set.iter().map(|(name, _)| name);
        let replaced = set.chain(&model.remove).map(|name| Box::from(&**name));
        let written = model.set.iter().chain(&model.add);
        Self {
            replaced: replaced.collect(),
            written: written
                .map(|(name, template)| (Box::from(&**name), Value::of(template)))
                .collect(),
        }
    }

    /// These changes, and the field of a prefix that is removed unless they have it already.
    fn with_prefix(self, prefix: Option<&str>) -> Self {
        let is = |other: &str| other.eq_ignore_ascii_case(FORWARDED_PREFIX);
        let is_edited =
            self.replaced.iter().any(|one| is(one)) || self.written.iter().any(|(one, _)| is(one));
        let prefix = prefix.map(|prefix| prefix.trim_end_matches('/'));
        let value = prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok());
        let value = value.filter(|value| !value.is_empty() && !is_edited);
        let own = value.map(|value| (Box::from(FORWARDED_PREFIX), Value::Fixed(value)));
        Self {
            written: self.written.into_iter().chain(own).collect(),
            ..self
        }
    }

    /// The values of the fields that are written; `None` if one of them cannot be.
    fn fill(&self, values: &Values<'_>) -> Option<Arc<[HeaderValue]>> {
        let written = self.written.iter();
        written.map(|(_, value)| value.fill(values)).collect()
    }
}

impl<'a> FieldChanges<'a> {
    fn of(edits: &'a Arc<FieldEdits>, values: &'a Arc<[HeaderValue]>) -> Self {
        Self {
            edits: Some((edits, values)),
            granted: None,
        }
    }

    /// These changes, and what an authentication service sets.
    pub(crate) fn with_granted(self, granted: Option<&'a Arc<Granted>>) -> Self {
        Self { granted, ..self }
    }

    /// Whether a field of the message is dropped.
    pub(crate) fn drops(self, name: &[u8]) -> bool {
        self.replaces(name) || self.granted.is_some_and(|granted| granted.drops(name))
    }

    /// Whether the route replaces or drops a field.
    fn replaces(self, name: &[u8]) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let mut replaced = self.edits.iter().flat_map(|(edits, _)| &edits.replaced);
        replaced.any(|other| is(other))
    }

    /// Names of fields that are dropped.
    pub(crate) fn dropped(self) -> impl Iterator<Item = &'a str> {
        let replaced = self.edits.into_iter();
        let replaced = replaced.flat_map(|(edits, _)| edits.replaced.iter());
        let granted = self.granted.into_iter();
        let granted = granted.flat_map(|granted| granted.names.iter());
        let granted = granted.map(HeaderName::as_str);
        replaced.map(|name| &**name).chain(granted)
    }

    /// The fields that are written. One whose value is empty is not.
    pub(crate) fn written(self) -> impl Iterator<Item = (&'a str, &'a HeaderValue)> {
        let granted = self.granted.into_iter();
        let granted = granted
            .flat_map(|granted| &granted.fields)
            .map(|(name, value)| (name.as_str(), value))
            .filter(move |(name, _)| !self.replaces(name.as_bytes()));
        let written = self
            .edits
            .into_iter()
            .flat_map(|(edits, values)| edits.written.iter().zip(values.iter()));
        granted
            .chain(written.map(|((name, _), value)| (&**name, value)))
            .filter(|(_, value)| !value.is_empty())
    }

    /// These changes, whatever becomes of the request's context.
    pub(crate) fn keep(self) -> KeptFieldChanges {
        let kept = self.edits;
        KeptFieldChanges {
            edits: kept.map(|(edits, values)| (Arc::clone(edits), Arc::clone(values))),
            granted: self.granted.cloned(),
        }
    }

    /// Changes the fields of a request.
    pub(crate) fn edit_request(self, request: &mut RequestHeader) -> Result<()> {
        for name in self.dropped() {
            request.remove_header(name);
        }
        for (name, value) in self.written() {
            request.append_header(name.to_owned(), value)?;
        }
        Ok(())
    }
}

impl KeptFieldChanges {
    pub(crate) fn as_changes(&self) -> FieldChanges<'_> {
        FieldChanges {
            edits: self.edits.as_ref().map(|(edits, values)| (edits, values)),
            granted: self.granted.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::request::{Fields, Request};

    fn with_values<T>(target: &str, authority: &str, then: impl FnOnce(&Values<'_>) -> T) -> T {
        let fields = HeaderMap::new();
        let request = Request {
            method: "GET",
            target: target.as_bytes(),
            authority: authority.as_bytes(),
            version: "HTTP/1.1",
            fields: Fields::Map(&fields),
            client: None,
            port: None,
            tls: None,
            socket: None,
            accepted: None,
            relayed: None,
        };
        let id = HeaderValue::from_static("00ff");
        then(&Values::of(&request, &id))
    }

    fn template(text: &str) -> Option<Template> {
        Some(text.parse().expect("a template")).filter(|_| !text.is_empty())
    }

    /// The target that a server gets; `None` if the request is refused.
    fn target(prefix: &str, to: &str, target: &str) -> Option<String> {
        let rewriting = Rewriting::new(&model::Rewriting {
            strip_prefix: Some(prefix.into()).filter(|_| !prefix.is_empty()),
            target: template(to),
            ..model::Rewriting::default()
        });
        let filled = with_values(target, "a.example", |values| rewriting.fill(values)).ok()?;
        let target = filled.target.unwrap_or_else(|| target.into());
        Some(String::from_utf8(target).expect("text"))
    }

    #[test]
    fn prefixes_are_stripped_and_templates_filled() {
        for (prefix, to, sent, got) in [
            ("", "", "/a?b", "/a?b"),
            ("/app", "", "/app/x?y", "/x?y"),
            ("/app", "", "/app", "/"),
            ("/app", "", "/app?y", "/?y"),
            ("/app/", "", "/app/x", "/x"),
            ("/app", "", "/%61pp/%2Fx%41", "/%2Fx%41"),
            ("/app", "", "/app//evil.example/", "/evil.example/"),
            ("/", "", "/x", "/x"),
            ("", "/static{path}", "/a?b", "/static/a?b"),
            ("/app", "/static{path}", "/app/a?b", "/static/a?b"),
            ("", "/find?at={path}", "/a?b", "/find?at=/a"),
            ("", "{path}?q={query}", "/a?b", "/a?q=b"),
            ("", "/x{?query}", "/a?b", "/x?b"),
            ("", "/x{?query}", "/a", "/x"),
            ("", "/x", "/a?b", "/x?b"),
            ("", "/{host}{path}", "/a", "/a.example/a"),
            ("", "/find?at={path}", "/a/../b", "/find?at=/a/../b"),
        ] {
            let found = target(prefix, to, sent);
            assert_eq!(found.as_deref(), Some(got), "{prefix} {to} {sent}");
        }
    }

    #[test]
    fn the_server_learns_which_prefix_was_removed() {
        let prefix = |prefix: &str, edits: model::FieldEdits| {
            let rewriting = Rewriting::new(&model::Rewriting {
                strip_prefix: Some(prefix.into()),
                request_headers: edits,
                ..model::Rewriting::default()
            });
            let filled = with_values("/app/x", "a.example", |values| rewriting.fill(values));
            let filled = filled.expect("valid");
            let fields = rewriting.request_changes(&filled).fields;
            let written = fields
                .written()
                .map(|(name, value)| (name.to_owned(), value.to_str().expect("text").to_owned()));
            written.collect::<Vec<_>>()
        };
        let own = |value: &str| vec![("X-Forwarded-Prefix".to_owned(), value.to_owned())];
        assert_eq!(prefix("/app/", model::FieldEdits::default()), own("/app"));
        assert_eq!(prefix("/{a}", model::FieldEdits::default()), own("/{a}"));
        assert_eq!(prefix("/", model::FieldEdits::default()), []);
        let set = model::FieldEdits {
            set: vec![("x-forwarded-prefix".into(), template("/x").expect("one"))],
            ..model::FieldEdits::default()
        };
        assert_eq!(
            prefix("/app", set),
            [("x-forwarded-prefix".to_owned(), "/x".to_owned())]
        );
        let removed = model::FieldEdits {
            remove: vec!["X-Forwarded-Prefix".into()],
            ..model::FieldEdits::default()
        };
        assert_eq!(prefix("/app", removed), []);
    }

    #[test]
    fn the_end_of_a_template_may_be_a_slash() {
        for (text, ends) in [
            ("/sub/", true),
            ("/", true),
            ("/sub", false),
            ("/sub{path}", false),
            ("/sub{path}/", true),
            ("/sub/{query}", false),
            ("/sub/{?query}", true),
            ("/sub/?a=/", true),
            ("/sub?a=/", false),
            ("{path}?a=/", false),
        ] {
            let template = text.parse().expect("a template");
            assert_eq!(path_ends_with_slash(&template), ends, "{text}");
        }
    }

    #[test]
    fn groups_of_the_expression_are_filled_in() {
        let target = |expression: &str, to: &str, sent: &str| {
            let path = model::PathRegex::compile(expression).expect("valid");
            let rewriting = Rewriting::new(&model::Rewriting {
                target: Some(Template::parse(to, Some(&path)).expect("a template")),
                ..model::Rewriting::default()
            });
            let filled = with_values(sent, "a.example", |values| rewriting.fill(values)).ok()?;
            Some(String::from_utf8(filled.target?).expect("text"))
        };
        let expression = "^/u/([^/]+)/(?P<rest>.*)$";
        for (to, sent, got) in [
            ("/{rest}?user={1}", "/u/me/a/b?c", "/a/b?user=me"),
            ("/{rest}", "/u/me/a/b?c", "/a/b?c"),
            (
                "/x/{2}",
                "/u/me/%C3%A4%20%22%2f%2Fb",
                "/x/%C3%A4%20%22%2f%2fb",
            ),
            (
                "/x?q={1}",
                "/u/a&b=c;d+%25%3f%23/",
                "/x?q=a%26b=c%3Bd%2B%25%3F%23",
            ),
            ("/x/{1}", "/u/a&b/", "/x/a&b"),
            ("/x/{1}", "/elsewhere", "/x/"),
        ] {
            assert_eq!(
                target(expression, to, sent).as_deref(),
                Some(got),
                "{to} {sent}"
            );
        }
        for sent in ["/u/%2e%2e/", "/u/../", "/u/..%5c/"] {
            assert_eq!(target(expression, "/x/{1}/y", sent), None, "{sent}");
        }
    }

    #[test]
    fn what_would_leave_the_rewritten_place_is_refused() {
        for sent in [
            "/app/../secret",
            "/app/a/../../secret",
            "/app/%2e%2e/secret",
            "/app/..%2fsecret",
            "/app/..;/secret",
            "/app/..\\secret",
            "/app/.%2E",
        ] {
            assert_eq!(target("/app", "", sent), None, "{sent}");
            assert_eq!(target("/app", "/static{path}", sent), None, "{sent}");
            assert_eq!(target("", "/static{path}", sent), None, "{sent}");
        }
        assert_eq!(target("", "/x/{query}", "/?../secret"), None);
        assert_eq!(target("", "/x/{query}", "/?a`b"), None);
    }

    #[test]
    fn what_may_not_stand_in_a_field_is_refused() {
        // No edge lets such a target through; other programs may.
        let edits = || model::FieldEdits {
            set: vec![("X-Path".into(), template("{path}").expect("one"))],
            ..model::FieldEdits::default()
        };
        for rewriting in [
            model::Rewriting {
                request_headers: edits(),
                ..model::Rewriting::default()
            },
            model::Rewriting {
                response_headers: edits(),
                ..model::Rewriting::default()
            },
            model::Rewriting {
                target: template("/x{path}"),
                ..model::Rewriting::default()
            },
            model::Rewriting {
                strip_prefix: Some("/a".into()),
                ..model::Rewriting::default()
            },
            model::Rewriting {
                host: template("a{path}"),
                ..model::Rewriting::default()
            },
        ] {
            let rewriting = Rewriting::new(&rewriting);
            for sent in ["/a\r\nX: y", "/a\nb", "/a\0"] {
                let filled =
                    with_values(sent, "a.example", |values| rewriting.fill(values).is_ok());
                assert!(!filled, "{rewriting:?} {sent:?}");
            }
        }
    }

    #[test]
    fn a_host_is_a_host_whatever_it_is_made_of() {
        let host = |text: &str, authority: &str| {
            let rewriting = Rewriting::new(&model::Rewriting {
                host: template(text),
                ..model::Rewriting::default()
            });
            let filled = with_values("/p?q@evil", authority, |values| rewriting.fill(values));
            let host = filled.ok()?.host?;
            Some(host.to_str().expect("text").to_owned())
        };
        assert_eq!(
            host("app.internal", "a.example").as_deref(),
            Some("app.internal")
        );
        assert_eq!(host("{host}", "A.example:8").as_deref(), Some("a.example"));
        assert_eq!(
            host("x.{host}:80", "a.example").as_deref(),
            Some("x.a.example:80")
        );
        for text in [
            "{path}",
            "{query}",
            "{host}{query}",
            "{sni}",
            "{host}:{host}",
        ] {
            assert_eq!(host(text, "a.example"), None, "{text}");
        }
    }

    #[test]
    fn fields_are_replaced_added_and_dropped() {
        let value = |text: &str| text.parse().expect("a template");
        let rewriting = Rewriting::new(&model::Rewriting {
            request_headers: model::FieldEdits {
                set: vec![
                    ("X-Set".into(), value("{path}")),
                    ("X-Empty".into(), value("{query}")),
                ],
                add: vec![("X-Add".into(), value("two"))],
                remove: vec!["X-Gone".into()],
            },
            ..model::Rewriting::default()
        });
        let filled = with_values("/p", "a.example", |values| rewriting.fill(values));
        let filled = filled.expect("valid");
        let changes = rewriting.request_changes(&filled).fields;
        let mut request = RequestHeader::build("GET", b"/p", None).expect("a head");
        for name in ["x-set", "x-empty", "x-add", "x-gone", "x-stays"] {
            request.append_header(name, "one").expect("a field");
            assert_eq!(changes.drops(name.to_uppercase().as_bytes()), {
                !matches!(name, "x-add" | "x-stays")
            });
        }
        changes.edit_request(&mut request).expect("edited");
        let all = |name: &str| -> Vec<_> { request.headers.get_all(name).iter().collect() };
        assert_eq!(all("x-set"), ["/p"]);
        assert_eq!(all("x-add"), ["one", "two"]);
        assert_eq!(all("x-stays"), ["one"]);
        assert!(all("x-empty").is_empty() && all("x-gone").is_empty());
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_place_it_is_rewritten_to(
            path in "/app(/|a|\\.|\\.\\.|;|//|%2e|%2f|%2F|\\\\|%5c|%61){0,10}",
        ) {
            if let Some(got) = target("/app", "/static{path}", &path) {
                // However a server reads it.
                let led = path::resolve(got.as_bytes(), |path| path::covers(b"/static", path));
                prop_assert_eq!(led, Some(true), "{}", got);
            }
        }
    }
}
