//! `compress` of sites and routes: the resulting models.

use super::*;
use crate::config::model::{Coding, Compression, CompressionLevel, MediaTypes};

/// How the routes of a site with these keys are compressed, in the order of their paths.
fn compressions(keys: &str) -> Vec<Option<Compression>> {
    let upstreams = match keys.contains("upstream: app") {
        true => "upstreams: { app: { servers: [\"127.0.0.1:1\"] } }\n",
        // One that is not used is warned of.
        false => "",
    };
    let loaded = accept(&format!(
        "{upstreams}sites: [{{ hosts: [a.example], tls: off, {keys} }}]\n"
    ));
    assert_eq!(loaded.warnings, []);
    let routes = loaded.config.sites[0].routes.iter();
    let compression = |route: &model::Route| {
        let compression = route.compression.as_deref();
        compression.cloned()
    };
    routes.map(compression).collect()
}

#[test]
fn responses_are_compressed_only_where_it_is_wanted() {
    for keys in [
        "upstream: app",
        "upstream: app, compress: off",
        "routes: [{ upstream: app }]",
        "routes: [{ upstream: app, compress: off }]",
        "compress: on, routes: [{ upstream: app, compress: off }]",
        "compress: on, routes: [{ respond: {}, compress: off }]",
        "compress: on, routes: [{ redirect: { to: /x } }]",
    ] {
        assert_eq!(compressions(keys), [None], "{keys}");
    }
    let on = compressions("routes: [{ upstream: app, compress: on }]");
    let [Some(default)] = &on[..] else {
        panic!("{on:?}")
    };
    assert_eq!(default.codings, Coding::ALL);
    assert_eq!(default.min_size, 1024);
    assert_eq!(default.level, CompressionLevel::Default);
    assert!(default.covers(b"text/html") && default.covers(b"image/svg+xml"));
    assert!(!default.covers(b"text/event-stream"));
    for keys in [
        "upstream: app, compress: on",
        "upstream: app, compress: {}",
        "compress: on, routes: [{ upstream: app }]",
        "compress: off, routes: [{ upstream: app, compress: { level: default } }]",
        "compress: on, routes: [{ respond: {} }]",
        "routes: [{ respond: {}, compress: on }]",
        "compress: on, routes: [{ files: { root: / } }]",
        "routes: [{ files: { root: / }, compress: on }]",
    ] {
        assert_eq!(compressions(keys), on, "{keys}");
    }
}

#[test]
fn a_route_has_its_own_way_to_compress() {
    let found = compressions(
        "compress: on, routes: [{ path: /a, upstream: app, compress: { algorithms: [gzip], \
         types: [Text/HTML, font/*, \"*+json\"], min_size: 0, level: best } }, { upstream: app }]",
    );
    let own = Compression {
        codings: vec![Coding::Gzip],
        types: vec![
            MediaTypes::Exact("text/html".into()),
            MediaTypes::Main("font/".into()),
            MediaTypes::Suffix("+json".into()),
        ],
        min_size: 0,
        level: CompressionLevel::Best,
    };
    assert_eq!(found[0], Some(own));
    assert!(found[1].is_some() && found[1] != found[0]);
}
