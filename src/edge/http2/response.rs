//! Responses of the gateway itself.

use std::time::Duration;

use http::header::EXPECT;
use pingora_core::protocols::http::v2::write_body;
use pingora_http::ResponseHeader;
use tokio::time::timeout;

use super::stream::HttpSession;
use crate::proxy::{BODY_END, Prepared};

/// Reads what still arrives of the body of a request, as long as no pause is longer than `idle`.
///
/// A stream whose response precedes the end of its body is reset with NO_ERROR, which some clients
/// (curl 7.88) consider a failure, whatever the response. After a failure or a redirect they stop
/// sending by themselves, though not before they have seen a body. After a success they continue,
/// and wait for room to send without reading what would give it to them. So a success is sent after
/// the body has ended.
pub(super) async fn await_body_end(session: &mut HttpSession, idle: Duration) {
    // A client that waits for `100 Continue` sends no body after another response.
    if session.has_body_ended() || session.req_header().headers.contains_key(EXPECT) {
        return;
    }
    let read =
        async { while let Ok(Ok(Some(_))) = timeout(idle, session.read_body_bytes()).await {} };
    _ = timeout(BODY_END, read).await;
}

/// Sends a complete response. Returns how many octets follow its head. The client may stop reading
/// for `idle`.
pub(super) async fn send_response(
    session: &mut HttpSession,
    answer: &Prepared,
    idle: Duration,
) -> pingora_core::Result<usize> {
    let mut head = ResponseHeader::build_no_case(answer.head_status(), Some(8))?;
    for (name, value) in answer.fields() {
        head.append_header(name, value)?;
    }
    let body = answer.body();
    session.write_response_header(Box::new(head), body.is_none())?;
    let (Some(body), Some(mut writer)) = (body, session.take_response_body_writer()) else {
        return Ok(0);
    };
    // The session would allow the client that time for the whole body.
    write_body(&mut writer, body.clone(), true, Some(idle)).await?;
    Ok(body.len())
}
