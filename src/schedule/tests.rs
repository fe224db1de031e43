//! A year of 10,000 certificates, with everything that happens in one.

mod ca;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use fastrand::Rng;

use self::ca::{ANSWER, Ca, ORDERS};
use super::*;
use crate::clock::{Clock, ManualClock, UnixTime};
use crate::host::Pattern;

const BEGIN: UnixTime = UnixTime::from_secs(1_800_000_000);
const WINDOW: f64 = 1.0 / 3.0;
const CERTIFICATES: u32 = 10_000;

/// How many orders the gateway has in progress at once.
const PARALLEL: usize = 50;

/// When the machine believes a wrong time server: from, to, by how much.
const LEAPS: [(i64, i64, i64); 3] = [
    (150 * DAY, 150 * DAY + 40 * 60, 14 * 365 * DAY),
    (250 * DAY, 250 * DAY + 2 * HOUR, -3 * DAY),
    (300 * DAY, 300 * DAY + 30 * 60, 6 * HOUR),
];

/// One kind of certificates in the table.
struct Kind {
    name: &'static str,
    length: i64,
    /// How many of ten are of this kind, in turns.
    tenths: u32,
    /// The CAs, in the order in which they are asked.
    issuers: &'static [usize],
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "90 days",
        length: 90 * DAY,
        tenths: 6,
        issuers: &[0],
    },
    Kind {
        name: "45 days",
        length: 45 * DAY,
        tenths: 3,
        issuers: &[0],
    },
    // It cannot outlive an outage of over 3 days, so it has two CAs.
    Kind {
        name: "6 days",
        length: 160 * HOUR,
        tenths: 1,
        issuers: &[0, 1],
    },
];

fn kind_of(id: u32) -> usize {
    let mut place = id % 10;
    KINDS
        .iter()
        .position(|kind| {
            let found = place < kind.tenths;
            place = place.saturating_sub(kind.tenths);
            found
        })
        .expect("ten tenths")
}

struct Certificate {
    pattern: Pattern,
    /// As in the storage.
    life: Option<Lifetime>,
    retry: Option<String>,
    /// When its name points elsewhere: from, to.
    astray: (UnixTime, UnixTime),
}

/// What an attempt will have achieved when it ends.
struct Attempt {
    issuer: usize,
    result: Result<Lifetime, Failure>,
}

#[derive(Default)]
struct Report {
    obtained: usize,
    renewed: usize,
    least_left: [Option<i64>; KINDS.len()],
    failures: BTreeMap<FailureClass, usize>,
    attempts_in_outages: HashMap<UnixTime, usize>,
    orders_in_leaps: [usize; LEAPS.len()],
    /// When 99 of 100 were obtained, and when all.
    most_there: i64,
    all_there: i64,
    restarts: usize,
}

/// The gateway and its world. `Process` has what a restart loses.
struct World {
    /// The true time. The machine's is off by `off`.
    clock: ManualClock,
    off: i64,
    rng: Rng,
    cas: Vec<Ca>,
    certificates: Vec<Certificate>,
    report: Report,
}

struct Process {
    /// One for each list of issuers.
    plans: Vec<Plan<u32>>,
    limiters: Vec<Limiter>,
    clock_step: ClockStep,
    attempts: HashMap<u32, Attempt>,
    ends: BinaryHeap<Reverse<(UnixTime, u32)>>,
    /// Until when a plan waits for its CAs, by the machine's clock.
    held: Vec<UnixTime>,
}

fn paces() -> Vec<Pace> {
    let of_the_ca = Pace {
        orders: u32::try_from(ORDERS).expect("small"),
        seconds: 3 * 3600,
    };
    vec![Pace::default(), of_the_ca]
}

fn plan_of(id: u32) -> usize {
    usize::from(KINDS[kind_of(id)].issuers.len() > 1)
}

impl Process {
    /// Starts with what is stored.
    fn start(world: &World, limiters: &[String]) -> Self {
        let now = world.now();
        let mut plans = vec![Plan::new(WINDOW), Plan::new(WINDOW)];
        for (id, certificate) in (0..).zip(&world.certificates) {
            let retry = certificate.retry.as_deref();
            let retry = retry.map(|json| serde_json::from_str(json).expect("as stored"));
            let facts = Facts {
                life: certificate.life,
                retry,
            };
            plans[plan_of(id)].set(id, facts, now);
        }
        let limiters = limiters.iter().map(|json| {
            let mut limiter: Limiter = serde_json::from_str(json).expect("as stored");
            limiter.set_paces(paces());
            limiter
        });
        Self {
            held: vec![UnixTime::MIN; plans.len()],
            plans,
            limiters: limiters.collect(),
            clock_step: ClockStep::default(),
            attempts: HashMap::new(),
            ends: BinaryHeap::new(),
        }
    }

