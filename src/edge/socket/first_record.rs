//! The first record of a connection, which a TLS handshake begins with.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use super::{RECORD, RECORD_HEADER, Socket};

/// The type of records of a handshake.
const HANDSHAKE: u8 = 22;

impl Socket {
    /// Waits until the first record of TLS has come, or what cannot become one, or the client has
    /// closed the connection.
    pub(in crate::edge) async fn receive_first_record(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            while let Some(held) = self.ahead_of_record() {
                ready!(self.poll_read_ahead(cx))?;
                if self.ahead.len() == held {
                    break;
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// How many octets of the first record are held, if some are missing.
    fn ahead_of_record(&self) -> Option<usize> {
        let held = self.ahead.len();
        let missing = match *self.ahead {
            [] => true,
            [HANDSHAKE, ref rest @ ..] => match *rest {
                [_, _, high, low, ..] => {
                    let content = usize::from(u16::from_be_bytes([high, low]));
                    content <= RECORD && held < RECORD_HEADER + content
                }
                _ => true,
            },
            _ => false,
        };
        missing.then_some(held)
    }

    /// Whether the client has sent something that has not been read.
    pub(in crate::edge) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }
}
