//! `on_demand`.

use std::time::Duration;

use super::client::{report_user, roots};
use super::context::Context;
use super::issuer::acme_of;
use super::preset;
use super::references;
use super::value::{FOREVER, MOMENT, url};
use crate::config::model::{Ask, NameQuota, OnDemand, OnDemandLimits};
use crate::config::problem::At;
use crate::config::schema;
use crate::host::Pattern;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Clients give up long before that.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The default limits, which protect the quotas at a CA.
const CA: OnDemandLimits = OnDemandLimits {
    max_wait: Duration::from_secs(20),
    max_waiting: 1024,
    per_minute: 10,
    per_domain: Some(NameQuota {
        names: 50,
        per: HOUR,
    }),
    per_client: Some(NameQuota {
        names: 20,
        per: HOUR,
    }),
};

/// The local CA has no quotas and takes a fraction of a millisecond.
const LOCAL: OnDemandLimits = OnDemandLimits {
    per_minute: 6000,
    per_domain: None,
    per_client: None,
    ..CA
};

pub(super) fn on_demand(ctx: &mut Context<'_>, root: &At<'_>) -> Option<OnDemand> {
    let raw = ctx.raw;
    let on_demand = raw.on_demand.as_ref()?;
    let at = root.key("on_demand");
    let issuer_at = at.key("issuer");
    let issuers = references::issuers(ctx, &issuer_at, on_demand.issuer.as_ref());
    let mut acme = issuers.iter().filter_map(|issuer| acme_of(raw, issuer));
    let public = acme.any(|acme| preset::find_preset(&acme.directory).is_some());
    let has_ca = issuers.iter().any(|issuer| acme_of(raw, issuer).is_some());
    let (allow_at, ask_at) = (at.key("allow"), at.key("ask"));
    if on_demand.allow.is_none() && !allow_at.is_written() && !ask_at.is_written() {
        ctx.problems.error(
            &at,
            "anyone could have certificates issued for any name: there is neither 'allow' nor \
             'ask'",
            "list the names below 'allow:', such as \"*.customers.example.com\", or give the \
             URL of a service in 'ask' that says which names are yours",
        );
    }
    let is_asked = ask_at.is_written();
    let mut allow = Vec::new();
    for (index, name) in on_demand.allow.iter().flatten().enumerate() {
        let at = allow_at.index(index);
        let pattern = ctx.pattern(&at, name);
        if let Some(pattern) = &pattern {
            check_allowed(ctx, &at, pattern, is_asked, has_ca);
        }
        allow.extend(pattern);
    }
    Some(OnDemand {
        issuers,
        public,
        allow,
        ask: on_demand
            .ask
            .as_ref()
            .and_then(|ask| self::ask(ctx, ask, &ask_at)),
        limits: on_demand_limits(ctx, &on_demand.limits, has_ca, &at.key("limits")),
        unused: ctx.duration(&at.key("unused"), &on_demand.unused, HOUR, FOREVER),
    })
}

/// Reports a pattern that lets anyone have certificates.
fn check_allowed(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    pattern: &Pattern,
    is_asked: bool,
    has_ca: bool,
) {
    let whose = match pattern {
        Pattern::Ip(_) => {
            let message = "clients do not send an address as the server name";
            let hint = "list it below 'certificates' or as a host of a site";
            ctx.problems.error(at, message, hint);
            return;
        }
        Pattern::Any => "any name",
        // Everyone can register a name there.
        Pattern::Wildcard(parent) if is_registry(parent.as_str()) => "any domain of a registry",
        Pattern::Exact(_) | Pattern::Wildcard(_) => return,
    };
    if is_asked {
        return;
    }
    let message = format!("anyone can have certificates issued for {whose}");
    if has_ca {
        let hint = "list the names that are yours, or give the URL of a service in 'ask' that \
                    knows them: what others request counts against your limits at the CA";
        ctx.problems.error(at, message, hint);
    } else {
        let hint = "list the names that are yours";
        ctx.problems.warn(at, message, hint);
    }
}

fn ask(ctx: &mut Context<'_>, raw: &schema::Ask, at: &At<'_>) -> Option<Ask> {
    let default = schema::AskService::default();
    let (raw, text, url_at) = match raw {
        schema::Ask::Url(text) => (&default, Some(text), *at),
        schema::Ask::Service(raw) if raw.is_own => (raw, None, *at),
        schema::Ask::Service(raw) => (raw, Some(raw.url.as_ref()?), at.key("url")),
    };
    match text.map(|text| url(text.0.expose())) {
        None => {}
        Some(None) => {
            let message = "this is not a URL of http or https";
            let hint = "write it in full, such as http://127.0.0.1:5555/check";
            ctx.problems.error(&url_at, message, hint);
        }
        Some(Some(url))
            if url
                .authority()
                .is_some_and(|part| part.as_str().contains('@')) =>
        {
            report_user(ctx, &url_at);
        }
        Some(Some(_)) => {}
    }
    let ca_file = raw.ca_file.as_ref();
    Some(Ask {
        url: text.map(|text| text.0.clone()),
        timeout: ctx.duration(&at.key("timeout"), &raw.timeout, MOMENT, LONGEST_WAIT),
        cache_allowed: ctx.duration(
            &at.key("cache_allowed"),
            &raw.cache_allowed,
            Duration::ZERO,
            30 * DAY,
        ),
        cache_refused: ctx.duration(
            &at.key("cache_refused"),
            &raw.cache_refused,
            Duration::ZERO,
            30 * DAY,
        ),
        ca_file: ca_file.map(|file| roots(ctx, &at.key("ca_file"), file)),
    })
}

fn on_demand_limits(
    ctx: &mut Context<'_>,
    raw: &schema::OnDemandLimits,
    has_ca: bool,
    at: &At<'_>,
) -> OnDemandLimits {
    let default = if has_ca { CA } else { LOCAL };
    let number = |raw: u64| u32::try_from(raw).unwrap_or(u32::MAX);
    OnDemandLimits {
        max_wait: ctx.duration(&at.key("max_wait"), &raw.max_wait, MOMENT, LONGEST_WAIT),
        max_waiting: number(raw.max_waiting),
        per_minute: raw.per_minute.map_or(default.per_minute, number),
        per_domain: match &raw.per_domain {
            Some(limit) => name_quota(ctx, limit, &at.key("per_domain")),
            None => default.per_domain,
        },
        per_client: match &raw.per_client {
            Some(limit) => name_quota(ctx, limit, &at.key("per_client")),
            None => default.per_client,
        },
    }
}

fn name_quota(ctx: &mut Context<'_>, raw: &schema::NameLimit, at: &At<'_>) -> Option<NameQuota> {
    let raw = match raw {
        schema::NameLimit::Off(_) => return None,
        schema::NameLimit::Names(raw) => raw,
    };
    Some(NameQuota {
        names: u32::try_from(raw.names).unwrap_or(u32::MAX),
        per: ctx.duration(&at.key("per"), &raw.per, SECOND, 30 * DAY),
    })
}

/// Returns true if domains are registered directly below `name`, as below `com` and `co.uk`.
fn is_registry(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| {
        suffix.typ() == Some(psl::Type::Icann) && suffix.as_bytes() == name.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known() {
        for name in ["com", "co.uk", "org"] {
            assert!(is_registry(name), "{name}");
        }
        // The last is a public suffix, of one owner.
        for name in [
            "example.com",
            "example",
            "localhost",
            "internal",
            "github.io",
        ] {
            assert!(!is_registry(name), "{name}");
        }
    }
}
