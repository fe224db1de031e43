//! Accepted configurations, and the resulting models.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::model::*;
use crate::host::Pattern;

#[test]
fn defaults_are_those_of_the_schema() {
    let Config {
        server,
        tls,
        storage,
        renewal,
        on_demand,
        log,
        certificates,
        ..
    } = accept(GOOD).config;
    let addresses = |list: &[&str]| {
        list.iter()
            .map(|text| ListenAddress::Ip(text.parse().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(server.https, addresses(&["0.0.0.0:443", "[::]:443"]));
    assert_eq!(server.http, addresses(&["0.0.0.0:80", "[::]:80"]));
    assert_eq!(server.admin, Admin::Tcp("127.0.0.1:9180".parse().unwrap()));
    assert!(server.admin_token.is_none() && server.user.is_none());
    assert!(server.threads > 0);
    assert_eq!(server.grace_period, Duration::from_secs(30));
    assert_eq!(
        server.limits,
        Limits {
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            max_header_bytes: 65_536,
            max_connections: 0,
            max_connections_per_ip: 0,
            max_handshakes_per_ip: 0,
            h2_streams: 100,
            upstream_connections: 0,
            max_body: 0,
        }
    );
    assert_eq!(tls.versions, TlsVersion::ALL);
    assert_eq!(tls.groups, ["X25519MLKEM768", "X25519", "P-256", "P-384"]);
    assert_eq!(tls.default_certificate, None);
    assert_eq!(tls.unknown_sni, UnknownSni::Default);
    let half_a_day = Duration::from_secs(12 * 3600);
    assert_eq!(tls.session_tickets, SessionTickets::Rotate(half_a_day));
    assert_eq!(
        storage,
        Storage::File {
            path: "/base/data".into()
        }
    );
    assert!(certificates.is_empty() && on_demand.is_none());
    assert_eq!(renewal.window, 0.33);
    assert_eq!(renewal.check_every, Duration::from_secs(600));
    assert!(renewal.ari);
    assert_eq!(
        log,
        Log {
            level: "info".to_owned(),
            format: LogFormat::Text,
            target: LogTarget::Stderr,
            access: LogTarget::Stdout,
            access_format: AccessFormat::usual(LogFormat::Text, &[], &[]),
            rotate: None,
        }
    );
}

#[test]
fn a_section_without_keys_is_its_default() {
    let text = format!("server:\ntls: ~\nstorage:\ncertificates:\n{GOOD}");
    assert_eq!(accept(&text).config.server, accept(GOOD).config.server);
}

#[test]
fn a_site_may_be_short() {
    let loaded = accept(GOOD);
    assert_eq!(loaded.warnings, []);
    let site = &loaded.config.sites[0];
    assert_eq!(site.hosts, ["good.example".parse::<Pattern>().unwrap()]);
    assert_eq!(site.tls, SiteTls::Auto(vec!["local".into()]));
    assert_eq!(site.origin.path, "sites[0]");
    assert_eq!((site.origin.line, site.origin.column), (3, 9));
    let [route] = &*site.routes else {
        panic!("{:?}", site.routes)
    };
    assert_eq!(route.path, PathMatch::from("/"));
    assert_eq!(route.conditions, None);
    let Action::Proxy(proxy) = &route.action else {
        panic!("{route:?}")
    };
    assert!(Arc::ptr_eq(
        &proxy.upstream,
        &loaded.config.upstreams["app"]
    ));
    assert_eq!(proxy.connect_timeout, Duration::from_secs(5));
    assert_eq!(proxy.read_timeout, Duration::from_secs(60));
    assert_eq!(proxy.retries, Retries::new(1));
}

#[test]
fn routes_are_sorted_by_the_longest_path() {
    let loaded = accept(
        "sites: [{ hosts: [a.example], tls: off, routes: [{ respond: {} }, { path: /b, respond: {} }, \
         { path: /a/b/, redirect: { to: /x } }, { path: /c, redirect: { to: \"http://b.example/?q\", status: 308 } }] }]",
    );
    let routes = &loaded.config.sites[0].routes;
    let paths: Vec<_> = routes.iter().map(|route| route.path.text()).collect();
    assert_eq!(paths, ["/a/b/", "/b", "/c", "/"]);
    let redirect = |to: &'static str, status| Action::Redirect {
        to: to.parse().unwrap(),
        status: http::StatusCode::from_u16(status).unwrap(),
    };
    assert_eq!(routes[0].action, redirect("/x", 302));
    assert_eq!(routes[2].action, redirect("http://b.example/?q", 308));
}

#[test]
fn upstreams_have_servers_of_all_kinds() {
    let loaded = accept(
        "upstreams:\n  app:\n    servers: [\"[::1]:80\", { address: \"app.internal:81\", weight: 1000 }, \"unix:run/a.sock\"]\n    \
         tls: { server_name: a.example }\n\
         sites: [{ hosts: [a.example], tls: off, routes: [{ upstream: app, timeout: { read: 500ms }, retries: 0 }] }]",
    );
    let upstream = &loaded.config.upstreams["app"];
    let server = |address, weight| UpstreamServer {
        weight,
        ..UpstreamServer::new(address)
    };
    assert_eq!(
        upstream.servers,
        [
            server(UpstreamAddress::Ip("[::1]:80".parse().unwrap()), 1),
            server(
                UpstreamAddress::Name {
                    host: "app.internal".parse().unwrap(),
                    port: 81
                },
                1000
            ),
            server(UpstreamAddress::Unix("/base/run/a.sock".into()), 1),
        ]
    );
    assert_eq!(
        upstream.tls,
        UpstreamTls::On {
            server_name: Some("a.example".parse().unwrap()),
            verify: true,
            ca_file: None,
            client_certificate: None,
        }
    );
    let Action::Proxy(proxy) = &loaded.config.sites[0].routes[0].action else {
        panic!("no proxy")
    };
    assert_eq!(proxy.connect_timeout, Duration::from_secs(5));
    assert_eq!(proxy.read_timeout, Duration::from_millis(500));
    assert_eq!(proxy.retries, Retries::new(0));
}

#[test]
fn certificates_come_from_files_directories_and_issuers() {
    let loaded = accept(
        "issuers: { first: { local_ca: {} }, second: { local_ca: { name: Two } } }\n\
         certificates:\n- files: { cert: a.pem, key: ../keys/a.key }\n- files: { cert: /both.pem }\n\
         - directory: sites\n- names: [Bücher.example, \"*.b.example\"]\n\
         - { names: [c.example], issuer: [second, first] }\n- { names: [d.example], issuer: second }\n\
         on_demand: { allow: [\"*.e.example\"], issuer: second }\n",
    );
    let names = |list: &[&str]| {
        list.iter()
            .map(|name| name.parse().unwrap())
            .collect::<Vec<_>>()
    };
    let issuers = |list: &[&str]| list.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    let mut sources = loaded.config.certificates.iter();
    let mut next = || sources.next().unwrap();
    assert!(
        matches!(next(), CertificateSource::Files { cert, key, origin } if cert == Path::new("/base/a.pem")
            && key == Path::new("/base/../keys/a.key") && origin.path == "certificates[0]" && origin.line == 3)
    );
    assert!(
        matches!(next(), CertificateSource::Files { cert, key, .. } if cert == key && cert == Path::new("/both.pem"))
    );
    assert!(
        matches!(next(), CertificateSource::Directory { path, .. } if path == Path::new("/base/sites"))
    );
    for (expected, from) in [
        (
            &["xn--bcher-kva.example", "*.b.example"][..],
            &["first"][..],
        ),
        (&["c.example"], &["second", "first"]),
        (&["d.example"], &["second"]),
    ] {
        assert!(
            matches!(next(), CertificateSource::Managed { names: found, issuers: by, .. }
                if *found == names(expected) && *by == issuers(from))
        );
    }
    let on_demand = loaded.config.on_demand.unwrap();
    assert_eq!(on_demand.allow, names(&["*.e.example"]));
    assert_eq!(on_demand.issuers, issuers(&["second"]));
}

#[test]
fn words_and_numbers_mean_what_they_say() {
    for (text, probe) in [
        (
            "tls: { session_tickets: off }",
            (|config| config.tls.session_tickets == SessionTickets::Off) as fn(&Config) -> bool,
        ),
        ("tls: { session_tickets: { } }", |config| {
            config.tls.session_tickets != SessionTickets::Off
        }),
        ("tls: { profile: modern, unknown_sni: reject }", |config| {
            config.tls.versions == (TlsVersion::Tls13..=TlsVersion::Tls13)
                && config.tls.unknown_sni == UnknownSni::Reject
        }),
        ("tls: { client_auth: off }", |_| true),
        ("server: { admin: off }", |config| {
            config.server.admin == Admin::Off
        }),
        ("server: { admin: \"unix:admin.sock\" }", |config| {
            config.server.admin == Admin::Unix("/base/admin.sock".into())
        }),
        ("server: { admin: \"[::1]:1\" }", |config| {
            matches!(config.server.admin, Admin::Tcp(_))
        }),
        (
            "server: { admin: \"0.0.0.0:1\", admin_token: abc }",
            |config| config.server.admin_token.is_some(),
        ),
        ("server: { http: [] }", |config| {
            config.server.http.is_empty()
        }),
        (
            "server: { https: [\"127.0.0.1:0\", \"127.0.0.1:0\"] }",
            |config| config.server.https.len() == 2,
        ),
        ("server: { threads: ${NUMBER} }", |config| {
            config.server.threads == 7
        }),
        ("server: { threads: \"${NUMBER}\" }", |config| {
            config.server.threads == 7
        }),
        ("server: { user: ${NUMBER} }", |config| {
            config.server.user.as_deref() == Some("7")
        }),
        ("server: { user: a$b$$c }", |config| {
            config.server.user.as_deref() == Some("a$b$c")
        }),
        ("server: { user: $${NUMBER} }", |config| {
            config.server.user.as_deref() == Some("${NUMBER}")
        }),
        ("server: { user: \"${NESTED}\" }", |config| {
            config.server.user.as_deref() == Some("${SECRET}")
        }),
        ("server: { limits: { max_header_bytes: 2048 } }", |config| {
            config.server.limits.max_header_bytes == 2048
        }),
        ("server: { grace_period: 0s }", |config| {
            config.server.grace_period.is_zero()
        }),
        ("log: { level: \"info,snigate::proxy=debug\" }", |_| true),
        ("log: { access: off, format: json }", |config| {
            config.log.access == LogTarget::Off && config.log.format == LogFormat::Json
        }),
        ("log: { access: logs/access.log }", |config| {
            config.log.access == LogTarget::File("/base/logs/access.log".into())
        }),
        (
            "renewal: { window: 0.5, check_every: 1h, ari: false }",
            |config| config.renewal.window == 0.5 && !config.renewal.ari,
        ),
        ("storage: { file: { path: /var/lib/snigate } }", |config| {
            config.storage
                == Storage::File {
                    path: "/var/lib/snigate".into(),
                }
        }),
        (
            "&a server: { threads: &n 3 }\nrenewal: { ari: true }",
            |config| config.server.threads == 3,
        ),
    ] {
        let config = accept(&format!("{text}\n{GOOD}")).config;
        assert!(probe(&config), "{text}");
    }
}

#[test]
fn secrets_go_into_the_model_and_nowhere_else() {
    let loaded = accept(&format!("server: {{ admin_token: ${{SECRET}} }}\n{GOOD}"));
    assert_eq!(
        loaded.config.server.admin_token.as_ref().unwrap().expose(),
        "hunter2"
    );
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn aliases_repeat_values() {
    let loaded = accept(
        "sites:\n- { hosts: [a.example], tls: off, routes: &routes [{ respond: {} }] }\n\
         - { hosts: [b.example], tls: off, routes: *routes }\n",
    );
    assert_eq!(loaded.config.sites[0].routes, loaded.config.sites[1].routes);
}

#[test]
fn what_is_odd_is_accepted_with_a_warning() {
    for (text, path) in [
        (
            "upstreams: { app: { servers: [\"a:1\"] } }\nsites: [{ hosts: [a.b], tls: off, routes: [{ respond: {} }] }]",
            "upstreams.app",
        ),
        (
            "issuers: { a: { local_ca: }, b: { local_ca: } }\nsites: [{ hosts: [a.b], routes: [{ respond: {} }] }]",
            "issuers.b",
        ),
        (
            "server: { http: [] }\nsites: [{ hosts: [a.b], tls: off, routes: [{ respond: {} }] }]",
            "sites[0]",
        ),
        (
            "server: { https: [] }\nsites: [{ hosts: [a.b], routes: [{ respond: {} }] }]",
            "sites[0]",
        ),
        (
            "sites: [{ hosts: [a.b], routes: [{ respond: {} }] }]",
            "sites[0].hosts[0]",
        ),
        (
            "sites: [{ hosts: [\"*.a.b\"], routes: [{ respond: {} }] }]",
            "sites[0].hosts[0]",
        ),
        (
            "issuers: { a: { local_ca: } }\nsites: [{ hosts: [\"*\"], tls: a, routes: [{ respond: {} }] }]",
            "sites[0].hosts[0]",
        ),
        (
            "issuers: { a: { local_ca: } }\non_demand: { allow: [\"*\"] }\nsites: [{ hosts: [\"*\"], routes: [{ respond: {} }] }]",
            "on_demand.allow[0]",
        ),
        (
            "upstreams: { app: { servers: [\"a:1\", \"a:1\"] } }\nsites: [{ hosts: [a.b], tls: off, upstream: app }]",
            "upstreams.app.servers[1]",
        ),
        (
            "upstreams: { app: { servers: [\"a:1\"], tls: { verify: false } } }\nsites: [{ hosts: [a.b], tls: off, upstream: app }]",
            "upstreams.app.tls.verify",
        ),
    ] {
        let loaded = accept(text);
        let paths: Vec<_> = loaded.warnings.iter().map(|one| &*one.path).collect();
        assert_eq!(paths, [path], "{text}");
        assert!(
            loaded
                .warnings
                .iter()
                .all(|one| one.severity == Severity::Warning)
        );
    }
}

#[test]
fn sites_with_the_same_routes_and_issuer_share_them() {
    let loaded = accept(
        "upstreams: { app: { servers: [\"127.0.0.1:1\"] }, other: { servers: [\"127.0.0.1:2\"] } }\n\
         issuers: { own: { local_ca: {} } }\n\
         sites:\n- { hosts: [a.example], upstream: app }\n- { hosts: [b.example], upstream: app }\n\
         - { hosts: [c.example], upstream: other }\n\
         - { hosts: [d.example], routes: [{ upstream: app, retries: 0 }] }\n",
    );
    let [a, b, c, d] = &*loaded.config.sites else {
        panic!("four sites")
    };
    assert!(Arc::ptr_eq(&a.routes, &b.routes));
    assert!(!Arc::ptr_eq(&a.routes, &c.routes));
    assert!(!Arc::ptr_eq(&a.routes, &d.routes), "it is not tried again");
    let (SiteTls::Auto(first), SiteTls::Auto(second)) = (&a.tls, &b.tls) else {
        panic!("automatic")
    };
    assert!(Arc::ptr_eq(&first[0], &second[0]));
}
