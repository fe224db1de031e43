//! The house keeps its own order: no module uses one above it, and no file grows beyond what a
//! reader takes in at once.

mod paths;
mod rooms;

use std::fs;
use std::path::{Path, PathBuf};

use self::paths::paths;

/// Every top-level module, from the bottom up. A module uses only those before it.
const LAYERS: [(u8, &[&str]); 5] = [
    (
        1,
        &[
            "clock",
            "lock",
            "machine",
            "memory",
            "parallel",
            "printable",
            "host",
            "field",
            "secret",
            "metrics",
            "readiness",
            "pulse",
            "shutdown",
            "stamp",
            "event",
            "throttle",
            "token_bucket",
            "base64url",
            "http_client",
            "unix_socket",
            "program",
            "jwt",
        ],
    ),
    (
        2,
        &[
            "config",
            "problem",
            "line_queue",
            "access_log",
            "schedule",
            "certificate",
            "storage",
            "trace",
        ],
    ),
    (
        3,
        &[
            "issuer",
            "dns",
            "challenge",
            "acme",
            "local_ca",
            "cert_store",
            "cert_status",
            "cert_files",
            "renewal",
            "on_demand",
            "manager",
            "notify",
        ],
    ),
    (
        4,
        &[
            "tls", "engine", "proxy", "edge", "admin", "service", "reload",
        ],
    ),
    (5, &["builder", "app", "cli", "fuzzing", "main", "lib"]),
];

/// In lines, without the tests at its end; of integration tests, all lines.
const LONGEST_FILE: usize = 400;

#[test]
fn no_module_uses_one_above_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some((layer, place)) = place(&module(&file)) else {
            wrong.push(format!(
                "{}: its module is not in tests/library/layers.rs",
                file.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file");
        for (line, used) in uses(&text) {
            match self::place(&used) {
                Some((_, other)) if other <= place => {}
                Some((above, _)) => wrong.push(format!(
                    "{}:{line}: layer {layer} uses crate::{used} of layer {above}, above it",
                    file.display()
                )),
                // An item of the crate's root.
                None => wrong.push(format!(
                    "{}:{line}: crate::{used} is no module of tests/library/layers.rs",
                    file.display()
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "upward arrows:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_long() {
    let long: Vec<String> = [sources(), rust_files(&package().join("tests"))]
        .concat()
        .iter()
        .filter(|file| !file.ends_with("tests.rs"))
        .map(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            let own = text.split("#[cfg(test)]\nmod tests {").next();
            (file, own.unwrap_or_default().lines().count())
        })
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(file, lines)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(
        long.is_empty(),
        "over {LONGEST_FILE} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "
        //! [`crate::manager`] in a comment is no use.
        use crate::host::HostName;
        use crate::{clock, config::{self, model}, tls::TlsInfo as Info};
        fn f(x: crate::secret::Secret) -> pub(crate) bool { crate::edge::go() } // crate::app
    ";
    let mut found: Vec<String> = uses(text).into_iter().map(|(_, used)| used).collect();
    found.sort();
    assert_eq!(found, ["clock", "config", "edge", "host", "secret", "tls"]);
}

/// A module's layer, and its place in the order of all.
fn place(module: &str) -> Option<(u8, usize)> {
    LAYERS
        .iter()
        .flat_map(|(layer, modules)| modules.iter().map(move |module| (*layer, *module)))
        .enumerate()
        .find(|(_, (_, name))| *name == module)
        .map(|(place, (layer, _))| (layer, place))
}

fn sources() -> Vec<PathBuf> {
    rust_files(&root())
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "there are sources");
    files
}

fn root() -> PathBuf {
    package().join("src")
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The top-level module that a file belongs to.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(root()).expect("a file under src");
    let first = inside.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The top-level modules that code names after `crate::`, with their lines.
fn uses(text: &str) -> Vec<(usize, String)> {
    let paths = paths(text).into_iter();
    let of_crate = paths.filter(|(_, path)| path[0] == "crate");
    let mut used: Vec<_> = of_crate
        .filter_map(|(line, path)| Some((line, path.get(1)?.clone())))
        .collect();
    // A group names a module once for each of its items.
    used.dedup();
    used
}
