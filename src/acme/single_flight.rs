//! A value that is made once for all callers, however many ask at the same time.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::schedule::Failure;

/// A value that is made when it is first needed. Callers that come meanwhile wait for the same
/// attempt and share its failure too: a CA that is down is not asked by each of them in turn.
pub(super) struct SingleFlight<T>(Mutex<State<T>>);

struct State<T> {
    made: Option<(Instant, T)>,
    failed: Option<(Instant, Failure)>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            made: None,
            failed: None,
        }))
    }
}

impl<T: Clone> SingleFlight<T> {
    /// The value, made by `make` if there is none younger than `lasts`.
    ///
    /// # Errors
    /// If making it fails, or failed while this waited.
    pub(super) async fn get_or_make(
        &self,
        lasts: Duration,
        make: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let asked = Instant::now();
        let mut state = self.0.lock().await;
        if let Some((at, made)) = &state.made
            && at.elapsed() < lasts
        {
            return Ok(made.clone());
        }
        if let Some((at, failure)) = &state.failed
            && *at > asked
        {
            return Err(failure.clone());
        }
        match make.await {
            Ok(made) => {
                state.made = Some((Instant::now(), made.clone()));
                state.failed = None;
                Ok(made)
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// The value if there is one and nobody is making another. Does not wait.
    pub(super) fn try_get(&self) -> Option<T> {
        let state = self.0.try_lock().ok()?;
        state.made.as_ref().map(|(_, made)| made.clone())
    }

    /// The value if there is one. Makes none.
    pub(super) async fn current(&self) -> Option<T> {
        let state = self.0.lock().await;
        state.made.as_ref().map(|(_, made)| made.clone())
    }

    /// Discards the value if `is_stale` says so; the next caller makes another.
    pub(super) async fn invalidate_if(&self, is_stale: impl FnOnce(&T) -> bool) {
        let mut state = self.0.lock().await;
        if state.made.as_ref().is_some_and(|(_, made)| is_stale(made)) {
            state.made = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::schedule::FailureClass;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_attempt_and_its_failure() {
        let flight = SingleFlight::default();
        let attempts = AtomicU32::new(0);
        let attempt = |result: Result<u32, Failure>| {
            let (flight, attempts) = (&flight, &attempts);
            async move {
                let make = async {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    result
                };
                flight.get_or_make(LONG, make).await
            }
        };
        let down = Failure::new(FailureClass::Network, "down");
        let failed = join_all((0..10).map(|_| attempt(Err(down.clone())))).await;
        assert!(failed.iter().all(|result| *result == Err(down.clone())));
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        // A later caller tries again.
        let made = join_all((0..10).map(attempt_with(&attempt))).await;
        assert!(made.iter().all(|result| *result == Ok(7)), "{made:?}");
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
        flight.invalidate_if(|made| *made == 8).await;
        assert_eq!(attempt(Ok(9)).await, Ok(7));
        flight.invalidate_if(|made| *made == 7).await;
        assert_eq!(attempt(Ok(9)).await, Ok(9));
    }

    fn attempt_with<F>(attempt: impl Fn(Result<u32, Failure>) -> F) -> impl Fn(u32) -> F {
        move |_| attempt(Ok(7))
    }
}
