//! The ClientHello of a connection, which a TLS handshake begins with.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use super::Socket;
use crate::tls::client_hello::ClientHelloEnd;

impl Socket {
    /// Waits until the whole ClientHello has come, or what cannot become one, or the client has
    /// closed the connection.
    pub(in crate::edge) async fn receive_client_hello(&mut self) -> io::Result<()> {
        let mut end = ClientHelloEnd::default();
        poll_fn(|cx| {
            while end.is_awaited(&self.ahead) {
                let held = self.ahead.len();
                ready!(self.poll_read_ahead(cx))?;
                if self.ahead.len() == held {
                    break;
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Whether the client has sent something that has not been read.
    pub(in crate::edge) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }
}
