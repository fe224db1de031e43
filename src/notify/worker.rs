//! The task of one recipient: collects its events, keeps them, composes notifications and has them
//! delivered. It waits for no other recipient, and none waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::escalation::Progress;
use super::keeper::Keeper;
use super::open::open_sender;
use super::outbox::Outbox;
use super::sender::MAX_ENTRIES;
use super::spool::Spool;
use super::standing::StandingTroubles;
use super::{DeliveryError, Retry, Sender, backoff, filter};
use crate::clock::Clock;
use crate::config::model::Hook;
use crate::event::{EventSink, Survey};
use crate::metrics::{HookMetrics, NotifyMetrics};
use crate::shutdown::{ShutdownWatch, requested};
use crate::throttle::Throttle;

/// How long a delivery may take to end when the gateway stops. It is made again at the next start.
const LAST_DELIVERY: Duration = Duration::from_secs(2);

/// The longest sleep, in case the clock is set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What a start goes through.
const SURVEYS: [Survey; 2] = [Survey::Certificates, Survey::Storage];

/// What a worker shares with others.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: NotifyMetrics,
    /// `None` if nothing is kept.
    pub(super) spool: Option<Arc<Spool>>,
    /// The name of this machine.
    pub(super) gateway: Arc<str>,
    pub(super) standing: Arc<StandingTroubles>,
}

/// The configuration of a hook, and how long the health checks of each upstream that is configured
/// with it need to find that a server is down.
#[derive(Clone)]
pub(super) struct HookConfig {
    pub(super) hook: Arc<Hook>,
    pub(super) checks: Arc<HashMap<Arc<str>, Duration>>,
}

/// The task of one recipient.
pub(super) struct Worker {
    shared: Shared,
    metrics: HookMetrics,
    /// Changes with the configuration, and closes when the hook is gone.
    config: watch::Receiver<HookConfig>,
    sink: EventSink,
    outbox: Outbox,
    keeper: Keeper,
    sender: Option<Arc<dyn Sender>>,
    delivery: JoinSet<Result<(), DeliveryError>>,
    /// How many attempts at the current notification have failed.
    failures: u32,
    /// Not before this is the current notification delivered.
    retry_at: Option<Instant>,
    /// When what waits is composed.
    compose_at: Option<Instant>,
    started: Instant,
    /// How many events were lost that no line of the log has counted yet.
    lost: u64,
    loss_lines: Throttle,
}

impl Worker {
    pub(super) fn new(
        shared: Shared,
        config: watch::Receiver<HookConfig>,
        sink: EventSink,
    ) -> Self {
        let hook = Arc::clone(&config.borrow().hook);
        Self {
            keeper: Keeper::new(shared.spool.clone(), Arc::clone(&hook.id)),
            metrics: shared.metrics.begin(&hook.name),
            shared,
            config,
            sink,
            outbox: Outbox::default(),
            sender: None,
            delivery: JoinSet::new(),
            failures: 0,
            retry_at: None,
            compose_at: None,
            started: Instant::now(),
            lost: 0,
            loss_lines: Throttle::default(),
        }
    }

    /// Runs until the gateway stops or the hook is gone.
    pub(super) async fn run(mut self, mut stopping: ShutdownWatch) {
        let _claim = self.keeper.claim().await;
        let mut hook = Arc::clone(&self.config.borrow_and_update().hook);
        // What an earlier process knew comes first.
        self.keep().await;
        self.observe_standing(&hook, None);
        loop {
            self.collect(&hook);
            self.keep().await;
            self.metrics.set_waiting(self.outbox.depth());
            self.compose(&hook).await;
            self.begin_delivery(&hook).await;
            let wake = self.keeper.retry_at();
            let wake = earliest([wake, self.wake_at(&hook)]);
            let delivery =
                OptionFuture::from((!self.delivery.is_empty()).then(|| self.delivery.join_next()));
            tokio::select! {
                biased;
                () = requested(&mut stopping) => break,
                changed = self.config.changed() => match changed {
                    Ok(()) => hook = self.configure(&hook),
                    Err(_) => return self.remove(&hook).await,
                },
                Some(Some(result)) = delivery => {
                    self.finish_delivery(&hook, result.unwrap_or_else(|error| {
                        Err(DeliveryError::later(format!("interrupted by a bug: {error}")))
                    }));
                }
                () = self.sink.wait() => {}
                () = sleep_until(wake) => {}
            }
        }
        if let Ok(Some(Ok(result))) =
            tokio::time::timeout(LAST_DELIVERY, self.delivery.join_next()).await
        {
            self.finish_delivery(&hook, result);
        }
        self.collect(&hook);
        self.keep().await;
    }

