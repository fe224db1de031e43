//! What a client learns that has a file already.

use http::StatusCode;
use http::header::{ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, VARY};

use crate::config::model::Compression;
use crate::proxy::files::{FoundFile, format_date};
use crate::proxy::request::Request;
use crate::proxy::response::LocalResponse;

/// The response to a client that has the file already. If it has an encoded copy, it learns that
/// that one is current.
pub(super) fn unmodified(
    found: &FoundFile,
    compression: Option<&Compression>,
    request: &Request<'_>,
) -> LocalResponse {
    let etag = &found.version.etag;
    let is_covered = |one: &Compression| one.covers(found.media_type.as_bytes());
    let may_be_encoded = compression.is_some_and(is_covered);
    let weak = format!("W/{etag}");
    let is_weak_known = may_be_encoded && names_tag(request, &weak);
    let vary = (found.varies || may_be_encoded).then(|| "Accept-Encoding".to_owned());
    let fields: [(HeaderName, Option<String>); 3] = [
        (ETAG, Some(if is_weak_known { weak } else { etag.clone() })),
        (LAST_MODIFIED, Some(format_date(found.version.modified))),
        (VARY, vary),
    ];
    let response = LocalResponse::status(StatusCode::NOT_MODIFIED);
    fields
        .into_iter()
        .fold(response, |response, (name, value)| {
            match value.map(HeaderValue::try_from) {
                Some(Ok(value)) => response.with_field(name, value),
                Some(Err(_)) | None => response,
            }
        })
}

/// Whether the request names this tag among those of its copies.
fn names_tag(request: &Request<'_>, tag: &str) -> bool {
    let is_list = |name: &[u8]| name.eq_ignore_ascii_case(IF_NONE_MATCH.as_str().as_bytes());
    let mut lists = request.fields.iter().filter(|(name, _)| is_list(name));
    lists.any(|(_, tags)| memchr::memmem::find(tags, tag.as_bytes()).is_some())
}
