//! Whether a CA may be asked: our own pace, and the limits that the CA has stated.
//!
//! [`Limiter`] decides; this waits if that takes only seconds, and stores what CAs have said for
//! later starts and other instances. Each account at each CA has its own queue, and each CA one for
//! what it limits as a whole. A request that would have to wait longer is turned away: certificates
//! wait in the plan, not here.

pub(super) mod issuer;
mod record;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::Instant as Moment;

use self::record::{WHOLE, account_of, run_store};
use super::ca::Ca;
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Acme, OrderLimit};
use crate::host::Pattern;
use crate::lock::MutexExt;
use crate::schedule::{
    ClockStep, Failure, FailureClass, Intent, Limiter, Pace, Scope, Wait, WaitReason,
};
use crate::storage::Storage;

/// How long a place is reserved for a caller of [`Limits::check_ready`]: jobs begin within moments.
const PROMISE: Duration = Duration::from_secs(30);

/// How long the first in a queue waits for the pace.
const PATIENCE: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

/// The limits of all accounts that this process uses.
pub(super) struct Limits {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    steady: Steady,
    clock_step: Mutex<ClockStep>,
    queues: Mutex<HashMap<(String, String), Arc<AccountQueue>>>,
    /// The CAs whose stored limits could not be read the last time.
    unread: Mutex<HashSet<String>>,
}

/// A clock that cannot be set: the time since an arbitrary moment.
pub(super) type Steady = Box<dyn Fn() -> Duration + Send + Sync>;

/// The queue of an account, and the one of its CA as a whole.
struct AccountQueues {
    own: Arc<AccountQueue>,
    whole: Arc<AccountQueue>,
}

/// The state of an account, or of a CA as a whole.
#[derive(Default)]
struct AccountQueue {
    /// Held by the first in the queue: when the requests before it left, at most as many as the
    /// pace allows.
    first: tokio::sync::Mutex<VecDeque<Moment>>,
    limiter: Mutex<Limiter>,
    /// When places were promised that are not taken yet, by the steady clock. Without this, all
    /// jobs that start at once would be promised the same place.
    promised: Mutex<VecDeque<Duration>>,
    /// What was in the storage when it was last read.
    read: Mutex<Option<Limiter>>,
}

