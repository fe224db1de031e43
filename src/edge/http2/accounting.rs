//! What a connection costs, compared with its use.
//!
//! Many frames of HTTP/2 cost the server more than the client: streams that are reset as soon as
//! they are opened, by the client or by the server in reaction to it, and frames that carry nothing
//! (CVE-2023-44487, CVE-2025-8671, CVE-2019-9511 to 9518). One balance per connection adds up all
//! of it, and responses pay it back. What counts is the share of useless work, not its rate: a
//! client that often cancels or acknowledges every octet is never disconnected as long as it also
//! accepts responses. The h2 crate has limits of its own for what it holds in memory; they end a
//! connection in the same way.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::frames::{CONTINUATION, DATA, END_STREAM, Frame, HEADERS, RST_STREAM};
use crate::lock::MutexExt as _;

/// By how much useless work may exceed the use of a connection, in frames.
const ALLOWANCE: u32 = 600;

/// A frame without progress: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, an empty DATA, a further
/// frame of the same field block, or a frame of an unknown type.
const FRAME: u32 = 1;

/// A stream that ended without a response: the client or the server reset it, or it was refused.
const STREAM_IN_VAIN: u32 = 3;

/// A request that is never passed on: it is malformed, or its head unpacks to a multiple of what is
/// allowed.
const MALFORMED: u32 = 12;

/// Fields of a refused head that weigh as much as a frame: each may have cost the client one octet.
const FIELDS: usize = 64;

/// What a complete response pays back. Clients send up to three frames with a request, such as
/// PRIORITY and WINDOW_UPDATE for its stream.
const ANSWER: u32 = 3;

/// A part of a response pays back one frame per this many octets, since clients acknowledge what
/// they have received, and at most this many frames.
const PART_OCTETS: usize = 32;
const PART: u32 = 16;

/// Frames paid back every second, for the frames that keep an idle connection open.
const PER_SECOND: u32 = 5;

/// Useless octets that weigh as much as a frame.
const OCTETS: usize = 1024;

/// Octets of trailers that are free, and how many further ones weigh as much as a frame. Requests
/// hardly ever have more, and the h2 crate keeps them until they are read, and each octet can stand
/// for a field.
const TRAILERS: usize = 1024;
const TRAILER_OCTETS: usize = 32;

/// Octets of heads that are read before their requests are handled. Each octet can stand for a
/// field, which takes a hundred times as much memory.
const HEADS_AT_ONCE: usize = 32 * 1024;

/// A response head this short has only a status: the h2 crate refused the request. The gateway's
/// own heads have at least a request id, which does not compress. Trailers may be as short, but
/// they follow a head.
const BARE_HEAD: usize = 8;

/// The balance of a connection; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Accounting(Arc<Mutex<Balance>>);

#[derive(Debug)]
struct Balance {
    spent: u32,
    /// Until when [`PER_SECOND`] has been paid back.
    paid_until: Instant,
    /// Whether [`ALLOWANCE`] has been exceeded. This is final.
    exceeded: bool,
    /// The most octets of a request's head that weigh nothing.
    max_head: usize,
    /// The octets of the current field block, and whether it is trailers.
    block: usize,
    in_trailers: bool,
    /// The highest stream that has been opened.
    last_stream: u32,
    /// Octets of field blocks whose requests have not been handled.
    heads: usize,
    /// Responses whose head did not end them. Those that are reset stay counted, which forgives as
    /// many refusals.
    unended: u32,
}

impl Accounting {
    /// For a connection whose request heads may have `max_head` octets.
    pub(super) fn new(max_head: usize) -> Self {
        Self(Arc::new(Mutex::new(Balance {
            spent: 0,
            paid_until: Instant::now(),
            exceeded: false,
            max_head,
            block: 0,
            in_trailers: false,
            last_stream: 0,
            heads: 0,
            unended: 0,
        })))
    }

    /// Counts a frame of the client.
    pub(super) fn count_received(&self, frame: Frame) {
        let cost = match frame.kind {
            HEADERS => 0,
            DATA if frame.len > 0 || frame.has(END_STREAM) => return,
            RST_STREAM => STREAM_IN_VAIN,
            DATA | CONTINUATION => FRAME,
            _ => FRAME.saturating_add(weight(frame.len, OCTETS)),
        };
        self.update(|balance| {
            let excess = balance.extend_block(frame);
            balance.charge(cost.saturating_add(excess));
        });
    }

