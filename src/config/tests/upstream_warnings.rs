//! What upstreams of one site have in common, and addresses that are none.

use super::*;

#[test]
fn cookies_of_one_site_have_different_names() {
    let upstream = |name: &str, cookie: &str| {
        format!("  {name}: {{ servers: [\"a:1\"], sticky: {{ cookie: {cookie} }} }}\n")
    };
    let warnings = |cookie: &str, sites: &str| {
        let upstreams = upstream("one", "id") + &upstream("two", cookie);
        let loaded = accept(&format!("upstreams:\n{upstreams}sites:\n{sites}"));
        let warnings = loaded.warnings.iter();
        warnings.map(ToString::to_string).collect::<Vec<_>>()
    };
    let route = |path: &str, upstream: &str| format!("{{ path: {path}, upstream: {upstream} }}");
    let both = [route("/a", "one"), route("/b", "two"), route("/c", "two")].join(", ");
    let site = |host: &str, routes: &str| {
        format!("  - {{ hosts: [{host}], tls: off, routes: [{routes}] }}\n")
    };
    let same = site("a.example", &both) + &site("b.example", &both);
    let found = warnings("id", &same);
    let [warning] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(warning.contains("upstreams.two.sticky.cookie"), "{warning}");
    assert!(warning.contains("'one'"), "{warning}");
    assert!(warnings("other", &same).is_empty());
    let apart = site("a.example", &route("/", "one")) + &site("b.example", &route("/", "two"));
    assert!(warnings("id", &apart).is_empty());
}

#[test]
fn an_abstract_socket_is_refused() {
    let found = errors(
        "upstreams: { app: { servers: [\"unix:@app\"] } }\n\
         sites: [{ hosts: [a.example], tls: off, upstream: app }]\n",
    );
    let [only] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert!(
        only.contains("upstreams.app.servers[0]") && only.contains("abstract"),
        "{only}"
    );
}