    async fn keep(&mut self) {
        self.keeper.keep(&mut self.outbox).await;
    }

    /// Takes note of the troubles that last and that the recipient had not asked for `before`.
    fn observe_standing(&mut self, hook: &Hook, before: Option<&Hook>) {
        let now = self.shared.clock.now();
        for event in self.shared.standing.events(now) {
            let was_wanted = before.is_some_and(|before| filter::is_wanted(before, &event));
            if !was_wanted && filter::is_wanted(hook, &event) {
                let lost = self.outbox.observe(&event, true, hook.repeat, now);
                self.note_lost(lost);
            }
        }
    }

    fn note_lost(&mut self, lost: u64) {
        self.metrics.count_dropped(lost);
        self.lost += lost;
    }

    /// Takes what has happened.
    fn collect(&mut self, hook: &Hook) {
        let now = self.shared.clock.now();
        // What is complete by now has been emitted before, and is taken here.
        let complete = SURVEYS.map(|survey| (survey, self.sink.is_complete(survey)));
        let (events, mut lost) = self.sink.take();
        self.outbox.count_lost(lost);
        for event in events {
            let is_wanted = filter::is_wanted(hook, &event);
            lost += self.outbox.observe(&event, is_wanted, hook.repeat, now);
        }
        let progress = Progress {
            uptime: self.started.elapsed(),
            is_complete: &|survey| complete.contains(&(survey, true)),
            checks: &self.config.borrow().checks.clone(),
        };
        lost += self.outbox.end_unconfirmed(&progress, now);
        lost += self.outbox.pass_time(hook.repeat, now);
        self.note_lost(lost);
        if self.lost > 0 && self.loss_lines.admit().is_some() {
            tracing::warn!(
                hook = %hook.name,
                lost = self.lost,
                "events are lost: too many wait for this recipient"
            );
            self.lost = 0;
        }
    }

    /// Composes what waits if it is time. The notification is kept before it is delivered, so that it
    /// has the same id after a restart.
    async fn compose(&mut self, hook: &Hook) {
        if !self.outbox.is_waiting() {
            self.compose_at = None;
            return;
        }
        let now = Instant::now();
        let at = *self.compose_at.get_or_insert(now + hook.digest);
        if at > now || self.outbox.current().is_some() {
            return;
        }
        // If there is no sender, the delivery fails and says so.
        let sender = self.sender(hook).await;
        let max_entries = sender.map_or(MAX_ENTRIES, |sender| sender.max_entries());
        let at = (&*self.shared.gateway, self.shared.clock.now());
        self.outbox.compose(at, hook.digest.is_zero(), max_entries);
        self.compose_at = None;
        (self.failures, self.retry_at) = (0, None);
        self.keep().await;
    }

    async fn begin_delivery(&mut self, hook: &Hook) {
        let is_time = self.retry_at.is_none_or(|at| at <= Instant::now());
        if !self.delivery.is_empty() || !is_time {
            return;
        }
        let Some(notification) = self.outbox.current().cloned() else {
            return;
        };
        match self.sender(hook).await {
            Ok(sender) => {
                let deliver = async move { sender.deliver(&notification).await };
                self.delivery.spawn(deliver);
            }
            Err(error) => self.finish_delivery(hook, Err(error)),
        }
    }

