//! All recipients of a gateway: one worker for each hook of the configuration.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::open::open_sender;
use super::outbox::new_id;
use super::spool::Spool;
use super::standing::StandingTroubles;
use super::veto::VetoHooks;
use super::worker::{HookConfig, Shared, Worker};
use super::{DeliveryError, Entry, EntryState, Notification, filter};
use crate::clock::Clock;
use crate::config::model::{Config, Hook};
use crate::event::{Event, EventBus, EventKind, Severity};
use crate::lock::MutexExt as _;
use crate::machine::host_name;
use crate::metrics::NotifyMetrics;
use crate::renewal::ObtainingHook;
use crate::shutdown::{ShutdownWatch, requested};

/// How long a test waits for a recipient.
const TEST_PATIENCE: Duration = Duration::from_secs(60);

/// How long the disk may take at the start.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than their time health checks may take after a start, since many are made at once.
const SLACK: Duration = Duration::from_secs(120);

/// What a [`Notifier`] is made of.
pub struct NotifierSetup<'a> {
    pub events: EventBus,
    pub clock: Arc<dyn Clock>,
    pub metrics: NotifyMetrics,
    /// The folder in which what waits is kept; `None` to keep nothing.
    pub directory: Option<&'a Path>,
    /// The configuration's file.
    pub config: &'a Path,
}

/// Notifies the recipients of a configuration.
pub struct Notifier {
    events: EventBus,
    shared: Shared,
    running: Mutex<Vec<Running>>,
    started: mpsc::UnboundedSender<Worker>,
    /// Workers that do not run yet.
    new: Mutex<Option<mpsc::UnboundedReceiver<Worker>>>,
}

/// A hook with its worker.
struct Running {
    id: Arc<str>,
    config: watch::Sender<HookConfig>,
}