    fn stop(self) -> Vec<String> {
        let json = |limiter| serde_json::to_string(limiter).expect("JSON");
        self.limiters.iter().map(json).collect()
    }

    /// Does what is to be done now.
    fn pass(&mut self, world: &mut World) {
        let (true_now, now) = (world.clock.now(), world.now());
        let steady = u64::try_from(true_now - BEGIN).expect("after the beginning");
        let leap = self.clock_step.measure(now, Duration::from_secs(steady));
        if leap != 0 {
            for limiter in &mut self.limiters {
                limiter.shift_times(leap);
            }
            self.held.fill(UnixTime::MIN);
        }
        while let Some(Reverse((end, id))) = self.ends.peek().copied()
            && end <= true_now
        {
            self.ends.pop();
            self.end(id, world);
        }
        // Short-lived ones first.
        for index in (0..self.plans.len()).rev() {
            if self.held[index] <= now {
                self.begin(index, world);
            }
        }
    }

    /// Begins what is due in one plan.
    fn begin(&mut self, index: usize, world: &mut World) {
        let now = world.now();
        loop {
            let running: usize = self.plans.iter().map(Plan::running).sum();
            let Some(id) = (PARALLEL > running)
                .then(|| self.plans[index].due(now, 1).pop())
                .flatten()
            else {
                return;
            };
            let names = std::slice::from_ref(&world.certificates[id as usize].pattern);
            let mut first_wait: Option<Wait> = None;
            let mut issuers = KINDS[kind_of(id)].issuers.iter();
            let issuer = issuers.find(|issuer| {
                let Err(wait) = self.limiters[**issuer].reserve_order(&Intent::new(names), now)
                else {
                    return true;
                };
                if first_wait
                    .as_ref()
                    .is_none_or(|first| wait.until < first.until)
                {
                    first_wait = Some(wait);
                }
                false
            });
            match (issuer, first_wait) {
                (Some(issuer), _) => {
                    assert!(self.plans[index].mark_running(&id));
                    self.ask(id, *issuer, world);
                }
                (None, Some(wait)) if wait.reason.is_of_names() => {
                    self.plans[index].defer(&id, wait.until);
                }
                (None, wait) => {
                    self.held[index] = wait.expect("there are issuers").until;
                    return;
                }
            }
        }
    }

    fn ask(&mut self, id: u32, issuer: usize, world: &mut World) {
        let result = world.ask(id, issuer);
        let end = world.clock.now() + world.rng.i64(5..ANSWER);
        self.attempts.insert(id, Attempt { issuer, result });
        self.ends.push(Reverse((end, id)));
    }

    fn end(&mut self, id: u32, world: &mut World) {
        let attempt = self.attempts.remove(&id).expect("begun");
        let now = world.now();
        let plan = &mut self.plans[plan_of(id)];
        let result = attempt.result.and_then(|life| {
            life.check_issued(now)?;
            Ok(life)
        });
        match result {
            Ok(life) => {
                world.store(id, life);
                plan.record_success(&id, life, now);
            }
            Err(failure) => {
                let names = std::slice::from_ref(&world.certificates[id as usize].pattern);
                self.limiters[attempt.issuer].record_limit(&failure, &Intent::new(names), now);
                *world.report.failures.entry(failure.class).or_default() += 1;
                // The next issuer, in the same attempt.
                let names = std::slice::from_ref(&world.certificates[id as usize].pattern);
                let mut issuers = KINDS[kind_of(id)].issuers.iter();
                let next = issuers
                    .find(|issuer| {
                        **issuer > attempt.issuer
                            && self.limiters[**issuer]
                                .reserve_order(&Intent::new(names), now)
                                .is_ok()
                    })
                    .copied();
                if let Some(next) = next {
                    return self.ask(id, next, world);
                }
                let issuer = world.cas[attempt.issuer].name;
                let retry = plan.record_failure(&id, &failure, Some(issuer), now, &mut world.rng);
                let retry = retry.map(|retry| serde_json::to_string(&retry).expect("JSON"));
                world.certificates[id as usize].retry = retry;
            }
        }
    }

