//! Malicious texts, and very long ones.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        let list = [alias.as_str(); 10].join(", ");
        let _ = writeln!(bomb, "a{level}: &a{level} [{list}]");
    }
    for (text, words) in [
        (bomb, "anchors and aliases repeat"),
        (format!("a: {}", "[".repeat(100_000)), "nest deeper"),
        (format!("a: {}", "{a: ".repeat(100_000)), "nest deeper"),
        (
            format!("a: {}{}", "[".repeat(65), "]".repeat(65)),
            "nest deeper",
        ),
        (format!("{}a", "- ".repeat(100_000)), "nest deeper"),
        (format!("{}a", "&a ".repeat(1_000)), "not valid YAML"),
    ] {
        let found = errors(&text);
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn a_key_of_several_lines_is_shown_on_one() {
    let diagnostics = refuse("sites: [{ hosts: [a.test], \"b\\n\\e[1mc\": { d: e } }]");
    for diagnostic in &diagnostics.list {
        let line = diagnostic.to_string();
        assert!(!line.contains(['\n', '\u{1b}']), "{line}");
        assert!(!diagnostic.render(false).contains('\u{1b}'));
    }
}

#[test]
fn a_name_of_several_lines_is_suggested_on_one() {
    let diagnostics = refuse(
        "upstreams: { \"b\\n\\e[1mack\": [127.0.0.1:1] }\n\
         sites: [{ hosts: [a.test], tls: off, upstream: \"b\\n\\e[1mackk\" }]",
    );
    let mut shown = diagnostics.list.iter().map(Diagnostic::to_string);
    assert!(shown.any(|line| line.contains("did you mean")));
    for diagnostic in &diagnostics.list {
        let line = diagnostic.to_string();
        assert!(!line.contains(['\n', '\u{1b}']), "{line}");
        assert!(!diagnostic.render(false).contains('\u{1b}'));
    }
}

#[test]
fn very_many_errors_are_cut() {
    let text = format!(
        "sites: [{}]",
        "{ hosts: [\"\"], upstream: x }, ".repeat(5_000)
    );
    let diagnostics = refuse(&text);
    assert_eq!(diagnostics.list.len(), 1_000);
    assert!(diagnostics.to_string().contains("9000 more problems"));
    let text = format!("sites: [{}]", "5, ".repeat(5_000));
    assert_eq!(refuse(&text).list.len(), 1_000);
}

#[test]
fn thousands_of_sites_load_quickly() {
    let mut text = String::from("issuers: { local: { local_ca: } }\nupstreams:\n");
    for number in 0..10_000 {
        let _ = writeln!(text, "  app{number}: {{ servers: [\"127.0.0.1:3000\"] }}");
    }
    text.push_str("sites:\n");
    for number in 0..10_000 {
        let _ = writeln!(
            text,
            "  - hosts: [host{number}.example.com]\n    routes:\n      - {{ path: /a, upstream: app{number} }}\n      - respond: {{ body: \"hello\" }}"
        );
    }
    let start = Instant::now();
    let loaded = accept(&text);
    let took = start.elapsed();
    assert_eq!(loaded.config.sites.len(), 10_000);
    // Far more than needed: this guards against anything quadratic, and measures nothing.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn thousands_of_errors_are_found_quickly() {
    let mut text = String::from("upstreams:\n");
    for number in 0..5_000 {
        let _ = writeln!(text, "  app{number}: {{ servers: [\"127.0.0.1:3000\"] }}");
    }
    text.push_str("sites:\n");
    for number in 0..5_000 {
        let _ = writeln!(
            text,
            "  - {{ hosts: [h{number}.example], upstream: ap{number}p, x: 1 }}"
        );
    }
    let start = Instant::now();
    assert_eq!(refuse(&text).list.len(), 1_000);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// Pieces in combinations that nobody writes.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "sites",
        "hosts",
        "routes",
        "upstream",
        "upstreams",
        "servers",
        "server",
        "tls",
        "issuers",
        "local_ca",
        "acme",
        "directory",
        "staging",
        "email",
        "eab",
        "hmac_key",
        "challenges",
        "dns-01",
        "dns-persist-01",
        "proxy",
        "orders",
        "letsencrypt",
        "https://",
        "ca_file",
        "certificates",
        "names",
        "files",
        "include",
        "on_demand",
        "allow",
        "path",
        "respond",
        "status",
        "redirect",
        "to",
        "limits",
        ":",
        ": ",
        "\n",
        "\n  ",
        "\n- ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "\"",
        "'",
        "*",
        "&a ",
        "*a",
        "!",
        "|",
        ">",
        "#",
        "~",
        "null",
        "off",
        "a.example",
        "*.b.example",
        "127.0.0.1:80",
        "/",
        "5",
        "-1",
        "1e999",
        "30s",
        "${SECRET}",
        "${file:x}",
        "$${",
        "${",
        "\t",
        "ü",
        "\u{feff}",
        "\u{10fff0}",
        "---\n",
        "...\n",
        "? ",
        "<<",
    ];
    prop_oneof![
        9 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = load_text(&text);
    }

    #[test]
    fn no_pieces_make_it_panic(pieces in proptest::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        if let Err(diagnostics) = load_text(&text) {
            prop_assert!(diagnostics.errors().count() > 0);
            let _ = diagnostics.render(true);
            prop_assert!(!diagnostics.to_string().contains("hunter2"));
            prop_assert!(!diagnostics.to_string().contains("report this"), "{}", text);
        }
    }

    #[test]
    fn a_good_file_with_a_piece_missing_does_not_panic(from in 0..2_000_usize, length in 1..30_usize) {
        let good = include_str!("../../../conf/full.yaml");
        let text: String = good.chars().skip(900).enumerate()
            .filter(|(index, _)| !(from..from + length).contains(index))
            .map(|(_, char)| char)
            .collect();
        let _ = load_text(&text);
    }
}

#[test]
fn lines_end_as_yaml_says() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["# a list", "# of hosts", "usr: here", "sites: []", ""].join(end);
        let refused = Loader::new().load_str(&text, Path::new("/a.yaml"));
        let refused = refused.expect_err("there is no such key");
        let unknown = refused.list.iter().find(|one| one.path == "usr");
        let shown = unknown.expect("it is reported").render(false);
        assert!(shown.contains(":3:1"), "{shown}");
        assert!(
            shown.contains("usr: here") && !shown.contains("sites: []"),
            "{shown}"
        );
    }
}
