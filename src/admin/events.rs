//! The stream of events (`text/event-stream`): first those that are kept, then each as it happens.
//!
//! A subscriber that reads too slowly loses events and learns how many; nothing waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::list_certificates;
use super::certificate::normal;
use super::connection::{Connection, Streaming};
use super::view::rfc3339;
use super::{AdminState, CertificateView, Problem};
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};
use crate::shutdown::{ShutdownWatch, requested};

/// How many may listen at once: they must not take all connections.
const MAX_SUBSCRIBERS: usize = 32;

/// How often something is sent while nothing happens, so that both sides notice a dead peer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The free places for subscribers.
#[derive(Clone)]
pub(super) struct Subscribers(Arc<Semaphore>);

impl Default for Subscribers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SUBSCRIBERS)))
    }
}

/// One event of `GET /api/v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct EventView {
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    pub kind: EventKind,
    pub severity: Severity,
    /// The first name of the certificate; empty if it concerns none.
    pub domain: String,
    /// The issuer by its name in the configuration.
    pub issuer: Option<String>,
    /// The upstream by its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<String>,
    /// The address of the upstream's server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// What is wrong with a served certificate, or why the health check of the server failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// When the next attempt is made.
    #[serde(with = "rfc3339::option")]
    pub next: Option<UnixTime>,
    /// Until when the certificate is valid.
    #[serde(with = "rfc3339::option")]
    pub not_after: Option<UnixTime>,
    /// What happened, or why, for people.
    pub message: String,
    /// A page of the CA about it.
    pub url: Option<String>,
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        Self {
            at: event.at,
            kind: event.kind,
            severity: event.severity,
            domain: event.domain.clone(),
            issuer: event.issuer.as_deref().map(str::to_owned),
            upstream: event.upstream.as_deref().map(str::to_owned),
            server: event.server.as_deref().map(str::to_owned),
            reason: event.reason.clone(),
            attempt: event.attempt,
            next: event.next,
            not_after: event.not_after,
            message: event.message.clone(),
            url: event.url.clone(),
        }
    }
}

/// What a subscriber asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// A name that the certificates must cover; all events if it is missing.
    domain: Option<String>,
    /// Whether only new events are wanted.
    #[serde(default)]
    live: bool,
}

pub(super) async fn events(
    State(state): State<AdminState>,
    Extension(Subscribers(room)): Extension<Subscribers>,
    Extension(connection): Extension<Connection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) =
        wanted.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let Ok(permit) = room.try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{MAX_SUBSCRIBERS} clients are already listening, which is the maximum; try again \
                 later"
            ),
        ));
    };
    let bus = state.control.events();
    // Subscribed first, so that no event is missed in between.
    let receiver = bus.subscribe();
    let kept = if wanted.live {
        Vec::new()
    } else {
        bus.recent()
    };
    let domains = match wanted.domain {
        Some(domain) => Some(domains(&list_certificates(&state).await?, &domain)),
        None => None,
    };
    let subscriber = Subscriber {
        seen: kept.clone(),
        kept: kept.into(),
        receiver,
        domains,
        shutdown: connection.shutdown(),
        _streaming: connection.streaming(),
        _permit: permit,
    };
    let events = stream::unfold(subscriber, async |mut subscriber| {
        let event = subscriber.next().await?;
        Some((Ok::<_, axum::Error>(event), subscriber))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(events.into_response())
}

/// The names under which events mention the certificates that cover `domain`.
fn domains(views: &[CertificateView], domain: &str) -> Vec<String> {
    let domain = normal(domain);
    let concerned = views.iter().filter(|view| view.covers(&domain));
    let mut domains: Vec<String> = concerned.map(|view| view.name.clone()).collect();
    domains.push(domain);
    domains
}

struct Subscriber {
    /// The kept events that have not been sent yet.
    kept: VecDeque<Arc<Event>>,
    /// The kept events: one that happened just then comes a second time.
    seen: Vec<Arc<Event>>,
    receiver: broadcast::Receiver<Arc<Event>>,
    domains: Option<Vec<String>>,
    shutdown: ShutdownWatch,
    _streaming: Streaming,
    _permit: OwnedSemaphorePermit,
}

impl Subscriber {
    /// The next wanted event; `None` when the gateway ends.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            let event = match self.kept.pop_front() {
                Some(event) => event,
                None => match self.receive().await? {
                    Ok(event) => event,
                    Err(lost) => return Some(lost),
                },
            };
            let wanted = self
                .domains
                .as_ref()
                .is_none_or(|domains| domains.contains(&event.domain));
            if !wanted {
                continue;
            }
            match sse::Event::default().json_data(EventView::from(&*event)) {
                Ok(event) => return Some(event),
                Err(error) => tracing::error!(%error, "cannot encode an event"),
            }
        }
    }

    /// The next event, or a note that some were missed.
    async fn receive(&mut self) -> Option<Result<Arc<Event>, sse::Event>> {
        loop {
            let received = tokio::select! {
                biased;
                () = requested(&mut self.shutdown) => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(event) => match self.seen.iter().position(|seen| Arc::ptr_eq(seen, &event)) {
                    Some(twice) => drop(self.seen.swap_remove(twice)),
                    None => return Some(Ok(event)),
                },
                Err(RecvError::Lagged(lost)) => {
                    let lost = json!({ "lost": lost }).to_string();
                    return Some(Err(sse::Event::default().event("lost").data(lost)));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
