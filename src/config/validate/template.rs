//! Texts with placeholders.

use super::context::Context;
use crate::config::model::{Part, Placeholder, Template, TemplateError};
use crate::config::problem::{At, nearest, quote};

/// A text with placeholders, if it is valid.
pub(super) fn template(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Template> {
    let error = match raw.parse() {
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
                    "there are {}; write '{{{{' and '}}}}' for braces",
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
        },
    });
    parts.collect()
}
