//! Client certificates: who is let in, in which version of TLS and HTTP, and after which reload.

mod policies;
mod upstream;

use std::fs;
use std::net::SocketAddr;

use openssl::ssl::SslVersion;

use super::metric_sum;
use crate::support::{Ca, Gateway, Pair, TlsClient, revocation_list, wait_for};

/// The hosts of the gateway, which one certificate covers, and what their sites say.
const SITES: &str = "
  - { hosts: [open.example], routes: [ROUTE] }
  - { hosts: [strict.example], client_auth: { ca: clients.pem }, routes: [ROUTE] }
  - { hosts: [also.example], client_auth: { ca: clients.pem }, routes: [ROUTE] }
  - { hosts: [maybe.example], client_auth: { mode: optional, ca: clients.pem }, routes: [ROUTE] }
  - { hosts: [other.example], client_auth: { ca: others.pem }, routes: [ROUTE] }
  - { hosts: [deep.example], client_auth: { ca: clients.pem, depth: 2 }, routes: [ROUTE] }
  - { hosts: [flat.example], client_auth: { ca: clients.pem, depth: 0 }, routes: [ROUTE] }
";

const ROUTE: &str = "{ respond: { body: served } }";

const HOSTS: [&str; 7] = [
    "open.example",
    "strict.example",
    "also.example",
    "maybe.example",
    "other.example",
    "deep.example",
    "flat.example",
];

/// A gateway with those sites, and the CAs of its clients.
struct Fixture {
    gateway: Gateway,
    clients: Ca,
    others: Ca,
}

impl Fixture {
    fn start(rest: &str) -> Self {
        Self::with_sites(SITES, rest)
    }

    fn with_sites(sites: &str, rest: &str) -> Self {
        let builder = Gateway::builder();
        let ca = Ca::new("Server Root");
        let leaf = ca.leaf(&HOSTS).make();
        leaf.write(&builder.dir().join("certs"), "all");
        let (clients, others) = (Ca::new("Clients Root"), Ca::new("Others Root"));
        for (ca, file) in [(&clients, "clients.pem"), (&others, "others.pem")] {
            fs::write(builder.dir().join(file), ca.pem()).expect("written");
        }
        let crl = revocation_list(&clients, &[], 30).to_pem().expect("PEM");
        fs::write(builder.dir().join("clients.crl"), crl).expect("written");
        let sites = sites.replace("ROUTE", ROUTE);
        let config = format!("certificates: [{{ directory: certs }}]\nsites:\n{sites}{rest}");
        Self {
            gateway: builder.config(config).start(),
            clients,
            others,
        }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.https
    }

    /// Waits until so many handshakes were refused for this reason: a client learns of it before it is
    /// counted.
    #[track_caller]
    fn wait_until_refused(&self, reason: &str, is_enough: impl Fn(f64) -> bool) {
        let label = format!("reason=\"{reason}\"");
        let name = "snigate_tls_client_certificates_refused_total";
        wait_for(&format!("refusals for {reason}"), || {
            is_enough(metric_sum(&self.gateway, name, &[&label])).then_some(())
        });
    }
}

/// A certificate for a client.
fn client(ca: &Ca) -> Pair {
    ca.leaf(&["client.example"]).for_client().make()
}

/// A TLS client that presents this certificate, if any.
fn presenting(host: &str, pair: Option<&Pair>) -> TlsClient {
    with_certificate(TlsClient::named(host), pair)
}

fn with_certificate(client: TlsClient, pair: Option<&Pair>) -> TlsClient {
    match pair {
        Some(pair) => client.showing(pair),
        None => client,
    }
}

