//! HTTP/1 connections: reads and checks each request head, then has the application serve the
//! request.
//!
//! Between requests a connection holds no Pingora session and no buffer, so that an idle one
//! costs little more than its TLS state.

mod client;
mod direct;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod head;
mod loan;
mod request_line;
mod stream;
pub(super) mod transport;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::StatusCode;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use tokio::time::Instant;

use crate::config::model::Limits;
use crate::proxy::{
    Carried, Client as _, Decision, DirectResponder, Handover, KeepAlive, Request, Routed,
};
use crate::shutdown::{ShutdownWatch, requested};

use self::client::Http1Client;
use self::direct::Connected;
use self::head::Head;
pub(super) use self::head::MAX_FIELDS;
use self::request_line::EMPTY_LINE;
pub(super) use self::request_line::MAX_REQUEST_LINE;
use self::stream::{FAREWELL, MessageStream};
use super::refusal::Refusal;
use super::report::Report;
use super::slot::Slot;
use super::timer::Timer;
use super::wait_last_call;

/// Serves one connection until it ends.
pub(super) async fn serve<A>(
    app: &Arc<A>,
    connection: Stream,
    limits: &Limits,
    report: &Report,
    slot: &Arc<Slot>,
    mut shutdown: ShutdownWatch,
) where
    A: DirectResponder + Send + Sync + 'static,
{
    let digest = connection.get_socket_digest();
    let client = Connected::of(&connection);
    let mut stream = MessageStream::new(connection, limits.idle);
    let mut idle = Timer::default();
    let mut heard = shutdown.clone();
    let mut stopping = std::pin::pin!(requested(&mut heard));
    loop {
        let begun = tokio::select! {
            biased;
            begun = await_first_bytes(&mut stream, &mut idle, limits, slot) => begun,
            () = &mut stopping => false,
        };
        if !begun {
            return close_stream(stream, &mut shutdown).await;
        }
        let head = tokio::select! {
            // Most heads have arrived by now.
            biased;
            head = read_head(&mut stream, limits) => head,
            () = wait_last_call(&mut shutdown) => return,
            () = wait_until_let_go(slot) => return,
        };
        let _in_flight = slot.count_in_flight();
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) => return close_stream(stream, &mut shutdown).await,
            Err(refusal) => {
                report.log_refused_request(digest.as_deref(), &refusal);
                // In a box, for the same reason as below.
                if Box::pin(direct::respond_refusal(
                    &**app,
                    &mut stream,
                    &client,
                    &refusal,
                ))
                .await
                {
                    close_stream(stream, &mut shutdown).await;
                }
                return;
            }
        };
        let may_keep = head.keeps_connection && !*shutdown.borrow();
        let request = client.request_from(&head, stream.unread());
        let routed = match request.map(|request| app.route(&request)) {
            Some(pending @ (Routed::Validation | Routed::Authorize(_))) => {
                // So that the stream can be asked meanwhile whether its client is gone.
                let bytes = stream.take_bytes(head.len);
                let Some(request) = client.request_from(&head, &bytes) else {
                    return;
                };
                let gone = poll_fn(|cx| stream.poll_hung_up(cx).map(|_| ()));
                let routed = Box::pin(app.complete_routing(pending, &request, gone)).await;
                stream.return_bytes(bytes);
                Some(routed)
            }
            routed => routed,
        };
        let next = match routed {
            Some(Routed::Respond(response)) => {
                let bytes = stream.take_bytes(head.len);
                stream.begin_body(&head);
                let Some(request) = client.request_from(&head, &bytes) else {
                    return;
                };
                direct::respond(&**app, &mut stream, &head, &request, response, may_keep)
                    .await
                    .map_or(Next::Cut, Next::keep_if)
            }
            Some(Routed::Forward(decision)) => {
                let bytes = stream.take_bytes(head.len);
                stream.begin_body(&head);
                let Some(request) = client.request_from(&head, &bytes) else {
                    return;
                };
                // In a box, so that an idle connection reserves no memory for a request.
                let forwarded = forward_message(
                    &**app,
                    &mut stream,
                    &head,
                    &request,
                    decision,
                    may_keep,
                    &shutdown,
                );
                Box::pin(forwarded).await
            }
            Some(Routed::Process(decision)) => {
                stream.begin_message(&head);
                // In a box, for the same reason.
                let proxied = Box::pin(proxy_message(app, stream, decision, limits, &mut shutdown));
                match proxied.await {
                    Some(next) => stream = next,
                    None => return,
                }
                continue;
            }
            Some(Routed::Gone | Routed::Validation | Routed::Authorize(_)) | None => return,
        };
        match next {
            Next::Keep => {}
            Next::Close => return close_stream(stream, &mut shutdown).await,
            Next::Cut => {
                stream.cut_connection().await;
                return;
            }
        }
    }
}