impl Limits {
    pub(super) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        let start = Instant::now();
        Self::with(storage, clock, Box::new(move || start.elapsed()))
    }

    /// As [`Self::new`], with this steady clock.
    fn with(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, steady: Steady) -> Self {
        Self {
            storage,
            clock,
            steady,
            clock_step: Mutex::default(),
            queues: Mutex::default(),
            unread: Mutex::default(),
        }
    }

    /// Checks whether an order may be made now, as far as memory knows, and reserves a place for a
    /// moment.
    ///
    /// # Errors
    /// Until when and why to wait.
    pub(super) fn check_ready(
        &self,
        ca: &Ca,
        config: &Acme,
        intent: &Intent<'_>,
    ) -> Result<(), Wait> {
        if let Some(wait) = self.current_wait(ca, config, intent) {
            return Err(wait);
        }
        let queue = self.queues_of(ca, config).own;
        let now = self.now();
        let mut limiter = queue.limiter.lock_unpoisoned();
        limiter.repair_times(now);
        limiter.check_order(intent, now)?;
        let mut promised = queue.promised.lock_unpoisoned();
        let (steady, lasts) = ((self.steady)(), PROMISE.min(config.order_limit.per));
        promised.retain(|at| steady.saturating_sub(*at) < lasts);
        if promised.len() >= limiter.room(now) {
            return Err(Wait {
                until: now + 1,
                reason: WaitReason::Pace,
            });
        }
        promised.push_back(steady);
        Ok(())
    }

    /// The limit that holds an order back, as far as memory knows.
    pub(super) fn current_wait(&self, ca: &Ca, config: &Acme, intent: &Intent<'_>) -> Option<Wait> {
        let queues = self.queues_of(ca, config);
        let now = self.now();
        let held = |queue: &AccountQueue| {
            let mut limiter = queue.limiter.lock_unpoisoned();
            limiter.repair_times(now);
            limiter.held(intent, now)
        };
        held(&queues.whole).or_else(|| held(&queues.own))
    }

    /// The limit that prevents creating an account, as far as memory knows.
    pub(super) fn registration_held(&self, ca: &Ca, config: &Acme) -> Option<Wait> {
        let queue = self.queues_of(ca, config).whole;
        let now = self.now();
        let mut limiter = queue.limiter.lock_unpoisoned();
        limiter.repair_times(now);
        limiter.registration_held(now)
    }

    /// All known limits of the CA that apply now.
    pub(super) fn all_waits(&self, ca: &Ca, config: &Acme) -> Vec<Wait> {
        let queues = self.queues_of(ca, config);
        let now = self.now();
        let limits = |queue: &AccountQueue| {
            queue
                .limiter
                .lock_unpoisoned()
                .limits(now)
                .collect::<Vec<_>>()
        };
        [limits(&queues.whole), limits(&queues.own)].concat()
    }

    /// Checks whether an order could be made now, by everything known of the CA's limits. Reserves
    /// nothing.
    ///
    /// # Errors
    /// Until when and why to wait.
    pub(super) async fn load_stored(
        &self,
        ca: &Ca,
        config: &Acme,
        intent: &Intent<'_>,
    ) -> Result<(), Wait> {
        self.reload_stored(ca, config).await;
        if let Some(wait) = self.current_wait(ca, config, intent) {
            return Err(wait);
        }
        let queue = self.queues_of(ca, config).own;
        let now = self.now();
        let looked = queue.limiter.lock_unpoisoned().check_order(intent, now);
        match looked {
            // The wait would be over by the order's turn.
            Err(wait) if waited_for(&wait, now).is_some() => Ok(()),
            looked => looked,
        }
    }

    /// Waits a moment until an order may be made, and counts it; `tell` is called if it has to
    /// wait.
    ///
    /// # Errors
    /// If the wait would be longer than that.
    pub(super) async fn wait_turn(
        &self,
        ca: &Ca,
        config: &Acme,
        intent: &Intent<'_>,
        tell: impl FnOnce(&Wait),
    ) -> Result<(), Failure> {
        self.reload_stored(ca, config).await;
        let queues = self.queues_of(ca, config);
        let turn = match self.current_wait(ca, config, intent) {
            Some(wait) => Err(wait),
            None => {
                self.reserve_order(&queues.own, config.order_limit, intent, tell)
                    .await
            }
        };
        queues.own.promised.lock_unpoisoned().pop_front();
        turn.map_err(|wait| limited_failure(&ca.host, wait))
    }

    async fn reserve_order(
        &self,
        queue: &AccountQueue,
        pace: OrderLimit,
        intent: &Intent<'_>,
        tell: impl FnOnce(&Wait),
    ) -> Result<(), Wait> {
        let mut tell = Some(tell);
        let mut tell_once = |wait: &Wait| {
            if let Some(tell) = tell.take() {
                tell(wait);
            }
        };
        // A request that will not pass does not join the queue.
        let now = self.now();
        let looked = queue.limiter.lock_unpoisoned().check_order(intent, now);
        if let Err(wait) = looked {
            waited_for(&wait, now).ok_or_else(|| wait.clone())?;
            tell_once(&wait);
        }
        let mut let_go = queue.first.lock().await;
        loop {
            let now = self.now();
            let taken = queue.limiter.lock_unpoisoned().reserve_order(intent, now);
            let Err(wait) = taken else {
                keep_pace(&mut let_go, pace).await;
                return Ok(());
            };
            let pause = waited_for(&wait, now).ok_or_else(|| wait.clone())?;
            tell_once(&wait);
            tokio::time::sleep(pause).await;
        }
    }

    /// Merges the stored limits if they have changed. Returns true if they have.
    pub(super) async fn reload_stored(&self, ca: &Ca, config: &Acme) -> bool {
        let loaded = self.load_limiters(&ca.key).await;
        self.report_unread(ca, loaded.as_ref().err());
        let Ok(mut stored) = loaded else {
            return false;
        };
        let queues = self.queues_of(ca, config);
        let own = (queues.own, stored.remove(&account_of(config)));
        let whole = (queues.whole, stored.remove(WHOLE));
        let now = self.now();
        let (mut is_news, mut is_lost) = (false, false);
        for (queue, stored) in [own, whole] {
            let mut read = queue.read.lock_unpoisoned();
            is_lost |= stored.is_none() && read.take().is_some();
            if let Some(stored) = stored.filter(|stored| read.as_ref() != Some(stored)) {
                let mut limiter = queue.limiter.lock_unpoisoned();
                limiter.merge_from(&stored);
                limiter.repair_times(now);
                *read = Some(stored);
                is_news = true;
            }
        }
        if is_lost {
            // The record was damaged and set aside: what is known here is stored again.
            run_store(self.store_limiters(ca, config)).await;
        }
        is_news
    }

    /// Records what a CA has said about an order. Returns the limit that it met if that is new.
    pub(super) async fn record_limit(
        &self,
        ca: &Ca,
        config: &Acme,
        intent: &Intent<'_>,
        failure: &Failure,
    ) -> Option<Wait> {
        let queues = self.queues_of(ca, config);
        let is_of_ca = failure.scope.as_ref().is_some_and(Scope::is_of_ca);
        let queue = if is_of_ca { queues.whole } else { queues.own };
        let now = self.now();
        let news = queue
            .limiter
            .lock_unpoisoned()
            .record_limit(failure, intent, now);
        if news.is_some() {
            run_store(self.store_limiters(ca, config)).await;
        }
        news
    }

    /// Forgets the limits that concern these names.
    pub(super) fn clear_limits(&self, ca: &Ca, config: &Acme, names: &[Pattern]) {
        let queues = self.queues_of(ca, config);
        let now = self.now();
        queues
            .own
            .limiter
            .lock_unpoisoned()
            .clear_limits(names, now);
        queues
            .whole
            .limiter
            .lock_unpoisoned()
            .clear_limits(&[], now);
        let store = self.store_limiters(ca, config);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(store)),
            Err(_) => store(),
        }
    }

    /// The time of day. If the clock was set, everything remembered is shifted first.
    fn now(&self) -> UnixTime {
        // Held until everything is shifted: nobody may see the new time with the old limits.
        let mut clock_step = self.clock_step.lock_unpoisoned();
        let now = self.clock.now();
        let leap = clock_step.measure(now, (self.steady)());
        if leap != 0 {
            for queue in self.queues.lock_unpoisoned().values() {
                queue.limiter.lock_unpoisoned().shift_times(leap);
            }
        }
        now
    }

    fn queues_of(&self, ca: &Ca, config: &Acme) -> AccountQueues {
        let mut queues = self.queues.lock_unpoisoned();
        let mut queue = |of: String, paces: Vec<Pace>| {
            let queue = Arc::clone(queues.entry((ca.key.clone(), of)).or_default());
            queue.limiter.lock_unpoisoned().set_paces(paces);
            queue
        };
        let limit = config.order_limit;
        let pace = Pace {
            orders: limit.orders,
            seconds: u32::try_from(limit.per.as_secs()).unwrap_or(u32::MAX),
        };
        AccountQueues {
            own: queue(account_of(config), vec![pace]),
            whole: queue(WHOLE.to_owned(), Vec::new()),
        }
    }
}

