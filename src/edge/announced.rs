//! Connections of balancers, which begin with a header of the PROXY protocol: reads it, and nothing
//! of what follows is lost.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use super::proxy_protocol::{Fault, Parsed, parse};
use super::stream::ClientStream;
use crate::proxy::Addresses;

/// How much is read at a time: most headers, and the ClientHello that came with one.
const PIECE: usize = 2 * 1024;

/// What a connection began with.
pub(super) struct Announcement {
    /// The client, and what it connected to; `None` if the balancer is the client.
    pub(super) addresses: Option<Addresses>,
    /// What has been read after the header.
    pub(super) rest: BytesMut,
}

/// Why a connection did not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unannounced {
    Faulty(Fault),
    TimedOut,
    /// It ended before the header did; whether there was anything of it.
    Ended {
        is_begun: bool,
    },
}

impl Unannounced {
    /// The value of the metrics' `reason` label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Faulty(Fault::Missing) => "missing",
            Self::Faulty(Fault::Malformed) => "malformed",
            Self::Faulty(Fault::Checksum) => "checksum",
            Self::TimedOut => "timeout",
            Self::Ended { .. } => "closed",
        }
    }
}

/// Reads the header that a connection begins with. It has to arrive within `limit`.
///
/// # Errors
/// If there is none, or none in time.
pub(super) async fn read_header(
    stream: &mut ClientStream,
    limit: Duration,
) -> Result<Announcement, Unannounced> {
    let reading = tokio::time::timeout(limit, read_whole_header(stream));
    reading.await.unwrap_or(Err(Unannounced::TimedOut))
}

/// Reads a header, however long it takes. Its length bounds what is held of it: 64 KiB and one piece
/// at most.
async fn read_whole_header(stream: &mut ClientStream) -> Result<Announcement, Unannounced> {
    let mut rest = BytesMut::new();
    loop {
        match parse(&rest) {
            Parsed::Header { len, addresses } => {
                drop(rest.split_to(len));
                return Ok(Announcement { addresses, rest });
            }
            Parsed::Invalid(fault) => return Err(Unannounced::Faulty(fault)),
            Parsed::Incomplete => {}
        }
        rest.reserve(PIECE);
        match stream.read_buf(&mut rest).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => {
                let is_begun = !rest.is_empty();
                return Err(Unannounced::Ended { is_begun });
            }
        }
    }
}
