//! The loop that watches all certificates that are served, whoever issued them.
//!
//! It reports each certificate that expires soon, has expired or is not valid yet, whose chain is
//! incomplete, whose keys or signatures are weak, or whose renewal is overdue, and each host that no
//! certificate covers: once for as long as that lasts, and its end. It renews nothing: that is
//! planned elsewhere.

mod pass;
mod report;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use self::pass::Pass;
use self::watch::{News, Watch};
use super::{Engine, LoadPhase, blocking};
use crate::event::{Event, Survey};
use crate::shutdown::{ShutdownWatch, requested};

/// How often certificates are checked if the life of one is counted in minutes.
const OFTEN: Duration = Duration::from_secs(5);

/// How long after a change certificates are checked at the earliest.
const SOON: Duration = Duration::from_secs(1);

/// Changes lead to passes in at most this part of the time.
const SHARE: u32 = 100;

/// The pause between two slices of a pass, in which handshakes have the processor.
const PAUSE: Duration = Duration::from_millis(10);

/// How many events are emitted at once: recipients are to keep up with them.
const AT_ONCE: usize = 100;

/// Runs until the engine stops.
pub(super) async fn run(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    tokio::select! {
        // Until then, a host may lack a certificate that is not loaded yet.
        () = engine.publication.wait_until_loaded(LoadPhase::Done) => {}
        () = requested(&mut stopping) => return,
    }
    let mut watch = Watch::default();
    loop {
        // Before the pass, which finds those that are still served.
        for name in engine.publication.take_revoked() {
            watch.note_revoked(name);
        }
        let Some(pass) = run_pass(&engine, &mut stopping).await else {
            return;
        };
        let found = pass.found.iter();
        let news = watch.update(found.map(|(topic, found)| (topic, found.finding)));
        let (cost, shortest) = (pass.cost, pass.shortest());
        if !emit(&engine, Arc::new(pass), news, &mut stopping).await {
            return;
        }
        engine.events().complete(Survey::Certificates);
        let every = engine.publication.check_every();
        // Often enough for the certificate with the shortest life.
        let pause = shortest.map_or(every, |life| every.min(life / 20).max(OFTEN.min(every)));
        let soonest = SOON.max(cost * SHARE).min(pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed_after(&engine, soonest) => {}
            () = requested(&mut stopping) => return,
        }
    }
}

/// Waits until something has changed, and for at least this long.
async fn changed_after(engine: &Engine, pause: Duration) {
    tokio::time::sleep(pause).await;
    engine.publication.changed().await;
}

/// Goes through all certificates, in slices; `None` if the engine stops.
async fn run_pass(engine: &Arc<Engine>, stopping: &mut ShutdownWatch) -> Option<Pass> {
    let beginning = Arc::clone(engine);
    let mut pass = blocking(move || Pass::begin(&beginning)).await?;
    loop {
        let judging = Arc::clone(engine);
        let is_done;
        (is_done, pass) = blocking(move || {
            let is_done = !pass.run_slice(&judging);
            if is_done {
                pass.show_states(&judging);
            }
            (is_done, pass)
        })
        .await?;
        if is_done {
            let cost = pass.cost;
            tracing::debug!(certificates = pass.len(), ?cost, "checked all certificates");
            return Some(pass);
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = requested(stopping) => return None,
        }
    }
}

/// Emits the events of a pass, some at a time. Whether the engine continues.
async fn emit(
    engine: &Arc<Engine>,
    pass: Arc<Pass>,
    news: News,
    stopping: &mut ShutdownWatch,
) -> bool {
    for over in news.over.chunks(AT_ONCE) {
        for (name, finding) in over {
            engine.events().emit(report::over(name, finding, &pass));
        }
        if !pause(stopping).await {
            return false;
        }
    }
    for begun in news.begun.chunks(AT_ONCE) {
        let (pass, begun) = (Arc::clone(&pass), begun.to_vec());
        // What is said of some is read from their files.
        let events = blocking(move || {
            let found = begun
                .iter()
                .filter_map(|topic| Some((&topic.0, pass.found.get(topic)?)))
                .filter(|(_, found)| !found.is_reported_already());
            found
                .map(|(name, found)| report::begun(name, found, pass.now))
                .collect::<Vec<Event>>()
        });
        for event in events.await.unwrap_or_default() {
            engine.events().emit(event);
        }
        if !pause(stopping).await {
            return false;
        }
    }
    true
}

/// Waits for a moment. Whether the engine continues.
async fn pause(stopping: &mut ShutdownWatch) -> bool {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => true,
        () = requested(stopping) => false,
    }
}

#[cfg(test)]
mod tests;
