//! Passes octets on in both directions, each as fast as its slower side.
//!
//! What can be passed on at once is never held: it is in a buffer that all tunnels of a thread share.
//! Only what a side does not accept at once is kept, at most one such buffer for each direction.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::TunnelClient;
use crate::proxy::dial::Duplex;

/// How much is read at once.
const PIECE: usize = 32 * 1024;

thread_local! {
    /// What octets are read into.
    static SHARED: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have closed, the client first.
    ClientClosed,
    ServerClosed,
    ClientReset,
    ServerReset,
    /// Nothing has passed for too long.
    Idle,
    /// The tunnel was open for as long as it may be.
    Total,
}

/// How long a tunnel may be open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Without an octet in either direction.
    pub(super) idle: Duration,
    pub(super) until: Option<Instant>,
}

/// Counts what passes.
pub(super) trait Meter {
    /// Octets from the client to the server.
    fn count_received(&mut self, octets: usize);

    /// Octets from the server to the client.
    fn count_sent(&mut self, octets: usize);
}

/// Passes octets on until both directions have ended, or something ends the tunnel.
pub(super) async fn pipe<C: TunnelClient>(
    client: &mut C,
    server: &mut dyn Duplex,
    limits: Limits,
    meter: &mut impl Meter,
) -> End {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut closed = None;
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until(last));
    let mut is_timed = false;
    poll_fn(|cx| {
        let mut shared = SHARED.take().unwrap_or_else(|| vec![0; PIECE].into());
        let mut has_passed = false;
        let mut count_received = |octets| {
            has_passed = true;
            meter.count_received(octets);
        };
        let moved = up.poll_move(cx, client, server, &mut shared, &mut count_received);
        let mut faults = [fault(moved), None];
        if up.is_over() {
            closed.get_or_insert(End::ClientClosed);
        }
        if faults != [Some(Fault::Read), None] {
            let mut count_sent = |octets| {
                has_passed = true;
                meter.count_sent(octets);
            };
            let moved = down.poll_move(cx, server, client, &mut shared, &mut count_sent);
            faults[1] = fault(moved);
        }
        SHARED.set(Some(shared));
        match faults {
            [Some(Fault::Read), _] => return Poll::Ready(End::ClientReset),
            [_, Some(Fault::Read)] => return Poll::Ready(End::ServerReset),
            // Whoever accepts nothing more may still have sent something.
            [Some(Fault::Write), _] => _ = closed.replace(End::ServerClosed),
            [_, Some(Fault::Write)] => _ = closed.replace(End::ClientClosed),
            [None, None] => {}
        }
        if down.is_over() {
            closed.get_or_insert(End::ServerClosed);
        }
        if let (true, true, Some(closed)) = (up.is_over(), down.is_over(), closed) {
            return Poll::Ready(closed);
        }
        if has_passed {
            last = Instant::now();
        }
        loop {
            let idle_until = last.checked_add(limits.idle);
            if !is_timed {
                let next = idle_until.into_iter().chain(limits.until).min();
                let Some(next) = next else {
                    return Poll::Pending;
                };
                timer.as_mut().reset(next);
                is_timed = true;
            }
            ready!(timer.as_mut().poll(cx));
            is_timed = false;
            let now = Instant::now();
            if limits.until.is_some_and(|until| until <= now) {
                return Poll::Ready(End::Total);
            }
            if idle_until.is_some_and(|until| until <= now) {
                return Poll::Ready(End::Idle);
            }
        }
    })
    .await
}

/// Which side has ended a direction before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Read,
    Write,
}

fn fault(moved: Poll<Result<(), Fault>>) -> Option<Fault> {
    match moved {
        Poll::Ready(Err(fault)) => Some(fault),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    }
}

/// One direction of a tunnel.
#[derive(Debug, Default)]
struct Direction {
    /// What has been read and not been written.
    held: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// All has been read; the other side is to know once it has all.
    Ending,
    Over,
}