/// What happens to a connection after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another message may follow.
    Keep,
    /// It is closed in order.
    Close,
    /// It ends in the middle of a response.
    Cut,
}

impl Next {
    fn keep_if(is_kept: bool) -> Self {
        match is_kept {
            true => Self::Keep,
            false => Self::Close,
        }
    }
}

/// Has the application pass on the message whose head has been taken from the stream.
async fn forward_message<A: DirectResponder>(
    app: &A,
    stream: &mut MessageStream,
    head: &Head,
    request: &Request<'_>,
    decision: Decision,
    may_keep: bool,
    shutdown: &ShutdownWatch,
) -> Next {
    let client = Http1Client::new(stream, head.http_10, may_keep, shutdown);
    let mut client = client.with_fields(request.fields);
    match app.forward(decision, request, &mut client).await {
        Carried::Complete => Next::keep_if(client.keeps_connection()),
        Carried::Cut => {
            // The client is to see what it has got of the response.
            let flushed = poll_fn(|cx| client.poll_flush(cx));
            _ = tokio::time::timeout(FAREWELL, flushed).await;
            Next::Cut
        }
        Carried::Respond(response) => {
            // An interim response may be on its way.
            let flushed = poll_fn(|cx| client.poll_flush(cx));
            let flushed = tokio::time::timeout(FAREWELL, flushed).await;
            if !matches!(flushed, Ok(Ok(()))) {
                app.record_sent(*response, request, 0);
                return Next::Cut;
            }
            let may_keep = may_keep && !*shutdown.borrow();
            direct::respond(app, stream, head, request, response, may_keep)
                .await
                .map_or(Next::Cut, Next::keep_if)
        }
    }
}

/// Ends a connection in order, and soon if the gateway stops.
///
/// In a box, so that an open connection reserves no memory for it.
fn close_stream(
    mut stream: MessageStream,
    shutdown: &mut ShutdownWatch,
) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(async move { stream.close(wait_last_call(shutdown)).await })
}

/// Has Pingora's proxy serve the message that the stream is positioned on. Returns the stream if
/// another message may follow. Otherwise the connection is ended as the response requires.
async fn proxy_message<A>(
    app: &Arc<A>,
    stream: MessageStream,
    decision: Decision,
    limits: &Limits,
    shutdown: &mut ShutdownWatch,
) -> Option<MessageStream>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let (loan, handle) = loan::lend_stream(stream);
    let mut session = ServerSession::new_http1(Box::new(handle));
    let keepalive = (!*shutdown.borrow()).then(|| limits.idle.as_secs().max(1));
    session.set_keepalive(keepalive);
    let keep_alive = KeepAlive::default();
    let handover = Handover {
        keep_alive: keep_alive.clone(),
        decision,
    };
    session.set_connection_user_context(Some(Box::new(handover)));
    let is_kept = app.process_new_http(session, shutdown).await.is_some();
    let is_kept = is_kept || keep_alive.is_granted();
    let (mut stream, is_closed) = loan.take_back()?;
    if is_kept && stream.is_done() {
        return Some(stream);
    }
    if is_kept || is_closed {
        stream.close(wait_last_call(shutdown)).await;
    } else {
        stream.cut_connection().await;
    }
    None
}

