//! Configurations in several files.

use std::fs;

use super::*;

fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn load_main(root: &tempfile::TempDir) -> Result<Loaded, Diagnostics> {
    Loader::new()
        .with_environment(&environment)
        .load(&root.path().join("main.yaml"))
}

fn error_lines(root: &tempfile::TempDir) -> Vec<String> {
    let diagnostics = match load_main(root) {
        Ok(loaded) => panic!("accepted: {loaded:?}"),
        Err(diagnostics) => diagnostics,
    };
    let base = format!("{}/", root.path().display());
    let line = |diagnostic: &Diagnostic| diagnostic.to_string().replace(&base, "");
    diagnostics.errors().map(line).collect()
}

#[test]
fn a_file_that_is_far_too_large_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snigate.yaml");
    // It is sparse, so it costs nothing to create.
    let file = fs::File::create(&path).unwrap();
    file.set_len(20 << 20).unwrap();
    let said = load(&path).unwrap_err().to_string();
    assert!(said.contains("larger than 16777216 bytes"), "{said}");
    assert!(said.contains("split it into several files"), "{said}");
}

#[test]
fn files_are_put_together() {
    let root = tree(&[
        ("main.yaml", b"include: [\"sites.d/*.yaml\", extra/more.yaml]\nissuers: { a: { local_ca: } }\nsites:\n"),
        ("sites.d/2.yaml", b"sites: [{ hosts: [two.example], upstream: two }]\nupstreams: { two: { servers: [\"b:2\"] } }"),
        ("sites.d/1.yaml", b"sites: [{ hosts: [one.example], upstream: two }]\n"),
        ("sites.d/.3.yaml", b"not read"),
        ("sites.d/4.yml", b"not read"),
        ("extra/more.yaml", b"include: [deep/*.yaml]\ncertificates: [{ files: { cert: c.pem } }]\nserver: { admin_token: \"${file:token}\" }"),
        ("extra/token", b"hunter2\r\n\n"),
        ("extra/deep/x.yaml", b"sites: [{ hosts: [three.example], tls: a, routes: [{ respond: {} }] }]\n"),
    ]);
    let loaded = load_main(&root).unwrap();
    let hosts: Vec<_> = loaded
        .config
        .sites
        .iter()
        .map(|site| site.hosts[0].to_string())
        .collect();
    assert_eq!(hosts, ["one.example", "two.example", "three.example"]);
    assert_eq!(
        loaded.config.server.admin_token.unwrap().expose(),
        "hunter2"
    );
    let model::CertificateSource::Files { cert, .. } = &loaded.config.certificates[0] else {
        panic!("no files")
    };
    assert_eq!(*cert, root.path().join("extra/c.pem"));
    let origin = &loaded.config.sites[2].origin;
    assert_eq!(*origin.file, root.path().join("extra/deep/x.yaml"));
    assert_eq!((&*origin.path, origin.line), ("sites[2]", 1));
    let files: Vec<_> = loaded
        .files
        .iter()
        .map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        files,
        [
            "extra/deep",
            "extra/deep/x.yaml",
            "extra/more.yaml",
            "extra/token",
            "main.yaml",
            "sites.d",
            "sites.d/1.yaml",
            "sites.d/2.yaml",
        ]
    );
}

#[test]
fn errors_name_the_file_they_are_in() {
    let root = tree(&[
        ("main.yaml", b"include: [\"*.d/*.yaml\"]\nlog: {}\nupstreams: { app: { servers: [\"a:1\"] } }\nsites: [{ hosts: [a.example], upstream: app }]"),
        ("a.d/1.yaml", b"upstreams: { app: { servers: [\"a:1\"] } }\nlog: {}\n"),
        ("b.d/1.yaml", b"sites:\n- { hosts: [a.example], upstream: ap }\n"),
    ]);
    assert_eq!(
        error_lines(&root),
        [
            "a.d/1.yaml:1:14: upstreams.app: the key 'app' is defined twice, first at \
             main.yaml:3:14; keep one of the two",
            "a.d/1.yaml:2:1: log: the key 'log' is defined twice, first at main.yaml:2:1; keep \
             one of the two",
            "b.d/1.yaml:2:13: sites[1].hosts[0]: the host 'a.example' is already in sites[0], at \
             main.yaml:4:19; keep it in one site",
            "b.d/1.yaml:2:35: sites[1].upstream: there is no upstream 'ap'; did you mean 'app'?",
        ]
    );
}

#[test]
fn every_broken_file_is_reported() {
    let root = tree(&[
        (
            "main.yaml",
            b"include: [a.yaml, none.yaml, b.yaml, \"none/*.yaml\", 5x/, [], \"\"]\nsite: []",
        ),
        ("a.yaml", b"sites: ["),
        ("b.yaml", b"\xff\xfea"),
    ]);
    let lines = error_lines(&root);
    let starts = [
        "a.yaml:1:9: this is not valid YAML",
        "main.yaml:1:19: include[1]: the file 'none.yaml' does not exist",
        "main.yaml:1:30: include[2]: the file 'b.yaml' is encoded in UTF-16",
        "main.yaml:1:53: include[4]: the file '5x/' does not exist",
        "main.yaml:1:58: include[5]: expected a path",
        "main.yaml:1:62: include[6]: the path is empty",
        "main.yaml:2:1: site: the key 'site' is unknown; did you mean 'sites'?",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn circles_and_repetitions_of_files_are_refused() {
    let root = tree(&[
        ("main.yaml", b"include: [a.yaml]"),
        ("a.yaml", b"include: [\"*.yaml\", ./b.yaml]"),
        ("b.yaml", b""),
    ]);
    let lines = error_lines(&root);
    assert!(
        lines[0].contains("a.yaml:1:11: include[0]: the file")
            && lines[0].contains("a second time"),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("includes itself")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("a.yaml:1:21: include[1]")),
        "{lines:#?}"
    );
}

#[test]
fn files_that_cannot_be_taken_are_refused_with_the_reason() {
    let root = tree(&[("main.yaml/x", b""), ("bytes.yaml", b"a: b\nc: \xff\n")]);
    for (name, words) in [
        ("main.yaml", "is a directory; name a file in it"),
        ("none.yaml", "does not exist"),
        ("bytes.yaml/x", "does not exist"),
        ("bytes.yaml", "is not valid UTF-8 in line 2"),
    ] {
        let path = root.path().join(name);
        let diagnostics = load(&path).unwrap_err();
        let text = diagnostics.to_string();
        assert!(
            text.starts_with(&format!("{}:1:1: the file", path.display())),
            "{text}"
        );
        assert!(text.contains(words), "{text}");
        assert_eq!(diagnostics.files, [path]);
    }
}

#[test]
fn a_byte_order_mark_and_other_line_ends_are_fine() {
    let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    let root = tree(&[("main.yaml", text.as_bytes())]);
    let loaded = load_main(&root).unwrap();
    assert_eq!(loaded.config.sites[0].origin.line, 3);
}

#[test]
fn a_text_may_include_files_of_its_directory() {
    let root = tree(&[("a.yaml", GOOD.as_bytes())]);
    for include in ["a.yaml", "?.yaml"] {
        let text = format!("include: [\"{include}\"]");
        let loaded = load_str(&text, root.path()).unwrap();
        assert_eq!(
            *loaded.config.sites[0].origin.file,
            root.path().join("a.yaml")
        );
    }
}
