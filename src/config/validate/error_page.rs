//! `error_pages` and `maintenance`. The files of pages are read here.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use indexmap::IndexMap;

use super::context::Context;
use super::network::networks;
use super::value::FOREVER;
use crate::config::model::{ErrorKey, ErrorPage, ErrorPages, Maintenance, Page, media_type};
use crate::config::problem::{At, quote};
use crate::config::schema::{self, Switch};

/// The maximum size of a page, in octets.
const MAX_PAGE: u64 = 256 << 10;

/// The pages of `server` or a site.
pub(super) fn error_pages(
    ctx: &mut Context<'_>,
    raw: &IndexMap<String, schema::ErrorPage>,
    at: &At<'_>,
) -> Option<ErrorPages> {
    let mut pages = Vec::with_capacity(raw.len());
    for (name, entry) in raw {
        let at = at.key(name);
        let key = error_key(name);
        if key.is_none() {
            let message = format!("{} is not a status of errors", quote(name));
            let hint = "write a status from 400 to 599, 4xx, 5xx or default";
            ctx.problems.error(&at.at_key(), message, hint);
        }
        let file_at = at.key("file");
        let (files, at, upstream) = match entry {
            schema::ErrorPage::File(file) => (std::slice::from_ref(file), at, false),
            schema::ErrorPage::Files(files) => (&**files, at, false),
            schema::ErrorPage::More(more) => (more.file.as_slice(), file_at, more.upstream),
        };
        if files.is_empty() && at.is_written() {
            ctx.problems
                .error(&at, "the list is empty", "name at least one file");
        }
        let read = files.iter().enumerate();
        let read = read.filter_map(|(index, file)| page(ctx, &at.index(index), file));
        let read: Vec<_> = read.collect();
        if let Some(key) = key {
            let page = ErrorPage {
                pages: read,
                upstream,
            };
            pages.push((key, page));
        }
    }
    (!pages.is_empty()).then(|| ErrorPages::new(pages))
}

/// What clients get during maintenance; `None` if it is off.
pub(super) fn maintenance(
    ctx: &mut Context<'_>,
    raw: &schema::Maintenance,
    at: &At<'_>,
) -> Option<Arc<Maintenance>> {
    let default = schema::MaintenanceOptions::default();
    let raw = match raw {
        schema::Maintenance::Switch(Switch::Off) => return None,
        schema::Maintenance::Switch(Switch::On) => &default,
        schema::Maintenance::On(raw) => raw,
    };
    let status = u16::try_from(raw.status).unwrap_or_default();
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error());
    if status.is_none() {
        let at = at.key("status");
        let message = format!("{} is not a status of errors", at.quoted());
        ctx.problems
            .error(&at, message, "give a number from 400 to 599");
    }
    let page = match (&raw.file, &raw.body) {
        (Some(_), Some(_)) => {
            let message = "'file' and 'body' exclude each other";
            ctx.problems
                .error(&at.key("body").at_key(), message, "keep one of the two");
            None
        }
        (Some(file), None) => page(ctx, &at.key("file"), file),
        (None, Some(body)) => {
            let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
            let body = Bytes::from(body.clone());
            Some(Arc::new(Page::new(media_type, body)))
        }
        (None, None) => None,
    };
    let retry_at = at.key("retry_after");
    let retry_after = ctx.duration(&retry_at, &raw.retry_after, Duration::ZERO, FOREVER);
    Some(Arc::new(Maintenance {
        status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        page,
        retry_after,
        allow: networks(ctx, &at.key("allow"), &raw.allow),
    }))
}

/// Reads a page, each file once.
fn page(ctx: &mut Context<'_>, at: &At<'_>, raw: &str) -> Option<Arc<Page>> {
    let path = ctx.path(at, raw);
    if raw.is_empty() || raw.contains('\0') {
        return None;
    }
    if let Some(known) = ctx.pages.get(&path) {
        return Some(Arc::clone(known));
    }
    ctx.sources.watch(&path);
    match read_page(&path) {
        Ok(octets) => {
            let page = Arc::new(Page::new(media_type(raw), octets));
            ctx.pages.insert(path, Arc::clone(&page));
            Some(page)
        }
        Err((why, hint)) => {
            let message = format!("the file {} {why}", at.quoted());
            ctx.problems.error(at, message, hint);
            None
        }
    }
}

/// The content of a file. The error says what is wrong and what to do.
fn read_page(path: &Path) -> Result<Bytes, (String, &'static str)> {
    const PATH: &str = "check the path; a relative one is relative to the file it stands in";
    let failed = |error: std::io::Error| (format!("cannot be read: {error}"), PATH);
    // Others, such as pipes, could keep a reader waiting.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(("is not a regular file".to_owned(), PATH));
    }
    let mut octets = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_PAGE + 1)
        .read_to_end(&mut octets)
        .map_err(failed)?;
    if u64::try_from(octets.len()).is_ok_and(|length| length > MAX_PAGE) {
        let hint = "keep the page small, and let it refer to images and styles";
        return Err((format!("is larger than {MAX_PAGE} bytes"), hint));
    }
    Ok(octets.into())
}

fn error_key(name: &str) -> Option<ErrorKey> {
    match name {
        "default" => Some(ErrorKey::Default),
        "4xx" => Some(ErrorKey::Class(4)),
        "5xx" => Some(ErrorKey::Class(5)),
        number => {
            let status = number.parse().ok().filter(|_| number.len() == 3)?;
            (400..600)
                .contains(&status)
                .then_some(ErrorKey::Status(status))
        }
    }
}
