//! The events of the gateway's certificates, read from its log (`log: { format: json }`).

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Gateway, within};

/// One event.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub level: String,
    pub kind: String,
    pub severity: String,
    pub domain: String,
    pub issuer: Option<String>,
    pub reason: Option<String>,
    pub attempt: Option<u32>,
    /// When the next attempt is made.
    #[serde(default, deserialize_with = "time")]
    pub next: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    pub not_after: Option<Timestamp>,
    pub message: String,
    pub url: Option<String>,
}

impl Event {
    /// Whether it is of this kind and about this domain.
    pub fn is(&self, kind: &str, domain: &str) -> bool {
        self.kind == kind && self.domain == domain
    }
}

impl Gateway {
    /// All events so far, of earlier runs too.
    pub fn events(&self) -> Vec<Event> {
        let log = self.log();
        log.lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line.get("severity").is_some())
            .map(|line| {
                let shown = line.to_string();
                serde_json::from_value(line).unwrap_or_else(|error| panic!("{error}: {shown}"))
            })
            .collect()
    }

    /// How many events there are of this kind about this domain.
    pub fn count(&self, kind: &str, domain: &str) -> usize {
        let events = self.events();
        events.iter().filter(|event| event.is(kind, domain)).count()
    }

    /// Waits for an event that fits, and returns the first.
    #[track_caller]
    pub fn wait_for_event(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        within(super::PATIENCE * 4, &format!("the event {what}"), || {
            let found = self.events().into_iter().find(|event| fits(event));
            assert!(
                found.is_some() || self.is_running(),
                "the gateway has ended"
            );
            found
        })
    }

    /// What `/readyz` waits for; empty where it is ready.
    pub fn waiting(&self) -> Vec<String> {
        let answer = self.ask("GET", "/readyz");
        if answer.status == 200 {
            return Vec::new();
        }
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let parts = body["waiting"].as_object().into_iter().flatten();
        parts
            .filter_map(|(_, reasons)| reasons.as_array())
            .flatten()
            .map(|reason| reason.as_str().expect("a text").to_owned())
            .collect()
    }

    /// Waits until `/readyz` names this host as what is waited for, and returns the reason.
    #[track_caller]
    pub fn wait_until_waiting_for(&self, host: &str) -> String {
        super::wait_for(&format!("/readyz to name {host}"), || {
            assert!(self.is_running(), "the gateway has ended");
            std::net::TcpStream::connect(self.admin).ok()?;
            self.waiting()
                .into_iter()
                .find(|reason| reason.contains(host))
        })
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(Error::custom))
        .transpose()
}