    /// Counts a frame of the server.
    pub(super) fn count_sent(&self, frame: Frame) {
        self.update(|balance| match frame.kind {
            RST_STREAM => balance.charge(STREAM_IN_VAIN),
            HEADERS if !frame.has(END_STREAM) => {
                balance.unended = balance.unended.saturating_add(1);
            }
            HEADERS if frame.len > BARE_HEAD => balance.pay_back(ANSWER),
            HEADERS if balance.unended == 0 => balance.charge(MALFORMED),
            HEADERS => balance.end_answer(),
            DATA => {
                let parts = u32::try_from(frame.len / PART_OCTETS).unwrap_or(PART);
                balance.pay_back(parts.min(PART));
                if frame.has(END_STREAM) {
                    balance.end_answer();
                }
            }
            _ => {}
        });
    }

    /// Counts a request with this many fields that was refused because of its head; its response
    /// pays nothing back.
    pub(super) fn count_refused(&self, fields: usize) {
        let cost = (STREAM_IN_VAIN + ANSWER).saturating_add(weight(fields, FIELDS));
        self.update(|balance| balance.charge(cost));
    }

    /// Counts a malformed request; its response pays nothing back.
    pub(super) fn count_malformed(&self) {
        self.update(|balance| balance.charge(MALFORMED + ANSWER + PART));
    }

    /// Whether nothing more may be read, for now or at all.
    pub(super) fn is_paused(&self) -> bool {
        self.update(|balance| balance.exceeded || balance.heads >= HEADS_AT_ONCE)
    }

    /// Records that all requests that have arrived have been started. Returns whether reading had
    /// been paused until then.
    pub(super) fn resume(&self) -> bool {
        self.update(|balance| std::mem::take(&mut balance.heads) >= HEADS_AT_ONCE)
    }

    /// Whether the connection has caused too much work for its use and must end.
    pub(super) fn is_exceeded(&self) -> bool {
        self.update(|balance| balance.exceeded)
    }

    fn update<T>(&self, act: impl FnOnce(&mut Balance) -> T) -> T {
        act(&mut self.0.lock_unpoisoned())
    }
}

/// The weight of this many useless octets, of which `each` weigh as much as a frame.
fn weight(octets: usize, each: usize) -> u32 {
    u32::try_from(octets / each).unwrap_or(u32::MAX)
}

impl Balance {
    fn charge(&mut self, cost: u32) {
        if cost == 0 {
            return;
        }
        let seconds = self.paid_until.elapsed().as_secs();
        if seconds > 0 {
            self.paid_until = Instant::now();
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.pay_back(seconds.saturating_mul(PER_SECOND));
        }
        self.spent = self.spent.saturating_add(cost);
        self.exceeded |= self.spent > ALLOWANCE;
    }

    /// Records the end of a response whose head did not end it.
    fn end_answer(&mut self) {
        self.unended = self.unended.saturating_sub(1);
        self.pay_back(ANSWER);
    }

    fn pay_back(&mut self, frames: u32) {
        self.spent = self.spent.saturating_sub(frames);
    }

    /// Adds a frame to the current field block; returns the weight of its excess octets.
    fn extend_block(&mut self, frame: Frame) -> u32 {
        match frame.kind {
            HEADERS => {
                self.in_trailers = frame.stream <= self.last_stream;
                self.last_stream = self.last_stream.max(frame.stream);
                self.block = 0;
            }
            CONTINUATION => {}
            _ => return 0,
        }
        self.block = self.block.saturating_add(frame.len);
        self.heads = self.heads.saturating_add(frame.len);
        let (free, each) = if self.in_trailers {
            (TRAILERS, TRAILER_OCTETS)
        } else {
            (self.max_head, OCTETS)
        };
        weight(self.block.saturating_sub(free).min(frame.len), each)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, len: usize) -> Frame {
        on(1, kind, flags, len)
    }

    fn on(stream: u32, kind: u8, flags: u8, len: usize) -> Frame {
        Frame {
            kind,
            flags,
            stream,
            len,
        }
    }

    /// How many times `act` can be done until the connection must end.
    fn times(act: impl Fn(&Accounting)) -> u32 {
        let accounting = Accounting::new(65_536);
        (1..=100_000)
            .find(|_| {
                act(&accounting);
                accounting.is_exceeded()
            })
            .unwrap_or(u32::MAX)
    }

