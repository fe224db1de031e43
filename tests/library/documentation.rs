//! The code in docs/library.md is the examples' own, the tests that docs/security.md names exist, and
//! docs/operations.md has every event.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn code_in_the_documentation_of_the_library_is_run_by_tests() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(package.join(path)).expect("a file");
    let mut sources: Vec<PathBuf> = vec![
        "src/lib.rs".into(),
        "tests/gateway/embedding/outside/lib.rs".into(),
    ];
    let examples = fs::read_dir(package.join("examples")).expect("a directory");
    sources.extend(examples.map(|entry| entry.expect("an entry").path()));
    let sources: Vec<String> = sources.iter().map(|path| bare(&read(path))).collect();

    let text = read("docs/library.md".as_ref());
    let blocks: Vec<&str> = text
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() > 5, "there is code");
    for block in blocks {
        let code = bare(block);
        let is_there = sources.iter().any(|source| source.contains(&code));
        assert!(is_there, "no example has this:\n{block}");
    }
}

/// Code without blanks, the marks of documentation, and lines that it hides.
fn bare(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.strip_prefix("//!").unwrap_or(line).trim();
        if line.starts_with("# ") { "" } else { line }
    });
    lines
        .flat_map(|line| line.chars().filter(|char| !char.is_whitespace()))
        .collect()
}

/// The tests that docs/security.md names exist.
#[test]
fn each_attack_of_the_documentation_has_its_test() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(package.join("docs/security.md")).expect("a file");
    let attacks = text.split("## Attacks").nth(1).expect("the attacks");
    let rows = attacks.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|row| !row.starts_with("| attack |"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next();
        let tests: Vec<&str> = tests
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        if tests.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        for test in tests {
            count += 1;
            let (module, name) = test.rsplit_once("::").expect("a path");
            let file = format!("tests/gateway/{}.rs", module.replace("::", "/"));
            let code = fs::read_to_string(package.join(&file)).unwrap_or_default();
            if !code.contains(&format!("#[test]\nfn {name}()")) {
                wrong.push(format!("{test} is not in {file}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count} tests");
}

/// docs/operations.md has a row for each kind of event, and one for each thing that can be wrong.
#[test]
fn each_event_and_each_finding_is_in_the_documentation_of_operations() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(package.join("docs/operations.md")).expect("a file");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    let has_row = |name: &str| {
        let begins = format!("| `{name}` |");
        rows.iter().any(|row| row.starts_with(&begins))
    };
    let kinds = snigate::event::EventKind::ALL.iter();
    let missing: Vec<&str> = kinds
        .map(|kind| kind.as_str())
        .chain(
            snigate::certificate::Reason::ALL
                .iter()
                .map(|reason| reason.as_str()),
        )
        .filter(|name| !has_row(name))
        .collect();
    assert_eq!(missing, [""; 0], "no row in docs/operations.md");
    let states = snigate::certificate::finding::STATES.iter();
    let unknown: Vec<_> = states
        .filter(|state| !text.contains(&format!("`{state}`")))
        .collect();
    assert_eq!(unknown, [&""; 0], "not in docs/operations.md");
}
