//! What a request asks for among the files of its route.

use std::sync::Arc;

use http::header::ACCEPT_ENCODING;

use crate::clock::{Clock as _, SystemClock};
use crate::config::model::{Files, Part, Placeholder, Template};
use crate::proxy::files::{Codings, Conditions, FilePath, FileQuery};
use crate::proxy::path;
use crate::proxy::request::Request;
use crate::proxy::request_ctx::RequestCtx;
use crate::proxy::template::Values;

/// What a request asks for, of which so many octets are read at once; `None` if no file can have its
/// path.
pub(super) fn query(ctx: &RequestCtx, request: &Request<'_>, first: usize) -> Option<FileQuery> {
    let files = ctx.files()?;
    let sent = path::without_query(request.origin_form());
    let changes = ctx.request_changes();
    let path = changes.target.map_or(sent, path::without_query);
    let values = Values::of(request, ctx.request_id_value());
    let values = values.with_path(path);
    let asked = FilePath::of(path)?;
    let mut candidates = Vec::with_capacity(files.candidates.len());
    for template in &files.candidates {
        if let Some(candidate) = candidate(template, files, &values)
            && !candidates.contains(&candidate)
        {
            candidates.push(candidate);
        }
    }
    Some(FileQuery {
        files: Arc::clone(files),
        candidates,
        lacks_slash: (!sent.ends_with(b"/") && !changes.ends_with_slash).then_some(asked),
        shown_path: sent.to_vec(),
        conditions: Conditions::of(request),
        codings: Codings::of(request.fields.get(&ACCEPT_ENCODING)),
        now: SystemClock.now(),
        first,
    })
}

/// What a template makes of a request, if a file may have that path.
fn candidate(template: &Template, files: &Files, values: &Values<'_>) -> Option<FilePath> {
    let filled = values.fill_target(template);
    let filled = path::without_query(&filled);
    let is_all_of_path = template.parts().first() == Some(&Part::Placeholder(Placeholder::Path));
    if !is_all_of_path && path::has_parent_segment(filled) {
        // It would leave what the template puts before the client's path.
        return None;
    }
    let path = FilePath::of(filled)?;
    let is_given = |part: &Part| matches!(part, Part::Placeholder(_));
    let is_free = template.parts().iter().any(is_given);
    (files.hidden || !is_free || !path.is_hidden()).then_some(path)
}
