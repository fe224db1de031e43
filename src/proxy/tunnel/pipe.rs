//! Passes octets on in both directions, each as fast as its slower side.
//!
//! What can be passed on at once is never held: it is in a buffer that all tunnels of a thread share.
//! Only what a side does not accept at once is kept, at most one such buffer for each direction.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io::ErrorKind;
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

/// How often each direction is read before the other one and the limits have their turn.
const MOST_PIECES: usize = 8;

/// How often it is checked whether the client may still have the tunnel.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

/// How often it is checked whether a client that is not read is still there.
const LOOK: Duration = Duration::from_secs(1);

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
    /// Nothing has passed for a while, and there was no room for other clients.
    MadeRoom,
    /// The client may no longer have what it was given.
    Outdated,
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

/// Passes octets on until both directions have ended, or something ends the tunnel. `is_admitted` is
/// asked from time to time, before octets pass, whether the client may still have the tunnel.
pub(super) async fn pipe<C: TunnelClient>(
    client: &mut C,
    server: &mut dyn Duplex,
    limits: Limits,
    meter: &mut impl Meter,
    mut is_admitted: impl FnMut() -> bool,
) -> End {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut closed = None;
    let mut is_up_first = false;
    let mut checked = Instant::now();
    let mut progress = Progress::new(checked);
    let mut timer = pin!(sleep_until(checked));
    let mut armed: Option<Instant> = None;
    client.begin();
    poll_fn(|cx| {
        let now = Instant::now();
        if now.saturating_duration_since(checked) >= BETWEEN_CHECKS {
            checked = now;
            if !is_admitted() {
                return Poll::Ready(End::Outdated);
            }
        }
        let mut shared = SHARED.take().unwrap_or_else(|| vec![0; PIECE].into());
        let mut has_passed = false;
        let mut reset = None;
        // Neither direction may starve the other.
        is_up_first = !is_up_first;
        for is_up in [is_up_first, !is_up_first] {
            let moved = if is_up {
                let mut count = |octets| {
                    has_passed = true;
                    meter.count_received(octets);
                };
                up.poll_move(cx, client, server, &mut shared, &mut count)
            } else {
                let mut count = |octets| {
                    has_passed = true;
                    meter.count_sent(octets);
                };
                down.poll_move(cx, server, client, &mut shared, &mut count)
            };
            match (fault(moved), is_up) {
                (Some(Fault::Read), true) => reset = Some(End::ClientReset),
                (Some(Fault::Read), false) => reset = Some(End::ServerReset),
                // Whoever accepts nothing more may still have sent something.
                (Some(Fault::Write { is_cut }), true) => {
                    closed = Some(End::ServerClosed);
                    down.cut(is_cut, cx);
                }
                (Some(Fault::Write { is_cut }), false) => {
                    closed = Some(End::ClientClosed);
                    up.cut(is_cut, cx);
                }
                (None, _) => {}
            }
            if reset.is_some() {
                break;
            }
            match is_up {
                true if up.is_over() => _ = closed.get_or_insert(End::ClientClosed),
                false if down.is_over() => _ = closed.get_or_insert(End::ServerClosed),
                true | false => {}
            }
        }
        SHARED.set(Some(shared));
        if let Some(reset) = reset {
            return Poll::Ready(reset);
        }
        if let (true, true, Some(closed)) = (up.is_over(), down.is_over(), closed) {
            return Poll::Ready(closed);
        }
        if has_passed {
            progress = Progress::new(now);
            client.note_passage();
        }
        let unacknowledged = |client: &C, server: &dyn Duplex| {
            client
                .unacknowledged()
                .saturating_add(server.unacknowledged())
        };
        while client.poll_let_go(cx).is_ready() {
            if !progress.may_stay(unacknowledged(client, server)) {
                return Poll::Ready(End::MadeRoom);
            }
            client.note_passage();
        }
        loop {
            let look = progress.next_look(up.is_blocked(), limits.idle);
            let idle_until = progress.last.checked_add(limits.idle);
            let next = [idle_until, limits.until, look].into_iter().flatten().min();
            let Some(next) = next else {
                return Poll::Pending;
            };
            if armed.is_none_or(|armed| next < armed) {
                timer.as_mut().reset(next);
                armed = Some(next);
            }
            ready!(timer.as_mut().poll(cx));
            armed = None;
            let now = Instant::now();
            if limits.until.is_some_and(|until| until <= now) {
                return Poll::Ready(End::Total);
            }
            if up.is_blocked() && client.is_gone() {
                return Poll::Ready(End::ClientReset);
            }
            let unacknowledged = unacknowledged(client, server);
            if idle_until.is_none_or(|until| now < until) {
                progress.record_look(now, limits.idle, unacknowledged);
            } else if !progress.restart(now, unacknowledged) {
                return Poll::Ready(End::Idle);
            }
        }
    })
    .await
}

