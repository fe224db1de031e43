//! `snigate check --explain`: where a request would lead, and why.

mod effects;
mod guards;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use self::effects::Effects;
use super::failure::Failure;
use super::output::Output;
use crate::config;
use crate::config::model::{Action, Config, ListenAddress, Origin, Route, Site, TunnelKind};
use crate::metrics::Metrics;
use crate::printable::{self, Printable as _};
use crate::proxy::{Answer, Explanation, Question, Reason, SiteTable};

/// A request on the command line: `METHOD URL`, or a URL for GET.
#[derive(Clone, Debug)]
pub(super) struct RequestLine {
    method: String,
    url: String,
    is_tls: bool,
    authority: String,
    target: String,
}

impl FromStr for RequestLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (method, url) = text.split_once(' ').unwrap_or(("GET", text));
        let url = url.trim_start();
        if Method::from_bytes(method.as_bytes()).is_err() {
            return Err(format!("{method:?} is not a method"));
        }
        let (is_tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("the URL begins with https:// or http://".to_owned()),
        };
        if !rest.bytes().all(|octet| octet.is_ascii_graphic()) || rest.contains('#') {
            let why = "write spaces, '#' and characters beyond ASCII in percent-encoding";
            return Err(why.to_owned());
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(at).unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err("the URL has no host".to_owned());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            method: method.to_owned(),
            url: url.to_owned(),
            is_tls,
            authority: authority.to_owned(),
            target: format!("{slash}{target}"),
        })
    }
}

/// A header field on the command line: `NAME: VALUE`.
#[derive(Clone, Debug)]
pub(super) struct Field(HeaderName, HeaderValue);

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
        let name = HeaderName::from_str(name).map_err(|_| "the name is malformed")?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| "the value is malformed")?;
        Ok(Self(name, value))
    }
}

impl RequestLine {
    /// The request with these fields.
    pub(super) fn question(&self, fields: Vec<Field>, place: Option<ListenAddress>) -> Question {
        let mut map = HeaderMap::new();
        for Field(name, value) in fields {
            map.append(name, value);
        }
        Question {
            method: self.method.clone(),
            is_tls: self.is_tls,
            authority: self.authority.clone(),
            target: self.target.clone(),
            fields: map,
            place,
        }
    }
}

/// Where a request leads, with the places of what is named.
pub(super) struct Explained {
    explanation: Explanation,
    /// The first host of the site, and where the site stands.
    site: Option<(Arc<str>, Origin)>,
    /// The routes of the site in the order in which they are tried, and where they stand.
    routes: Vec<(Route, Origin)>,
    effects: Effects,
}

impl Explained {
    /// The route that wins.
    fn winner(&self) -> Option<&(Route, Origin)> {
        match self.explanation.answer {
            Answer::Route(index) | Answer::Maintenance(Some(index)) => self.routes.get(index),
            Answer::Maintenance(None)
            | Answer::RedirectToTls { .. }
            | Answer::Tunnel(..)
            | Answer::Error(..) => None,
        }
    }

    /// The routes that were tried and are not the one, and why.
    fn others(&self) -> impl Iterator<Item = (&Route, &Origin, &[Reason])> {
        let all = self.routes.iter().zip(&self.explanation.routes);
        all.filter(|(_, reasons)| !reasons.is_empty())
            .map(|((route, place), reasons)| (route, place, reasons.as_slice()))
    }
}

