//! `files` of routes: the resulting model, and what is wrong with it.

use std::sync::Arc;

use super::*;
use crate::config::model::{Action, Files};

fn text(keys: &str) -> String {
    format!("sites: [{{ hosts: [a.example], tls: off, routes: [{{ {keys} }}] }}]\n{REST}")
}

const REST: &str = "upstreams: { app: { servers: [\"a:1\"] } }\n";

fn files(keys: &str) -> (Arc<Files>, Vec<String>) {
    let loaded = accept(&text(keys));
    let Action::Files(files) = &loaded.config.sites[0].routes[0].action else {
        panic!("no files")
    };
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    let about_files = warnings.filter(|warning| warning.contains("files"));
    (Arc::clone(files), about_files.collect())
}

#[test]
fn files_have_defaults() {
    let (files, warnings) = files("files: { root: / }");
    let template = |text: &str| text.parse().unwrap();
    let expected = Files {
        root: "/".into(),
        index: vec!["index.html".into()],
        candidates: vec![template("{path}"), template("{path}/")],
        list: false,
        hidden: false,
        symlinks: false,
    };
    assert_eq!((&*files, &*warnings), (&expected, &[][..]));
    let (all, _) = self::files(
        "strip_prefix: true, files: { root: www, index: [], try: [\"/{host}{path}\", /index.html], \
         list: on, hidden: on, symlinks: on }",
    );
    let expected = Files {
        root: "/base/www".into(),
        index: vec![],
        candidates: vec![template("/{host}{path}"), template("/index.html")],
        list: true,
        hidden: true,
        symlinks: true,
    };
    assert_eq!(*all, expected);
}

#[test]
fn a_root_that_is_not_there_is_warned_of() {
    let (_, warnings) = files("files: { root: nowhere }");
    let [warning] = &*warnings else {
        panic!("{warnings:?}")
    };
    assert!(
        warning.contains("files.root: there is no directory 'nowhere' yet"),
        "{warning}"
    );
}

#[test]
fn faults_of_files() {
    for (keys, key, words) in [
        ("files: {}", "files.root", "missing"),
        (
            "files: { root: \"\" }",
            "files.root",
            "name a file or a directory",
        ),
        (
            "files: { root: /, index: [a/b] }",
            "files.index[0]",
            "not the name of a file",
        ),
        (
            "files: { root: /, index: [\"..\"] }",
            "files.index[0]",
            "not the name of a file",
        ),
        ("files: { root: /, try: [] }", "files.try", "empty"),
        (
            "files: { root: /, try: [a] }",
            "files.try[0]",
            "begin it with '/'",
        ),
        ("files: { root: /, try: [/../a] }", "files.try[0]", "'..'"),
        (
            "files: { root: /, try: [\"{path}{?query}\"] }",
            "files.try[0]",
            "leave out the query",
        ),
        (
            "files: { root: /, try: [\"/a?b\"] }",
            "files.try[0]",
            "leave out the query",
        ),
        (
            "files: { root: / }, upstream: app",
            "",
            "exclude each other",
        ),
        ("files: { root: / }, respond: {}", "", "exclude each other"),
        (
            "files: { root: / }, retries: 1",
            "retries",
            "without 'upstream'",
        ),
        ("files: { root: / }, host: a", "host", "without 'upstream'"),
        (
            "files: { root: /, lists: on }",
            "files.lists",
            "did you mean 'list'?",
        ),
        ("files: { root: /, list: yes }", "files.list", "on"),
        (
            "respond: {}, strip_prefix: true",
            "strip_prefix",
            "without 'upstream'",
        ),
    ] {
        let found = errors(&text(keys));
        let [error] = &*found else {
            panic!("{keys}: {found:?}")
        };
        let path = format!(
            "sites[0].routes[0]{}{key}",
            if key.is_empty() { "" } else { "." }
        );
        assert!(error.contains(&path) && error.contains(words), "{error}");
    }
}
