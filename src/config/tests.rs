use super::*;

/// What a text is refused for, one line for each.
fn errors(text: &str) -> Vec<String> {
    match load_str(text, Path::new("/base")) {
        Ok(loaded) => panic!("accepted: {loaded:?}"),
        Err(diagnostics) => diagnostics.errors().map(ToString::to_string).collect(),
    }
}

#[test]
fn all_kinds_of_errors_are_reported_in_one_go() {
    let text = "\
server:
  thread: 4
  grace_period: 30
sites:
  - hosts: [a.example]
    upstream: ap
upstreams:
  app: { servers: [\"127.0.0.1:3000\"] }
";
    assert_eq!(
        errors(text),
        [
            "<text>:2:3: server.thread: the key 'thread' is unknown; did you mean 'threads'?",
            "<text>:3:17: server.grace_period: expected a duration such as 30s, found the number \
             '30'; add a unit: ms, s, m, h or d",
            "<text>:6:15: sites[0].upstream: there is no upstream 'ap'; did you mean 'app'?",
        ]
    );
}

#[test]
fn the_schema_in_conf_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/snigate.schema.json");
    let written = std::fs::read_to_string(path).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert!(
        written == schema(),
        "update it: snigate schema > conf/snigate.schema.json"
    );
}

#[test]
fn the_examples_in_conf_are_accepted_without_a_warning() {
    for name in ["snigate.yaml", "full.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("conf")
            .join(name);
        match load(&path) {
            Ok(loaded) => assert_eq!(loaded.warnings, [], "{name}"),
            Err(diagnostics) => panic!("{}", diagnostics.render(false)),
        }
    }
}