/// Waits for the beginning of a request; `false` if the client goes away or stays silent, or if the
/// connection has to make room for another.
async fn await_first_bytes(
    stream: &mut MessageStream,
    idle: &mut Timer,
    limits: &Limits,
    slot: &Slot,
) -> bool {
    if !stream.unread().is_empty() {
        return true;
    }
    let since = Instant::now();
    let mut filled = std::pin::pin!(stream.read_more());
    poll_fn(|cx| match filled.as_mut().poll(cx) {
        Poll::Ready(filled) => Poll::Ready(matches!(filled, Ok(1..))),
        Poll::Pending if slot.poll_close_requested(cx).is_ready() => Poll::Ready(false),
        Poll::Pending => idle.poll_since(cx, limits.idle, || since).map(|()| false),
    })
    .await
}

/// Waits until a connection on which a head has begun to arrive has to make room for another.
async fn wait_until_let_go(slot: &Slot) {
    slot.restart_idle_time();
    poll_fn(|cx| slot.poll_close_requested(cx)).await;
}

/// Reads until a whole head has arrived; `None` if the client goes away.
async fn read_head(stream: &mut MessageStream, limits: &Limits) -> Result<Option<Head>, Refusal> {
    let deadline = Instant::now() + limits.header_read;
    let mut may_skip = true;
    let mut is_worth_parsing = true;
    loop {
        if may_skip && stream.unread().starts_with(EMPTY_LINE) {
            stream.skip_bytes(EMPTY_LINE.len());
            may_skip = false;
        }
        if is_worth_parsing
            && let Some(head) = head::parse(stream.unread(), limits.max_header_bytes)?
        {
            let Some(absolute) = &head.absolute else {
                return Ok(Some(head));
            };
            // Every server reads origin form in the same way.
            stream.rewrite_head(|buffer| absolute.to_origin_form(buffer, head.len));
            return head::parse(stream.unread(), usize::MAX);
        }
        let before = stream.unread().len();
        match tokio::time::timeout_at(deadline, stream.read_more()).await {
            Ok(Ok(0) | Err(_)) => return Ok(None),
            Ok(Ok(_)) => {}
            // Only the empty line that some clients send after a body.
            Err(_) if before == 0 => return Ok(None),
            Err(_) => {
                return Err(Refusal {
                    status: StatusCode::REQUEST_TIMEOUT,
                    reason: "the request head took too long",
                });
            }
        }
        // A head that arrives in small pieces is parsed once per line, not once per piece, as long
        // as it may still be valid.
        let unread = stream.unread();
        let new = unread.get(before..).unwrap_or_default();
        is_worth_parsing = before == 0
            || memchr::memchr(b'\n', new).is_some()
            || unread.len() > limits.max_header_bytes
            || (before <= MAX_REQUEST_LINE && unread.len() > MAX_REQUEST_LINE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_head_in_crumbs_without_a_line_end_is_bounded() {
        let limits = Limits {
            max_header_bytes: 4096,
            ..Limits::sample()
        };
        // Each read sees one crumb, as with a TLS record for each.
        let (mut client, server) = tokio::io::duplex(32);
        let mut stream = MessageStream::new(Box::new(server), Duration::from_secs(60));
        let crumbs = tokio::spawn(async move {
            let begin = b"GET / HTTP/1.1\r\nX: ";
            let mut sent = begin.len();
            let mut written = client.write_all(begin).await;
            while written.is_ok() && sent < 1 << 20 {
                written = client.write_all(&[b'a'; 32]).await;
                sent += 32;
            }
            sent
        });
        let refusal = read_head(&mut stream, &limits)
            .await
            .expect_err("too large");
        assert_eq!(refusal.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        drop(stream);
        assert!(crumbs.await.expect("no panic") < 8192);
    }
}
