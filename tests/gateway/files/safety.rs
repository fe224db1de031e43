//! Nothing outside the root is served, and nothing that is no file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

use super::{VERSIONS, over, with_route};
use crate::support::{Builder, H2, TlsClient};

/// Puts links and special files into the root.
fn with_links(builder: Builder) -> Builder {
    let www = builder.dir().join("www");
    for (to, link) in [
        ("a.txt", "inside"),
        ("../secret", "outside"),
        ("..", "up"),
        ("/etc", "etc"),
        ("nowhere", "dangling"),
        ("loop", "loop"),
        ("/dev/zero", "device"),
        ("/proc/self/root", "magic"),
    ] {
        symlink(to, www.join(link)).expect("a link");
    }
    symlink(www.join("a.txt"), www.join("absolute")).expect("a link");
    mkfifo(&www.join("pipe"), Mode::S_IRWXU).expect("a pipe");
    builder
}

#[test]
fn a_path_does_not_leave_what_a_template_puts_before_it() {
    let gateway = with_route("files: { root: www, try: [\"/dir{path}\"] }").start();
    for version in VERSIONS {
        for (path, status) in [
            ("/b.txt", 200),
            ("/x/../b.txt", 404),
            ("/../a.txt", 404),
            ("/%2e%2e/a.txt", 404),
            ("/x/../../a.txt", 404),
        ] {
            let reply = over(version, &gateway, path).arg("--path-as-is").send();
            assert_eq!(reply.status, status, "{path}: {}", reply.text());
        }
    }
}

#[test]
fn no_spelling_of_a_path_leads_out_of_the_root() {
    let gateway = with_links(with_route("files: { root: www/dir }")).start();
    let mut paths: Vec<String> = Vec::new();
    for up in [
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "..;",
        "..;x=y",
        "%252e%252e",
        "..%00",
        "%c0%ae%c0%ae",
        "%c0%2e%c0%2e",
        "%e0%80%ae%e0%80%ae",
        "%uff0e%uff0e",
        "....",
        "...",
        ".. ",
        "%20..",
        "..%20",
    ] {
        for slash in [
            "/", "//", "%2f", "%2F", "\\", "%5c", "%252f", "%c0%af", "/./", "/x/../",
        ] {
            for name in ["secret", "a.txt", "etc/passwd"] {
                let twice = [up, slash].concat().repeat(2);
                paths.push(format!("/{twice}{name}"));
                paths.push(format!("/x/{twice}{up}{slash}{name}"));
            }
        }
    }
    paths.extend(
        [
            "/%2fetc/passwd",
            "//etc/passwd",
            "/etc/passwd",
            "/file:///etc/passwd",
            "/b.txt%00.html",
            "/b.txt\\..\\..\\secret",
            "/b.txt/../../secret",
            "/b.txt/..",
            "/..",
            "/../",
            "/%2e%2e/",
        ]
        .map(str::to_owned),
    );
    let check = |path: &str, status: u16, text: &str| {
        assert!(matches!(status, 200 | 308 | 400 | 404), "{path}: {status}");
        let is_index = text == "in dir";
        let has_leaked = text.contains("secret") && status == 200;
        assert!(
            !has_leaked && !text.contains("root:") && !text.contains("0123456789"),
            "{path}: {text}"
        );
        assert!(status != 200 || is_index || text == "b", "{path}: {text}");
    };
    let mut h2 = H2::connect(gateway.https, "a.test");
    for (number, path) in paths.into_iter().enumerate() {
        if number % 25 == 0 {
            // Malformed requests end a connection at some time.
            h2 = H2::connect(gateway.https, "a.test");
        }
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.get("a.test", &path);
        check(&path, reply.status, &reply.text());
        if path.parse::<http::uri::PathAndQuery>().is_ok() {
            let reply = h2.get(&path);
            check(&path, reply.status, &reply.text());
        }
    }
    for target in [
        "/../secret\0",
        "/a\u{0}b",
        "/%",
        "/%2",
        "/b.txt\r\n/../secret",
    ] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        check(target, reply.status, &reply.text());
    }
}

#[test]
fn links_do_not_lead_out_unless_they_may() {
    let own = with_links(with_route("files: { root: www }")).start();
    let free = with_links(with_route("files: { root: www, symlinks: on }")).start();
    for version in VERSIONS {
        for (path, text, followed) in [
            ("/inside", Some("0123456789"), Some("0123456789")),
            ("/outside", None, Some("secret")),
            ("/up/secret", None, Some("secret")),
            ("/up/www/a.txt", None, Some("0123456789")),
            ("/absolute", None, Some("0123456789")),
            ("/dangling", None, None),
            ("/loop", None, None),
            ("/device", None, None),
            ("/pipe", None, None),
        ] {
            for (gateway, expected) in [(&own, text), (&free, followed)] {
                let start = Instant::now();
                let reply = over(version, gateway, path).send();
                match expected {
                    Some(text) => assert_eq!((reply.status, &*reply.text()), (200, text), "{path}"),
                    None => assert_eq!(reply.status, 404, "{path}"),
                }
                assert!(
                    start.elapsed() < Duration::from_secs(5),
                    "{path} does not block"
                );
            }
        }
        for path in ["/etc/passwd", "/magic/etc/passwd"] {
            assert_eq!(over(version, &own, path).send().status, 404, "{path}");
        }
    }
}

#[test]
fn what_may_not_be_read_is_forbidden() {
    let mut builder = with_route("files: { root: www }");
    let file = builder.dir().join("www/closed.txt");
    fs::write(&file, "closed").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("permissions");
    if geteuid().is_root() {
        // Otherwise root may read everything.
        let less = "--bounding-set=-dac_override,-dac_read_search";
        builder = builder.run_by(&["setpriv", less]);
    }
    let gateway = builder.start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "/closed.txt").send();
        assert_eq!(reply.status, 403);
        assert_eq!(over(version, &gateway, "/a.txt").send().status, 200);
    }
}

#[test]
fn without_the_kernels_help_files_are_served_all_the_same() {
    let gateway = with_links(with_route("files: { root: www }").without_openat2()).start();
    for (path, status) in [
        ("/a.txt", 200),
        ("/dir/b.txt", 200),
        ("/inside", 404),
        ("/outside", 404),
        ("/up/secret", 404),
        ("/pipe", 404),
    ] {
        let reply = over("--http2", &gateway, path).send();
        assert_eq!(reply.status, status, "{path}");
    }
}
