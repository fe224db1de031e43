//! The code in docs/library.md is the examples' own, the tests that docs/security.md names exist,
//! docs/operations.md has every event, and links and names of metrics lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
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

/// Every page of documentation, with its path.
fn pages() -> Vec<(PathBuf, String)> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for directory in ["", "docs", "fuzz", "benches", "certs"] {
        let entries = fs::read_dir(package.join(directory)).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
        pages.extend(paths.map(|path| {
            let text = fs::read_to_string(&path).expect("a file");
            (path, text)
        }));
    }
    assert!(pages.len() > 15);
    pages
}

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<PathBuf, BTreeSet<String>> = pages
        .iter()
        .map(|(path, text)| {
            let headings = prose(text).filter(|line| line.starts_with('#'));
            let path = path.canonicalize().expect("a file");
            (path, headings.map(anchor).collect())
        })
        .collect();
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in &pages {
        let text: Vec<&str> = prose(text).collect();
        let text = text.join("\n");
        for link in text.split("](").skip(1) {
            let link = link.split([')', ' ']).next().unwrap_or_default();
            if link.starts_with("http") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().expect("a directory").join(file),
            };
            let is_good = target.canonicalize().is_ok_and(|target| {
                part.is_empty() || anchors.get(&target).is_some_and(|all| all.contains(part))
            });
            if !is_good {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count} links");
}

/// Every metric that a page, an alert or the dashboard names exists.
#[test]
fn every_metric_of_the_documentation_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let metrics = snigate::metrics::Metrics::new().expect("metrics");
    let known: BTreeSet<&str> = metrics.families().iter().map(|one| one.name).collect();
    let is_known = |name: &str| {
        let stem = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        known.contains(name) || stem.is_some_and(|stem| known.contains(stem))
    };
    let mut texts = pages();
    // It has those that there were, too.
    texts.retain(|(path, _)| !path.ends_with("CHANGELOG.md"));
    for path in ["conf/alerts.yml", "conf/grafana.json"] {
        let path = package.join(path);
        let text = fs::read_to_string(&path).expect("a file");
        texts.push((path, text));
    }
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in &texts {
        let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let words = text.split(|char| !is_part(char));
        for word in
            words.filter(|word| word.starts_with("snigate_") || word.starts_with("process_"))
        {
            // What begins all names.
            if matches!(word, "snigate_" | "process_") {
                continue;
            }
            count += 1;
            if !is_known(word) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 150, "{count} names");
}