/// Waits for the rest of a second: the limiter counts whole seconds, and so may be early by less
/// than one.
async fn keep_pace(let_go: &mut VecDeque<Moment>, pace: OrderLimit) {
    let orders = usize::try_from(pace.orders.max(1)).unwrap_or(usize::MAX);
    while let_go.len() >= orders {
        let Some(oldest) = let_go.pop_front() else {
            break;
        };
        let rest = (oldest + pace.per).saturating_duration_since(Moment::now());
        tokio::time::sleep(rest.min(SECOND)).await;
    }
    let_go.push_back(Moment::now());
}

/// How long to wait here; `None` if that is too long.
fn waited_for(wait: &Wait, now: UnixTime) -> Option<Duration> {
    let left = wait.until.since(now);
    let is_short = wait.reason == WaitReason::Pace && left <= PATIENCE;
    // The clock's seconds do not begin with the wait.
    is_short.then(|| left.max(Duration::from_secs(1)))
}

/// The failure for an order that was held back without asking the CA.
pub(super) fn limited_failure(host: &str, wait: Wait) -> Failure {
    let message = format!("{host} is not asked: {wait}");
    let mut failure = Failure::new(FailureClass::RateLimited, message);
    failure.retry_after = Some(wait.until);
    if let WaitReason::Limit(scope, _) = &wait.reason {
        failure.scope = Some(scope.clone());
    }
    failure.held = Some(Box::new(wait));
    failure
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::model::{ExternalAccount, OrderLimit};
    use crate::secret::Secret;
    use crate::storage::{Key, MemoryStorage, keys};

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    /// Limits with clocks that advance only on command.
    struct Bench {
        storage: Arc<dyn Storage>,
        clock: Arc<ManualClock>,
        steady: Arc<AtomicU64>,
        config: Arc<Acme>,
        ca: Ca,
        limits: Limits,
    }

    impl Bench {
        fn new(orders: u32, seconds: u64) -> Self {
            Self::on(Arc::new(MemoryStorage::default()), orders, seconds)
        }

        fn on(storage: Arc<dyn Storage>, orders: u32, seconds: u64) -> Self {
            let config = Arc::new(Acme {
                order_limit: OrderLimit {
                    orders,
                    per: Duration::from_secs(seconds),
                },
                ..Acme::sample("https://ca.test/dir")
            });
            let clock = Arc::new(ManualClock::at(NOW));
            let steady = Arc::new(AtomicU64::new(0));
            let told = Arc::clone(&steady);
            let tell = move || Duration::from_secs(told.load(Ordering::Relaxed));
            let dyn_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
            Self {
                ca: Ca::new(
                    &config.directory,
                    Arc::clone(&config),
                    Arc::clone(&dyn_clock),
                ),
                limits: Limits::with(Arc::clone(&storage), dyn_clock, Box::new(tell)),
                storage,
                clock,
                steady,
                config,
            }
        }

        /// Lets time pass.
        fn pass(&self, seconds: u32) {
            self.clock.advance(seconds.into());
            self.steady.fetch_add(seconds.into(), Ordering::Relaxed);
        }

        /// For how many seconds `name` has to wait.
        fn ready(&self, name: &str) -> Result<(), i64> {
            let names = names(name);
            let intent = Intent::new(&names);
            let ready = self.limits.check_ready(&self.ca, &self.config, &intent);
            ready.map_err(|wait| wait.until - self.clock.now())
        }

        async fn turn(&self, name: &str) -> Result<(), Failure> {
            let (ca, config) = (&self.ca, &self.config);
            let names = names(name);
            let intent = Intent::new(&names);
            self.limits.wait_turn(ca, config, &intent, |_| {}).await
        }

        /// Meets a limit on a domain, or on the account.
        async fn limited(&self, domain: Option<&str>) {
            let scope = match domain {
                Some(domain) => Scope::Domain(domain.to_owned()),
                None => Scope::Account,
            };
            self.meet(&["any.test"], Some(scope), &self.config).await;
        }

        async fn meet(&self, names: &[&str], scope: Option<Scope>, config: &Acme) {
            let failure = Failure {
                scope,
                ..Failure::new(FailureClass::RateLimited, "too many")
            };
            let names: Vec<_> = names
                .iter()
                .map(|name| name.parse().expect("one"))
                .collect();
            let intent = Intent::new(&names);
            self.limits
                .record_limit(&self.ca, config, &intent, &failure)
                .await;
        }

        fn stored(&self) -> Option<crate::storage::Value> {
            let place = keys::limits(&self.ca.key).expect("a key");
            self.storage.load(&place).expect("readable")
        }
    }

    fn names(name: &str) -> Vec<Pattern> {
        vec![name.parse().expect("a name")]
    }

    #[tokio::test]
    async fn as_many_are_let_through_as_there_are_places() {
        let bench = Bench::new(3, 3 * 3600);
        bench.turn("a.test").await.expect("a place");
        let let_through = (0..32).filter(|_| bench.ready("a.test").is_ok()).count();
        assert_eq!(let_through, 2);
        assert_eq!(bench.ready("a.test"), Err(1));
        bench.turn("a.test").await.expect("it was promised");
        // The other request never came.
        bench.pass(31);
        assert_eq!(bench.ready("a.test"), Ok(()));
        bench.turn("a.test").await.expect("it was promised");
        assert_eq!(bench.ready("a.test"), Err(3 * 3600 - 31));
        // A request that passed all the same is turned away at once, and that is no news.
        let failure = bench.turn("a.test").await.expect_err("no place");
        assert_eq!(failure.class, FailureClass::RateLimited);
        assert_eq!(failure.retry_after, Some(NOW + 3 * 3600));
        assert!(bench.stored().is_none());
    }

    #[tokio::test]
    async fn a_short_wait_for_the_pace_is_waited() {
        let bench = Bench::new(1, 10);
        bench.turn("a.test").await.expect("a place");
        bench.pass(9);
        assert_eq!(bench.ready("b.test"), Err(1), "the plan waits");
        let names = names("b.test");
        let intent = Intent::new(&names);
        let tell = |wait: &Wait| {
            assert_eq!(wait.until, NOW + 10);
            bench.pass(1);
        };
        let turn = bench
            .limits
            .wait_turn(&bench.ca, &bench.config, &intent, tell);
        turn.await.expect("a waiting request gets its turn");
    }

    #[tokio::test]
    async fn what_a_ca_limits_is_known_until_it_is_lifted() {
        let bench = Bench::new(10, 10);
        bench.limited(Some("a.test")).await;
        assert_eq!(bench.ready("www.a.test"), Err(3600));
        assert_eq!(bench.ready("b.test"), Ok(()));
        let before = bench.stored().expect("stored");
        bench.limited(Some("a.test")).await;
        assert_eq!(bench.stored().expect("stored"), before, "no news");
        // Another process knows once it has read it, without being told.
        let other = Bench::on(Arc::clone(&bench.storage), 10, 10);
        let failure = other.turn("a.test").await.expect_err("limited");
        assert_eq!(failure.scope, Some(Scope::Domain("a.test".to_owned())));
        assert!(failure.held.is_some(), "the CA was not asked");
        assert_eq!(other.ready("a.test"), Err(3600));
        bench.limited(None).await;
        assert_eq!(bench.ready("b.test"), Err(3600));

        bench.pass(1);
        bench
            .limits
            .clear_limits(&bench.ca, &bench.config, &names("www.a.test"));
        assert_eq!(bench.ready("www.a.test"), Ok(()));
        assert_eq!(bench.ready("b.test"), Ok(()));
        // Everybody who uses the storage learns it, whenever it is written.
        other.pass(1);
        while other.turn("a.test").await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_set_gives_no_licence_and_ends_a_wave() {
        let bench = Bench::new(1, 3600);
        bench.turn("a.test").await.expect("a place");
        for leap in [365 * 86_400, -400 * 86_400] {
            bench.clock.advance(leap);
            bench.pass(60);
            assert!(bench.turn("a.test").await.is_err());
        }
        assert_eq!(bench.ready("a.test"), Err(3600 - 120));
        bench.pass(3600);
        assert_eq!(bench.ready("a.test"), Ok(()));
        // The certificate is not valid by our clock: none is requested for it, and nobody else is
        // informed.
        let failure = Failure::new(FailureClass::Clock, "not yet valid");
        let (ca, config, limits) = (&bench.ca, &bench.config, &bench.limits);
        let none = Intent::new(&[]);
        limits.record_limit(ca, config, &none, &failure).await;
        assert_eq!(bench.ready("b.test"), Err(3600));
        assert!(bench.stored().is_none());
        let failure = bench.turn("b.test").await.expect_err("held");
        assert!(failure.message.contains("not yet valid"), "{failure}");
        bench.pass(3600);
        bench.turn("b.test").await.expect("a place");
    }

    #[tokio::test]
    async fn a_stored_limit_of_the_future_is_read_once() {
        let bench = Bench::new(10, 10);
        bench.limited(None).await;
        // By a clock behind the one that stored it.
        let other = Bench::on(Arc::clone(&bench.storage), 10, 10);
        other.clock.advance(-30 * 86_400);
        other.turn("a.test").await.expect_err("limited");
        assert_eq!(other.ready("a.test"), Err(3600));
        other.pass(3600);
        other.turn("a.test").await.expect("it is over");
    }

    /// A limit of the whole CA holds all accounts there, and one of an account that account alone.
    #[tokio::test]
    async fn an_account_is_held_by_its_own_limits_and_those_of_the_ca() {
        let bench = Bench::new(10, 10);
        let mut other = (*bench.config).clone();
        other.email = Some("ops@example.com".to_owned());
        let mut bound = (*bench.config).clone();
        bound.eab = Some(ExternalAccount {
            key_id: "k1".to_owned(),
            hmac_key: Secret::new("key".to_owned()),
        });
        let names = names("a.test");
        let held = |bench: &Bench, config: &Acme| {
            let held = bench
                .limits
                .current_wait(&bench.ca, config, &Intent::new(&names));
            held.map(|wait| wait.reason.as_str())
        };
        bench
            .meet(&["a.test"], Some(Scope::Account), &bench.config)
            .await;
        assert_eq!(held(&bench, &bench.config), Some("account"));
        assert_eq!(held(&bench, &other), None);
        assert_eq!(held(&bench, &bound), None);
        let registrations = |bench: &Bench, config: &Acme| {
            bench.limits.registration_held(&bench.ca, config).is_some()
        };
        assert!(!registrations(&bench, &bound));
        bench
            .meet(&["a.test"], Some(Scope::Registrations), &other)
            .await;
        assert!(registrations(&bench, &bound));
        assert_eq!(
            held(&bench, &bound),
            None,
            "an account that there is orders"
        );
        bench.meet(&["a.test"], Some(Scope::Ca), &other).await;
        for config in [&bench.config, &other, &bound] {
            assert_eq!(held(&bench, config), Some("ca"));
        }
        // Another process knows all of it.
        let next = Bench::on(Arc::clone(&bench.storage), 10, 10);
        next.limits.reload_stored(&next.ca, &other).await;
        assert!(registrations(&next, &other));
        assert_eq!(held(&next, &other), Some("ca"));
        assert_eq!(next.limits.all_waits(&next.ca, &other).len(), 2);
    }

    #[tokio::test]
    async fn damaged_limits_are_set_aside_and_hold_up_nobody() {
        let bench = Bench::new(10, 10);
        let place = keys::limits(&bench.ca.key).expect("a key");
        let aside = |number: u32| -> Key {
            let aside = format!("{}.damaged-{number}", place.as_str());
            aside.parse().expect("a key")
        };
        for (number, torn) in (1..).zip(["", "{\"default\": {\"dom", "[]", "\0\0"]) {
            let stored = bench.storage.store(&place, torn.as_bytes());
            stored.expect("writable");
            bench.turn("a.test").await.expect("nobody is held up");
            assert!(bench.stored().is_none(), "{torn:?}");
            let aside = bench.storage.load(&aside(number)).expect("readable");
            assert_eq!(aside.expect("kept").as_slice(), torn.as_bytes());
        }
        // What is in memory counts, and is stored again.
        bench.limited(Some("limited.test")).await;
        bench.limits.reload_stored(&bench.ca, &bench.config).await;
        let torn = bench.storage.store(&place, b"{\"default\":");
        torn.expect("writable");
        bench.turn("limited.test").await.expect_err("it is limited");
        bench.turn("other.test").await.expect("only that name is");
        let next = Bench::on(Arc::clone(&bench.storage), 10, 10);
        next.turn("limited.test").await.expect_err("it is stored");
    }

    #[tokio::test]
    async fn limits_that_cannot_be_read_are_reported_once_and_hold_up_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = crate::storage::FileStorage::new(directory.path());
        let bench = Bench::on(Arc::new(storage), 10, 10);
        let place = keys::limits(&bench.ca.key).expect("a key");
        let path = directory.path().join(place.as_str());
        // A link to itself cannot be read, whoever tries.
        std::fs::create_dir_all(directory.path().join("limits")).expect("made");
        std::os::unix::fs::symlink(&path, &path).expect("made");
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || to.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        for name in ["a.test", "b.test", "c.test"] {
            bench.turn(name).await.expect("nobody is held up");
        }
        let told = log.text();
        assert_eq!(told.matches("ERROR").count(), 1, "{told}");
        assert!(told.contains("cannot be read"), "{told}");
        assert!(told.contains(&*path.to_string_lossy()), "{told}");
        std::fs::remove_file(&path).expect("removed");
        bench.turn("d.test").await.expect("nobody is held up");
        drop(guard);
        let told = log.text();
        assert!(told.contains("can be read again"), "{told}");
    }

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock_unpoisoned()).into_owned()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock_unpoisoned().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Each instance reads, adds and writes: nothing of the others is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn instances_that_store_at_once_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let storage =
            || -> Arc<dyn Storage> { Arc::new(crate::storage::FileStorage::new(directory.path())) };
        let instances: Vec<_> = (0..8).map(|_| Bench::on(storage(), 10, 10)).collect();
        let meet = instances
            .iter()
            .enumerate()
            .map(|(index, bench)| async move {
                for part in 0..4 {
                    let domain = format!("{index}-{part}.test");
                    bench.limited(Some(&domain)).await;
                }
            });
        futures::future::join_all(meet).await;
        let reader = Bench::on(storage(), 10, 10);
        reader
            .limits
            .reload_stored(&reader.ca, &reader.config)
            .await;
        assert_eq!(
            reader.limits.all_waits(&reader.ca, &reader.config).len(),
            32
        );
    }
}