/// The status of a request for `host`, 0 if the handshake or the connection fails.
fn status(client: TlsClient, address: SocketAddr, host: &str) -> u16 {
    let Ok(mut stream) = client.try_connect(address) else {
        return 0;
    };
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = stream.exchange(request);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn clients_are_let_in_by_their_certificates() {
    let fixture = Fixture::start("");
    let (clients, others) = (&fixture.clients, &fixture.others);
    let dir = fixture.gateway.dir().join("clients");
    let good = client(clients);
    let expired = clients.leaf(&["client.example"]).for_client().expired();
    let future = clients
        .leaf(&["client.example"])
        .for_client()
        .not_yet_valid();
    let server = clients.leaf(&["client.example"]).make();
    for (name, pair) in [
        ("good", good),
        ("foreign", client(others)),
        ("expired", expired.make()),
        ("future", future.make()),
        ("server", server),
    ] {
        pair.write(&dir, name);
    }
    let send = |host: &str, name: &str, options: [&str; 2]| {
        let mut curl = fixture.gateway.curl(host, "/").args(["-k"]).args(options);
        if !name.is_empty() {
            let (pem, key) = (
                dir.join(format!("{name}.pem")),
                dir.join(format!("{name}.key")),
            );
            curl = curl.arg("--cert").arg(pem).arg("--key").arg(key);
        }
        curl.try_send().map_or(0, |reply| reply.status)
    };
    for options in [
        ["--tls-max", "1.2"],
        ["--tlsv1.3", "--http2"],
        ["--tlsv1.3", "--http1.1"],
    ] {
        for (host, name, expected) in [
            ("open.example", "", 200),
            ("open.example", "foreign", 200),
            ("strict.example", "good", 200),
            ("strict.example", "", 0),
            ("strict.example", "foreign", 0),
            ("strict.example", "expired", 0),
            ("strict.example", "future", 0),
            ("strict.example", "server", 0),
            ("maybe.example", "good", 200),
            ("maybe.example", "", 200),
            ("maybe.example", "foreign", 0),
            ("maybe.example", "expired", 0),
            ("other.example", "foreign", 200),
            ("other.example", "good", 0),
        ] {
            let status = send(host, name, options);
            assert_eq!(status, expected, "{host} {name:?} {options:?}");
        }
    }
    for (reason, count) in [
        ("missing", 3.0),
        ("expired", 6.0),
        ("not_yet_valid", 3.0),
        ("purpose", 3.0),
        ("unknown_ca", 9.0),
    ] {
        fixture.wait_until_refused(reason, |found| found == count);
    }
    let log = fixture.gateway.log();
    assert!(
        log.contains("refused a client because of its certificate"),
        "{log}"
    );
    assert!(
        !log.contains("panicked") && !log.contains("stack backtrace"),
        "{log}"
    );
}

#[test]
fn a_chain_is_as_long_as_the_site_allows() {
    let fixture = Fixture::start("");
    let one = fixture.clients.intermediate("Clients One");
    let two = one.intermediate("Clients Two");
    let (none, one, two) = (client(&fixture.clients), client(&one), client(&two));
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (host, pair, expected) in [
            ("flat.example", &none, 200),
            ("flat.example", &one, 0),
            ("strict.example", &one, 200),
            ("strict.example", &two, 0),
            ("deep.example", &two, 200),
        ] {
            let client = presenting(host, Some(pair)).version(version);
            let status = status(client, fixture.address(), host);
            assert_eq!(status, expected, "{host} {version:?}");
        }
    }
    // Whoever leaves an intermediate out has no chain.
    let alone = Pair {
        chain: String::from_utf8(one.certificate.to_pem().expect("PEM")).expect("text"),
        ..one
    };
    let client = presenting("strict.example", Some(&alone));
    assert_eq!(status(client, fixture.address(), "strict.example"), 0);
}

