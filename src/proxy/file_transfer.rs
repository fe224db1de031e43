//! Carries files to clients, like downloads from a server.
//!
//! Files are opened and read on threads that may block, unless the system has the next part in
//! memory. Each part is read only once the client has accepted the last.

mod query;
mod unmodified;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_RANGE, HeaderValue};
use pingora_core::{Error, ErrorType, Result};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::query::query;
use self::unmodified::unmodified;
use super::Gateway;
use super::decision::Decision;
use super::failure::Failure;
use super::files::{Extent, Found, FoundFile, format_date, read_cached, read_part};
use super::forward::{Carried, Client, Compressing, ResponseBody, ResponseHead};
use super::prepared::Prepared;
use super::redirect::location;
use super::refusal::Refusal;
use super::request::Request;
use super::request_ctx::RequestCtx;
use super::response::LocalResponse;
use super::template::Values;
use crate::printable::Printable as _;

/// The most threads that read files at a time: others have to wait for slow disks too.
const READERS: usize = 64;

/// How long one read may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads files for all requests. A handle; clones share the limit.
#[derive(Clone, Debug)]
pub(super) struct FileReaders(Arc<Semaphore>);

impl Default for FileReaders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

/// A request for a file.
struct Transfer<'a, C> {
    gateway: &'a Gateway,
    request: &'a Request<'a>,
    ctx: RequestCtx,
    client: &'a mut C,
    /// The status of a response whose head is on its way.
    status: Option<StatusCode>,
    octets: usize,
}

/// What to respond, if not with a file.
enum Answer {
    Page(StatusCode, &'static str),
    Response(LocalResponse),
    Refuse(Refusal),
}

/// Responds to a request for a file, as `decision` says.
pub(super) async fn transfer_file<C: Client>(
    gateway: &Gateway,
    decision: Decision,
    request: &Request<'_>,
    client: &mut C,
) -> Carried {
    let Some(compression) = decision.compression().map(Arc::clone) else {
        return transfer(gateway, decision, request, client).await;
    };
    let mut client = Compressing::new(client, compression, request);
    Box::pin(transfer(gateway, decision, request, &mut client)).await
}

async fn transfer<C: Client>(
    gateway: &Gateway,
    decision: Decision,
    request: &Request<'_>,
    client: &mut C,
) -> Carried {
    let mut ctx = RequestCtx::new();
    if let Err(refusal) = ctx.take_decision(decision, request) {
        return gateway.refuse(ctx, refusal, request);
    }
    let mut transfer = Transfer {
        gateway,
        request,
        ctx,
        client,
        status: None,
        octets: 0,
    };
    let carried = transfer.carry().await;
    transfer.finish(carried)
}

impl<C: Client> Transfer<'_, C> {
    /// Sends the file, or says what is to be sent instead.
    async fn carry(&mut self) -> Result<Option<Answer>> {
        if !self.request.is_read() {
            let why = "Files can only be read.";
            let page = self
                .ctx
                .error_page(StatusCode::METHOD_NOT_ALLOWED, why, self.request);
            let page = page.allowing(Some(HeaderValue::from_static("GET, HEAD")));
            return Ok(Some(Answer::Response(page)));
        }
        let limit = &self.gateway.file_limit;
        if !self.ctx.acquire_file_permit(limit, self.client.held()) {
            return Ok(Some(Answer::Refuse(Refusal::TooManyFiles)));
        }
        let is_head = self.request.method == "HEAD";
        let room = poll_fn(|cx| self.client.poll_room(cx)).await?;
        let first = if is_head { 0 } else { room };
        let Some(query) = query(&self.ctx, self.request, first) else {
            return Ok(Some(no_file()));
        };
        let found = self.read(move || query.look_up()).await?;
        let found = match found {
            Ok(Found::File(found)) => found,
            Ok(other) => return Ok(Some(self.answer(other))),
            Err(error) => {
                self.log_failure(&error);
                let why = "The gateway cannot read this file.";
                return Ok(Some(Answer::Page(StatusCode::INTERNAL_SERVER_ERROR, why)));
            }
        };
        match found.extent {
            Extent::Whole | Extent::Part(_) => self.send_file(*found, is_head).await,
            Extent::NotModified => {
                let decision = self.ctx.decision.as_ref();
                let compression = decision.and_then(Decision::compression);
                let response = unmodified(&found, compression.map(|one| &**one), self.request);
                Ok(Some(Answer::Response(response)))
            }
            Extent::Failed => {
                let why = "The file is not in the state that the request requires.";
                Ok(Some(Answer::Page(StatusCode::PRECONDITION_FAILED, why)))
            }
            Extent::Unsatisfiable => {
                let why = "The file does not have this range.";
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let page = self.ctx.error_page(status, why, self.request);
                let range = format!("bytes */{}", found.length);
                let range = HeaderValue::try_from(range);
                Ok(Some(Answer::Response(match range {
                    Ok(range) => page.with_field(CONTENT_RANGE, range),
                    Err(_) => page,
                })))
            }
        }
    }

