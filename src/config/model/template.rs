//! Texts with placeholders for what is known of a request, compiled when they are read.

use std::fmt;
use std::str::FromStr;

use super::PathRegex;
use super::pieces::{Piece, Pieces, TemplateError};

/// What the names of placeholders for claims begin with.
const CLAIM: &str = "claim:";

/// A text with placeholders: `https://{host}{path}`. `{{` and `}}` stand for braces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Template {
    /// No two texts follow each other, and none is empty.
    parts: Box<[Part]>,
    /// The expression for paths whose groups are among the parts, if there are any.
    path: Option<PathRegex>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Text(Box<str>),
    Placeholder(Placeholder),
    /// What the token of the request says under this name; nothing without one.
    Claim(Box<str>),
    /// What a group of an expression for paths has found.
    Group {
        /// As it is written: a name or a number.
        name: Box<str>,
        index: usize,
    },
}

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// The host that the client requests, in normal form and without a port.
    Host,
    /// The path of the target as the client sent it, in percent-encoding.
    Path,
    /// The query without `?`.
    Query,
    /// The query with `?`; nothing if there is none.
    QuestionedQuery,
    /// `https` or `http`.
    Scheme,
    Method,
    /// The client's address.
    ClientIp,
    /// The user that the client has authenticated itself as; nothing without authentication.
    User,
    RequestId,
    /// The name that the client requested in the handshake; nothing without TLS.
    Sni,
    /// `TLSv1.3` or `TLSv1.2`; nothing without TLS.
    TlsVersion,
    /// The port that the client connected to.
    Port,
    /// The subject of the client's certificate; nothing without one, as for the next three.
    ClientCertSubject,
    /// Its subject alternative names.
    ClientCertSan,
    /// SHA-256 of it in hexadecimal.
    ClientCertFingerprint,
    /// Its serial number in hexadecimal.
    ClientCertSerial,
    /// `true` if the client has presented a certificate, which has been verified; else `false`.
    ClientCertVerified,
}

impl Placeholder {
    /// Every placeholder.
    pub const ALL: [Self; 17] = [
        Self::Host,
        Self::Path,
        Self::Query,
        Self::QuestionedQuery,
        Self::Scheme,
        Self::Method,
        Self::ClientIp,
        Self::User,
        Self::RequestId,
        Self::Sni,
        Self::TlsVersion,
        Self::Port,
        Self::ClientCertSubject,
        Self::ClientCertSan,
        Self::ClientCertFingerprint,
        Self::ClientCertSerial,
        Self::ClientCertVerified,
    ];

    /// What stands in the braces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Path => "path",
            Self::Query => "query",
            Self::QuestionedQuery => "?query",
            Self::Scheme => "scheme",
            Self::Method => "method",
            Self::ClientIp => "client_ip",
            Self::User => "user",
            Self::RequestId => "request_id",
            Self::Sni => "sni",
            Self::TlsVersion => "tls_version",
            Self::Port => "port",
            Self::ClientCertSubject => "client_cert_subject",
            Self::ClientCertSan => "client_cert_san",
            Self::ClientCertFingerprint => "client_cert_fingerprint",
            Self::ClientCertSerial => "client_cert_serial",
            Self::ClientCertVerified => "client_cert_verified",
        }
    }
}

impl Template {
    /// A template that is this text, whatever braces it has.
    pub fn literal(text: &str) -> Self {
        let part = (!text.is_empty()).then(|| Part::Text(text.into()));
        Self {
            parts: part.into_iter().collect(),
            path: None,
        }
    }

    /// A template in which the groups of `path` may stand.
    ///
    /// # Errors
    /// If the text is no template.
    pub fn parse(text: &str, path: Option<&PathRegex>) -> Result<Self, TemplateError> {
        let parts = Pieces::of(text).map(|piece| match piece? {
            Piece::Text(text) => Ok(Part::Text(text)),
            Piece::Name(name) => {
                let part = Part::named(name, path);
                part.ok_or_else(|| TemplateError::Unknown(name.to_owned()))
            }
        });
        let parts = parts.collect::<Result<Box<[Part]>, _>>()?;
        let mut all = parts.iter();
        let has_groups = all.any(|part| matches!(part, Part::Group { .. }));
        Ok(Self {
            path: path.filter(|_| has_groups).cloned(),
            parts,
        })
    }