    /// When there is something to do next, by the true time.
    fn wake(&self, world: &World) -> UnixTime {
        let end = self.ends.peek().map(|Reverse((end, _))| *end);
        let running: usize = self.plans.iter().map(Plan::running).sum();
        let plans = self.plans.iter().zip(&self.held);
        let wake = plans
            .filter(|_| running < PARALLEL)
            .filter_map(|(plan, held)| Some(plan.next_wake()?.max(*held) - world.off))
            .min();
        end.into_iter().chain(wake).min().unwrap_or(UnixTime::MAX)
    }
}

impl World {
    fn new() -> Self {
        let mut rng = Rng::with_seed(2026);
        let day = |day: i64| BEGIN + day * DAY;
        let outages = [
            // While the first ones are obtained, and then when most renewals are due.
            (2 * DAY, HOUR),
            (63 * DAY, 12 * HOUR),
            (123 * DAY, 3 * DAY),
            (186 * DAY, 10 * DAY),
        ]
        .map(|(from, length)| (BEGIN + from, BEGIN + from + length))
        .to_vec();
        let limits = vec![
            (day(1), day(1) + 2 * HOUR, ""),
            (day(40), day(41), ".customer.test"),
            (day(80), day(80) + 5 * HOUR, ""),
            (day(280), day(282), ".customer.test"),
        ];
        let certificates = (0..CERTIFICATES)
            .map(|id| {
                let below = if id % 50 == 7 { "customer" } else { "other" };
                // Short enough to be outlived, and not together with the long outage.
                let from = day(rng.i64(0..170)) + rng.i64(0..DAY);
                let longest = KINDS[kind_of(id)].length / 10;
                let to = if rng.u32(0..50) == 0 {
                    from + rng.i64(HOUR..longest)
                } else {
                    from
                };
                Certificate {
                    pattern: format!("n{id}.{below}.test").parse().expect("a name"),
                    life: None,
                    retry: None,
                    astray: (from, to),
                }
            })
            .collect();
        Self {
            clock: ManualClock::at(BEGIN),
            off: 0,
            rng,
            cas: vec![
                Ca::new("first", outages, limits),
                Ca::new("second", vec![], vec![]),
            ],
            certificates,
            report: Report::default(),
        }
    }

    /// By the machine's clock.
    fn now(&self) -> UnixTime {
        self.clock.now() + self.off
    }

    fn ask(&mut self, id: u32, issuer: usize) -> Result<Lifetime, Failure> {
        let now = self.clock.now();
        let certificate = &self.certificates[id as usize];
        let proven = !(certificate.astray.0..certificate.astray.1).contains(&now);
        let name = certificate.pattern.to_string();
        let ca = &mut self.cas[issuer];
        for (from, to) in &ca.outages {
            if (*from..*to).contains(&now) {
                *self.report.attempts_in_outages.entry(*from).or_default() += 1;
            }
        }
        for (count, (from, to, _)) in self.report.orders_in_leaps.iter_mut().zip(LEAPS) {
            *count += usize::from((BEGIN + from..BEGIN + to).contains(&now));
        }
        let length = KINDS[kind_of(id)].length;
        ca.order(id, &name, length, proven, now, &mut self.rng)
    }

    /// A new certificate: its predecessor must still be valid.
    fn store(&mut self, id: u32, life: Lifetime) {
        let now = self.clock.now();
        let certificate = &mut self.certificates[id as usize];
        certificate.retry = None;
        match certificate.life.replace(life) {
            Some(before) => {
                let left = before.left(now);
                assert!(left > 0, "{} was over at {now}", certificate.pattern);
                let least = &mut self.report.least_left[kind_of(id)];
                *least = Some(least.map_or(left, |least| least.min(left)));
                self.report.renewed += 1;
            }
            None => {
                self.report.obtained += 1;
                let all = self.certificates.len();
                if self.report.obtained * 100 <= all * 99 {
                    self.report.most_there = now - BEGIN;
                }
                self.report.all_there = now - BEGIN;
            }
        }
    }

