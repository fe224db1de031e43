//! `error_pages` and `maintenance`: what is read, and what is wrong with it.

use std::fs;
use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::config::model::{ErrorPages, Form, Maintenance};

const REST: &str = "upstreams: { app: { servers: [\"a:1\"] } }\n";

/// Loads a text beside the files `a.html`, `b.json` and `large.html`.
fn load_beside_files(text: &str) -> (Result<Loaded, Diagnostics>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("pages")).unwrap();
    for (name, text) in [("a.html", "a {host}"), ("pages/b.json", "{}")] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let large = fs::File::create(directory.path().join("large.html")).unwrap();
    large.set_len((256 << 10) + 1).unwrap();
    (load_str(text, directory.path()), directory)
}

fn site(keys: &str) -> String {
    format!("sites: [{{ hosts: [a.example], tls: off, upstream: app, {keys} }}]\n{REST}")
}

fn types_of(pages: &ErrorPages, status: u16) -> [Option<String>; 2] {
    let status = StatusCode::from_u16(status).unwrap();
    [Form::Html, Form::Json].map(|form| {
        let page = pages.find(status, form)?;
        Some(page.media_type().to_str().unwrap().to_owned())
    })
}

#[test]
fn pages_are_found_by_status() {
    let text = format!(
        "server: {{ error_pages: {{ default: pages/b.json, 404: pages/b.json }} }}\n{}",
        site("error_pages: { 404: a.html, 5xx: { file: [a.html, pages/b.json], upstream: true } }")
    );
    let (loaded, directory) = load_beside_files(&text);
    let loaded = loaded.unwrap();
    let pages = loaded.config.sites[0].error_pages.as_ref().unwrap();
    let html = Some("text/html; charset=utf-8".to_owned());
    let json = Some("application/json".to_owned());
    assert_eq!(types_of(pages, 404), [html.clone(), json.clone()]);
    assert_eq!(types_of(pages, 403), [None, json.clone()]);
    assert_eq!(types_of(pages, 502), [html, json]);
    assert!(pages.has_upstream());
    let server = loaded.config.server.error_pages.as_ref().unwrap();
    assert!(types_of(server, 502)[0].is_none() && !server.has_upstream());
    for name in ["a.html", "pages/b.json"] {
        assert!(
            loaded.files.contains(&directory.path().join(name)),
            "{name}"
        );
    }
}

#[test]
fn pages_that_cannot_be_read_are_refused_at_their_place() {
    for (keys, key, words) in [
        (
            "error_pages: { 404: none.html }",
            "404",
            "'none.html' cannot be read",
        ),
        (
            "error_pages: { 404: large.html }",
            "404",
            "larger than 262144 bytes",
        ),
        ("error_pages: { 404: pages }", "404", "not a regular file"),
        (
            "error_pages: { 4xx: [a.html, none.html] }",
            "4xx[1]",
            "cannot be read",
        ),
        (
            "error_pages: { 4xx: { file: none.html } }",
            "4xx.file",
            "cannot be read",
        ),
        ("error_pages: { 4xx: [] }", "4xx", "name at least one file"),
        (
            "error_pages: { 4xx: { upstream: true } }",
            "4xx.file",
            "missing",
        ),
        (
            "error_pages: { 200: a.html }",
            "200",
            "not a status of errors",
        ),
        ("error_pages: { 3xx: a.html }", "3xx", "4xx, 5xx or default"),
    ] {
        let diagnostics = load_beside_files(&site(keys)).0.unwrap_err();
        let [error] = &*diagnostics.errors().collect::<Vec<_>>() else {
            panic!("{diagnostics}")
        };
        let error = error.to_string();
        let path = format!("sites[0].error_pages.{key}");
        assert!(error.contains(words) && error.contains(&path), "{error}");
    }
}

fn maintenance(keys: &str) -> Option<Maintenance> {
    let (loaded, _directory) = load_beside_files(&site(keys));
    let loaded = loaded.unwrap();
    let site = &loaded.config.sites[0];
    assert_eq!(site.routes[0].maintenance, site.maintenance);
    site.maintenance.as_deref().cloned()
}

#[test]
fn maintenance_is_off_or_says_how() {
    assert_eq!(maintenance("maintenance: off"), None);
    let plain = maintenance("maintenance: on").unwrap();
    assert_eq!(plain.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(plain.retry_after, Duration::from_secs(600));
    assert_eq!((plain.page, plain.allow), (None, vec![]));
    let full =
        "maintenance: { status: 500, file: a.html, retry_after: 1h, allow: [\"10.0.0.0/8\"] }";
    let full = maintenance(full).unwrap();
    assert_eq!(full.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(full.page.is_some());
    assert!(full.admits("10.1.2.3".parse().ok()) && !full.admits(None));
    for (keys, words) in [
        ("{ status: 200 }", "not a status of errors"),
        ("{ file: a.html, body: b }", "exclude each other"),
        ("{ file: none.html }", "cannot be read"),
        ("{ allow: [\"10.0.0.1/8\"] }", "bits beyond its length"),
        ("{ allow: [a] }", "not a network"),
        ("yes", "'on'"),
    ] {
        let text = site(&format!("maintenance: {keys}"));
        let diagnostics = load_beside_files(&text).0.unwrap_err();
        assert_eq!(diagnostics.errors().count(), 1, "{diagnostics}");
        let shown = diagnostics.to_string().replace("one of off, on", "'on'");
        assert!(shown.contains(words), "{shown}");
    }
}