    /// The response if there is no file.
    fn answer(&self, found: Found) -> Answer {
        match found {
            Found::Directory => {
                let values = Values::of(self.request, self.ctx.request_id_value());
                let mut target = [values.path, b"/"].concat();
                values.put_query(&mut target);
                match location(target) {
                    Some(to) => Answer::Response(LocalResponse::redirect(
                        StatusCode::PERMANENT_REDIRECT,
                        to,
                    )),
                    None => no_file(),
                }
            }
            Found::Listing(page) => {
                let media_type = HeaderValue::from_static("text/html; charset=utf-8");
                Answer::Response(LocalResponse::new(StatusCode::OK, media_type, page))
            }
            Found::Forbidden => Answer::Page(
                StatusCode::FORBIDDEN,
                "The gateway may not read what is at this path.",
            ),
            Found::Busy => Answer::Page(
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway cannot open another file just now.",
            ),
            Found::File(_) | Found::Nothing => no_file(),
        }
    }

    /// Sends the head of a response, and the part of the file that it is for.
    async fn send_file(&mut self, found: FoundFile, is_head: bool) -> Result<Option<Answer>> {
        let range = found.extent.octets(found.length);
        let status = match found.extent {
            Extent::Part(_) => StatusCode::PARTIAL_CONTENT,
            _ => StatusCode::OK,
        };
        self.send_head(&found, status, is_head)?;
        self.status = Some(status);
        let FoundFile { file, first, .. } = found;
        let mut at = if is_head { range.end } else { range.start };
        let mut part = first;
        loop {
            at += part.len() as u64;
            self.send_part(&mut part, at >= range.end).await?;
            if at >= range.end {
                break;
            }
            let room = poll_fn(|cx| self.client.poll_room(cx)).await?;
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let (file, most) = (Arc::clone(&file), room.clamp(1, left));
            if let Some(cached) = read_cached(&file, at, most) {
                part = cached;
                continue;
            }
            part = match self.read(move || read_part(&file, at, most)).await? {
                Ok(part) => part,
                Err(error) => {
                    self.log_failure(&error);
                    let why = "a file cannot be read any further";
                    return Err(Error::because(ErrorType::FileReadError, why, error).into_in());
                }
            };
        }
        poll_fn(|cx| self.client.poll_flush(cx)).await?;
        Ok(None)
    }

