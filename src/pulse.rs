//! Whether the data plane runs: its runtime performs a trivial task repeatedly.
//!
//! A timer of that runtime wakes the beat, so it stops when nothing polls the runtime's events any
//! more, for instance because its threads are blocked in system calls. It is observed from outside
//! that runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often it beats.
const BEAT: Duration = Duration::from_millis(500);

/// How long a pulse may be silent on a busy machine.
const BUSY: Duration = Duration::from_secs(2);

/// How long to listen to a silent pulse, since the machine itself may have stood still.
const LISTEN: Duration = Duration::from_secs(2);

/// The pulse of a runtime. A handle; clones share it.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    begun: Instant,
    /// The last beat, in milliseconds since then, from 1; 0 if there was none.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Beats {
            begun: Instant::now(),
            last: AtomicU64::new(0),
        }))
    }
}

impl Pulse {
    /// Beats for as long as the future is polled, which is up to the runtime.
    pub fn beat(self) -> impl Future<Output = ()> + Send {
        self.note();
        async move {
            let mut interval = tokio::time::interval(BEAT);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                self.note();
            }
        }
    }

    fn note(&self) {
        self.0.last.store(self.now(), Ordering::Relaxed);
    }

    /// Returns true if the runtime works, or has not begun to.
    pub fn is_felt(&self) -> bool {
        self.silence() < BUSY
    }

    /// Waits for a beat if the last is not recent.
    ///
    /// # Errors
    /// For how long there has been none.
    pub async fn feel(&self) -> Result<(), Duration> {
        let until = Instant::now() + LISTEN;
        while !self.is_felt() {
            if Instant::now() >= until {
                return Err(self.silence());
            }
            tokio::time::sleep(BEAT / 5).await;
        }
        Ok(())
    }

    /// How long it has not beaten; zero before it began to.
    fn silence(&self) -> Duration {
        match self.0.last.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            last => Duration::from_millis(self.now().saturating_sub(last)),
        }
    }

    fn now(&self) -> u64 {
        let since = self.0.begun.elapsed().as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_runtime_that_stands_still_has_no_pulse() {
        let pulse = Pulse::default();
        assert_eq!(pulse.feel().await, Ok(()), "it has not begun");

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let beat = pulse.clone().beat();
        let begun = pulse.0.last.load(Ordering::Relaxed);
        assert_ne!(begun, 0, "a runtime that never polls it has none either");
        runtime.spawn(beat);
        let beaten = async {
            while pulse.0.last.load(Ordering::Relaxed) == begun {
                tokio::time::sleep(BEAT / 10).await;
            }
        };
        beaten.await;
        assert_eq!(pulse.feel().await, Ok(()));

        // All its threads wait for something that does not come, such as a reader of a full pipe.
        let stalls: Vec<_> = (0..2)
            .map(|_| {
                let (release, stall) = mpsc::channel::<()>();
                runtime.spawn(async move { stall.recv() });
                release
            })
            .collect();
        let silence = loop {
            if let Err(silence) = pulse.feel().await {
                break silence;
            }
            tokio::time::sleep(BEAT / 10).await;
        };
        assert!(silence >= BUSY, "{silence:?}");
        assert!(!pulse.is_felt());

        drop(stalls);
        let felt = async { while pulse.feel().await.is_err() {} };
        assert!(tokio::time::timeout(LISTEN * 10, felt).await.is_ok());
        runtime.shutdown_background();
    }
}
