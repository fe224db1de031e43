//! `health`, `eject` and `keepalive` of an upstream.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::context::Context;
use crate::config::model::{Eject, HealthCheck, KeepAlive, Probe, Protocol, StatusSet};
use crate::config::problem::At;
use crate::config::schema;

const HOUR: Duration = Duration::from_secs(3600);

/// The shortest time between two checks, and for one of them.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn health(
    ctx: &mut Context<'_>,
    raw: &schema::Health,
    protocol: Protocol,
    at: &At<'_>,
) -> HealthCheck {
    let probe = match &raw.grpc {
        Some(service) => {
            refuse_with(ctx, at, "grpc", &["path", "status", "tcp"]);
            check_host(ctx, raw, at);
            if protocol == Protocol::Http1 {
                let at = at.key("grpc").at_key();
                let message = "a check over gRPC needs HTTP/2";
                let hint = "give the upstream 'protocol: h2'";
                ctx.problems.error(&at, message, hint);
            }
            Probe::Grpc {
                service: service.clone(),
                host: raw.host.clone(),
            }
        }
        None if raw.tcp => {
            refuse_with(ctx, at, "tcp", &["path", "status", "host"]);
            Probe::Tcp
        }
        None => http_probe(ctx, raw, at),
    };
    HealthCheck {
        probe,
        every: ctx.duration(&at.key("every"), &raw.every, SHORTEST, HOUR),
        timeout: ctx.duration(&at.key("timeout"), &raw.timeout, SHORTEST, HOUR),
        healthy: u32::try_from(raw.healthy).unwrap_or(1),
        unhealthy: u32::try_from(raw.unhealthy).unwrap_or(1),
    }
}

/// Refuses keys that have no meaning with another one.
fn refuse_with(ctx: &mut Context<'_>, at: &At<'_>, with: &str, keys: &[&str]) {
    for key in keys {
        let at = at.key(key);
        if at.is_written() {
            let message = format!("'{key}' has no meaning with '{with}'");
            let hint = format!("remove '{key}', or remove '{with}' to send a request");
            ctx.problems.error(&at.at_key(), message, hint);
        }
    }
}

fn http_probe(ctx: &mut Context<'_>, raw: &schema::Health, at: &At<'_>) -> Probe {
    let path = at.key("path");
    let good = raw.path.starts_with('/') && raw.path.bytes().all(|one| one.is_ascii_graphic());
    if !good {
        let message = format!("{} is not a path to request", path.quoted());
        let hint = "begin it with '/' and write anything but printable ASCII as %XX";
        ctx.problems.error(&path, message, hint);
    }
    let hint = "write codes and ranges from 200 to 599, such as 200-399 or 200,204";
    let status = status_list(ctx, &raw.status, hint, &at.key("status"));
    check_host(ctx, raw, at);
    Probe::Http {
        path: raw.path.clone(),
        host: raw.host.clone(),
        status,
    }
}

fn check_host(ctx: &mut Context<'_>, raw: &schema::Health, at: &At<'_>) {
    if let Some(host) = &raw.host
        && !is_authority(host)
    {
        let at = at.key("host");
        let message = format!("{} is not a host", at.quoted());
        let hint = "write a name or an address, with a port if needed, such as app.internal";
        ctx.problems.error(&at, message, hint);
    }
}

/// Whether a text may be the value of `Host`.
fn is_authority(text: &str) -> bool {
    let authority = text.parse::<http::uri::Authority>();
    authority.is_ok_and(|authority| !authority.host().is_empty() && !text.contains('@'))
}

/// The statuses that `text` lists; none, and an error with this hint, if it is no list.
fn status_list(
    ctx: &mut Context<'_>,
    text: &str,
    hint: &str,
    at: &At<'_>,
) -> Vec<RangeInclusive<u16>> {
    let statuses = statuses(text);
    if statuses.is_none() {
        let message = format!("{} is not a list of statuses", at.quoted());
        ctx.problems.error(at, message, hint);
    }
    statuses.unwrap_or_default()
}

/// Codes and ranges of final responses, separated by commas.
fn statuses(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let code = |text: &str| {
        let text = text.trim();
        let is_code = text.len() == 3 && text.bytes().all(|one| one.is_ascii_digit());
        let code = is_code.then(|| text.parse::<u16>().ok()).flatten();
        code.filter(|code| (200..=599).contains(code))
    };
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (code(first)?, code(last)?);
            (first <= last).then_some(first..=last)
        })
        .collect()
}

pub(super) fn eject(ctx: &mut Context<'_>, raw: &schema::Eject, at: &At<'_>) -> Eject {
    let hint = "write codes and ranges from 200 to 599, such as 500-599 or 500,502-504";
    let statuses = status_list(ctx, &raw.status, hint, &at.key("status"));
    let sets = statuses
        .iter()
        .map(|range| StatusSet::range(*range.start(), *range.end()));
    Eject {
        status: sets.fold(StatusSet::default(), StatusSet::with),
        failures: usize::try_from(raw.failures).unwrap_or(1),
        within: ctx.duration(&at.key("within"), &raw.within, SHORTEST, HOUR),
        time: ctx.duration(&at.key("for"), &raw.time, SHORTEST, HOUR),
    }
}

pub(super) fn keepalive(ctx: &mut Context<'_>, raw: &schema::KeepAlive, at: &At<'_>) -> KeepAlive {
    KeepAlive {
        connections: usize::try_from(raw.connections).unwrap_or(usize::MAX),
        idle: ctx.duration(&at.key("idle"), &raw.idle, SHORTEST, HOUR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_codes_and_ranges() {
        assert_eq!(statuses("200-399"), Some(vec![200..=399]));
        assert_eq!(statuses("204"), Some(vec![204..=204]));
        assert_eq!(
            statuses("200, 204,401-403"),
            Some(vec![200..=200, 204..=204, 401..=403])
        );
        for bad in [
            "", "2xx", "399-200", "100-199", "200-", "-200", "200,", "1000", "+20",
        ] {
            assert_eq!(statuses(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_host_may_have_a_port() {
        for good in ["app.internal", "app.internal:8080", "10.0.0.1", "[::1]:80"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["", "a b", "http://a", "user@a", "a/b", ":80"] {
            assert!(!is_authority(bad), "{bad}");
        }
    }
}