/// How a test of a recipient went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// The name of the hook.
    pub name: String,
    /// The kind of its recipient, such as `webhook`.
    pub kind: String,
    /// Whether the notification was delivered, for mail to each of the addresses.
    pub delivered: bool,
    /// Why it was not; `None` if it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl Notifier {
    /// A notifier without recipients.
    pub fn new(setup: NotifierSetup<'_>) -> Arc<Self> {
        let gateway = host_name().unwrap_or_else(|| "localhost".to_owned());
        let spool = setup
            .directory
            .map(|directory| Arc::new(Spool::new(directory, &gateway, setup.config)));
        let (started, new) = mpsc::unbounded_channel();
        Arc::new(Self {
            shared: Shared {
                standing: Arc::new(StandingTroubles::new(&setup.events)),
                clock: setup.clock,
                metrics: setup.metrics,
                spool,
                gateway: gateway.into(),
            },
            events: setup.events,
            running: Mutex::default(),
            started,
            new: Mutex::new(Some(new)),
        })
    }

    /// Notifies the recipients of this configuration from now on. Those that stay lose nothing.
    pub fn apply(&self, config: &Config) {
        let checked = config.upstreams.iter();
        let checked = checked.filter_map(|(name, upstream)| {
            let needed = upstream.health.as_ref()?.time_to_find_down();
            Some((Arc::clone(name), needed.saturating_add(SLACK)))
        });
        let checks = Arc::new(checked.collect());
        let mut running = self.running.lock_unpoisoned();
        let mut before = std::mem::take(&mut *running);
        for hook in &config.events {
            let config = HookConfig {
                hook: Arc::clone(hook),
                checks: Arc::clone(&checks),
            };
            let same = before.iter().position(|one| one.id == hook.id);
            running.push(match same {
                Some(index) => {
                    let same = before.swap_remove(index);
                    same.config.send_replace(config);
                    same
                }
                None => self.start(config),
            });
        }
        // The workers of the rest end.
    }

    /// What asks the entries that may object before a certificate is ordered; `None` if there are
    /// none.
    pub fn obtaining_hook(&self, config: &Config) -> Option<Arc<dyn ObtainingHook>> {
        let gateway = Arc::clone(&self.shared.gateway);
        let hooks = VetoHooks::open(&config.vetoes, gateway, &self.shared.clock)?;
        Some(hooks)
    }

    /// Runs the workers until the gateway stops. To be called once.
    pub async fn run(self: Arc<Self>, mut stopping: ShutdownWatch) {
        let Some(mut new) = self.new.lock_unpoisoned().take() else {
            return;
        };
        self.clean_up().await;
        let mut workers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = requested(&mut stopping) => break,
                Some(worker) = new.recv() => {
                    workers.spawn(worker.run(stopping.clone()));
                }
                () = self.shared.standing.wait() => self.shared.standing.collect(),
                Some(ended) = workers.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "the task of a recipient was interrupted by a bug");
                    }
                }
            }
        }
        workers.join_all().await;
    }

    /// Sends a notification that says nothing to every recipient, or to the one called `name`, past
    /// what waits for it. `None` if there is none of that name.
    pub async fn test(&self, name: Option<&str>) -> Option<Vec<TestOutcome>> {
        let hooks: Vec<Arc<Hook>> = {
            let running = self.running.lock_unpoisoned();
            let hooks = running
                .iter()
                .map(|one| Arc::clone(&one.config.borrow().hook));
            hooks
                .filter(|hook| name.is_none_or(|name| *hook.name == *name))
                .collect()
        };
        if hooks.is_empty() && name.is_some() {
            return None;
        }
        let outcomes = join_all(hooks.iter().map(|hook| self.test_hook(hook))).await;
        Some(by_entry(outcomes))
    }

    async fn test_hook(&self, hook: &Arc<Hook>) -> TestOutcome {
        let (clock, opened) = (Arc::clone(&self.shared.clock), Arc::clone(hook));
        let notification = self.test_notification(hook);
        let delivery = async {
            let opened = tokio::task::spawn_blocking(move || open_sender(&opened, clock)).await;
            let sender = opened
                .map_err(|error| DeliveryError::later(error.to_string()))?
                .map_err(DeliveryError::later)?;
            sender.deliver(&notification).await
        };
        let result = tokio::time::timeout(TEST_PATIENCE, delivery).await;
        let error = match result {
            Ok(delivered) => delivered.err().map(|error| error.message),
            Err(_) => Some(format!("not delivered within {TEST_PATIENCE:?}")),
        };
        TestOutcome {
            name: hook.name.to_string(),
            kind: hook.recipient.kind().to_owned(),
            delivered: error.is_none(),
            error,
        }
    }

    fn test_notification(&self, hook: &Hook) -> Notification {
        let now = self.shared.clock.now();
        let message = format!(
            "a test of the recipient {}: nothing has happened, and nothing is to be done",
            hook.name
        );
        let (kind, severity) = (EventKind::NotificationTest, Severity::Info);
        Notification {
            id: new_id(),
            at: now,
            gateway: self.shared.gateway.to_string(),
            severity,
            entries: vec![Entry {
                event: Event::new(now, kind, severity, "", message),
                state: EntryState::Happened,
                trouble: None,
                since: now,
                repeats: 0,
            }],
            omitted: 0,
        }
    }

    /// Starts the worker of a new hook.
    fn start(&self, config: HookConfig) -> Running {
        let id = Arc::clone(&config.hook.id);
        let sink = self.events.open_sink(filter::kinds(&config.hook));
        let (sender, receiver) = watch::channel(config);
        let worker = Worker::new(self.shared.clone(), receiver, sink);
        // An error means that the gateway is stopping.
        let _ = self.started.send(worker);
        Running { id, config: sender }
    }

    /// Deletes what an earlier process has kept for recipients that are no longer configured.
    async fn clean_up(&self) {
        let Some(spool) = self.shared.spool.clone() else {
            return;
        };
        let ids: Vec<Arc<str>> = {
            let running = self.running.lock_unpoisoned();
            running.iter().map(|one| Arc::clone(&one.id)).collect()
        };
        let clean = move || spool.retain(|id| ids.iter().any(|known| **known == *id));
        let cleaned = tokio::task::spawn_blocking(clean);
        // A disk that does not respond must not keep anybody from being notified.
        let cleaned = tokio::time::timeout(DISK_PATIENCE, cleaned).await;
        let lost = cleaned.map_or(0, |cleaned| cleaned.unwrap_or(0));
        if lost > 0 {
            tracing::warn!(
                lost,
                "events waited for recipients that are no longer configured, and are dropped"
            );
        }
    }
}

/// One outcome for each entry: those of the addresses of one entry for mail follow each other.
fn by_entry(outcomes: Vec<TestOutcome>) -> Vec<TestOutcome> {
    let mut entries: Vec<TestOutcome> = Vec::with_capacity(outcomes.len());
    for one in outcomes {
        match entries.last_mut().filter(|entry| entry.name == one.name) {
            Some(entry) => {
                let errors = entry.error.take().into_iter().chain(one.error);
                let errors: Vec<String> = errors.collect();
                entry.delivered = errors.is_empty();
                entry.error = (!errors.is_empty()).then(|| errors.join("; "));
            }
            None => entries.push(one),
        }
    }
    entries
}
