//! Which file a path leads to.

use std::fs;

use super::{VERSIONS, config, over, with_route, with_site, write};
use crate::support::wait_for;

#[test]
fn a_directory_has_a_slash_and_an_index() {
    let gateway = with_route("files: { root: www }").start();
    for version in VERSIONS {
        for (path, status, text) in [
            ("/", 200, "home"),
            ("/index.html", 200, "home"),
            ("/dir/", 200, "in dir"),
            ("//dir//./b.txt", 200, "b"),
            ("/dir/../a.txt", 200, "0123456789"),
            ("/%61.txt", 200, "0123456789"),
            ("/.well-known/security.txt", 200, "contact"),
        ] {
            let reply = over(version, &gateway, path).send();
            assert_eq!((reply.status, &*reply.text()), (status, text), "{path}");
        }
        for path in [
            "/none",
            "/bare",
            "/bare/",
            "/a.txt/",
            "/a.txt/b",
            "/.hidden",
            "/%2ehidden",
        ] {
            let reply = over(version, &gateway, path).send();
            assert_eq!(reply.status, 404, "{path}");
        }
        for (path, to) in [
            ("/dir", "/dir/"),
            ("/dir?x=y", "/dir/?x=y"),
            ("//dir", "/dir/"),
            ("/bare/../dir", "/bare/../dir/"),
        ] {
            let reply = over(version, &gateway, path).send();
            assert_eq!(
                (reply.status, reply.header("location")),
                (308, Some(to)),
                "{path}"
            );
        }
    }
}

#[test]
fn the_route_says_where_to_look() {
    let builder = with_site(
        "  error_pages: { 404: www/a.txt }\n",
        "{ path: /app, strip_prefix: true, files: { root: www, try: [\"{path}\", \"{path}/\", /index.html] } }, \
         { path: /one, rewrite: /a.txt, files: { root: www } }, \
         { path: /index, rewrite: /dir/, files: { root: www } }, \
         { path: /below, strip_prefix: true, rewrite: \"/dir{path}\", files: { root: www } }, \
         { path: /all, strip_prefix: true, files: { root: www, hidden: on, list: on, index: [] } }, \
         { path: /by-host, strip_prefix: true, files: { root: www, try: [\"/{host}{path}\"] } }, \
         { files: { root: nowhere } }",
    );
    write(&builder.dir().join("www"), &[("a.test/x", "of this host")]);
    let gateway = builder.start();
    for version in VERSIONS {
        for (path, status, text) in [
            ("/app/", 200, "home"),
            ("/app/dir/b.txt", 200, "b"),
            ("/app/some/view", 200, "home"),
            ("/app/.hidden", 200, "home"),
            ("/one/whatever", 200, "0123456789"),
            ("/index", 200, "in dir"),
            ("/index/x?y", 200, "in dir"),
            ("/index/", 200, "in dir"),
            ("/below/", 200, "in dir"),
            ("/all/.hidden", 200, "hidden"),
            ("/by-host/x", 200, "of this host"),
            ("/", 404, "0123456789"),
            ("/app/..%2f..%2fsecret", 400, ""),
        ] {
            let reply = over(version, &gateway, path).send();
            assert_eq!(reply.status, status, "{path}");
            assert!(
                status == 400 || reply.text() == text,
                "{path}: {}",
                reply.text()
            );
        }
        let reply = over(version, &gateway, "/app/dir").send();
        assert_eq!(
            (reply.status, reply.header("location")),
            (308, Some("/app/dir/"))
        );
        let reply = over(version, &gateway, "/below").send();
        assert_eq!(
            (reply.status, reply.header("location")),
            (308, Some("/below/"))
        );
        let reply = over(version, &gateway, "/app").send();
        assert_eq!(
            (reply.status, reply.header("location")),
            (308, Some("/app/"))
        );
    }
}

#[test]
fn a_directory_is_listed_if_it_may_be() {
    let builder = with_route("files: { root: www, list: on }");
    write(
        &builder.dir().join("www/bare"),
        &[("<b>&", ""), (".x", ""), ("z/y", "")],
    );
    let gateway = builder.start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "/bare/").send();
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let page = reply.text();
        let items: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("<li>"))
            .collect();
        assert_eq!(
            items,
            [
                "<li><a href=\"../\">../</a>",
                "<li><a href=\"./z/\">z/</a>",
                "<li><a href=\"./%3Cb%3E%26\">&lt;b&gt;&amp;</a>",
                "<li><a href=\"./c.txt\">c.txt</a>",
            ]
        );
        let reply = over(version, &gateway, "/bare").send();
        assert_eq!(
            (reply.status, reply.header("location")),
            (308, Some("/bare/"))
        );
        // An index is better.
        assert_eq!(over(version, &gateway, "/dir/").send().text(), "in dir");
        let head = over(version, &gateway, "/bare/").arg("--head").send();
        assert_eq!((head.status, head.text()), (200, String::new()));
    }
}

#[test]
fn a_root_is_replaced_while_the_gateway_runs() {
    let mut gateway = with_route("files: { root: current }").start();
    let dir = gateway.dir().to_owned();
    let text = |gateway: &_| over("--http2", gateway, "/a.txt").send().text();
    std::os::unix::fs::symlink("www", dir.join("current")).expect("a link");
    assert_eq!(text(&gateway), "0123456789");
    // As deployments do it.
    write(&dir.join("next"), &[("a.txt", "next")]);
    std::os::unix::fs::symlink("next", dir.join("link")).expect("a link");
    fs::rename(dir.join("link"), dir.join("current")).expect("renamed");
    assert_eq!(text(&gateway), "next");

    write(&dir.join("other"), &[("a.txt", "other")]);
    let yaml = config("", "{ files: { root: other } }");
    gateway.replace_config(format!("certificates: [{{ directory: certs }}]\n{yaml}"));
    wait_for("the new root", || (text(&gateway) == "other").then_some(()));
}
