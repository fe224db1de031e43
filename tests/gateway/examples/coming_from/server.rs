//! The lines about what is in front of the gateway.

use std::io::Write as _;

use super::lines;
use crate::support::{Act, Origin, connect, read_response, serving};

#[test]
fn servers() {
    let origin = Origin::start(|request| {
        let client = request.header("X-Real-IP").unwrap_or_default();
        vec![Act::respond(200, client)]
    });
    let lines = lines("In front");
    let tried = [
        (
            "expect the PROXY protocol",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n",
            "",
        ),
        ("believe a proxy", "", "X-Forwarded-For: 192.0.2.1\r\n"),
    ];
    let purposes: Vec<&str> = lines.iter().map(|line| &*line.purpose).collect();
    assert_eq!(
        purposes,
        tried.map(|(purpose, ..)| purpose),
        "every line is tried"
    );
    for (line, (purpose, header, field)) in lines.iter().zip(tried) {
        let keys = super::members(&line.yaml).replace("10.0.0.0/8", "127.0.0.0/8");
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
        let mut stream = connect(gateway.http);
        let request = format!("{header}GET / HTTP/1.1\r\nHost: plain.test\r\n{field}\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        let response = read_response(&mut stream).expect("a response");
        assert_eq!(response.text(), "192.0.2.1", "{purpose}");
    }
}
