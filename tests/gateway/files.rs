//! Routes that serve files: what clients get, and what they never get.

mod lookup;
mod responses;
mod safety;
mod transfer;

use std::fs;
use std::path::Path;

use crate::support::{Builder, Curl, Gateway, serving};

/// The versions that clients speak.
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// Begins a gateway whose `a.test` has a route with these keys. Files are in `www`.
fn with_route(route: &str) -> Builder {
    with_site("", &format!("{{ {route} }}"))
}

/// Begins a gateway whose `a.test` has these keys and routes.
fn with_site(keys: &str, routes: &str) -> Builder {
    let builder = serving(&[&["a.test"]], config(keys, routes));
    write(
        &builder.dir().join("www"),
        &[
            ("index.html", "home"),
            ("a.txt", "0123456789"),
            ("dir/index.html", "in dir"),
            ("dir/b.txt", "b"),
            ("bare/c.txt", "c"),
            (".hidden", "hidden"),
            (".well-known/security.txt", "contact"),
        ],
    );
    fs::write(builder.dir().join("secret"), "secret").expect("a file");
    builder
}

/// The configuration of such a gateway without its certificates.
fn config(keys: &str, routes: &str) -> String {
    format!(
        "sites:\n- hosts: [a.test]\n{keys}  routes: [{routes}]\nlog: {{ access: access.log }}\n"
    )
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

/// A request over the version that this argument of curl selects.
fn over(version: &str, gateway: &Gateway, path: &str) -> Curl {
    let root = gateway.dir().join("root.pem");
    let curl = gateway.curl("a.test", path).cacert(&root);
    curl.args([version, "--path-as-is"])
}
