//! What routing one request costs, among ten sites and among 100,000.

#![allow(
    clippy::expect_used,
    reason = "what is measured is made by hand and valid"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, StatusCode};
use snigate::config::model::{
    Action, Origin, PathMatch, PathRegex, Route, RouteRate, Site, SiteLimits, SiteTls,
};
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
        access: None,
        needs_certificate: false,
        rate: RouteRate::OfSite,
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
            listen: Vec::new(),
            https_port: None,
            tls: SiteTls::Auto(Vec::new()),
            tls_policy: None,
            tunnel: None,
            routes: paths(&host).into_iter().map(respond).collect(),
            hsts: None,
            error_pages: None,
            maintenance: None,
            access: None,
            limits: SiteLimits::default(),
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

/// Requests by what leads to their route: the host and the target.
const REQUESTS: [(&str, &str, &str); 8] = [
    ("exact", "www.s1.example", "/api/v1/things"),
    ("upper case", "WWW.S1.Example.", "/api/v1/things"),
    ("wildcard", "a.w0.example", "/"),
    ("unknown host", "www.unknown.example", "/"),
    ("exact path", "www.s3.example", "/v1"),
    ("expression", "www.s3.example", "/u/4711"),
    ("escaped path", "www.s1.example", "/%61pi/b%C3%BCcher"),
    ("doubtful path", "www.s1.example", "/api/./x//y/../z"),
];

fn route(criterion: &mut Criterion) {
    for sites in [10, 100_000] {
        let table = table(sites);
        for (name, host, path) in REQUESTS {
            criterion.bench_function(&format!("route/{sites} sites/{name}"), |bencher| {
                bencher.iter(|| {
                    table.has_route(black_box(host.as_bytes()), black_box(path.as_bytes()))
                });
            });
        }
        // Not always the same one, so that most of what is read is in no cache of the processor.
        let hosts: Vec<String> = (0..sites)
            .filter(|number| number % 10 != 0)
            .map(|number| format!("www.s{number}.example"))
            .collect();
        let mut number = 0;
        criterion.bench_function(&format!("route/{sites} sites/any"), |bencher| {
            bencher.iter(|| {
                number = (number + 7919) % hosts.len();
                let host = hosts.get(number).map_or("", String::as_str);
                table.has_route(black_box(host.as_bytes()), black_box(b"/api/v1/things"))
            });
        });
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