#[test]
fn revoked_clients_are_refused_as_soon_as_the_list_says_so() {
    let sites = "  - { hosts: [strict.example], client_auth: { ca: clients.pem, crl: clients.crl }, routes: [ROUTE] }\n";
    let fixture = Fixture::with_sites(sites, "");
    let (address, host) = (fixture.address(), "strict.example");
    let (good, bad) = (client(&fixture.clients), client(&fixture.clients));
    let is_served = |pair: &Pair| status(presenting(host, Some(pair)), address, host) == 200;
    assert!(is_served(&good) && is_served(&bad));

    let mut of_good = presenting(host, Some(&good)).connect(address);
    let mut of_bad = presenting(host, Some(&bad)).connect(address);
    assert_eq!(of_good.get(host, "/").status, 200);
    assert_eq!(of_bad.get(host, "/").status, 200);
    // A file that is no list leaves the old one in force.
    fixture.gateway.write("clients.crl", "nothing");
    fixture
        .gateway
        .wait_for_log("holds no valid revocation list");
    assert!(is_served(&good) && is_served(&bad));

    let write = |revoked: &[&Pair], until| {
        let list = revocation_list(&fixture.clients, revoked, until);
        let pem = String::from_utf8(list.to_pem().expect("PEM")).expect("text");
        fixture.gateway.write("clients.crl", &pem);
    };
    write(&[&bad], 30);
    wait_for("the revocation", || (!is_served(&bad)).then_some(()));
    assert!(is_served(&good));
    fixture.wait_until_refused("revoked", |found| found >= 1.0);
    // What is open notices it as well, and costs those who may stay nothing.
    assert_eq!(of_good.get(host, "/").status, 200);
    let refused = of_bad.get(host, "/");
    assert_eq!(refused.status, 421);
    assert_eq!(refused.header("connection"), Some("close"));

    // A list that has ended proves nothing about anybody.
    write(&[], -1);
    wait_for("the end of the list", || (!is_served(&good)).then_some(()));
    fixture
        .gateway
        .wait_for_log("no valid revocation list says");
    fixture.wait_until_refused("crl", |found| found >= 1.0);
    assert_eq!(of_good.get(host, "/").status, 421);
    write(&[], 30);
    wait_for("a new list", || is_served(&bad).then_some(()));
}

#[test]
fn lists_of_several_cas_are_read_and_all_of_a_chain_are_needed() {
    let sites = "  - { hosts: [strict.example], client_auth: { ca: clients.pem, crl: clients.crl }, routes: [ROUTE] }\n";
    let fixture = Fixture::with_sites(sites, "");
    let (address, host) = (fixture.address(), "strict.example");
    let middle = fixture.clients.intermediate("Clients One");
    let (good, bad) = (client(&middle), client(&middle));
    let is_served = |pair: &Pair| status(presenting(host, Some(pair)), address, host) == 200;
    assert!(!is_served(&good), "the list of the intermediate is missing");
    fixture.wait_until_refused("crl", |found| found >= 1.0);

    let of_root = revocation_list(&fixture.clients, &[], 30)
        .to_pem()
        .expect("PEM");
    let of_middle = revocation_list(&middle, &[&bad], 30).to_pem().expect("PEM");
    let both = [of_root, of_middle].concat();
    let both = String::from_utf8(both).expect("text");
    fixture.gateway.write("clients.crl", &both);
    wait_for("both lists", || is_served(&good).then_some(()));
    assert!(!is_served(&bad));

    // DER holds one.
    let direct = client(&fixture.clients);
    let der = revocation_list(&fixture.clients, &[&direct], 30)
        .to_der()
        .expect("DER");
    let path = fixture.gateway.dir().join("clients.crl");
    fs::write(path, der).expect("written");
    wait_for("the list in DER", || (!is_served(&direct)).then_some(()));
    wait_for("the list in DER", || (!is_served(&good)).then_some(()));
}

#[test]
fn another_ca_takes_the_place_of_the_old_one_with_a_reload() {
    let fixture = Fixture::start("");
    let (address, host) = (fixture.address(), "strict.example");
    let (old, new) = (client(&fixture.clients), client(&fixture.others));
    let mut of_old = presenting(host, Some(&old)).connect(address);
    assert_eq!(of_old.get(host, "/").status, 200);
    let is_served = |pair: &Pair| status(presenting(host, Some(pair)), address, host) == 200;
    assert!(!is_served(&new));
    fixture.gateway.write("clients.pem", &fixture.others.pem());
    wait_for("the new CA", || is_served(&new).then_some(()));
    assert!(!is_served(&old));
    assert_eq!(of_old.get(host, "/").status, 421);
}
