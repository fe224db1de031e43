//! Configurations to test with.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::config::model::*;

pub(super) fn origin(path: &str) -> Origin {
    Origin {
        file: Arc::new("/etc/snigate.yaml".into()),
        line: 3,
        column: 5,
        path: path.to_owned(),
    }
}

pub(super) fn config(certificates: Vec<CertificateSource>, sites: Vec<Site>) -> Config {
    Config {
        server: Server {
            https: Vec::new(),
            http: Vec::new(),
            admin: Admin::Off,
            admin_token: None,
            threads: 1,
            user: None,
            grace_period: Duration::from_secs(1),
            limits: Limits {
                handshake: Duration::from_secs(1),
                header_read: Duration::from_secs(1),
                idle: Duration::from_secs(1),
                max_header_bytes: 1,
                max_connections: 0,
                max_connections_per_ip: 0,
                h2_streams: 1,
                upstream_connections: 0,
            },
            https_optional: false,
        },
        tls: Tls {
            profile: TlsProfile::Intermediate,
            groups: Vec::new(),
            default_certificate: None,
            unknown_sni: UnknownSni::Default,
            session_tickets: SessionTickets::Off,
        },
        storage: Storage::File {
            path: "/nowhere".into(),
        },
        issuers: IndexMap::new(),
        dns: IndexMap::new(),
        certificates: certificates.into(),
        certificates_in_memory: InMemory::All,
        certificate_cache: 1 << 20,
        renewal: Renewal {
            window: 0.33,
            check_every: Duration::from_secs(600),
            ari: true,
            required_at_start: false,
        },
        on_demand: None,
        upstreams: IndexMap::new(),
        sites: sites.into_iter().map(Arc::new).collect(),
        places: Places {
            default_certificate: origin("tls.default_certificate"),
            on_demand: origin("on_demand"),
        },
        log: Log {
            level: "info".to_owned(),
            format: LogFormat::Text,
            access: AccessLog::Off,
        },
    }
}

pub(super) fn with_local_ca(mut config: Config) -> Config {
    let issuer = Issuer::LocalCa {
        name: "Test CA".to_owned(),
    };
    config.issuers.insert("local".into(), issuer);
    config
}

pub(super) fn site(hosts: &[&str], tls: SiteTls) -> Site {
    Site {
        hosts: hosts
            .iter()
            .map(|host| host.parse().expect("a pattern"))
            .collect(),
        tls,
        routes: [].into(),
        origin: origin("sites[0]"),
    }
}

pub(super) fn auto() -> SiteTls {
    SiteTls::Auto(vec!["local".into()])
}
