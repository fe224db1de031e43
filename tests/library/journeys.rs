//! The journeys in docs/architecture.md lead through files that exist.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Where the journeys begin; each has a heading of the next level.
const SECTION: &str = "## Journeys";

/// What is shown at least, by the first words of the heading.
const JOURNEYS: [&str; 4] = ["A handshake", "A renewal", "A reload", "A request"];

struct Journey {
    title: String,
    /// In the order in which they are entered, relative to the package.
    files: Vec<String>,
}

#[test]
fn every_file_of_a_journey_exists_and_is_entered_once() {
    let journeys = journeys();
    for title in JOURNEYS {
        let is_shown = journeys.iter().any(|one| one.title.starts_with(title));
        assert!(is_shown, "no journey begins with '{title}'");
    }
    for Journey { title, files } in &journeys {
        assert!(!files.is_empty(), "{title}: no files");
        let mut entered = HashSet::new();
        for file in files {
            let is_source = file.starts_with("src/") && package().join(file).is_file();
            assert!(is_source, "{title}: {file} does not exist");
            assert!(entered.insert(file), "{title}: {file} is entered twice");
        }
    }
}

/// The journeys of the document: headings, each with a numbered list of files in backticks.
fn journeys() -> Vec<Journey> {
    let text = fs::read_to_string(package().join("docs/architecture.md")).expect("the document");
    let (_, section) = text.split_once(SECTION).expect("a section on journeys");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut journeys: Vec<Journey> = Vec::new();
    for line in section.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            let title = title.to_owned();
            let files = Vec::new();
            journeys.push(Journey { title, files });
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let file = line.split('`').nth(1).expect("a file in backticks");
            let journey = journeys.last_mut().expect("a heading above the list");
            journey.files.push(file.to_owned());
        }
    }
    journeys
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