    /// The expression for paths whose groups are among the parts, if there are any.
    pub fn path(&self) -> Option<&PathRegex> {
        self.path.as_ref()
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, if it has no placeholder.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether one of its placeholders is this one.
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Placeholder(placeholder))
    }
}

impl Part {
    /// What a name in braces stands for. A group of `path` may have the name of no placeholder.
    fn named(name: &str, path: Option<&PathRegex>) -> Option<Self> {
        if let Some(claim) = name.strip_prefix(CLAIM).filter(|claim| !claim.is_empty()) {
            return Some(Self::Claim(claim.into()));
        }
        let known = Placeholder::ALL.into_iter().find(|one| one.name() == name);
        known.map(Self::Placeholder).or_else(|| {
            Some(Self::Group {
                name: name.into(),
                index: path?.group(name)?,
            })
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text, None)
    }
}

/// As it is written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Placeholder(placeholder) => write!(f, "{{{}}}", placeholder.name()),
            Part::Claim(name) => write!(f, "{{{CLAIM}{name}}}"),
            Part::Group { name, .. } => write!(f, "{{{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_are_texts_and_placeholders() {
        let template: Template = "https://{host}/a{{b}}{?query}".parse().expect("valid");
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(
            template.parts(),
            [
                text("https://"),
                Part::Placeholder(Placeholder::Host),
                text("/a{b}"),
                Part::Placeholder(Placeholder::QuestionedQuery),
            ]
        );
        assert_eq!(template.to_string(), "https://{host}/a{{b}}{?query}");
        assert_eq!(template.as_literal(), None);
        assert!(template.has(Placeholder::Host) && !template.has(Placeholder::Path));
        for (written, text) in [("", ""), ("a", "a"), ("{{}}", "{}"), ("}}{{", "}{")] {
            let template: Template = written.parse().expect("valid");
            assert_eq!(template.as_literal(), Some(text));
            assert_eq!(template, Template::literal(text));
        }
        let claim: Template = "{claim:https://a.example/role}".parse().expect("valid");
        assert_eq!(
            claim.parts(),
            [Part::Claim("https://a.example/role".into())]
        );
        assert_eq!(claim.to_string(), "{claim:https://a.example/role}");
        for placeholder in Placeholder::ALL {
            let written = format!("{{{}}}", placeholder.name());
            let template: Template = written.parse().expect("valid");
            assert_eq!(template.parts(), [Part::Placeholder(placeholder)]);
        }
    }

    #[test]
    fn groups_of_an_expression_are_named_or_numbered() {
        let path = PathRegex::compile("^/(a)/(?P<rest>.*)$").expect("valid");
        let text = "/x/{1}/{rest}{path}{2}";
        let template = Template::parse(text, Some(&path)).expect("valid");
        let group = |name: &str, index| Part::Group {
            name: name.into(),
            index,
        };
        assert_eq!(template.parts()[1], group("1", 1));
        assert_eq!(template.parts()[3], group("rest", 2));
        assert_eq!(template.parts()[5], group("2", 2));
        assert_eq!(template.to_string(), text);
        assert_eq!(template.path(), Some(&path));
        assert_eq!(template.as_literal(), None);
        for name in ["0", "3", "other", "", "99999999999999999999"] {
            let error = TemplateError::Unknown(name.to_owned());
            let parsed = Template::parse(&format!("{{{name}}}"), Some(&path));
            assert_eq!(parsed, Err(error));
        }
        let plain = Template::parse("/x{path}", Some(&path)).expect("valid");
        assert_eq!(Ok(plain), "/x{path}".parse());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let unknown = |name: &str| TemplateError::Unknown(name.to_owned());
        for (text, error) in [
            ("{hots}", unknown("hots")),
            ("{}", unknown("")),
            ("{claim:}", unknown("claim:")),
            ("{claims:a}", unknown("claims:a")),
            ("{ host }", unknown(" host ")),
            ("{HOST}", unknown("HOST")),
            ("{a{host}", unknown("a{host")),
            ("{host", TemplateError::Unclosed),
            ("{{{", TemplateError::Unclosed),
            ("host}", TemplateError::Unopened),
            ("{host}}", TemplateError::Unopened),
        ] {
            assert_eq!(text.parse::<Template>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same_template(text in "([{}a/]|\\{host\\}|\\{path\\}|\\{claim:a\\}){0,12}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.to_string().parse(), Ok(template));
            }
        }
    }
}