    fn send_head(&mut self, found: &FoundFile, status: StatusCode, is_head: bool) -> Result<()> {
        let modified = format_date(found.version.modified);
        let range = found.extent.octets(found.length);
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let content_range = format!("bytes {first}-{last}/{}", found.length);
        let is_part = status == StatusCode::PARTIAL_CONTENT;
        let coding = found.coding.map_or("", |coding| coding.token());
        let field = |name, value| httparse::Header { name, value };
        let fields = [
            field("Content-Type", found.media_type.as_bytes()),
            field("Last-Modified", modified.as_bytes()),
            field("ETag", found.version.etag.as_bytes()),
            field("Accept-Ranges", b"bytes"),
            field(
                "Vary",
                if found.varies {
                    b"Accept-Encoding"
                } else {
                    b""
                },
            ),
            field("Content-Encoding", coding.as_bytes()),
            field(
                "Content-Range",
                if is_part {
                    content_range.as_bytes()
                } else {
                    b""
                },
            ),
        ];
        let mut written = [httparse::EMPTY_HEADER; 7];
        let mut count = 0;
        let given = fields.into_iter().filter(|field| !field.value.is_empty());
        for (place, field) in written.iter_mut().zip(given) {
            *place = field;
            count += 1;
        }
        let length = range.end - range.start;
        let body = match is_head {
            true => ResponseBody::None(Some(length)),
            false => ResponseBody::Length(length),
        };
        let fields = written.get(..count).unwrap_or_default();
        let gateway = self.ctx.response_fields();
        self.client
            .send_head(&ResponseHead::own(status, fields, gateway, body))
    }

    /// Sends octets of the body.
    async fn send_part(&mut self, part: &mut Bytes, is_last: bool) -> Result<()> {
        poll_fn(|cx| {
            let before = part.len();
            let sent = self.client.poll_send(cx, part, is_last);
            self.octets += before - part.len();
            if sent.is_pending()
                && let Poll::Ready(error) = self.client.poll_gone(cx)
            {
                return Poll::Ready(Err(error));
            }
            sent
        })
        .await
    }

    /// Has something read. Meanwhile the client gets what it has not got yet.
    async fn read<T: Send + 'static>(
        &mut self,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>> {
        let readers = Arc::clone(&self.gateway.file_readers.0);
        let reading = timeout(PATIENCE, async move {
            let permit = readers.acquire_owned().await.map_err(io::Error::other)?;
            let reading = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                read()
            });
            reading.await.map_err(io::Error::other)?
        });
        let mut reading = pin!(reading);
        poll_fn(|cx| {
            if let Poll::Ready(read) = reading.as_mut().poll(cx) {
                let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
                return Poll::Ready(Ok(read.unwrap_or_else(late)));
            }
            if self.status.is_some()
                && let Poll::Ready(Err(error)) = self.client.poll_flush(cx)
            {
                return Poll::Ready(Err(error));
            }
            self.client.poll_gone(cx).map(Err)
        })
        .await
    }

    fn log_failure(&self, error: &io::Error) {
        let site = self.ctx.decision.as_ref().and_then(Decision::site);
        let site = site.map_or("-", |site| &site.name);
        let root = self.ctx.files().map(|files| files.root.printable());
        let root = root.map(tracing::field::display);
        let request_id = self.ctx.request_id();
        tracing::warn!(site, root, request_id, %error, "a file cannot be read");
    }

    /// Counts and logs the request, unless there is something else to send.
    fn finish(mut self, carried: Result<Option<Answer>>) -> Carried {
        let request = self.request;
        let (answer, has_failed) = match carried {
            Ok(answer) => (answer, false),
            Err(error) => {
                let failure = Failure::of(&error, true);
                let status = failure.response_status().filter(|_| self.status.is_none());
                if self.status.is_none() {
                    self.ctx.record_failure(failure, &error);
                }
                (status.map(|(status, why)| Answer::Page(status, why)), true)
            }
        };
        self.ctx.upstream_permit = None;
        let page = match answer {
            Some(Answer::Page(status, why)) => self.ctx.error_page(status, why, request),
            Some(Answer::Response(response)) => response,
            Some(Answer::Refuse(refusal)) => {
                return self.gateway.refuse(self.ctx, refusal, request);
            }
            None => {
                let octets = self.client.recoded_octets().unwrap_or(self.octets);
                self.gateway
                    .record_request(&self.ctx, self.status, octets, request);
                return match has_failed {
                    true => Carried::Cut,
                    false => Carried::Complete,
                };
            }
        };
        Carried::Respond(Box::new(Prepared::new(self.ctx, Some(page), request)))
    }
}

fn no_file() -> Answer {
    Answer::Page(StatusCode::NOT_FOUND, "There is nothing at this path.")
}
