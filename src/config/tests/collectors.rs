//! Where spans go.

use super::*;

#[test]
fn a_collector_has_a_usual_path() {
    for (endpoint, full) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        (
            "https://collector.example/",
            "https://collector.example/v1/traces",
        ),
        (
            "https://collector.example/otlp?tenant=a",
            "https://collector.example/otlp?tenant=a",
        ),
    ] {
        let text =
            format!("tracing: {{ endpoint: \"{endpoint}\", headers: {{ X-Key: a }} }}\n{GOOD}");
        let tracing = accept(&text).config.tracing.expect("a collector");
        assert_eq!(tracing.endpoint, full);
        assert_eq!(
            (tracing.service.as_str(), tracing.sample),
            ("snigate", 0.01)
        );
        assert_eq!(tracing.headers[0].0, "x-key");
    }
}