/// What is known of how a tunnel gets on. The kernel takes more only once there is room for much, so
/// octets may arrive for long although none pass here.
struct Progress {
    /// When octets passed last, or were seen to arrive.
    last: Instant,
    /// How many octets were not acknowledged when half of the time without a passage was over.
    seen: Option<usize>,
    /// The same when the tunnel was to make room.
    asked: Option<usize>,
    /// When to look whether the client is still there.
    look: Option<Instant>,
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self {
            last: now,
            seen: None,
            asked: None,
            look: None,
        }
    }

    /// Whether a tunnel that is to make room stays: octets arrive, or it is not known yet.
    fn may_stay(&mut self, unacknowledged: usize) -> bool {
        let earlier = self.asked.replace(unacknowledged);
        unacknowledged > 0 && earlier.is_none_or(|earlier| unacknowledged < earlier)
    }

    /// When to look next at both sides. The client is not read while `is_blocked`.
    fn next_look(&mut self, is_blocked: bool, idle: Duration) -> Option<Instant> {
        self.look = match is_blocked {
            true => self.look.or_else(|| Instant::now().checked_add(LOOK)),
            false => None,
        };
        let half = match self.seen {
            None => self.last.checked_add(idle / 2),
            Some(_) => None,
        };
        [self.look, half].into_iter().flatten().min()
    }

    /// Records a look at both sides.
    fn record_look(&mut self, now: Instant, idle: Duration, unacknowledged: usize) {
        self.look = None;
        if self.seen.is_none() && self.last + idle / 2 <= now {
            self.seen = Some(unacknowledged);
        }
    }

    /// Returns whether octets have arrived since the last look, and has the time begin anew if so.
    fn restart(&mut self, now: Instant, unacknowledged: usize) -> bool {
        let has_progress = self.seen.is_some_and(|seen| unacknowledged < seen);
        if has_progress {
            *self = Self {
                asked: self.asked,
                ..Self::new(now)
            };
        }
        has_progress
    }
}

/// Which side has ended a direction before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Read,
    /// It accepts nothing more. `is_cut` if it has not ended its own side in order before: the error
    /// is reported once, and what is read next looks like an orderly end.
    Write {
        is_cut: bool,
    },
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
    /// Whether the side that is read has been cut, so that its end is none.
    is_cut: bool,
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

    /// Whether the other side has to accept something before more is read.
    fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Records whether the side that is read has been cut.
    fn cut(&mut self, is_cut: bool, cx: &Context<'_>) {
        if is_cut && !self.is_cut {
            self.is_cut = true;
            // It may have been polled already.
            cx.waker().wake_by_ref();
        }
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
        let mut pieces = 0;
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
            if pieces == MOST_PIECES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            pieces += 1;
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
            if rest.is_empty() && self.is_cut {
                self.state = State::Over;
                return Poll::Ready(Err(Fault::Read));
            }
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
            failed => {
                self.held = BytesMut::new();
                self.state = State::Over;
                // After an orderly end of the other side, a reset fails writes with this.
                let is_orderly = failed.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
                let is_cut = !is_orderly;
                Err(Fault::Write { is_cut })
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

        fn is_gone(&self) -> bool {
            false
        }

        fn begin(&mut self) {}

        fn note_passage(&self) {}

        fn poll_let_go(&self, _: &Context<'_>) -> Poll<()> {
            Poll::Pending
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
            let end = pipe(&mut near, &mut far, limits, &mut count, || true).await;
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

    #[test]
    fn a_side_that_acknowledges_octets_is_not_idle() {
        let idle = Duration::from_secs(60);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut progress = Progress::new(began);
        assert_eq!(progress.next_look(false, idle), Some(at(30)));
        progress.record_look(at(30), idle, 1000);
        assert_eq!(progress.next_look(false, idle), None);
        assert!(progress.restart(at(60), 999));
        assert_eq!(progress.next_look(false, idle), Some(at(90)));
        progress.record_look(at(90), idle, 999);
        assert!(!progress.restart(at(120), 999));
        // Whoever is to make room gets a second chance.
        assert!(progress.may_stay(999));
        assert!(progress.may_stay(998));
        assert!(!progress.may_stay(998));
        assert!(!Progress::new(began).may_stay(0));
    }
}
