//! The table of upstreams: a line for each address of each server.

use crate::admin::{ServerView, UpstreamView};
use crate::cli::output::{Style, clean};

/// The gap between columns.
const GAP: &str = "  ";

const HEADER: [&str; 6] = [
    "UPSTREAM", "SERVER", "ADDRESS", "STATE", "REQUESTS", "WEIGHT",
];

/// The column of the state, which is coloured.
const STATE: usize = 3;

/// The addresses of all servers, in the order of the upstreams, under a header.
pub(super) fn table(views: &[UpstreamView], style: Style) -> String {
    let rows: Vec<[String; 6]> = views
        .iter()
        .flat_map(|view| view.servers.iter().map(|server| row(view, server)))
        .collect();
    let mut widths = HEADER.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = line(&HEADER.map(str::to_owned), widths, |_, cell| {
        style.bold(cell)
    });
    for row in &rows {
        table.push_str(&line(row, widths, |column, cell| match column {
            STATE => state_in_colour(style, cell),
            _ => cell.to_owned(),
        }));
    }
    table
}

fn row(view: &UpstreamView, server: &ServerView) -> [String; 6] {
    let address = match server.address == server.server {
        true => "-".to_owned(),
        false => clean(&server.address),
    };
    let backup = if server.backup { " (backup)" } else { "" };
    [
        clean(&view.name),
        clean(&server.server),
        address,
        clean(&server.state),
        server.requests.to_string(),
        format!("{}{backup}", server.weight),
    ]
}

fn line(row: &[String; 6], widths: [usize; 6], paint: impl Fn(usize, &str) -> String) -> String {
    let mut line = String::new();
    let mut blanks = 0;
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        line.push_str(&" ".repeat(blanks));
        line.push_str(&paint(column, cell));
        blanks = width.saturating_sub(cell.chars().count()) + GAP.len();
    }
    line.push('\n');
    line
}

fn state_in_colour(style: Style, state: &str) -> String {
    match state {
        "up" => style.green(state),
        "drained" => style.cyan(state),
        "avoided" => style.yellow(state),
        _ => style.red(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Output;

    #[test]
    fn each_address_has_a_line() {
        let server = |server: &str, address: &str, state: &str, backup| ServerView {
            server: server.to_owned(),
            address: address.to_owned(),
            state: state.to_owned(),
            weight: 1,
            backup,
            requests: 12,
        };
        let view = UpstreamView {
            name: "app".to_owned(),
            balance: "round_robin".to_owned(),
            servers: vec![
                server("10.0.0.1:80", "10.0.0.1:80", "drained", false),
                server("app.internal:80", "10.0.0.20:80", "up", true),
            ],
        };
        let plain = table(std::slice::from_ref(&view), Output::plain().style());
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(
            lines,
            [
                "UPSTREAM  SERVER           ADDRESS       STATE    REQUESTS  WEIGHT",
                "app       10.0.0.1:80      -             drained  12        1",
                "app       app.internal:80  10.0.0.20:80  up       12        1 (backup)",
            ]
        );
        let coloured = table(&[view], Style::always());
        assert!(
            coloured.contains("\u{1b}[36mdrained\u{1b}[0m"),
            "{coloured}"
        );
    }
}
