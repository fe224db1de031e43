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
struct Race<T> {
    /// The first connection that was open, or why there is none to the chosen address.
    result: Result<T>,
    /// The address that it leads to, unless that is the chosen one.
    winner: Option<Picked>,
    /// Other addresses that were tried and have failed.
    losers: Vec<Picked>,
}

/// Opens a connection of HTTP/1 to `choice`, the chosen server of a request, within `patience`.
/// `header` is sent first. Returns the address that it leads to, which is the chosen one from then
/// on.
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
    let pool = Arc::clone(&ctx.proxy().ok_or_else(no_route)?.pool);
    let open = |choice: Choice, patience| {
        let pool = &pool;
        async move { pool.dial(&choice, header, dialer, patience, true).await }
    };
    race_addresses(ctx, choice, patience, open).await
}

/// The same with whatever `open` opens to an address within a time, or takes from those who have it
/// open.
///
/// # Errors
/// If nothing can be opened.
pub(super) async fn race_addresses<T, F>(
    ctx: &mut RequestCtx,
    choice: Choice,
    patience: Duration,
    open: impl Fn(Choice, Duration) -> F,
) -> Result<(Choice, T)>
where
    F: Future<Output = Result<T>>,
{
    let pool = Arc::clone(&ctx.proxy().ok_or_else(no_route)?.pool);
    let (opened, winner) = open_first(&pool, &choice, patience, open).await?;
    let Some(winner) = winner else {
        return Ok((choice, opened));
    };
    let choice = winner.choice.clone();
    ctx.change_address(winner);
    _ = ctx.choose_server();
    Ok((choice, opened))
}

/// The same for what is no request: `choice` is an address that it uses. Returns the use of another
/// address if what was opened leads there.
///
/// # Errors
/// If nothing can be opened.
pub(super) async fn open_first<T, F>(
    pool: &Pool,
    choice: &Choice,
    patience: Duration,
    open: impl Fn(Choice, Duration) -> F,
) -> Result<(T, Option<Picked>)>
where
    F: Future<Output = Result<T>>,
{
    if !pool.has_other_addresses(choice) {
        return Ok((open(choice.clone(), patience).await?, None));
    }
    let race = race(pool, choice, patience, open).await;
    for loser in race.losers {
        pool.record_lost(loser);
    }
    let opened = race.result?;
    // One that has connections may have had no room on them.
    if race.winner.is_some() && !choice.endpoint.http2.is_connected() {
        pool.avoid_server(choice);
    }
    Ok((opened, race.winner))
}

fn no_route() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the route is gone")
}

/// Opens a connection to an address, and after each head start to another address of its server that
/// is in use.
async fn race<T, F>(
    pool: &Pool,
    choice: &Choice,
    patience: Duration,
    open: impl Fn(Choice, Duration) -> F,
) -> Race<T>
where
    F: Future<Output = Result<T>>,
{
    let begin = |number: usize, choice: &Choice| {
        // All attempts end at the same time.
        let late = HEAD_START.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        let opening = open(choice.clone(), patience.saturating_sub(late));
        async move { (number, opening.await) }
    };
    let mut attempts = FuturesUnordered::new();
    attempts.push(begin(0, choice));
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
                // Its second place is behind those of requests that wait for their first.
                let other = match pool.has_waiting() {
                    true => None,
                    false => pool.same_server(choice, &tried),
                };
                match other {
                    Some(other) => {
                        tried.push(Arc::clone(&other.choice.endpoint));
                        attempts.push(begin(others.len() + 1, &other.choice));
                        others.push(other);
                    }
                    None => are_more = false,
                }
                continue;
            }
        };
        match ended {
            Some((number, Ok(opened))) => break Ok((number, opened)),
            Some((0, Err(error))) => chosen = Some(error),
            // One that has no room has not failed.
            Some((_, Err(error))) if matches!(error.etype(), ErrorType::HTTPStatus(_)) => {}
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
        result: result.map(|(_, opened)| opened),
        winner,
        losers,
    }
}
