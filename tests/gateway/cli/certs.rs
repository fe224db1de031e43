//! `snigate certs` with certificates in files: listed, shown, never renewed.

use std::process::Output;

use super::{run, stderr, stdout};
use crate::support::{Ca, Gateway};

/// Certificates of a CA, given as files: one of each age.
fn gateway_with_files() -> Gateway {
    let builder = Gateway::builder();
    let ca = Ca::new("Files CA");
    for (name, from, to) in [("soon", -80, 10), ("late", -1, 300)] {
        let names = [&format!("{name}.example")[..], &format!("*.{name}.example")];
        let pair = ca.leaf(&names).valid(from, to).make();
        pair.write(&builder.dir().join("certs"), name);
    }
    builder
        .config(
            r#"
issuers: { local: { local_ca: { name: "Test CA" } } }
certificates: [{ directory: certs }]
sites:
  - hosts: [soon.example, late.example, issued.example]
    routes: [{ respond: { status: 200, body: hello } }]
"#,
        )
        .start()
}

/// The certificates of this gateway.
fn certs(gateway: &Gateway, arguments: &[&str]) -> Output {
    let admin = gateway.admin.to_string();
    run(&[&["certs"], arguments, &["--admin", &admin]].concat())
}

#[test]
fn certificates_are_listed_the_most_urgent_first() {
    let gateway = gateway_with_files();
    let output = certs(&gateway, &["list"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let table = stdout(&output);
    assert!(!table.contains('\x1b'), "colour in a pipe: {table}");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "NAME", "NAMES", "ISSUER", "STATE", "STAPLE", "EXPIRES", "LEFT", "NEXT"
        ]
    );
    let soon = table
        .lines()
        .position(|line| line.starts_with("soon.example"));
    let late = table
        .lines()
        .position(|line| line.starts_with("late.example"));
    let issued = rows.iter().find(|row| row[0] == "issued.example");
    assert!(soon.is_some() && soon < late, "{table}");
    assert_eq!(issued.expect("a row")[2], "local", "{table}");
    let soon = &table.lines().nth(soon.expect("a row")).expect("a row");
    for part in ["+ *.soon.example", "Files CA", "expiring"] {
        assert!(soon.contains(part), "{part}: {soon}");
    }
    // Ten days from when it was made, a moment ago.
    assert!(soon.contains(" 9 d ") || soon.contains(" 10 d "), "{soon}");

    let output = certs(&gateway, &["list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    assert!(!stdout(&output).contains("PRIVATE"));
}

#[test]
fn what_ends_soon_ends_with_4() {
    let gateway = gateway_with_files();
    // The local CA's own live for days, so that only hours tell them apart.
    let output = certs(&gateway, &["list", "--fail-within", "1h"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    for json in [&[][..], &["--json"]] {
        let arguments = [&["list", "--fail-within", "14d"], json].concat();
        let output = certs(&gateway, &arguments);
        assert_eq!(output.status.code(), Some(4));
        assert!(stdout(&output).contains("late.example"), "all are listed");
        let said = stderr(&output);
        assert!(said.contains("soon.example"), "{said}");
        assert!(!said.contains("late.example"), "{said}");
    }
}

#[test]
fn what_is_missing_ends_with_4() {
    let mut gateway = Gateway::builder()
        .config(
            "sites:\n  - hosts: [wanted.example]\n    routes: [{ respond: { status: 200, body: x } }]\n",
        )
        .spawn();
    crate::support::wait_for("the admin interface", || {
        assert!(gateway.exited().is_none(), "{}", gateway.log());
        std::net::TcpStream::connect(gateway.admin).ok()
    });
    let output = certs(&gateway, &["list", "--fail-within", "1s"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stdout(&output).contains("missing"), "{}", stdout(&output));
    assert!(stderr(&output).contains("wanted.example (missing)"));

    let output = certs(&gateway, &["show", "wanted.example"]);
    assert!(stdout(&output).contains("state         missing: "));
    let output = certs(&gateway, &["show", "wanted.example", "--pem"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let output = certs(&gateway, &["obtain", "wanted.example"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no issuer"), "{}", stderr(&output));
}

#[test]
fn a_certificate_is_shown_by_any_of_its_names() {
    let gateway = gateway_with_files();
    let output = certs(&gateway, &["show", "www.Late.example"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    for part in [
        "late.example\n",
        "names         late.example, *.late.example\n",
        "issued by     CN=Files CA\n",
        "certs/late.pem\n",
        " d left)\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let output = certs(&gateway, &["show", "*.late.example", "--pem"]);
    let chain = openssl::x509::X509::stack_from_pem(&output.stdout).expect("PEM");
    assert_eq!(chain.len(), 1);
    assert!(!stdout(&output).contains("PRIVATE"));

    let output = certs(&gateway, &["show", "issued.example", "--json"]);
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(view["source"], "local");
    assert_eq!(view["renewal"]["issuers"][0], "local");
    assert!(view["renewal"]["next"].is_string(), "{view}");
    assert_eq!(
        view["chain"].as_str().map(|pem| pem.contains("BEGIN")),
        Some(true)
    );

    let output = certs(&gateway, &["show", "lat.example"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert!(said.contains("did you mean late.example"), "{said}");
}

#[test]
fn a_certificate_from_a_file_is_not_renewed() {
    let gateway = gateway_with_files();
    for verb in [
        &["renew", "late.example"][..],
        &["renew", "late.example", "--no-wait"],
        &["obtain", "late.example"],
    ] {
        let output = certs(&gateway, verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert_eq!(stdout(&output), "", "{verb:?}");
        let said = stderr(&output);
        assert!(said.contains("late.pem"), "{verb:?}: {said}");
    }
    // What is valid need not be obtained.
    let output = certs(&gateway, &["obtain", "issued.example"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).starts_with("nothing to do"),
        "{}",
        stderr(&output)
    );
}
