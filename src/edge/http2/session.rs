//! One request of an HTTP/2 connection, with deadlines that Pingora's session does not have.
//!
//! Pingora waits for a body forever, even after the response. Here a client has to keep up while
//! its body is waited for, and has a moment to end it after the response. Data is written in small
//! parts, each of which the client has to accept in time. Meanwhile nothing more is read from the
//! server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use http::HeaderMap;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::{Instant, timeout_at};

use super::stream::HttpSession;
use crate::proxy::{Decision, Flow};

/// How long a body may be waited for before it has to keep up.
const GRACE: Duration = Duration::from_secs(10);

/// Octets per second of waiting that a body has to keep up with.
const LEAST_RATE: u64 = 1024;

/// How long a body may continue to a server after the response to its request.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many octets are written at a time.
const PART: usize = 16 * 1024;

/// A request.
pub(super) struct Session {
    inner: HttpSession,
    flow: Arc<Flow>,
    /// Set if the stream ends because its client stopped reading.
    stalled: Arc<AtomicBool>,
    read_timeout: Option<Duration>,
    body: Pace,
    /// When the complete response was written.
    answered: Option<Instant>,
}

impl Session {
    /// The session of a request, with what was decided for it. `stalled` is set if its client does
    /// not read the response.
    pub(super) fn new_session(
        mut inner: HttpSession,
        flow: Flow,
        decision: Decision,
        stalled: &Arc<AtomicBool>,
    ) -> ServerSession {
        let flow = Arc::new(flow);
        let head = inner.req_header_mut();
        head.extensions_mut().insert(Arc::clone(&flow));
        head.extensions_mut().insert(decision);
        ServerSession::new_custom(Box::new(Self {
            inner,
            flow,
            stalled: Arc::clone(stalled),
            read_timeout: None,
            body: Pace::default(),
            answered: None,
        }))
    }

    /// The next part of the body, until `farewell` at the latest.
    async fn read_part(&mut self, farewell: Option<Instant>) -> Result<Option<Bytes>> {
        let now = Instant::now();
        if farewell.is_some_and(|farewell| farewell <= now) {
            return Err(timeout_error("the request continues after its response"));
        }
        let deadline = self.body.begin_wait(now, self.read_timeout);
        let deadline = farewell.map_or(deadline, |farewell| farewell.min(deadline));
        let read = timeout_at(deadline, self.inner.read_body_bytes()).await;
        let read = read.map_err(|_| timeout_error("the request's body does not arrive"))?;
        let part = self.cancel_on_error(read)?;
        let octets = part.as_ref().map_or(0, Bytes::len);
        self.body.record_part(Instant::now(), octets);
        Ok(part)
    }

    /// Writes a part of the response.
    async fn write_part(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        let write = self.flow.write();
        let written = loop {
            let is_last = data.len() <= PART;
            let part = data.split_to(data.len().min(PART));
            let written = self.inner.write_body(part, end && is_last).await;
            if is_last || written.is_err() {
                break written;
            }
        };
        drop(write);
        if let Err(error) = &written
            && *error.etype() == ErrorType::WriteTimedout
        {
            self.stalled.store(true, Ordering::Relaxed);
        }
        self.record_end(end && written.is_ok());
        self.cancel_on_error(written)
    }

    /// Cancels the flow if the stream has failed: nobody waits for its response.
    fn cancel_on_error<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_err() {
            self.flow.cancel();
        }
        done
    }

    fn record_end(&mut self, end: bool) {
        if end && self.answered.is_none() {
            self.answered = Some(Instant::now());
        }
    }
}

fn timeout_error(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, why).into_down()
}

/// The rate at which a body arrives, counting only the time spent waiting for it: the client is not
/// to blame for a server that reads the body slowly.
#[derive(Default)]
struct Pace {
    octets: u64,
    /// Time spent waiting.
    waited: Duration,
    /// Since when the next part is being waited for.
    since: Option<Instant>,
}

impl Pace {
    /// Starts waiting for the next part, unless that has begun before. Returns the deadline.
    fn begin_wait(&mut self, now: Instant, idle: Option<Duration>) -> Instant {
        let since = *self.since.get_or_insert(now);
        let allowed = GRACE.max(Duration::from_secs(self.octets / LEAST_RATE));
        let patience = allowed.saturating_sub(self.waited);
        since + idle.map_or(patience, |idle| idle.min(patience))
    }

    /// Records that a part has arrived.
    fn record_part(&mut self, now: Instant, octets: usize) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.octets = self.octets.saturating_add(octets);
    }
}

#[async_trait]
impl CustomSession for Session {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read_part(None).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        while !self.is_body_done() && self.read_part(None).await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        let is_final = !head.status.is_informational();
        self.inner.write_response_header(head, end)?;
        self.record_end(end && is_final);
        Ok(())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end)
            .await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write_part(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)?;
        self.record_end(true);
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= match task {
                HttpTask::Header(head, end) => {
                    self.write_response_header(head, end)
                        .await
                        .map_err(|error| error.into_down())?;
                    end
                }
                HttpTask::Body(Some(data), end) if !data.is_empty() => {
                    self.write_part(data, end)
                        .await
                        .map_err(|error| error.into_down())?;
                    end
                }
                HttpTask::Body(_, end) => end,
                HttpTask::UpgradedBody(..) => {
                    let why = "a stream of HTTP/2 is never upgraded";
                    return Err(Error::explain(ErrorType::InternalError, why));
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_trailers(*trailers).await?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if ended {
            // Does nothing if the last part has ended the response.
            self.finish().await.map_err(|error| error.into_down())?;
        }
        Ok(ended)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.inner.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()?;
        let is_written = self.inner.response_written().is_some();
        self.record_end(is_written);
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.inner.is_body_done() {
            let reset = self.inner.await_reset().await;
            return self.cancel_on_error(Err(reset));
        }
        let farewell = self.answered.map(|answered| answered + FAREWELL);
        self.read_part(farewell).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    // A stream carries only requests and responses.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

/// Pingora's custom messages.
type Messages = Box<dyn stream::Stream<Item = Result<Bytes>> + Unpin + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a body is accepted that arrives in parts of `size`, one in `every`.
    fn lasts(size: usize, every: Duration) -> Duration {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let mut now = begun;
        while now < begun + Duration::from_secs(120) {
            let deadline = pace.begin_wait(now, Some(Duration::from_secs(60)));
            if deadline < now + every {
                return deadline - begun;
            }
            now += every;
            pace.record_part(now, size);
        }
        now - begun
    }

    #[test]
    fn a_body_has_to_keep_up_while_it_is_waited_for() {
        let second = Duration::from_secs(1);
        let all = 120 * second;
        assert!(lasts(1300, second) >= all);
        assert!(lasts(20 * 1024, 9 * second) >= all);
        assert!(lasts(900, second) < 12 * second);
        assert_eq!(lasts(0, 120 * second), GRACE);
    }

    #[test]
    fn a_body_that_was_fast_may_pause_for_the_idle_time() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.begin_wait(now, None);
        pace.record_part(now, 10_000_000);
        let idle = Duration::from_secs(60);
        assert_eq!(pace.begin_wait(now, Some(idle)), now + idle);
    }

    #[test]
    fn time_in_which_nobody_waits_is_no_fault_of_the_client() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.begin_wait(now, None);
        pace.record_part(now, 10);
        let later = now + Duration::from_secs(100);
        assert_eq!(pace.begin_wait(later, None), later + GRACE);
        // A second call does not start anew.
        assert_eq!(pace.begin_wait(later + GRACE / 2, None), later + GRACE);
    }
}
