//! How a service is reached: over TLS, by which roots, and what becomes of servers of HTTP/2.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::{expect_undecided, login};
use crate::proxy::{VERSIONS, over};
use crate::support::{Builder, Ca, H2Server, Origin, TlsOrigin, serving, wait_for};

fn asking(app: &Origin, service: &TlsOrigin, roots: &Path) -> Builder {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               routes:\n  \
               - {{ upstream: app, forward_auth: {{ url: \"https://localhost:{}/\", ca_file: {} }} }}\n  \
               - {{ path: /open, upstream: app }}\n",
            app.address(),
            service.address().port(),
            roots.display(),
        ),
    )
}

#[test]
fn a_service_is_trusted_by_its_roots() {
    let app = Origin::named("app");
    let (ca, other) = (Ca::new("Services"), Ca::new("Others"));
    let service = TlsOrigin::start(&ca.leaf(&["localhost"]).make());
    let directory = tempfile::tempdir().expect("a directory");
    let (roots, foreign) = (ca.write(directory.path()), other.write(directory.path()));
    let gateway = asking(&app, &service, &roots).start();
    for version in VERSIONS {
        assert_eq!(over(version, &gateway, "a.test", "/").send().status, 200);
    }
    let gateway = asking(&app, &service, &foreign).start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        expect_undecided(&reply, "a foreign root");
        assert_eq!(
            over(version, &gateway, "a.test", "/open").send().status,
            200
        );
    }
    wait_for("the reason in the log", || {
        gateway
            .log()
            .contains("certificate verify failed")
            .then_some(())
    });
    // The gateway starts without the roots, and serves what does not need them.
    let gone = directory.path().join("gone.pem");
    let gateway = asking(&app, &service, &gone).start();
    let reply = over("2", &gateway, "a.test", "/").send();
    expect_undecided(&reply, "no roots");
    assert_eq!(over("2", &gateway, "a.test", "/open").send().status, 200);
    // They are read as soon as they are there.
    fs::copy(&roots, &gone).expect("a file");
    wait_for("the roots", || {
        let status = over("2", &gateway, "a.test", "/").send().status;
        (status == 200).then_some(())
    });
}

#[test]
fn servers_of_http2_get_what_a_service_says() {
    let app = H2Server::start(|mut call| async move {
        let user = call.head.headers.get_all("x-user").iter();
        let users: Vec<_> = user
            .map(|user| user.to_str().expect("text").to_owned())
            .collect();
        let mut body = call.send_head(200, &[], false);
        body.send_data(Bytes::from(users.join(",")), true)
            .expect("taken");
    });
    let service = Origin::start(login);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"], protocol: h2 }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               forward_auth: {{ url: \"http://{}/\", copy_headers: [X-User] }}\n  \
               upstream: app\n",
            app.address(),
            service.address(),
        ),
    )
    .start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/")
            .args(super::ANN)
            .args(["--header", "X-User: root"]);
        assert_eq!(reply.send().text(), "ann");
    }
}
