//! What applies to a request besides its route: maintenance, error pages, compression and limits, and
//! what decides whether it is served.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::guards::Guards;
use super::shown;
use crate::config::model::{
    Action, Coding, Compression, Config, ErrorKey, Maintenance, Origin, Proxy, Route, Site,
};
use crate::config::{Loaded, RoutePlaces};
use crate::proxy::Answer;

/// What applies to a request.
#[derive(Default)]
pub(super) struct Effects {
    /// The maintenance that keeps the request from its route, and where it stands.
    pub(super) maintenance: Option<(Arc<Maintenance>, Origin)>,
    error_page: Option<String>,
    compression: Option<Arc<Compression>>,
    limits: Option<String>,
    guards: Guards,
}

impl Effects {
    /// What applies to a request with these `fields` that is answered so. `site` is the index of
    /// its site and the site itself, `route` the route that is for it.
    pub(super) fn of(
        (loaded, places): (&Loaded, &RoutePlaces),
        site: Option<(usize, &Site)>,
        answer: &Answer,
        fields: &HeaderMap,
    ) -> Self {
        let config = &loaded.config;
        let index = match answer {
            Answer::Route(index) => Some(*index),
            Answer::Maintenance(index) => *index,
            Answer::RedirectToTls { .. } | Answer::Tunnel(..) | Answer::Error(..) => None,
        };
        let route = index.and_then(|index| site?.1.routes.get(index));
        let maintenance = match (answer, site) {
            (Answer::Maintenance(_), Some((number, site))) => {
                let maintenance = match route {
                    Some(route) => route.maintenance.clone(),
                    None => site.maintenance.clone(),
                };
                let place = places.find_maintenance(number, index).cloned();
                maintenance.map(|one| (one, place.unwrap_or_default()))
            }
            _ => None,
        };
        let error_page = |status| error_page(config, site.map(|(_, site)| site), status, fields);
        Self {
            error_page: match (answer, &maintenance) {
                (Answer::Error(status, ..), _) => Some(error_page(*status)),
                (_, Some((maintenance, _))) => {
                    let accept = accept(fields);
                    Some(match maintenance.has_page_for(accept) {
                        true => "that of the maintenance".to_owned(),
                        false => error_page(maintenance.status),
                    })
                }
                (Answer::Route(_), None) => error_pages(site.map(|(_, site)| site)),
                _ => None,
            },
            maintenance,
            compression: route.and_then(|route| route.compression.clone()),
            limits: route.and_then(|route| limits(config, route)),
            guards: match answer {
                // It comes before what the site asks of its clients.
                Answer::RedirectToTls { .. } => Guards::of(config, None, None),
                _ => Guards::of(config, site.map(|(_, site)| site), route),
            },
        }
    }

    /// The lines about them. `served` is what a request gets that the maintenance does not keep
    /// from its route.
    pub(super) fn lines(&self, served: Option<&str>) -> Vec<(&'static str, String)> {
        let maintenance = self.maintenance.as_ref().map(|(maintenance, place)| {
            let whom = match &*maintenance.allow {
                [] => "for all clients".to_owned(),
                networks => {
                    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                    let served = served.map(|served| format!(", which get: {served}"));
                    let served = served.unwrap_or_default();
                    format!(
                        "for all clients but those in {}{served}",
                        networks.join(", ")
                    )
                }
            };
            format!("{whom} ({})", shown(place))
        });
        let compression = self.compression.as_deref().map(describe_compression);
        let effects = [
            ("maintenance", maintenance),
            ("error page", self.error_page.clone()),
            ("compression", compression),
            ("limits", self.limits.clone()),
        ];
        let all = effects.into_iter().chain(self.guards.lines());
        all.filter_map(|(name, text)| Some((name, text?))).collect()
    }

    /// The same for programs.
    pub(super) fn report(&self) -> Value {
        let maintenance = self.maintenance.as_ref().map(|(maintenance, place)| {
            let allow = maintenance.allow.iter().map(ToString::to_string);
            json!({
                "status": maintenance.status.as_u16(),
                "allow": allow.collect::<Vec<_>>(),
                "file": place.file,
                "line": place.line,
                "column": place.column,
                "path": place.path,
            })
        });
        json!({
            "maintenance": maintenance,
            "error_page": self.error_page,
            "compression": self.compression.as_deref().map(describe_compression),
            "limits": self.limits,
            "guards": self.guards.report(),
        })
    }
}

/// Which page is the one for an error.
fn error_page(
    config: &Config,
    site: Option<&Site>,
    status: StatusCode,
    fields: &HeaderMap,
) -> String {
    let pages = match site {
        Some(site) => site.error_pages.as_ref(),
        None => config.server.error_pages.as_ref(),
    };
    let key = pages.and_then(|pages| pages.find_key(status, accept(fields)));
    key.map_or_else(|| "built in".to_owned(), |key| key.to_string())
}

/// Which pages there are for errors of a site; `None` if all are built in.
fn error_pages(site: Option<&Site>) -> Option<String> {
    let keys = site?.error_pages.as_ref()?.keys();
    let keys: Vec<_> = keys.map(|key: ErrorKey| key.to_string()).collect();
    (!keys.is_empty()).then(|| format!("configured for {}", keys.join(", ")))
}

fn accept(fields: &HeaderMap) -> &[u8] {
    fields.get(ACCEPT).map_or(b"", |value| value.as_bytes())
}

fn describe_compression(compression: &Compression) -> String {
    let codings: Vec<_> = compression
        .codings
        .iter()
        .map(|one| Coding::as_str(*one))
        .collect();
    let codings = codings.join(", ");
    format!("{codings} from {} octets", compression.min_size)
}

fn limits(config: &Config, route: &Route) -> Option<String> {
    let Action::Proxy(proxy) = &route.action else {
        return None;
    };
    let Proxy {
        connect_timeout: connect,
        read_timeout: read,
        send_timeout: send,
        ..
    } = proxy;
    let body = match proxy.max_body.unwrap_or(config.server.limits.max_body) {
        0 => "a request body of any size".to_owned(),
        most => format!("a request body of {most} octets"),
    };
    let total = |total: Duration| format!(", {total:?} in total");
    let total = proxy.total_timeout.map(total).unwrap_or_default();
    Some(format!(
        "{body}; {connect:?} to connect, {read:?} to read, {send:?} to send{total}"
    ))
}
