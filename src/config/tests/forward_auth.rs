//! Services that are asked whether requests are served.

use std::fs;
use std::sync::Arc;

use super::*;

fn text(site: &str, route: &str) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"10.0.0.1:80\"] }} }}\n\
         sites: [{{ hosts: [a.example], tls: off, {site} routes: [{{ {route} upstream: app }}] }}]\n"
    )
}

#[test]
fn a_service_is_made_once_and_may_be_off_for_a_route() {
    let service = "forward_auth: { url: \"http://10.0.0.9/verify\", copy_headers: [X-User] },";
    let config = accept(&text(service, service)).config;
    let of = |access: &Option<Arc<model::Access>>| {
        access
            .as_ref()
            .and_then(|access| access.forward_auth.clone())
    };
    let site = &config.sites[0];
    let (first, second) = (of(&site.access), of(&site.routes[0].access));
    let (first, second) = (first.expect("a service"), second.expect("a service"));
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.timeout.as_secs(), 5);
    assert_eq!(first.copy_headers[0], "x-user");
    let config = accept(&text(service, "forward_auth: off,")).config;
    assert!(of(&config.sites[0].routes[0].access).is_none());
}

#[test]
fn what_cannot_be_asked_or_copied_is_refused() {
    for (keys, words) in [
        ("url: verify", "'verify' is not a URL of http or https"),
        ("url: \"ftp://a.test/\"", "is not a URL of http or https"),
        ("url: \"http://ann:secret@10.0.0.9/\"", "forward_auth.url"),
        (
            "url: \"http://10.0.0.9/\", ca_file: a.pem",
            "no meaning for a URL of http",
        ),
        (
            "url: \"https://10.0.0.9/\", ca_file: a.pem",
            "cannot be read",
        ),
        (
            "url: \"http://10.0.0.9/\", timeout: 2m",
            "forward_auth.timeout",
        ),
        (
            "url: \"http://10.0.0.9/\", copy_headers: [Host]",
            "copy_headers[0]",
        ),
        (
            "url: \"http://10.0.0.9/\", copy_headers: [A, X_User]",
            "copy_headers[1]",
        ),
        (
            "url: \"http://10.0.0.9/\", copy_headers: [X-Forwarded-For]",
            "only the gateway vouches",
        ),
        (
            "url: \"http://10.0.0.9/\", copy_headers: [Content-Length]",
            "the framing of the body",
        ),
    ] {
        let errors = errors(&text("", &format!("forward_auth: {{ {keys} }},")));
        assert!(
            errors.len() == 1 && errors[0].contains(words),
            "{keys}: {errors:?}"
        );
        assert!(!errors[0].contains("secret"), "{errors:?}");
    }
}

#[test]
fn without_its_roots_a_service_is_never_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snigate.yaml");
    let service = "forward_auth: { url: \"https://10.0.0.9/\", ca_file: none.pem },";
    fs::write(&path, text("", service)).expect("a file");
    let loaded = load_for_start(&path).expect("tolerated");
    assert_eq!(loaded.faults.len(), 1);
    let access = loaded.config.sites[0].routes[0].access.clone();
    let service = access.and_then(|access| access.forward_auth.clone());
    assert!(service.expect("still asked for").client.is_none());
}
