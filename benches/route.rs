//! What routing one request costs, among 10,000 sites.

#![allow(
    clippy::expect_used,
    reason = "what is measured is made by hand and valid"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, StatusCode};
use snigate::config::model::{Action, Origin, PathMatch, PathRegex, Route, Site, SiteTls};
use snigate::metrics::Metrics;
use snigate::proxy::SiteTable;

fn table(sites: usize) -> SiteTable {
    let respond = |path: PathMatch| Route {
        path,
        conditions: None,
        action: Action::Respond {
            status: StatusCode::OK,
            body: bytes::Bytes::new(),
            content_type: HeaderValue::from_static("text/plain"),
        },
        rewriting: None,
        compression: None,
        maintenance: None,
    };
    let regex = PathRegex::compile("^/u/[0-9]+$").expect("an expression");
    // Some sites have paths of all kinds.
    let paths = |host: &str| -> Vec<PathMatch> {
        if host.ends_with("3.example") {
            let exact = PathMatch::Exact("/v1".into());
            let regex = PathMatch::Regex(regex.clone());
            return vec![exact, "/admin".into(), "/api".into(), regex];
        }
        ["/static/images", "/admin", "/api", "/"]
            .map(PathMatch::from)
            .into()
    };
    let site = |host: String| {
        Arc::new(Site {
            hosts: vec![host.parse().expect("a pattern")],
            tls: SiteTls::Auto(Vec::new()),
            routes: paths(&host).into_iter().map(respond).collect(),
            hsts: None,
            error_pages: None,
            maintenance: None,
            origin: Origin::default(),
        })
    };
    let sites: Vec<_> = (0..sites)
        .map(|n| {
            if n % 10 == 0 {
                format!("*.w{n}.example")
            } else {
                format!("www.s{n}.example")
            }
        })
        .map(site)
        .collect();
    SiteTable::of_sites(&sites, &Metrics::new().expect("metrics"))
}

fn route(criterion: &mut Criterion) {
    let table = table(10_000);
    for (name, host, path) in [
        ("exact", "www.s4711.example", "/api/v1/things"),
        ("upper case", "WWW.S4711.Example.", "/api/v1/things"),
        ("wildcard", "a.w5000.example", "/"),
        ("unknown host", "www.unknown.example", "/"),
        ("exact path", "www.s4713.example", "/v1"),
        ("expression", "www.s4713.example", "/u/4711"),
        ("escaped path", "www.s4711.example", "/%61pi/b%C3%BCcher"),
        ("doubtful path", "www.s4711.example", "/api/./x//y/../z"),
    ] {
        criterion.bench_function(&format!("route/{name}"), |bencher| {
            bencher
                .iter(|| table.has_route(black_box(host.as_bytes()), black_box(path.as_bytes())));
        });
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
