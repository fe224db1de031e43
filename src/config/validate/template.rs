//! Texts with placeholders.

use super::context::Context;
use crate::config::model::{Part, PathMatch, Placeholder, Template, TemplateError};
use crate::config::problem::{At, nearest, quote};

/// A text with placeholders, if it is valid.
pub(super) fn template(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Template> {
    path_template(ctx, at, raw, None)
}

/// The same for a route with this path: if that is an expression, its groups may be named.
pub(super) fn path_template(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    raw: &str,
    path: Option<&PathMatch>,
) -> Option<Template> {
    let path = match path {
        Some(PathMatch::Regex(regex)) => Some(regex),
        Some(PathMatch::Prefix(_) | PathMatch::Exact(_)) | None => None,
    };
    let error = match Template::parse(raw, path) {
        Ok(template) => return Some(template),
        Err(error) => error,
    };
    let (message, hint) = match error {
        // It may be a part of what a reference stands for.
        TemplateError::Unknown(_) if at.is_reference() => (
            "what this stands for has an unknown placeholder".to_owned(),
            "write '{{' and '}}' for braces in it".to_owned(),
        ),
        TemplateError::Unknown(name) => {
            let names = Placeholder::ALL.map(Placeholder::name);
            let hint = match nearest(&name, names) {
                Some(known) => format!("did you mean '{{{known}}}'?"),
                None => format!(
                    "there are {} and {{claim:NAME}}; write '{{{{' and '}}}}' for braces",
                    names.map(|name| format!("{{{name}}}")).join(", ")
                ),
            };
            let name = quote(&format!("{{{name}}}"));
            (format!("there is no placeholder {name}"), hint)
        }
        error @ (TemplateError::Unclosed | TemplateError::Unopened) => (
            error.to_string(),
            "write a placeholder such as {path}, or '{{' and '}}' for braces".to_owned(),
        ),
    };
    ctx.problems.error(at, message, hint);
    None
}

/// A template with one value for each placeholder, to check what is written around them.
pub(super) fn sample(template: &Template) -> String {
    let parts = template.parts().iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Claim(_) | Part::Group { .. } => "a",
        Part::Placeholder(placeholder) => match placeholder {
            Placeholder::Host | Placeholder::Sni => "a.example",
            Placeholder::Path => "/a",
            Placeholder::Query => "a=b",
            Placeholder::QuestionedQuery => "?a=b",
            Placeholder::Scheme => "https",
            Placeholder::Method => "GET",
            Placeholder::ClientIp => "192.0.2.1",
            Placeholder::User => "ann",
            Placeholder::RequestId => "00ff",
            Placeholder::TlsVersion => "TLSv1.3",
            Placeholder::Port => "443",
            Placeholder::ClientCertSubject => "CN=a",
            Placeholder::ClientCertSan => "DNS:a.example",
            Placeholder::ClientCertFingerprint | Placeholder::ClientCertSerial => "00ff",
            Placeholder::ClientCertVerified => "true",
        },
    });
    parts.collect()
}