    fn answer(accounting: &Accounting) {
        accounting.count_received(frame(HEADERS, 5, 20));
        accounting.count_sent(frame(HEADERS, 4, 40));
        accounting.count_sent(frame(DATA, END_STREAM, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_in_vain_are_bounded_in_number_and_octets() {
        for kind in [2, 4, PING, 7, WINDOW_UPDATE, CONTINUATION, 99] {
            let most = times(|a| a.count_received(frame(kind, 0, 8)));
            assert!((500..=1000).contains(&most), "{most} of kind {kind}");
        }
        assert!(times(|a| a.count_received(frame(DATA, 0, 0))) <= 1000);
        for kind in [4, 99] {
            let large = times(|a| a.count_received(frame(kind, 0, 16_384)));
            assert!(large * 16_384 <= 1 << 20, "{large} of kind {kind}");
        }
        let streams = Cell::new(1);
        let heads = times(|a| {
            streams.set(streams.get() + 2);
            a.count_received(on(streams.get(), HEADERS, 1, 16_384));
            (0..12).for_each(|_| a.count_received(frame(CONTINUATION, 0, 16_384)));
        });
        assert!(heads <= 5, "{heads} heads of 200 KB");
    }

    #[tokio::test(start_paused = true)]
    async fn fields_that_are_kept_are_bounded() {
        let request = |trailers: usize| {
            let streams = Cell::new(1);
            times(move |a| {
                streams.set(streams.get() + 2);
                a.count_received(on(streams.get(), HEADERS, 4, 60_000));
                a.count_received(on(streams.get(), HEADERS, 5, trailers));
            })
        };
        assert_eq!(request(1024), u32::MAX);
        let most = request(8 * 1024);
        assert!((2..=4).contains(&most), "{most}");

        let accounting = Accounting::new(65_536);
        accounting.count_received(frame(HEADERS, 4, 20_000));
        assert!(!accounting.is_paused());
        accounting.count_received(on(3, HEADERS, 4, 20_000));
        assert!(accounting.is_paused());
        assert!(accounting.resume() && !accounting.resume());
        assert!(!accounting.is_paused());
    }

    #[tokio::test(start_paused = true)]
    async fn resets_are_bounded_whoever_makes_them() {
        let client = times(|a| {
            a.count_received(frame(HEADERS, 5, 20));
            a.count_received(frame(RST_STREAM, 0, 4));
        });
        let server = times(|a| {
            a.count_received(frame(HEADERS, 5, 20));
            a.count_sent(frame(RST_STREAM, 0, 4));
        });
        assert_eq!(client, 201);
        assert_eq!(server, 201);
        // A refusal by the h2 crate is only a status, and refusals are no use.
        assert_eq!(times(|a| a.count_sent(frame(HEADERS, 5, 5))), 51);
        let refused = |fields| {
            times(|a| {
                a.count_refused(fields);
                answer(a);
            })
        };
        let (few, many) = (refused(20), refused(7000));
        assert!((195..=210).contains(&few), "{few}");
        assert!(many < 10, "{many}");
        // Whatever its page pays back, at least its own cost is left.
        let malformed = times(|a| {
            a.count_malformed();
            answer(a);
        });
        assert!((20..=51).contains(&malformed), "{malformed}");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_pay_for_what_clients_do_besides() {
        // Half of all requests are cancelled.
        let cancels = times(|a| {
            answer(a);
            a.count_received(frame(HEADERS, 5, 20));
            a.count_received(frame(RST_STREAM, 0, 4));
        });
        assert_eq!(cancels, u32::MAX);
        // Every frame of a response is acknowledged twice, and a request has a priority.
        let acknowledged = times(|a| {
            a.count_received(frame(2, 0, 5));
            answer(a);
            a.count_sent(frame(DATA, 0, 1000));
            (0..4).for_each(|_| a.count_received(frame(WINDOW_UPDATE, 0, 4)));
        });
        assert_eq!(acknowledged, u32::MAX);
        // The same two trailers after every response take two octets.
        let trailers = times(|a| {
            a.count_received(frame(HEADERS, 4, 20));
            a.count_received(frame(RST_STREAM, 0, 4));
            a.count_sent(frame(HEADERS, 4, 40));
            a.count_sent(frame(DATA, 0, 5));
            a.count_sent(frame(HEADERS, 5, 2));
        });
        assert_eq!(trailers, u32::MAX);
        // Two out of three are too many.
        let more = times(|a| {
            answer(a);
            (0..2).for_each(|_| a.count_received(frame(RST_STREAM, 0, 4)));
        });
        assert!(more < 300, "{more}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_pays_for_what_keeps_a_connection_open() {
        let accounting = Accounting::new(65_536);
        for _ in 0..10_000 {
            accounting.count_received(frame(PING, 0, 8));
            tokio::time::advance(Duration::from_millis(250)).await;
        }
        assert!(!accounting.is_exceeded());
        // Time without frames is not saved up.
        tokio::time::advance(Duration::from_secs(3600)).await;
        (0..1000).for_each(|_| accounting.count_received(frame(PING, 0, 8)));
        assert!(accounting.is_exceeded());
    }
}
