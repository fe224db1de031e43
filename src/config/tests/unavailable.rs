//! Features that are not there yet: their configuration is checked before it is refused.

use super::*;

/// `KEY | what the message says | what is written`.
const FAULTS: &str = r#"
storage.etcd.endpoints[0] | not the URL of a member | storage: { etcd: { endpoints: ["10.0.0.1:2379"] } }
storage.etcd.endpoints[1] | not the URL of a member | storage: { etcd: { endpoints: ["http://a:1", "https://a/b"] } }
storage.etcd.prefix | does not begin with '/' | storage: { etcd: { endpoints: ["http://a:1"], prefix: snigate } }
storage.etcd.user | 'user' has no meaning without 'password' | storage: { etcd: { endpoints: ["http://a:1"], user: u } }
storage.etcd.key | 'key' has no meaning without 'cert' | storage: { etcd: { endpoints: ["http://a:1"], key: k.pem } }
"#;

const UNAVAILABLE: &str = "not available in this build yet";

#[test]
fn what_comes_later_is_checked_now() {
    for row in FAULTS.trim().lines() {
        let [key, words, fault] = row.splitn(3, '|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        expect(key, words, &format!("{fault}\n{GOOD}"));
    }
}

/// Checks that this has one fault besides the refusal of its feature.
fn expect(key: &str, words: &str, text: &str) {
    let found = errors(text);
    let (refused, faults): (Vec<_>, Vec<_>) =
        found.iter().partition(|error| error.contains(UNAVAILABLE));
    assert!(!refused.is_empty(), "{text}\n{found:#?}");
    let [fault] = faults.as_slice() else {
        panic!("{text}\n{found:#?}")
    };
    let key = format!(": {key}: ");
    assert!(
        fault.contains(&key) && fault.contains(words),
        "{text}\n{fault}"
    );
}

#[test]
fn what_is_right_is_only_refused() {
    let text = "storage: { etcd: { endpoints: [\"https://10.0.0.1:2379\"], user: u, password: p, \
                cert: c, key: k } }";
    let found = errors(&format!("{text}\n{GOOD}"));
    let [only] = found.as_slice() else {
        panic!("{text}\n{found:#?}")
    };
    assert!(only.contains(UNAVAILABLE), "{only}");
}
