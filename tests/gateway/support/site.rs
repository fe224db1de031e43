//! A gateway with certificates, in one line.

use std::net::SocketAddr;
use std::sync::LazyLock;

use super::{Builder, Ca, Gateway, Origin};

/// The root of every certificate that [`serving`] makes.
pub static ROOT: LazyLock<Ca> = LazyLock::new(|| Ca::new("Snigate Test Root"));

/// Begins a gateway with a certificate for each of these lists of names, and the rest of its
/// configuration in `yaml`. `root.pem` in its directory is what clients have to trust.
pub fn serving(certificates: &[&[&str]], yaml: impl AsRef<str>) -> Builder {
    let builder = Gateway::builder();
    let directory = builder.dir().join("certs");
    std::fs::create_dir_all(&directory).expect("a directory");
    for (number, names) in certificates.iter().enumerate() {
        ROOT.leaf(names)
            .make()
            .write(&directory, &number.to_string());
    }
    std::fs::write(builder.dir().join("root.pem"), ROOT.pem()).expect("a file");
    builder
        .config("certificates: [{ directory: certs }]")
        .config(yaml)
}

/// Begins a gateway in front of the server at `address`: `a.test` over TLS, `plain.test` without.
pub fn serving_app(address: SocketAddr) -> Builder {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"] }} }}\n\
             sites:\n\
             - {{ hosts: [a.test], upstream: app }}\n\
             - {{ hosts: [plain.test], tls: off, upstream: app }}\n\
             log: {{ access: off }}\n"
        ),
    )
}

/// A gateway that passes `a.test` to this origin, with these keys under `log`.
pub fn logging(origin: &Origin, log: &str) -> Builder {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ {log} }}\n",
            origin.address()
        ),
    )
}
