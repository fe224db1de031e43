//! Configurations to test with.

use std::sync::Arc;

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
        certificates: certificates.into(),
        sites: sites.into_iter().map(Arc::new).collect(),
        places: Places {
            default_certificate: origin("tls.default_certificate"),
            on_demand: origin("on_demand"),
        },
        ..Config::sample()
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
        listen: Vec::new(),
        https_port: None,
        hosts: hosts
            .iter()
            .map(|host| host.parse().expect("a pattern"))
            .collect(),
        tls,
        tls_policy: None,
        routes: [].into(),
        tunnel: None,
        hsts: None,
        error_pages: None,
        maintenance: None,
        access: None,
        limits: SiteLimits::default(),
        origin: origin("sites[0]"),
    }
}

pub(super) fn auto() -> SiteTls {
    SiteTls::Auto(vec!["local".into()])
}
