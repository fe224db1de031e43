//! `snigate check`: everything that is wrong, each thing at its place, in one go.

mod certificates;
mod explain;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Ca, check, check_json};

const SERVER: &str = "server: { https: [\"127.0.0.1:0\"], http: [], admin: off }\n";

/// A directory with this configuration.
fn configured(yaml: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snigate.yaml");
    fs::write(&path, yaml).expect("written");
    (dir, path)
}

/// The errors of a check that must fail, without the path of the configuration.
#[track_caller]
fn refused(path: &Path) -> Vec<String> {
    let printed = check(path);
    assert_eq!(printed.code, Some(3), "{printed:?}");
    assert_eq!(printed.stdout, "", "{printed:?}");
    let prefix = format!("{}:", path.display());
    let errors = printed.stderr.lines();
    errors
        .filter(|line| !line.contains(" warning: "))
        .map(|line| line.strip_prefix(&prefix).unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn what_is_no_yaml_is_refused_at_its_place() {
    for (text, place) in [
        (&b"sites: [\n"[..], "1:9:"),
        (b"sites:\n\t- hosts: [a.example]\n", "2:2:"),
        (b"sites:\n  - hosts: [a.example\n    upstream: app\n", "3:"),
        (b"sites: \"unclosed\n", "1:8:"),
        (b"sites: *nowhere\n", "1:8:"),
        (b"\xff\xfes\0i\0", "1:1:"),
        (
            b"sites: \xc3\x28\n",
            "1:1: the file is not valid UTF-8 in line 1",
        ),
        (b"", "1:1:"),
        (b"- a\n- b\n", "1:1:"),
        (b"\0\0\0", "1:1:"),
    ] {
        let (_dir, path) = configured("");
        fs::write(&path, text).expect("written");
        let lines = refused(&path);
        let shown = String::from_utf8_lossy(text);
        assert!(lines[0].starts_with(place), "{shown:?}: {lines:?}");
        assert_eq!(lines.len(), 1, "{shown:?}: one fault, one line: {lines:?}");
    }
}

#[test]
fn a_tower_of_aliases_is_refused_at_once() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let (_dir, path) = configured(&text);
    let start = std::time::Instant::now();
    assert!(!refused(&path).is_empty());
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn every_mistake_is_told_in_one_go() {
    let (_dir, path) = configured(
        r#"servr: { https: ["127.0.0.1:0"] }
tls: { profile: old, unknown_sni: maybe }
upstreams:
  app: { servers: ["127.0.0.1"], balanse: round_robin }
sites:
  - hosts: [a..example]
    upstream: ap
  - hosts: [b.example]
    tls: letsencrpt
    routes: [{ repond: { status: 200 } }, { path: x, redirect: { to: /y, status: 999 } }]
log: { levle: info }
"#,
    );
    let lines = refused(&path);
    for wanted in [
        "1:1: servr: the key 'servr' is unknown; did you mean 'server'?",
        "2:17: tls.profile: ",
        "2:35: tls.unknown_sni: ",
        "4:20: upstreams.app.servers[0]: ",
        "4:34: upstreams.app.balanse: the key 'balanse' is unknown; did you mean 'balance'?",
        "6:13: sites[0].hosts[0]: ",
        "7:15: sites[0].upstream: ",
        "9:10: sites[1].tls: ",
        "10:16: sites[1].routes[0].repond: the key 'repond' is unknown; did you mean 'respond'?",
        "10:51: sites[1].routes[1].path: ",
        "10:82: sites[1].routes[1].redirect.status: ",
        "11:8: log.levle: the key 'levle' is unknown; did you mean 'level'?",
    ] {
        let found = lines.iter().filter(|line| line.starts_with(wanted)).count();
        assert_eq!(found, 1, "{wanted}\n{lines:#?}");
    }
    assert_eq!(lines.len(), 12, "nothing is reported twice: {lines:#?}");
}

#[test]
fn the_json_says_the_same() {
    let (_dir, path) = configured("sites:\n  - hosts: [a.example]\n    upstraem: app\n");
    let (code, report) = check_json(&path);
    assert_eq!(code, Some(3));
    assert_eq!(report["valid"], false);
    let error = &report["errors"][0];
    assert_eq!(error["file"], path.to_str().expect("text"));
    assert_eq!((&error["line"], &error["column"]), (&3.into(), &5.into()));
    assert_eq!(error["path"], "sites[0].upstraem");
    assert_eq!(error["severity"], "error");
    let hint = error["hint"].as_str().expect("a hint");
    assert!(hint.contains("upstream"), "{hint}");
}

#[test]
fn a_mistake_in_an_included_file_names_that_file() {
    let (dir, path) = configured(&format!("include: [\"sites.d/*.yaml\"]\n{SERVER}"));
    let included = dir.path().join("sites.d");
    fs::create_dir(&included).expect("made");
    let site = |host: &str| {
        format!("sites:\n  - hosts: [{host}]\n    tls: off\n    routes: [{{ respond: {{}} }}]\n")
    };
    fs::write(included.join("a.yaml"), site("a.example")).expect("written");
    assert_eq!(check(&path).code, Some(0), "{:?}", check(&path));

    fs::write(included.join("b.yaml"), site("b..example")).expect("written");
    let lines = refused(&path);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("sites.d/b.yaml:2:13: "), "{lines:?}");

    // A host in two files: both places are named.
    fs::write(included.join("b.yaml"), site("a.example")).expect("written");
    let lines = refused(&path);
    assert!(
        lines[0].contains("a.yaml:2:13") && lines[0].contains("b.yaml:2:13"),
        "{lines:?}"
    );
}

#[test]
fn what_shows_late_is_told_at_its_place_too_and_in_order() {
    let (dir, path) = configured(&format!(
        "{SERVER}include: [more.yaml]\nsites:\n  \
         - {{ hosts: [a.example], routes: [{{ respond: {{}} }}] }}\n"
    ));
    let ca = Ca::new("Root");
    ca.leaf(&["b.example"]).make().write(dir.path(), "b");
    let more = "certificates:\n  - files: { cert: gone.pem, key: b.key }\n  \
                - files: { cert: b.pem, key: b.key }\n\
                tls:\n  default_certificate: c.example\n";
    fs::write(dir.path().join("more.yaml"), more).expect("written");
    let printed = check(&path);
    assert_eq!(printed.code, Some(3), "{printed:?}");
    let lines: Vec<_> = printed.stderr.lines().collect();
    let places = [
        "more.yaml:2:5: certificates[0]",
        "more.yaml:5:24: warning: tls.",
        "4:5: warning: sites[0]",
    ];
    assert_eq!(lines.len(), places.len(), "{lines:#?}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.contains(place), "{place}: {lines:#?}");
    }
}

/// What ships is valid: the files as they are, and with what is commented out too.
#[test]
fn every_shipped_configuration_is_valid() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut seen = 0;
    for file in fs::read_dir(shipped).expect("a directory") {
        let file = file.expect("a file").path();
        if file
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let printed = check(&file);
            assert_eq!(printed.code, Some(0), "{}: {printed:?}", file.display());
            assert_eq!(printed.stderr, "", "{}: no warnings", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 2, "the beginner's and the full one");
}

#[test]
fn a_check_makes_nothing() {
    let (dir, path) = configured(&format!(
        "{SERVER}storage: {{ file: {{ path: ./data }} }}\nissuers: {{ local: {{ local_ca: {{}} }} }}\n\
         sites: [{{ hosts: [a.example], routes: [{{ respond: {{}} }}] }}]\n"
    ));
    assert_eq!(check(&path).code, Some(0));
    let left: Vec<_> = fs::read_dir(dir.path()).expect("a directory").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
