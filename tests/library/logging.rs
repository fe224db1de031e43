//! docs/logging.md lists the fields of the access log as they are.

use std::fs;
use std::path::Path;

use snigate::config::model::LogField;

#[test]
fn the_documentation_lists_each_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logging.md");
    let text = fs::read_to_string(path).expect("a file");
    let fields = text.split("## Fields").nth(1).expect("the fields");
    let table = fields.split("\n## ").next().expect("a table");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split('`').nth(1));
    let known = LogField::ALL.map(LogField::name);
    assert_eq!(names.collect::<Vec<_>>(), known);
}
