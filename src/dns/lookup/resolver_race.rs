//! One question to several resolvers: a silent one holds up a look-up for a moment only.
//!
//! The next resolver is asked as soon as one cannot tell, or has been silent for a while. Those that
//! are silent may still answer, and the first good answer counts.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::{Message, ResponseCode};
use tokio::time::sleep;

use crate::dns::exchange::{self, code_name};
use crate::lock::MutexExt as _;

/// The longest time that one question takes if each response may take `patience`: the last resolver
/// is asked after `patience` at the latest, and is then asked as often as any other.
pub(in crate::dns) const fn longest_question(patience: Duration) -> Duration {
    patience.saturating_mul(1 + exchange::TRIES)
}

/// How long a resolver may be silent before the next of so many is asked as well: half of `patience`,
/// or less if there are more than three.
fn head_start(patience: Duration, resolvers: usize) -> Duration {
    let others = u32::try_from(resolvers.saturating_sub(1)).unwrap_or(u32::MAX);
    patience / others.max(2)
}

/// Asks resolvers, and remembers which has answered.
#[derive(Debug, Default)]
pub(super) struct ResolverRace {
    /// The resolver that answered last. The next question goes to it first.
    last: Mutex<Option<SocketAddr>>,
}

impl ResolverRace {
    /// The first answer of a resolver that can tell.
    ///
    /// # Errors
    /// If none of them can, with what each has done, for people.
    pub(super) async fn ask(
        &self,
        mut resolvers: Vec<SocketAddr>,
        question: &Message,
        patience: Duration,
    ) -> Result<Message, String> {
        let last = *self.last.lock_unpoisoned();
        resolvers.sort_by_key(|one| Some(*one) != last);
        let head_start = head_start(patience, resolvers.len());
        let mut left = resolvers.into_iter().enumerate();
        let mut asked = FuturesUnordered::new();
        let mut troubles = Vec::new();
        loop {
            if let Some((number, resolver)) = left.next() {
                asked.push(async move {
                    let answer = ask_one(resolver, question, patience).await;
                    (number, resolver, answer)
                });
            }
            let ended = tokio::select! {
                biased;
                ended = asked.next() => ended,
                () = sleep(head_start), if left.len() > 0 => continue,
            };
            match ended {
                Some((_, resolver, Ok(message))) => {
                    *self.last.lock_unpoisoned() = Some(resolver);
                    return Ok(message);
                }
                Some((number, resolver, Err(trouble))) => {
                    troubles.push((number, format!("{resolver} {trouble}")));
                }
                None => break,
            }
        }
        troubles.sort_by_key(|(number, _)| *number);
        let troubles: Vec<_> = troubles.into_iter().map(|(_, trouble)| trouble).collect();
        Err(troubles.join("; "))
    }
}

/// The response of a resolver, or why it is of no use. The reason follows the resolver's name.
async fn ask_one(
    resolver: SocketAddr,
    question: &Message,
    patience: Duration,
) -> Result<Message, String> {
    let answer = exchange::query_server(resolver, question, patience).await;
    let message = answer.map_err(|trouble| trouble.to_string())?.message;
    match message.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
        code => Err(format!("answers {}", code_name(code))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_resolver_is_asked_in_time() {
        let second = Duration::from_secs(1);
        for (resolvers, millis) in [(1, 500), (2, 500), (3, 500), (5, 250), (11, 100)] {
            let expected = Duration::from_millis(millis);
            assert_eq!(head_start(second, resolvers), expected, "{resolvers}");
        }
        assert_eq!(longest_question(second), 4 * second);
    }
}