/// Routes a request that arrives at the listener `at` as the gateway with this configuration would;
/// `None` if the configuration is invalid.
pub(super) fn explain(
    config: &Path,
    request: &RequestLine,
    fields: Vec<Field>,
    at: Option<&str>,
) -> Result<Option<Explained>, Failure> {
    let Ok((loaded, places)) = config::load_with_places(config) else {
        return Ok(None);
    };
    let config = &loaded.config;
    let place = at.map(|text| find_place(config, text)).transpose()?;
    let question = &request.question(fields, place);
    let metrics = Metrics::new().context("cannot set up the metrics")?;
    let table = SiteTable::build(config, &metrics, None);
    let find = |host: &str| {
        let is_it = |site: &Arc<Site>| {
            let first = site.hosts.first();
            first.is_some_and(|first| first.to_string() == host)
        };
        let is_here = |site: &Arc<Site>| {
            let mut places = site.listen.iter().map(ListenAddress::place);
            is_it(site) && places.any(|place| Some(&place) == question.place.as_ref())
        };
        let is_general = |site: &Arc<Site>| is_it(site) && site.listen.is_empty();
        let position = |wanted: &dyn Fn(&Arc<Site>) -> bool| config.sites.iter().position(wanted);
        position(&is_here).or_else(|| position(&is_general))
    };
    let explanation = table.explain(question, |host| {
        let site = find(host).and_then(|index| config.sites.get(index));
        site.map_or(&[][..], |site| &*site.routes)
    });
    let mut explained = Explained {
        explanation,
        site: None,
        routes: Vec::new(),
        effects: Effects::default(),
    };
    let site = explained.explanation.site.clone().and_then(|host| {
        let index = find(&host)?;
        Some((host, index, config.sites.get(index)?))
    });
    explained.effects = Effects::of(
        (&loaded, &places),
        site.as_ref().map(|(_, index, site)| (*index, &***site)),
        &explained.explanation.answer,
        &question.fields,
    );
    if let Some((host, index, site)) = site {
        explained.site = Some((host, site.origin.clone()));
        let place = |number| places.get(index, number).cloned().unwrap_or_default();
        let routes = site.routes.iter().enumerate();
        explained.routes = routes
            .map(|(number, route)| (route.clone(), place(number)))
            .collect();
    }
    Ok(Some(explained))
}

/// The place of the listener that `text` names.
fn find_place(config: &Config, text: &str) -> Result<ListenAddress, Failure> {
    let server = &config.server;
    let general = server.https.iter().chain(&server.http);
    let all = general.chain(config.sites.iter().flat_map(|site| &site.listen));
    let mut shown = BTreeSet::new();
    for place in all.map(ListenAddress::place) {
        let name = place.to_string();
        // `:443` is all addresses at the port.
        let is_any = place
            .ip()
            .is_some_and(|address| address.ip().is_unspecified());
        let short = name.rsplit_once(':').filter(|_| is_any);
        if name == text || short.is_some_and(|(_, port)| text.strip_prefix(':') == Some(port)) {
            return Ok(place);
        }
        shown.insert(name);
    }
    let shown = Vec::from_iter(shown).join(", ");
    let why = format!(
        "the configuration has no listener at {}; it has {shown}",
        printable::line(text)
    );
    Err(Failure::Usage(why))
}

/// Prints where a request leads.
pub(super) fn print(
    output: &Output,
    request: &RequestLine,
    explained: &Explained,
    json: bool,
) -> Result<(), Failure> {
    if json {
        let report = report(request, explained);
        let mut text = serde_json::to_string_pretty(&report).context("cannot encode the report")?;
        text.push('\n');
        return output.data(text);
    }
    output.data(describe(request, explained))
}

fn describe(request: &RequestLine, explained: &Explained) -> String {
    let mut text = format!("{} {}\n", request.method, request.url);
    let site = match &explained.site {
        Some((host, place)) => format!("{host} ({})", shown(place)),
        None => "none".to_owned(),
    };
    let route = match explained.winner() {
        Some((route, place)) => format!("{} ({})", name(route), shown(place)),
        None => "none".to_owned(),
    };
    let _ = write!(
        text,
        "site:   {site}\nroute:  {route}\nanswer: {}\n",
        answer(explained)
    );
    let served = explained.winner().map(|(route, _)| action(&route.action));
    for (name, line) in explained.effects.lines(served.as_deref()) {
        let _ = writeln!(text, "{name}: {line}");
    }
    let others: Vec<_> = explained.others().collect();
    if !others.is_empty() {
        text.push_str("other routes of the site:\n");
    }
    for (route, place, reasons) in others {
        let reasons: Vec<_> = reasons.iter().map(|reason| &*reason.detail).collect();
        let reasons = reasons.join(", ");
        let _ = writeln!(text, "  {} ({}): {reasons}", name(route), shown(place));
    }
    text
}

