//! Every form of an address that it listens on.

use std::fmt::Display;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use crate::support::{
    CurlReply, Gateway, PATIENCE, Port, TlsClient, curl, in_own_network, is_closed, listen,
    read_response, relisten, serving, snigate,
};

const SITES: &str = "\
sites:
  - { hosts: [a.test], routes: [{ respond: { body: x } }] }
  - hosts: [lists.test]
    tls: off
    routes:
      - { path: /allow, allow: [\"127.0.0.0/8\"], respond: { body: x } }
      - { path: /deny, deny: [\"192.0.2.7\"], respond: { body: x } }
      - { path: /, respond: { body: x } }
";

fn gateway() -> Gateway {
    serving(&[&["a.test"]], SITES).start()
}

/// Adds an address to those of the gateway.
fn listen_also(gateway: &Gateway, https: &dyn Display) -> (u16, String) {
    listen(gateway, &[&gateway.https, https], &[&gateway.http])
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::symlink_metadata(path).expect("a socket");
    metadata.permissions().mode() & 0o777
}

/// What a client of this socket gets.
fn over_unix(gateway: &Gateway, socket: &Path, url: &str) -> CurlReply {
    let root = gateway.dir().join("root.pem");
    let request = curl(url).arg("--unix-socket").arg(socket);
    request.cacert(&root).send()
}

fn get(address: SocketAddr) -> String {
    let mut stream = TlsClient::named("a.test").connect(address);
    stream.get("a.test", "/").text()
}

#[test]
fn a_unix_socket_serves_like_an_address() {
    let mut gateway = gateway();
    let (https, http) = (gateway.https, gateway.http);
    let path = |name: &str| gateway.dir().join(name);
    let (web, plain) = (path("web.sock"), path("plain.sock"));
    relisten(
        &gateway,
        &[&https, &"unix:web.sock|0666"],
        &[&"unix:plain.sock"],
    );
    assert_eq!((mode(&web), mode(&plain)), (0o666, 0o660));
    assert!(is_closed(http));
    let reply = over_unix(&gateway, &web, "https://a.test/");
    assert_eq!(
        (reply.status, &*reply.version, reply.text()),
        (200, "2", "x".to_owned())
    );
    let reply = over_unix(&gateway, &plain, "http://a.test/y");
    let location = format!("https://a.test:{}/y", https.port());
    assert_eq!(
        (reply.status, reply.header("location")),
        (308, Some(&*location))
    );
    gateway.wait_for_log("unix - - [");
    let status = snigate(&["status", "--admin", &gateway.admin.to_string()]).stdout;
    assert!(
        status.contains(&format!("unix:{}", web.display())),
        "{status}"
    );

    // Its permissions change with the configuration, and no connection is lost.
    let mut open = UnixStream::connect(&plain).expect("a connection");
    relisten(
        &gateway,
        &[&https, &"unix:web.sock|0600"],
        &[&"unix:plain.sock"],
    );
    assert_eq!(mode(&web), 0o600);
    let request = "GET / HTTP/1.1\r\nHost: lists.test\r\n\r\n";
    open.write_all(request.as_bytes()).expect("taken");
    assert_eq!(read_response(&mut open).expect("a response").text(), "x");
    relisten(&gateway, &[&https], &[&"unix:plain.sock"]);
    assert!(!web.exists() && plain.exists());
    gateway.stop();
    assert!(!plain.exists(), "it is removed at the end");
}

#[test]
fn a_socket_that_is_left_is_replaced_and_one_in_use_is_not() {
    let gateway = gateway();
    let at = |name: &str| gateway.dir().join(name);
    drop(UnixListener::bind(at("left.sock")).expect("a socket"));
    let _used = UnixListener::bind(at("used.sock")).expect("a socket");
    gateway.write("file.sock", "no socket");
    let (status, summary) = listen_also(&gateway, &"unix:left.sock");
    assert_eq!(status, 200, "{summary}");
    for (name, why) in [
        ("used.sock", "something answers there"),
        ("file.sock", "it is not a socket"),
        ("no/such/directory.sock", "No such file or directory"),
    ] {
        let (status, refused) = listen_also(&gateway, &format!("unix:{name}"));
        assert_eq!(status, 400, "{refused}");
        assert!(refused.contains(why) && refused.contains(name), "{refused}");
    }
    // A reload that was refused has taken nothing away.
    assert_eq!(
        over_unix(&gateway, &at("left.sock"), "https://a.test/").status,
        200
    );
}

#[test]
fn a_reload_that_is_refused_changes_no_permissions() {
    let gateway = gateway();
    let (https, http) = (gateway.https, gateway.http);
    let socket = gateway.dir().join("web.sock");
    relisten(&gateway, &[&https, &"unix:web.sock|0600"], &[&http]);
    let bad: [&dyn Display; 3] = [&https, &"unix:web.sock|0666", &"nonesuch0:1"];
    let (status, refused) = listen(&gateway, &bad, &[&http]);
    assert_eq!((status, mode(&socket)), (400, 0o600), "{refused}");
    relisten(&gateway, &[&https, &"unix:web.sock|0666"], &[&http]);
    assert_eq!(mode(&socket), 0o666);
}

#[test]
fn a_socket_that_somebody_removed_is_made_anew_by_a_reload() {
    let mut gateway = gateway();
    let socket = gateway.dir().join("web.sock");
    let listen_again = || {
        let (status, summary) = listen_also(&gateway, &"unix:web.sock");
        assert_eq!(status, 200, "{summary}");
        assert_eq!(mode(&socket), 0o660);
        let reply = over_unix(&gateway, &socket, "https://a.test/");
        assert_eq!(reply.status, 200);
    };
    listen_again();
    fs::remove_file(&socket).expect("there");
    listen_again();
    // Nor does it follow a link that was put there.
    fs::remove_file(&socket).expect("there");
    gateway.write("other.txt", "x");
    let other = gateway.dir().join("other.txt");
    let before = mode(&other);
    std::os::unix::fs::symlink(&other, &socket).expect("made");
    let (status, refused) = listen_also(&gateway, &"unix:web.sock|0600");
    assert_eq!((status, mode(&other)), (400, before), "{refused}");
    fs::remove_file(&socket).expect("there");
    listen_again();
    gateway.stop();
    assert!(!socket.exists(), "it is removed at the end");
}

#[test]
fn a_client_without_an_address_is_on_no_list() {
    let gateway = gateway();
    relisten(
        &gateway,
        &[&gateway.https],
        &[&gateway.http, &"unix:plain.sock"],
    );
    let socket = gateway.dir().join("plain.sock");
    for (path, status) in [("/", 200), ("/allow", 403), ("/deny", 403)] {
        let reply = over_unix(&gateway, &socket, &format!("http://lists.test{path}"));
        assert_eq!(reply.status, status, "{path}");
    }
    // One that its balancer names has an address.
    let text = fs::read_to_string(&gateway.config).expect("readable");
    let text = text.replace(
        "server:\n",
        "server:\n  proxy_protocol: { trusted: [unix] }\n",
    );
    gateway.write("snigate.yaml", &text);
    assert_eq!(gateway.reload().0, 200);
    for (header, path, status) in [
        ("PROXY TCP4 127.0.0.1 127.0.0.1 5 80\r\n", "/allow", 200),
        ("PROXY TCP4 192.0.2.8 192.0.2.1 5 80\r\n", "/deny", 200),
        ("PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n", "/deny", 403),
        ("PROXY UNKNOWN\r\n", "/deny", 403),
    ] {
        let mut stream = UnixStream::connect(&socket).expect("a connection");
        let request = format!("{header}GET {path} HTTP/1.1\r\nHost: lists.test\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        let response = read_response(&mut stream).expect("a response");
        assert_eq!(response.status, status, "{header}{path}");
    }
    gateway.wait_for_log("192.0.2.7 - - [");
    let mut bare = UnixStream::connect(&socket).expect("a connection");
    let request = "GET / HTTP/1.1\r\nHost: lists.test\r\n\r\n";
    bare.write_all(request.as_bytes()).expect("taken");
    assert_eq!(bare.read(&mut [0; 8]).unwrap_or(0), 0, "closed");
    // Those of addresses do not begin with a header.
    assert_eq!(get(gateway.https), "x");
}

#[test]
fn an_interface_stands_for_all_its_addresses() {
    let gateway = gateway();
    let port = Port::take();
    let address = port.address();
    let (status, summary) = listen_also(&gateway, &format!("lo:{}", port.number()));
    assert_eq!(status, 200, "{summary}");
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), port.number()));
    assert_eq!((get(address), get(other)), ("x".to_owned(), "x".to_owned()));
    let status = gateway.ask("GET", "/api/v1/status").text();
    assert!(
        status.contains(&format!("0.0.0.0%lo:{}", port.number())),
        "{status}"
    );
    let (status, refused) = listen_also(&gateway, &"nonesuch0:443");
    assert_eq!(status, 400, "{refused}");
    let told = "there is no interface 'nonesuch0', this machine has ";
    assert!(
        refused.contains(told) && refused.contains("lo"),
        "{refused}"
    );
}

#[test]
fn a_port_alone_is_that_of_all_addresses() {
    for without_ipv6 in [false, true] {
        let builder = serving(&[&["a.test"]], SITES);
        let builder = match without_ipv6 {
            true => builder.without_ipv6(),
            false => builder,
        };
        let gateway = builder.start();
        let port = Port::take();
        let (status, summary) = listen_also(&gateway, &format!(":{}", port.number()));
        assert_eq!(status, 200, "{summary}");
        assert_eq!(get(port.address()), "x");
        let told = "this machine has no IPv6";
        if without_ipv6 {
            gateway.wait_for_log(told);
        }
        let told = gateway.log().matches(told).count();
        assert_eq!(told, usize::from(without_ipv6), "{}", gateway.log());
    }
}

#[test]
fn a_link_local_address_has_its_interface() {
    if !in_own_network(a_link_local_address_has_its_interface) {
        return;
    }
    let mut ip = Command::new("ip");
    ip.args(["address", "add", "fe80::5/64", "dev", "lo", "nodad"]);
    assert!(ip.status().expect("Debian's package iproute2").success());
    let gateway = gateway();
    let port = Port::take();
    let (status, summary) = listen_also(&gateway, &format!("[fe80::5%lo]:{}", port.number()));
    assert_eq!(status, 200, "{summary}");
    let scoped = format!("[fe80::5%1]:{}", port.number());
    assert_eq!(get(scoped.parse().expect("an address")), "x");
    assert!(is_closed(port.address()));
}

#[test]
fn sockets_of_systemd_are_used_by_their_names() {
    let sockets: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let at = |index: usize| sockets[index].local_addr().expect("an address");
    let dir = tempfile::tempdir().expect("a directory");
    let unix = UnixListener::bind(dir.path().join("passed.sock")).expect("a socket");
    let builder = serving(&[&["a.test"]], SITES)
        .also_on("systemd:web")
        .passed(&[
            ("web", &sockets[0]),
            ("spare", &sockets[1]),
            ("web", &sockets[2]),
            ("local", &unix),
        ]);
    let gateway = builder.start();
    assert_eq!((get(at(0)), get(at(2))), ("x".to_owned(), "x".to_owned()));
    for name in ["spare", "local"] {
        let told = format!("systemd passed the socket '{name}', which is not used");
        gateway.wait_for_log(&told);
    }
    // A reload begins to use others, and returns to those it has left.
    relisten(
        &gateway,
        &[&gateway.https],
        &[&gateway.http, &"systemd:local"],
    );
    let socket = dir.path().join("passed.sock");
    assert_eq!(over_unix(&gateway, &socket, "http://a.test/").status, 308);
    relisten(&gateway, &[&"systemd:web"], &[&"systemd:spare"]);
    assert_eq!((get(at(0)), get(at(2))), ("x".to_owned(), "x".to_owned()));
    // Whoever connects to one that was left does not wait for an answer.
    let mut left = UnixStream::connect(&socket).expect("systemd's");
    left.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(left.read(&mut [0]).expect("an end"), 0);
    relisten(
        &gateway,
        &[&"systemd:web"],
        &[&"systemd:spare", &"systemd:local"],
    );
    for _ in 0..8 {
        assert_eq!(over_unix(&gateway, &socket, "http://a.test/").status, 308);
    }
    assert!(socket.exists(), "it is systemd's");
    let (status, refused) = listen_also(&gateway, &"systemd:other");
    assert_eq!(status, 400, "{refused}");
    assert!(
        refused.contains("systemd passed only web, spare, web, local"),
        "{refused}"
    );
}

#[test]
fn a_start_names_the_sockets_that_it_lacks() {
    let mut gateway = serving(&[&["a.test"]], SITES)
        .also_on("systemd:web")
        .spawn();
    assert_eq!(gateway.wait().code(), Some(1));
    gateway.wait_for_log("cannot listen on systemd:web: systemd passed no sockets");
    let connected = UnixStream::pair().expect("a pair").0;
    let mut gateway = serving(&[&["a.test"]], SITES)
        .also_on("systemd:web")
        .passed(&[("web", &connected)])
        .spawn();
    assert_eq!(gateway.wait().code(), Some(1));
    gateway.wait_for_log("cannot listen on systemd:web: it is a connection");
}
