//! Opens a connection for a request: to the chosen address, and if that takes long, to other
//! addresses of the same server as well (RFC 8305).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pingora_core::{Error, ErrorType, Result};
use tokio::time::sleep;

use super::dial::{Dialer, Duplex};
use super::request_ctx::RequestCtx;
use super::upstream::{Choice, Picked, Pool};

/// How long an address is waited for before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// How a race ended.
struct Race {
    /// The first connection that was open, or why there is none to the chosen address.
    result: Result<Box<dyn Duplex>>,
    /// The address that it leads to, unless that is the chosen one.
    winner: Option<Picked>,
    /// Other addresses that were tried.
    losers: Vec<Picked>,
}

/// Opens a connection to `choice`, the chosen server of a request, within `patience`. `header` is sent first.
/// Returns the address that it leads to, which is the chosen one from then on.
///
/// # Errors
/// If no connection can be opened.
pub(super) async fn open_connection(
    ctx: &mut RequestCtx,
    choice: Choice,
    header: Option<&[u8]>,
    dialer: &Dialer,
    patience: Duration,
) -> Result<(Choice, Box<dyn Duplex>)> {
    let gone = || Error::explain(ErrorType::InternalError, "the route is gone");
    let pool = &ctx.proxy().ok_or_else(gone)?.pool;
    if !pool.has_other_addresses(&choice) {
        let socket = pool.dial(&choice, header, dialer, patience, true).await?;
        return Ok((choice, socket));
    }
    let way = Way {
        pool,
        header,
        dialer,
        patience,
    };
    let race = way.race(&choice).await;
    for loser in race.losers {
        pool.record_result(&loser.choice, None, true);
        pool.avoid_server(&loser.choice);
    }
    let socket = race.result?;
    let Some(winner) = race.winner else {
        return Ok((choice, socket));
    };
    pool.avoid_server(&choice);
    let choice = winner.choice.clone();
    ctx.change_address(winner);
    _ = ctx.choose_server();
    Ok((choice, socket))
}

/// How connections are opened.
struct Way<'a> {
    pool: &'a Pool,
    header: Option<&'a [u8]>,
    dialer: &'a Dialer,
    patience: Duration,
}

impl Way<'_> {
    async fn open(&self, number: usize, choice: Choice) -> (usize, Result<Box<dyn Duplex>>) {
        // All attempts end at the same time.
        let late = HEAD_START.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        let patience = self.patience.saturating_sub(late);
        let dial = self
            .pool
            .dial(&choice, self.header, self.dialer, patience, true);
        (number, dial.await)
    }

    /// Opens a connection to an address, and after each head start to another address of its server
    /// that is in use.
    async fn race(&self, choice: &Choice) -> Race {
        let mut attempts = FuturesUnordered::new();
        attempts.push(self.open(0, choice.clone()));
        let mut tried = vec![Arc::clone(&choice.endpoint)];
        let mut others: Vec<Picked> = Vec::new();
        let mut chosen = None;
        let mut failed = Vec::new();
        let mut are_more = true;
        let result = loop {
            let ended = tokio::select! {
                biased;
                ended = attempts.next() => ended,
                () = sleep(HEAD_START), if are_more => {
                    match self.pool.same_server(choice, &tried) {
                        Some(other) => {
                            tried.push(Arc::clone(&other.choice.endpoint));
                            attempts.push(self.open(others.len() + 1, other.choice.clone()));
                            others.push(other);
                        }
                        None => are_more = false,
                    }
                    continue;
                }
            };
            match ended {
                Some((number, Ok(socket))) => break Ok((number, socket)),
                Some((0, Err(error))) => chosen = Some(error),
                Some((number, Err(_))) => failed.push(number),
                None => {
                    let lost = || Error::explain(ErrorType::ConnectError, "no address answers");
                    break Err(chosen.unwrap_or_else(lost));
                }
            }
        };
        drop(attempts);
        let number = result.as_ref().map_or(0, |(number, _)| *number);
        let (mut winner, mut losers) = (None, Vec::new());
        for (at, other) in (1..).zip(others) {
            if at == number {
                winner = Some(other);
            } else if failed.contains(&at) {
                losers.push(other);
            }
        }
        Race {
            result: result.map(|(_, socket)| socket),
            winner,
            losers,
        }
    }
}
