//! docs/metrics.md lists every metric, as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use snigate::metrics::Metrics;

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(path).expect("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().expect("a name").trim_end_matches('`');
        if !name.starts_with("snigate_") && !name.starts_with("process_") {
            continue;
        }
        let kind = cells.next().expect("a type");
        let labels = cells.next().expect("labels").replace('`', "");
        let meaning = cells.next().unwrap_or_default();
        assert!(meaning.ends_with('.'), "{name}: {meaning}");
        let before = documented.insert(name.to_owned(), (kind.to_owned(), labels));
        assert_eq!(before, None, "{name} is there twice");
    }
    let metrics = Metrics::new().expect("metrics");
    let families = metrics.families().iter();
    let known: BTreeMap<_, _> = families
        .map(|family| {
            let about = (family.kind.as_str().to_owned(), family.labels.join(" "));
            (family.name.to_owned(), about)
        })
        .collect();
    assert_eq!(documented, known);
}