    /// The sender, opened when it is first needed.
    async fn sender(&mut self, hook: &Hook) -> Result<Arc<dyn Sender>, DeliveryError> {
        if let Some(sender) = &self.sender {
            return Ok(Arc::clone(sender));
        }
        let (hook, clock) = (hook.clone(), Arc::clone(&self.shared.clock));
        // It may read files.
        let opened = tokio::task::spawn_blocking(move || open_sender(&hook, clock)).await;
        let opened = opened
            .map_err(|error| DeliveryError::later(error.to_string()))?
            .map_err(DeliveryError::later)?;
        self.sender = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn finish_delivery(&mut self, hook: &Hook, result: Result<(), DeliveryError>) {
        let Some(current) = self.outbox.current() else {
            return;
        };
        let (id, age) = (&current.id, self.shared.clock.now().since(current.at));
        let error = match result {
            Ok(()) => {
                self.metrics.count_attempt("delivered");
                tracing::info!(
                    hook = %hook.name,
                    id,
                    entries = current.entries.len(),
                    "notification delivered"
                );
                self.outbox.delivered();
                (self.failures, self.retry_at) = (0, None);
                return;
            }
            Err(error) => error,
        };
        self.failures += 1;
        let pause = backoff::pause(error.retry, self.failures, age, fastrand::f64());
        match pause {
            Some(pause) => {
                self.metrics.count_attempt("failed");
                tracing::warn!(
                    hook = %hook.name,
                    id,
                    attempt = self.failures,
                    next_in = ?pause,
                    "notification not delivered: {error}"
                );
                self.retry_at = Some(Instant::now() + pause);
            }
            None => {
                self.metrics.count_attempt("given_up");
                let why = match error.retry {
                    Retry::Never => "refused",
                    Retry::Later | Retry::After(_) => "tried for a day",
                };
                tracing::error!(
                    hook = %hook.name,
                    id,
                    attempt = self.failures,
                    entries = current.entries.len(),
                    why,
                    "notification given up: {error}"
                );
                self.outbox.give_up();
                (self.failures, self.retry_at) = (0, None);
            }
        }
    }

    /// Adopts a changed configuration.
    fn configure(&mut self, before: &Hook) -> Arc<Hook> {
        let hook = Arc::clone(&self.config.borrow_and_update().hook);
        self.sink.set_kinds(filter::kinds(&hook));
        self.outbox.retain(|event| filter::is_wanted(&hook, event));
        self.observe_standing(&hook, Some(before));
        if before.name != hook.name {
            self.metrics = self.shared.metrics.begin(&hook.name);
        }
        if before.digest != hook.digest {
            self.compose_at = None;
        }
        if before.recipient != hook.recipient {
            // There may be a reason to change it.
            self.retry_at = None;
        }
        self.sender = None;
        hook
    }

    /// The hook is gone: nobody gets what waits.
    async fn remove(self, hook: &Hook) {
        let lost = self.outbox.depth();
        if lost > 0 {
            tracing::warn!(
                hook = %hook.name,
                lost,
                "the recipient is no longer configured: it does not get the events that wait"
            );
        }
        self.keeper.delete().await;
    }

    /// When something is to be done next without a cause from outside.
    fn wake_at(&self, hook: &Hook) -> Option<Instant> {
        let is_current = self.outbox.current().is_some();
        let compose = self.compose_at.filter(|_| !is_current);
        let deliver = self
            .retry_at
            .filter(|_| is_current && self.delivery.is_empty());
        let now = self.shared.clock.now();
        let step = self.outbox.next_step(hook.repeat);
        let step = step.map(|at| Instant::now() + at.since(now));
        earliest_of([compose, deliver, step])
    }
}

fn earliest_of<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}

/// The earliest of these times, and not too late.
fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Instant {
    let latest = Instant::now() + LONGEST_SLEEP;
    earliest_of(times).unwrap_or(latest).min(latest)
}