impl Direction {
    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Moves what there is from one side to the other. Ready once the direction is over.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        shared: &mut [u8],
        count: &mut impl FnMut(usize),
    ) -> Poll<Result<(), Fault>> {
        let (mut from, mut to) = (Pin::new(from), Pin::new(to));
        while !self.is_over() {
            if !self.held.is_empty() {
                while !self.held.is_empty() {
                    let written = ready!(to.as_mut().poll_write(cx, &self.held));
                    let octets = self.written(written)?;
                    count(octets);
                    self.held.advance(octets);
                }
                self.held = BytesMut::new();
            }
            if self.state == State::Ending {
                // It fails if the other side is gone, which then shows elsewhere.
                _ = ready!(to.as_mut().poll_shutdown(cx));
                self.state = State::Over;
                break;
            }
            let mut read = ReadBuf::new(shared);
            match from.as_mut().poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.state = State::Over;
                    return Poll::Ready(Err(Fault::Read));
                }
                Poll::Pending => {
                    // A failure shows in the next write.
                    _ = to.as_mut().poll_flush(cx);
                    return Poll::Pending;
                }
            }
            let mut rest = read.filled();
            if rest.is_empty() {
                self.state = State::Ending;
            }
            while !rest.is_empty() {
                match to.as_mut().poll_write(cx, rest) {
                    Poll::Ready(written) => {
                        let octets = self.written(written)?;
                        count(octets);
                        rest = rest.get(octets..).unwrap_or_default();
                    }
                    Poll::Pending => {
                        self.held.extend_from_slice(rest);
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How much was written.
    fn written(&mut self, written: std::io::Result<usize>) -> Result<usize, Fault> {
        match written {
            Ok(octets) if octets > 0 => Ok(octets),
            Ok(_) | Err(_) => {
                self.held = BytesMut::new();
                self.state = State::Over;
                Err(Fault::Write)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    impl TunnelClient for DuplexStream {
        fn reset_on_close(&self) {}

        fn unacknowledged(&self) -> usize {
            0
        }
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Count {
        received: usize,
        sent: usize,
    }

    impl Meter for Count {
        fn count_received(&mut self, octets: usize) {
            self.received += octets;
        }

        fn count_sent(&mut self, octets: usize) {
            self.sent += octets;
        }
    }

    const LIMITS: Limits = Limits {
        idle: Duration::from_secs(60),
        until: None,
    };

    /// A tunnel between two peers that accept this many octets each.
    fn tunnel(
        room: usize,
        limits: Limits,
    ) -> (
        DuplexStream,
        DuplexStream,
        tokio::task::JoinHandle<(End, Count)>,
    ) {
        let (client, mut near) = duplex(room);
        let (server, mut far) = duplex(room);
        let piping = tokio::spawn(async move {
            let mut count = Count::default();
            let end = pipe(&mut near, &mut far, limits, &mut count).await;
            (end, count)
        });
        (client, server, piping)
    }

    #[tokio::test(start_paused = true)]
    async fn each_direction_ends_for_itself() {
        for is_client_first in [true, false] {
            let (client, server, piping) = tunnel(1024, LIMITS);
            let (mut first, mut second) = match is_client_first {
                true => (client, server),
                false => (server, client),
            };
            first.write_all(b"hello").await.expect("open");
            first.shutdown().await.expect("open");
            let mut got = Vec::new();
            second.read_to_end(&mut got).await.expect("an end");
            assert_eq!(got, b"hello");
            let reading = tokio::spawn(async move {
                let mut got = Vec::new();
                first.read_to_end(&mut got).await.expect("an end");
                got.len()
            });
            second.write_all(&[7; 10_000]).await.expect("still open");
            second.shutdown().await.expect("still open");
            assert_eq!(reading.await.expect("no panic"), 10_000);
            let (received, sent) = match is_client_first {
                true => (5, 10_000),
                false => (10_000, 5),
            };
            let end = match is_client_first {
                true => End::ClientClosed,
                false => End::ServerClosed,
            };
            let ended = piping.await.expect("no panic");
            assert_eq!(ended, (end, Count { received, sent }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_tunnel_and_octets_of_either_side_break_it() {
        let (mut client, mut server, piping) = tunnel(1024, LIMITS);
        let began = Instant::now();
        for round in 0..4 {
            sleep(Duration::from_secs(40)).await;
            let (from, to) = match round % 2 {
                0 => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            from.write_all(b"x").await.expect("open");
            from.flush().await.expect("open");
            assert_eq!(to.read_u8().await.expect("open"), b'x');
        }
        let (end, _) = piping.await.expect("no panic");
        assert_eq!((end, began.elapsed().as_secs()), (End::Idle, 220));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_after_its_time() {
        let began = Instant::now();
        let limits = Limits {
            until: Some(began + Duration::from_secs(90)),
            ..LIMITS
        };
        let (mut client, mut server, piping) = tunnel(1024, limits);
        let talking = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                if client.write_all(b"x").await.is_err() || server.read_u8().await.is_err() {
                    return;
                }
            }
        };
        talking.await;
        let (end, _) = piping.await.expect("no panic");
        assert_eq!((end, began.elapsed().as_secs() / 2), (End::Total, 45));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_than_the_slower_side_accepts() {
        let (mut client, mut server, _piping) = tunnel(1024, LIMITS);
        let mut sent = 0;
        while let Ok(Ok(written)) =
            tokio::time::timeout(Duration::from_secs(1), client.write(&[7; 1000])).await
        {
            sent += written;
        }
        assert!(sent <= PIECE + 2 * 1024, "{sent}");
        let mut got = vec![0; sent];
        server.read_exact(&mut got).await.expect("all of it");
        assert!(got.iter().all(|octet| *octet == 7));
    }
}