fn report(request: &RequestLine, explained: &Explained) -> Value {
    let site = explained.site.as_ref().map(|(host, place)| {
        json!({
            "host": **host,
            "file": place.file,
            "line": place.line,
            "column": place.column,
            "path": place.path,
        })
    });
    let described = |route: &Route, place: &Origin, reasons: &[Reason]| {
        let reason = |reason: &Reason| json!({ "kind": reason.kind, "detail": reason.detail });
        json!({
            "match": name(route),
            "file": place.file,
            "line": place.line,
            "column": place.column,
            "path": place.path,
            "reasons": reasons.iter().map(reason).collect::<Vec<_>>(),
        })
    };
    let winner = explained.winner();
    let route = winner.map(|(route, place)| described(route, place, &[]));
    let others = explained.others();
    let others = others.map(|(route, place, reasons)| described(route, place, reasons));
    let (status, allow) = match &explained.explanation.answer {
        Answer::Route(_) | Answer::Tunnel(..) => (None, None),
        Answer::Maintenance(_) => {
            let maintenance = explained.effects.maintenance.as_ref();
            (maintenance.map(|(one, _)| one.status.as_u16()), None)
        }
        Answer::RedirectToTls { .. } => (Some(308), None),
        Answer::Error(status, _, allow) => (Some(status.as_u16()), allow.clone()),
    };
    json!({
        "request": { "method": request.method, "url": request.url },
        "site": site,
        "route": route,
        "answer": { "text": answer(explained), "status": status, "allow": allow },
        "effects": explained.effects.report(),
        "others": others.collect::<Vec<_>>(),
    })
}

/// How the request is answered.
fn answer(explained: &Explained) -> String {
    match &explained.explanation.answer {
        Answer::Route(_) => match explained.winner() {
            Some((route, _)) => action(&route.action),
            None => "none".to_owned(),
        },
        Answer::Maintenance(_) => match &explained.effects.maintenance {
            Some((maintenance, _)) => format!("{}: maintenance", maintenance.status),
            None => "maintenance".to_owned(),
        },
        Answer::RedirectToTls { url, is_optional } => {
            let unless = match is_optional {
                true => ", unless the host has no certificate",
                false => "",
            };
            format!("308 redirect to {url}{unless}")
        }
        Answer::Tunnel(TunnelKind::PassThrough, upstream) => {
            format!("by a server of the upstream {upstream}: the connection is passed through")
        }
        Answer::Tunnel(TunnelKind::Tcp, upstream) => format!(
            "by a server of the upstream {upstream}: it gets the octets within TLS, whatever they mean"
        ),
        Answer::Error(status, why, None) => format!("{status}: {why}"),
        Answer::Error(status, why, Some(allow)) => format!("{status}: {why} Allow: {allow}"),
    }
}

/// What a route does.
fn action(action: &Action) -> String {
    match action {
        Action::Proxy(proxy) => format!("upstream {}", proxy.upstream.name),
        Action::Redirect { status, .. } => format!("redirect with status {status}"),
        Action::Files(files) => format!("files in {}", files.root.printable()),
        Action::Respond { status, .. } => format!("response with status {status}"),
    }
}

/// What a route is for.
fn name(route: &Route) -> String {
    match &route.conditions {
        None => route.path.to_string(),
        Some(conditions) => format!("{} with {conditions}", route.path),
    }
}

/// `FILE:LINE:COLUMN`.
fn shown(place: &Origin) -> String {
    let file = place.file.printable();
    format!("{file}:{}:{}", place.line, place.column)
}
