//! What decides whether a request is served: who is believed about its client, who may have what its
//! route serves, and how many requests are served.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::config::model::{
    Access, Config, ForwardAuth, Jwt, RateKey, RateLimit, Route, RouteRate, Site, TokenKeys,
    TokenPlace,
};
use crate::jwt::Audience;

/// How many ranges of addresses are listed.
const MOST_LISTED: usize = 8;

/// What decides whether a request is served.
#[derive(Default)]
pub(super) struct Guards {
    trusted_proxies: Option<String>,
    access: Option<String>,
    rate_limit: Option<String>,
    max_requests: Option<usize>,
}

impl Guards {
    /// What applies to a request of a site for which a route is, or none.
    pub(super) fn of(config: &Config, site: Option<&Site>, route: Option<&Route>) -> Self {
        let access = match route {
            Some(route) => route.access.as_deref(),
            None => site.and_then(|site| site.access.as_deref()),
        };
        let limits = site.map(|site| &site.limits);
        let of_site = || limits?.rate.as_deref().map(|rate| (rate, "the site's"));
        let rate = match route.map(|route| &route.rate) {
            Some(RouteRate::Own(rate)) => Some((&**rate, "the route's")),
            Some(RouteRate::Off) => None,
            Some(RouteRate::OfSite) | None => of_site(),
        };
        Self {
            trusted_proxies: trusted_proxies(config),
            access: access.map(describe_access).filter(|text| !text.is_empty()),
            rate_limit: rate.map(|(rate, whose)| format!("{}, {whose}", describe_rate(rate))),
            max_requests: limits
                .map(|limits| limits.max_requests)
                .filter(|most| *most > 0),
        }
    }

    /// The lines about them.
    pub(super) fn lines(&self) -> [(&'static str, Option<String>); 4] {
        let most = self.max_requests;
        [
            ("trusted proxies", self.trusted_proxies.clone()),
            ("access", self.access.clone()),
            ("rate limit", self.rate_limit.clone()),
            (
                "requests of the site",
                most.map(|most| format!("{most} at a time")),
            ),
        ]
    }

    /// The same for programs.
    pub(super) fn report(&self) -> Value {
        json!({
            "trusted_proxies": self.trusted_proxies,
            "access": self.access,
            "rate_limit": self.rate_limit,
            "max_requests": self.max_requests,
        })
    }
}

fn list(all: impl IntoIterator<Item = impl Display>, between: &str) -> String {
    let all: Vec<_> = all.into_iter().map(|one| one.to_string()).collect();
    all.join(between)
}

fn trusted_proxies(config: &Config) -> Option<String> {
    let trusted = &config.server.trusted_proxies;
    let ranges = || trusted.ranges();
    let listed = ranges()
        .take(MOST_LISTED)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        });
    let more = match ranges().count().saturating_sub(MOST_LISTED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!trusted.is_empty()).then(|| format!("{}{more}", list(listed, ", ")))
}

/// All that a client has to satisfy.
fn describe_access(access: &Access) -> String {
    let Access {
        allow,
        deny,
        basic_auth,
        jwt,
        forward_auth,
    } = access;
    let networks = |what: &str, networks: &[_]| {
        (!networks.is_empty()).then(|| format!("{what} {}", list(networks, ", ")))
    };
    let all = [
        networks("only clients in", allow),
        networks("no clients in", deny),
        basic_auth
            .as_ref()
            .map(|_| "a name and a password".to_owned()),
        jwt.as_deref().map(describe_jwt),
        forward_auth.as_deref().map(describe_service),
    ];
    list(all.into_iter().flatten(), "; ")
}

fn describe_jwt(jwt: &Jwt) -> String {
    let rules = &jwt.rules;
    let place = match &jwt.place {
        TokenPlace::Authorization => "Authorization".to_owned(),
        TokenPlace::Field(name) => name.to_string(),
        TokenPlace::Cookie(name) => format!("the cookie {name}"),
    };
    let mut text = format!("a token in {place}");
    if !rules.issuers.is_empty() {
        text.push_str(&format!(" of {}", list(&rules.issuers, " or ")));
    }
    match &rules.audience {
        Audience::Any => text.push_str(" for any audience"),
        Audience::Of(own) if own.is_empty() => text.push_str(" for no audience in particular"),
        Audience::Of(own) => text.push_str(&format!(" for {}", list(own, " or "))),
    }
    for (name, values) in &rules.claims {
        text.push_str(&format!(" with {name} {}", list(values, " or ")));
    }
    match &jwt.keys {
        TokenKeys::File(_) => text.push_str(", signed by a key of its file"),
        TokenKeys::Server(server) => {
            text.push_str(&format!(", signed by a key of {}", server.host()))
        }
    }
    text
}

fn describe_service(service: &ForwardAuth) -> String {
    let host = service.url.authority().map_or("-", |of| of.as_str());
    format!("the consent of {host} within {:?}", service.timeout)
}

fn describe_rate(rate: &RateLimit) -> String {
    let by = match &rate.by {
        RateKey::ClientIp => "for each client".to_owned(),
        RateKey::Header(name) => format!("for each value of {name}"),
        RateKey::User => "for each user".to_owned(),
        RateKey::Site => "for all clients together".to_owned(),
    };
    format!(
        "{} requests in {:?}, {} at once, {by}",
        rate.requests, rate.per, rate.burst
    )
}
