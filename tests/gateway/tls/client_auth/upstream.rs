//! What upstreams, routes and the access log learn of a client's certificate.

use super::{Fixture, client, presenting, status};
use crate::support::{Origin, TlsClient};

/// Sites in front of an origin, which gets what is known of the certificate.
fn fixture(origin: &Origin, rest: &str) -> Fixture {
    let sites = "
  - hosts: [maybe.example]
    client_auth: { mode: optional, ca: clients.pem }
    routes:
      - { path: /strict, client_auth: required, respond: { body: yes } }
      - path: /
        upstream: app
        request_headers:
          set:
            X-Subject: \"{client_cert_subject}\"
            X-San: \"{client_cert_san}\"
            X-Fingerprint: \"{client_cert_fingerprint}\"
            X-Serial: \"{client_cert_serial}\"
            X-Verified: \"{client_cert_verified}\"
";
    let upstream = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n{rest}",
        origin.address()
    );
    Fixture::with_sites(sites, &upstream)
}

#[test]
fn upstreams_learn_of_the_certificate_and_clients_cannot_pretend_one() {
    let origin = Origin::echo();
    let fixture = fixture(&origin, "");
    let names = ["client.example", "192.0.2.7"];
    let leaf = fixture.clients.leaf(&names).for_client().serial(0xbeef);
    let pair = leaf.make();
    let forged = "X-Subject: CN=root\r\nX-Verified: true\r\nX-Fingerprint: 00\r\nX-San: a\r\nX-Serial: 1\r\n";
    for pair in [Some(&pair), None] {
        let mut stream = presenting("maybe.example", pair).connect(fixture.address());
        let request = format!("GET /x HTTP/1.1\r\nHost: maybe.example\r\n{forged}\r\n");
        for _ in 0..2 {
            assert_eq!(stream.request(&request).status, 200);
        }
    }
    let requests = origin.wait_for_requests(4);
    let fingerprint = pair.fingerprint();
    for (name, with, without) in [
        ("X-Subject", "CN=client.example", ""),
        ("X-San", "DNS:client.example,IP:192.0.2.7", ""),
        ("X-Fingerprint", &*fingerprint, ""),
        ("X-Serial", "beef", ""),
        ("X-Verified", "true", "false"),
    ] {
        for request in &requests[..2] {
            assert_eq!(request.header(name), Some(with), "{name}");
        }
        for request in &requests[2..] {
            assert_eq!(request.header(name).unwrap_or_default(), without, "{name}");
        }
    }
    let text =
        format!("client_cert_subject=\"CN=client.example\" client_cert_fingerprint={fingerprint}");
    fixture.gateway.wait_for_log(&text);
    let log = fixture.gateway.log();
    assert_eq!(log.matches("client_cert_subject").count(), 2, "{log}");
}

#[test]
fn the_access_log_in_json_has_the_certificate() {
    let origin = Origin::echo();
    let fixture = fixture(&origin, "log: { format: json }\n");
    let pair = client(&fixture.clients);
    let client = presenting("maybe.example", Some(&pair));
    assert_eq!(status(client, fixture.address(), "maybe.example"), 200);
    let fingerprint = pair.fingerprint();
    let text = format!(
        ",\"client_cert_subject\":\"CN=client.example\",\"client_cert_fingerprint\":\"{fingerprint}\"}}"
    );
    fixture.gateway.wait_for_log(&text);
}

#[test]
fn a_route_can_be_for_clients_with_a_certificate_alone() {
    let origin = Origin::echo();
    let fixture = fixture(&origin, "");
    let pair = client(&fixture.clients);
    let get = |client: TlsClient, path: &str| {
        let mut stream = client.connect(fixture.address());
        stream.get("maybe.example", path).status
    };
    let without = || TlsClient::named("maybe.example");
    assert_eq!(
        get(presenting("maybe.example", Some(&pair)), "/strict"),
        200
    );
    assert_eq!(get(without(), "/strict/x"), 403);
    assert_eq!(get(without(), "/x"), 200);
    let metric = "snigate_requests_refused_total{reason=\"no_certificate\"}";
    assert_eq!(fixture.gateway.metric(metric), Some(1.0));
    fixture.gateway.wait_for_log("refused=no_certificate");
}
