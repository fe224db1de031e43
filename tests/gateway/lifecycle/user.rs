//! Running as a user that may little.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::someone;
use crate::support::{Ca, Gateway, TlsClient, listen, relisten, serving, wait_for};

/// Takes away, or gives, what everyone but root needs to read a file.
fn set_readable(path: &Path, is_readable: bool) {
    let mode = if is_readable { 0o644 } else { 0 };
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its owner may");
}

/// The numbers in a line of `/proc/PID/status`.
fn status(gateway: &Gateway, name: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = line.expect("a line").split_whitespace();
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
}

#[test]
fn it_becomes_its_user_and_names_what_that_user_cannot_read() {
    let user = someone();
    let builder = Gateway::builder();
    // Others than root have to get there.
    fs::set_permissions(builder.dir(), Permissions::from_mode(0o755)).expect("set");
    let ca = Ca::new("User Root");
    let (_, key) = ca.leaf(&["a.test"]).make().write(builder.dir(), "a");
    set_readable(&key, false);
    let mut gateway = builder
        .server(&format!("user: {}", user.name))
        .config(
            "certificates: [{ files: { cert: a.pem, key: a.key } }]\n\
             sites: [{ hosts: [a.test], routes: [{ respond: { body: x } }] }]\n",
        )
        .spawn();

    let errors = |gateway: &Gateway| {
        let log = gateway.log();
        let lines = log.lines().filter(|line| {
            line.contains("ERROR")
                && line.contains("certificates[0]")
                && line.contains("a.key")
                && line.to_lowercase().contains("permission denied")
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_for("the unreadable key to be named", || {
        (!errors(&gateway).is_empty()).then_some(())
    });
    gateway.wait_for_log("kind=Https");
    for name in ["Uid:", "Gid:"] {
        let id = if name == "Uid:" {
            user.uid.as_raw()
        } else {
            user.gid.as_raw()
        };
        assert_eq!(status(&gateway, name), [id; 4], "{name}");
    }
    let is_root = user.uid.is_root();
    assert!(is_root || !status(&gateway, "Groups:").contains(&0));
    let readiness = gateway.ask("GET", "/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("a.test"), "{}", readiness.text());
    assert!(
        TlsClient::named("a.test")
            .try_connect(gateway.https)
            .is_err()
    );

    // Mended, it is served without a reload.
    set_readable(&key, true);
    gateway.wait_until_ready();
    let served = || {
        TlsClient::named("a.test")
            .connect(gateway.https)
            .certificate()
    };
    let certificate = served();
    assert_eq!(
        gateway.metric("snigate_config_reloads_total{result=\"ok\"}"),
        Some(0.0)
    );

    // Unreadable again, the old one stays.
    set_readable(&key, false);
    let told = wait_for("the unreadable key to be named again", || {
        let errors = errors(&gateway);
        (errors.len() > 1).then(|| errors.last().cloned()).flatten()
    });
    assert!(told.contains("still served"), "{told}");
    assert_eq!(served(), certificate);
    assert_eq!(gateway.ask("GET", "/readyz").status, 200);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn its_sockets_are_those_of_its_user_and_reload() {
    let user = someone();
    let site = "sites: [{ hosts: [a.test], routes: [{ respond: { body: x } }] }]";
    let builder = serving(&[&["a.test"]], site)
        .server(&format!("user: {}", user.name))
        .also_on("unix:web.sock");
    fs::set_permissions(builder.dir(), Permissions::from_mode(0o755)).expect("set");
    let gateway = builder.spawn();
    gateway.wait_for_log("kind=Https");
    let (https, http) = (gateway.https, gateway.http);
    let socket = gateway.dir().join("web.sock");
    let described = || {
        let metadata = fs::symlink_metadata(&socket).expect("a socket");
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    assert_eq!(described(), (uid, gid, 0o660));
    relisten(&gateway, &[&https, &"unix:web.sock"], &[&http]);
    relisten(&gateway, &[&https, &"unix:web.sock|0666"], &[&http]);
    assert_eq!(described(), (uid, gid, 0o666));
    // One address replaces another, although root has bound the one before.
    let any = format!("0.0.0.0:{}", http.port());
    relisten(&gateway, &[&https, &"unix:web.sock"], &[&any]);
    assert_eq!(gateway.curl_http("a.test", "/").send().status, 308);
    if uid != 0 && nix::unistd::geteuid().is_root() {
        // It may not write there.
        let (status, refused) = listen(&gateway, &[&https, &"unix:new.sock"], &[&any]);
        assert_eq!(status, 400, "{refused}");
        assert!(refused.contains("Permission denied"), "{refused}");
        assert!(refused.contains("write in the directory"), "{refused}");
    }
}