    /// What happens in any case: restarts, and a clock that is set.
    fn fixed_times() -> Vec<UnixTime> {
        let restarts = (0..37).map(|index| BEGIN + index * 10 * DAY + 7 * HOUR);
        let leaps = LEAPS
            .iter()
            .flat_map(|(from, to, _)| [BEGIN + *from, BEGIN + *to]);
        let end = BEGIN + 365 * DAY;
        let mut times: Vec<_> = restarts.chain(leaps).chain([end]).collect();
        times.sort_unstable();
        times.reverse();
        times
    }

    fn print(&self) {
        let Report {
            obtained,
            renewed,
            least_left,
            failures,
            attempts_in_outages,
            orders_in_leaps,
            most_there,
            all_there,
            restarts,
        } = &self.report;
        let hours = |seconds: i64| format!("{:.1} h", seconds as f64 / 3600.0);
        let mut lines = vec![
            format!("{obtained} certificates obtained, {renewed} renewals, {restarts} restarts"),
            format!(
                "99 of 100 obtained after {}, all after {}, the last of them without proof till then",
                hours(*most_there),
                hours(*all_there)
            ),
        ];
        for (kind, least) in KINDS.iter().zip(least_left) {
            let issuers = kind.issuers.len();
            lines.push(format!(
                "{}: smallest rest at a renewal {}, of {} due; CAs: {issuers}",
                kind.name,
                hours(least.unwrap_or(-1)),
                hours(
                    (kind.length as f64 * if kind.length < 10 * DAY { 0.5 } else { WINDOW }) as i64
                ),
            ));
        }
        lines.push("6 days: outlive an outage of 72 h at most, and so have a second CA".to_owned());
        for ca in &self.cas {
            lines.push(format!(
                "{} CA: {} orders, {} of them limited, at most {} in a day, {} of {ORDERS} in 3 h, {} of 5 failed for a name in 1 h",
                ca.name,
                ca.orders,
                ca.limited,
                ca.most_in_a_day(),
                ca.most_in_3_hours,
                ca.most_failed,
            ));
        }
        for (from, to) in &self.cas[0].outages {
            let attempts = attempts_in_outages.get(from).copied().unwrap_or(0);
            lines.push(format!(
                "outage of {} from day {}: {attempts} attempts",
                hours(*to - *from),
                (*from - BEGIN) / DAY
            ));
        }
        for ((from, to, by), orders) in LEAPS.iter().zip(orders_in_leaps) {
            lines.push(format!(
                "clock off by {} for {} from day {}: {orders} orders",
                hours(*by),
                hours(to - from),
                from / DAY
            ));
        }
        for (class, count) in failures {
            lines.push(format!("failures of class {class:?}: {count}"));
        }
        #[expect(clippy::print_stdout, reason = "the table is what it is for")]
        {
            println!("{}", lines.join("\n"));
        }
    }
}

#[test]
fn a_year_of_ten_thousand_certificates_keeps_all_valid_within_the_limits_of_the_ca() {
    let mut world = World::new();
    let mut fixed = World::fixed_times();
    let empty = vec!["{}".to_owned(); world.cas.len()];
    let mut process = Process::start(&world, &empty);
    while let Some(next) = fixed.last().copied() {
        process.pass(&mut world);
        let now = world.clock.now();
        let wake = process.wake(&world).max(now + 1).min(next);
        world.clock.advance(wake - now);
        if wake < next {
            continue;
        }
        fixed.pop();
        let since = wake - BEGIN;
        let leap = LEAPS
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&since));
        let off = leap.map_or(0, |(_, _, off)| *off);
        if off == world.off && !fixed.is_empty() {
            // Killed: work in progress is lost, with what the CA has issued.
            process = Process::start(&world, &process.stop());
            world.report.restarts += 1;
        }
        world.off = off;
    }
    world.print();

    let now = world.clock.now();
    for certificate in &world.certificates {
        let life = certificate.life.expect("obtained");
        assert!(!life.has_ended(now), "{}", certificate.pattern);
    }
    assert_eq!(world.report.obtained, world.certificates.len());
    assert!(world.report.most_there < 5 * DAY);
    for (kind, least) in KINDS.iter().zip(world.report.least_left) {
        assert!(least > Some(kind.length / 50), "{}: {least:?}", kind.name);
    }
    // One wave that the first response ends, and one at the end of each hour.
    for (orders, leap) in world.report.orders_in_leaps.iter().zip(LEAPS) {
        assert!(*orders <= 100, "{orders} orders in {leap:?}");
    }
}
