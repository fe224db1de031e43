//! What `check`, `run` and `ca root` say about a configuration.

use super::{VALID, configured, run, stderr, stdout};
use crate::support::{Ca, Gateway};

#[test]
fn a_configuration_that_is_not_there_ends_with_3() {
    let output = run(&["check", "--config", "/nonexistent/snigate.yaml"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).starts_with("/nonexistent/snigate.yaml"),
        "{}",
        stderr(&output)
    );

    let output = run(&["check", "--json", "--config", "/nonexistent/snigate.yaml"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stderr(&output), "");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["valid"], false);
    assert_eq!(report["errors"][0]["file"], "/nonexistent/snigate.yaml");
}

#[test]
fn a_valid_configuration_ends_with_0() {
    let (_dir, path) = configured(VALID);
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with(&format!("{path}: valid (1 site, ")));
    assert_eq!(stderr(&output), "");

    let output = run(&["check", "--json", "--config", &path]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["valid"], true);
    assert_eq!(report["errors"], serde_json::json!([]));
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let yaml = VALID
        .replace("respond", "repond")
        .replace("hosts: [a.localhost]", "hosts: [a..localhost]");
    let (_dir, path) = configured(&yaml);
    for verb in ["check", "run"] {
        let output = run(&[verb, "--config", &path]);
        assert_eq!(output.status.code(), Some(3), "{verb}");
        assert_eq!(stdout(&output), "", "{verb}");
        let said = stderr(&output);
        assert!(said.contains(&format!("{path}:6:13: ")), "{verb}: {said}");
        assert!(said.contains(&format!("{path}:7:16: ")), "{verb}: {said}");
        assert!(said.contains("did you mean 'respond'?"), "{verb}: {said}");
        assert!(!said.contains("panicked"), "{verb}: {said}");
    }
}

#[test]
fn a_certificate_with_another_key_is_told_with_its_file() {
    let (dir, path) = configured(&format!(
        "{VALID}certificates: [{{ files: {{ cert: b.pem, key: b.key }} }}]\n"
    ));
    let ca = Ca::new("Test CA");
    let pair = ca.leaf(&["b.example"]).with_place_of_issuer().make();
    let other = ca.leaf(&["b.example"]).make();
    pair.with_key_of(&other).write(dir.path(), "b");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.starts_with(&format!("{path}:8:")), "{said}");
    assert!(said.contains("b.key"), "{said}");

    // Well, but for an issuer that is missing.
    pair.write(dir.path(), "b");
    let output = run(&["check", "--strict", "--config", &path]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: "), "{}", stderr(&output));
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("1 certificate)"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_root_is_told_to_be_missing_where_it_is() {
    let (_dir, path) = configured(VALID);
    let output = run(&["ca", "root", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert!(said.contains("no root") && said.contains("hint:"), "{said}");

    let (_dir, path) = configured(&VALID.replace("issuers:", "# issuers:"));
    let output = run(&["ca", "root", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no local CA"));

    let two = VALID.replace("issuers: {", "issuers: { second: { local_ca: {} },");
    let (_dir, path) = configured(&two);
    let output = run(&["ca", "root", "--issuer", "third", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("\"third\"") && said.contains("second"),
        "{said}"
    );
}

#[test]
fn a_file_s_name_writes_no_line_of_its_own() {
    let gateway = Gateway::builder();
    let forged = "a\nWARN b.pem";
    std::fs::create_dir(gateway.dir().join("certs")).expect("a directory");
    std::fs::write(gateway.dir().join("certs").join(forged), "broken").expect("a file");
    let mut gateway = gateway
        .config(format!(
            "certificates: [{{ files: {{ cert: {:?} }} }}]\n\
             sites: [{{ hosts: [a.test], tls: off, routes: [{{ respond: {{}} }}] }}]\n",
            format!("certs/{forged}")
        ))
        .spawn();
    gateway.wait_for_log("a\\nWARN b.pem");
    let path = gateway.config.to_str().expect("text").to_owned();
    let checked = stderr(&run(&["check", "--config", &path]));
    gateway.stop();
    assert!(checked.contains("a\\nWARN b.pem"), "{checked}");
    for text in [checked, gateway.log()] {
        assert!(!text.lines().any(|line| line.starts_with("WARN")), "{text}");
    }
}
