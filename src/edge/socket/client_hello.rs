//! The ClientHello of a connection, which a TLS handshake begins with.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use super::Socket;
use crate::tls::client_hello::ClientHelloEnd;

impl Socket {
    /// Waits until the whole ClientHello has come, or what cannot become one, or the client has
    /// closed the connection. `has_begun` says whether anything has come, even if this is dropped.
    pub(in crate::edge) async fn receive_client_hello(
        &mut self,
        has_begun: &mut bool,
    ) -> io::Result<()> {
        let mut end = ClientHelloEnd::default();
        poll_fn(|cx| {
            while end.is_awaited(&self.ahead) {
                let held = self.ahead.len();
                *has_begun = held > 0;
                ready!(self.poll_read_ahead(cx))?;
                if self.ahead.len() == held {
                    break;
                }
            }
            *has_begun = !self.ahead.is_empty();
            Poll::Ready(Ok(()))
        })
        .await
    }
}
