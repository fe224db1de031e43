//! What Prometheus makes of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Busy, TRACE};
use crate::support::{Prometheus, promtool, wait_for};

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// The expressions of all panels, with values for their variables.
fn panels() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("conf/grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions = targets.flatten().map(|target| {
        let expression = target["expr"].as_str().expect("an expression");
        let expression = expression.replace("$__rate_interval", "1m");
        ["$instance", "$site", "$upstream"]
            .into_iter()
            .fold(expression, |text, variable| text.replace(variable, ".*"))
    });
    expressions.collect()
}

/// The metrics that a text names.
fn metrics_of(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character| !is_part(character))
        .filter(|word| word.starts_with("snigate_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn prometheus_finds_what_panels_and_rules_name() {
    let busy = Busy::start();
    let gateway = &busy.gateway;
    let prometheus = Prometheus::start(gateway.admin, "conf/alerts.yml");
    wait_for("a scrape without an error", || {
        let targets = prometheus.data("/api/v1/targets", &[]);
        let target = &targets["activeTargets"][0];
        (target["health"] == "up" && target["lastError"] == "").then_some(())
    });
    let mut named = metrics_of(&read("conf/alerts.yml"));
    for panel in panels() {
        named.extend(metrics_of(&panel));
    }
    assert!(named.len() > 40, "{named:?}");
    for name in named {
        wait_for(&name, || (prometheus.count(&name) > 0).then_some(()));
    }
    for panel in panels() {
        // An error fails the test.
        prometheus.count(&panel);
    }
    let rules = wait_for("every rule to be evaluated", || {
        let data = prometheus.data("/api/v1/rules", &[]);
        let rules = data["groups"][0]["rules"]
            .as_array()
            .expect("rules")
            .clone();
        let is_evaluated = |rule: &Value| rule["health"] != "unknown";
        rules.iter().all(is_evaluated).then_some(rules)
    });
    assert!(rules.len() > 15);
    for rule in rules {
        assert_eq!(
            (&rule["health"], &rule["lastError"]),
            (&"ok".into(), &Value::Null)
        );
    }
    let histogram = "snigate_request_duration_seconds_bucket";
    let traces = wait_for("an exemplar", || {
        let parameters = [("query", histogram), ("start", "0"), ("end", "9999999999")];
        let series = prometheus.data("/api/v1/query_exemplars", &parameters);
        let first = series.as_array()?.first()?;
        first["exemplars"].as_array().cloned()
    });
    assert_eq!(traces[0]["labels"]["trace_id"], TRACE);
    let said = prometheus.log();
    for wrong in ["Error on ingesting", "exemplar", "duplicate sample"] {
        let lines = said.lines().filter(|line| !line.contains("level=info"));
        let found: Vec<_> = lines.filter(|line| line.contains(wrong)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    let busy = Busy::start();
    let text = busy.gateway.ask("GET", "/metrics").text();
    let (is_content, said) = promtool(&["check", "metrics"], text.as_bytes());
    assert!(is_content, "{said}\n{text}");
}

#[test]
fn alerts_fire_when_they_should() {
    for arguments in [
        &["check", "rules", "conf/alerts.yml"][..],
        &["test", "rules", "tests/alerts_test.yml"],
    ] {
        let (is_content, said) = promtool(arguments, b"");
        assert!(is_content, "{said}");
    }
    let rules: serde_yaml::Value = serde_yaml::from_str(&read("conf/alerts.yml")).expect("YAML");
    let tests = read("tests/alerts_test.yml");
    let document = read("docs/alerts.md");
    for rule in rules["groups"][0]["rules"].as_sequence().expect("rules") {
        let name = rule["alert"].as_str().expect("a name");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
        assert!(document.contains(&format!("\n## {name}\n")), "{name}");
        let annotations = &rule["annotations"];
        let anchor = format!("docs/alerts.md#{}", name.to_lowercase());
        assert_eq!(annotations["runbook_url"].as_str(), Some(&*anchor));
        for part in ["summary", "description"] {
            assert!(annotations[part].is_string(), "{name}: {part}");
        }
        assert!(
            rule["for"].is_string() && rule["labels"]["severity"].is_string(),
            "{name}"
        );
    }
}
