//! The lines about what is in front of the gateway.

use std::io::{Read as _, Write as _};

use super::{lines, members};
use crate::support::{
    Act, Gateway, Origin, Port, connect, curl, is_closed, is_end, read_response, serving, wait_for,
};

/// The response to a request after `header`, with this field.
fn get(gateway: &Gateway, header: &str, field: &str) -> String {
    let mut stream = connect(gateway.http);
    let request = format!("{header}GET / HTTP/1.1\r\nHost: plain.test\r\n{field}\r\n");
    stream.write_all(request.as_bytes()).expect("taken");
    read_response(&mut stream).expect("a response").text()
}

/// Whether a connection to the address is closed at once, while others are held open.
fn is_turned_away(address: std::net::SocketAddr, held: &mut Vec<std::net::TcpStream>) -> bool {
    let mut stream = connect(address);
    let moment = std::time::Duration::from_millis(50);
    stream.set_read_timeout(Some(moment)).expect("set");
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Err(error) if is_end(&error) => true,
        Ok(_) | Err(_) => {
            held.push(stream);
            false
        }
    }
}

/// What tries a line.
type Trial = fn(&Gateway);

#[test]
fn servers() {
    let origin = Origin::start(|request| {
        let client = request.header("X-Real-IP").unwrap_or_default();
        vec![Act::respond(200, client)]
    });
    let lines = lines("In front");
    let tried: [(&str, Trial); 4] = [
        ("expect the PROXY protocol", |gateway| {
            let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n";
            assert_eq!(get(gateway, header, ""), "192.0.2.1");
        }),
        ("believe a proxy", |gateway| {
            let field = "X-Forwarded-For: 192.0.2.1\r\n";
            assert_eq!(get(gateway, "", field), "192.0.2.1");
        }),
        ("limit connections of a client", |gateway| {
            let mut held = Vec::new();
            wait_for("a connection too many", || {
                is_turned_away(gateway.http, &mut held).then_some(())
            });
            assert_eq!(held.len(), 1);
        }),
        ("limit handshakes of a client", |gateway| {
            let mut held = Vec::new();
            wait_for("a handshake too many", || {
                is_turned_away(gateway.https, &mut held).then_some(())
            });
            assert_eq!(get(gateway, "", ""), "127.0.0.1");
        }),
    ];
    let purposes: Vec<&str> = lines.iter().map(|line| &*line.purpose).collect();
    assert_eq!(
        purposes,
        tried.map(|(purpose, _)| purpose),
        "every line is tried"
    );
    for (line, (purpose, trial)) in lines.iter().zip(tried) {
        eprintln!("{purpose}");
        let keys = members(&line.yaml).replace("10.0.0.0/8", "127.0.0.0/8");
        let gateway = serving(
            &[],
            format!(
                "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
                 sites: [{{ hosts: [plain.test], tls: off, upstream: app }}]\n",
                origin.address()
            ),
        )
        .server(&keys)
        .start();
        trial(&gateway);
    }
}

#[test]
fn addresses() {
    let origin = Origin::named("here");
    let lines = lines("Addresses");
    let purposes: Vec<&str> = lines.iter().map(|line| &*line.purpose).collect();
    let tried = [
        "listen on one address",
        "listen on an interface",
        "listen on a Unix socket",
        "serve a site at its own address",
    ];
    assert_eq!(purposes, tried, "every line is tried");
    for line in &lines {
        let port = Port::take();
        let keys = members(&line.yaml).replace("8080", &port.number().to_string());
        let is_site = keys.contains("listen:");
        let builder = serving(&[], "");
        let socket = builder.dir().join("web.sock");
        let gateway = builder.config(format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nsites: [{{ hosts: [plain.test], {} }}]\n",
            origin.address(),
            if is_site { &keys } else { "tls: off, upstream: app" },
        ));
        let gateway = gateway.start();
        if !is_site {
            let text = std::fs::read_to_string(&gateway.config).expect("readable");
            let here = format!("http: [\"{}\"]", gateway.http);
            assert!(text.contains(&here), "{text}");
            gateway.write("snigate.yaml", &text.replace(&here, &keys));
            let (status, summary) = gateway.reload();
            assert_eq!(status, 200, "{summary}");
            assert!(is_closed(gateway.http), "{}", line.purpose);
        }
        let url = format!("http://plain.test:{}/", port.number());
        let request = match keys.contains("unix:") {
            true => curl(&url).arg("--unix-socket").arg(&socket),
            false => curl(&url).resolve("plain.test", port.address()),
        };
        assert_eq!(request.send().text(), "here", "{}", line.purpose);
    }
}
