//! A crate outside of the workspace, which only has what every other program has.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::cargo;
use crate::support::{Origin, Pebble, Port};

/// What the crate does: one test for each thing.
const CODE: &str = include_str!("outside/lib.rs");

/// Its manifest. The profiles and the patch are those of the workspace, so that nothing is built again
/// but what the crate itself needs.
fn manifest(snigate: &Path) -> String {
    let own = fs::read_to_string(snigate.join("Cargo.toml")).expect("our manifest");
    let table = |name: &str| -> String {
        let header = format!("[{name}]\n");
        let from = own.find(&header).unwrap_or_else(|| panic!("no {name}"));
        let rest = &own[from..];
        let end = rest[1..].find("\n[").map_or(rest.len(), |end| end + 2);
        rest[..end].to_owned()
    };
    format!(
        r#"
[package]
name = "outside"
version = "0.1.0"
edition = "2024"

[dependencies]
async-trait = "0.1"
openssl = "0.10"
pingora-core = {{ version = "0.9.1", default-features = false, features = ["openssl"] }}
pingora-proxy = {{ version = "0.9.1", default-features = false, features = ["openssl"] }}
snigate = {{ path = {snigate:?}, features = ["conformance"] }}
tokio = {{ version = "1", features = ["full"] }}
tokio-openssl = "0.6"

# Unused here. They have Cargo choose the same features as in the workspace.
{unused}
{patch}
{dev}
# The package is no dependency there.
[profile.dev.package.snigate]
opt-level = 0
debug = "line-tables-only"

{others}
[workspace]
"#,
        unused = table("dev-dependencies"),
        patch = table("patch.crates-io"),
        dev = table("profile.dev"),
        others = table("profile.dev.package.\"*\""),
    )
}

#[test]
fn a_crate_outside_of_the_workspace_does_all_of_it() {
    let snigate = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("src")).expect("ours");
    fs::write(at("src/lib.rs"), CODE).expect("ours");
    let example = snigate.join("examples/custom_storage.rs");
    fs::copy(example, at("src/custom_storage.rs")).expect("ours");
    fs::write(at("Cargo.toml"), manifest(snigate)).expect("ours");
    fs::copy(snigate.join("Cargo.lock"), at("Cargo.lock")).expect("ours");
    // At the same place as in the workspace, so that it is the same package to cargo.
    std::os::unix::fs::symlink(snigate.join("crates"), at("crates")).expect("ours");

    let [tokio, pingora] = [Port::take(), Port::take()];
    let origin = Origin::named("the origin");
    let pebbles = [&tokio, &pingora].map(|port| Pebble::builder().tls_port(port.number()).start());
    let begun = Instant::now();
    let mut test = cargo(directory.path());
    test.args(["test", "--offline", "--lib"])
        .env("TOKIO_ADDRESS", tokio.address().to_string())
        .env("PINGORA_ADDRESS", pingora.address().to_string())
        .env("ORIGIN", origin.address().to_string());
    for (name, pebble) in ["TOKIO", "PINGORA"].iter().zip(&pebbles) {
        test.env(format!("{name}_DIRECTORY"), pebble.directory())
            .env(format!("{name}_ROOTS"), pebble.ca_file())
            .env(format!("{name}_ROOT"), pebble.write_root())
            .env(
                format!("{name}_DNS"),
                pebble.resolver_url().trim_start_matches("http://"),
            );
    }
    let output = test.output().expect("cargo");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    eprintln!("the crate was built and tested in {:?}", begun.elapsed());
}
