//! What the builder makes of what it is given, without a network.

use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::acme::AcmeIssuer;
use crate::config::model::{
    Acme, CertificateSource, ChallengeType, DnsService, Issuer as Configured, KeyType,
};
use crate::dns::{DnsError, TxtRecord};
use crate::host::HostName;
use crate::issuer::NullIssuer;
use crate::local_ca::LocalCa;
use crate::storage::MemoryStorage;

/// Sets nothing.
struct Own(&'static str);

#[async_trait]
impl DnsProvider for Own {
    fn name(&self) -> &str {
        self.0
    }

    async fn add(&self, _: &HostName, _: &TxtRecord) -> Result<(), DnsError> {
        Ok(())
    }

    async fn remove(&self, _: &HostName, _: &TxtRecord) -> Result<(), DnsError> {
        Ok(())
    }
}

fn config(mut builder: EngineBuilder) -> Config {
    builder.assemble().unwrap_or_else(|error| panic!("{error}"))
}

fn mistakes(mut builder: EngineBuilder) -> Vec<String> {
    match builder.assemble() {
        Err(BuildError::Invalid { mistakes }) => mistakes,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("nothing is wrong with it"),
    }
}

#[track_caller]
fn assert_mistake(builder: EngineBuilder, expected: &str) {
    assert_eq!(mistakes(builder), [expected]);
}

fn acme<'c>(config: &'c Config, name: &str) -> &'c Acme {
    match config.issuers.get(name) {
        Some(Configured::Acme(acme)) => acme,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn names_alone_are_asked_of_lets_encrypt() {
    let config = config(Engine::builder().manage(["example.com", "www.example.com"]));
    let acme = acme(&config, "letsencrypt");
    assert!(acme.directory.contains("api.letsencrypt.org"));
    assert!(acme.staging.is_some());
    let usual = [ChallengeType::TlsAlpn01, ChallengeType::Http01];
    assert_eq!(acme.challenges, usual);
    assert_eq!(config.certificates.len(), 2, "one for each name");
    let files = Engine::builder().certificate_files("cert.pem", "key.pem");
    assert!(
        self::config(files).issuers.is_empty(),
        "nobody need be asked"
    );
}

#[test]
fn every_part_reaches_the_model() {
    let config = config(
        Engine::builder()
            .issuer(
                "ca",
                AcmeIssuer::builder()
                    .directory("https://ca.example/dir")
                    .email("ops@example.com")
                    .eab("kid", "a2V5")
                    .key_type(KeyType::P384)
                    .order_limit(5, Duration::from_millis(1500))
                    .dns01(Own("own-dns")),
            )
            .issuer(
                "zerossl",
                ZeroSslIssuer::builder().api_key("secret").dns("other"),
            )
            .issuer("internal", LocalCa::builder().common_name("Internal"))
            .issuer("own", NullIssuer::new(&"own".into()))
            .dns_provider("other", DnsSettings::cloudflare("token"))
            .manage(["a.example.com"])
            .certificate(
                ManagedCertificate::new(["*.example.com", "example.com"])
                    .issuers(["own", "zerossl", "internal"])
                    .dns("other"),
            )
            .certificate_directory("certs")
            .default_certificate("a.example.com")
            .renewal_window(0.5)
            .on_demand(
                OnDemand::decide(|_| async { true })
                    .issuers(["internal"])
                    .per_domain(3, Duration::from_secs(60))
                    .max_wait(Duration::from_secs(7)),
            ),
    );
    let ca = acme(&config, "ca");
    assert_eq!(ca.challenges, [ChallengeType::Dns01]);
    assert_eq!(ca.dns.as_deref(), Some("own-dns"));
    assert_eq!(ca.order_limit.per, Duration::from_millis(1500));
    assert_eq!(ca.eab.as_ref().map(|eab| &*eab.key_id), Some("kid"));
    assert_eq!(acme(&config, "zerossl").dns.as_deref(), Some("other"));
    assert_eq!(config.issuers.get("own"), Some(&Configured::Own));
    let provider = |name| config.dns.get(name).map(|dns| dns.provider.clone());
    assert_eq!(provider("own-dns"), Some(DnsService::Own));
    assert!(matches!(provider("other"), Some(DnsService::Cloudflare(_))));
    let sources: Vec<_> = config.certificates.iter().collect();
    let [one, several, CertificateSource::Directory { path, .. }] = &*sources else {
        panic!("{sources:?}");
    };
    assert!(path.is_absolute());
    for (source, count) in [(one, 1), (several, 3)] {
        let CertificateSource::Managed { issuers, .. } = source else {
            panic!("{source:?}");
        };
        assert_eq!(issuers.len(), count);
    }
    let on_demand = config.on_demand.expect("given");
    let ask = on_demand.ask.expect("the function decides");
    assert_eq!((ask.url, ask.timeout), (None, Duration::from_secs(5)));
    assert_eq!(on_demand.limits.max_wait, Duration::from_secs(7));
    assert_eq!(
        on_demand.limits.per_domain.map(|limit| limit.names),
        Some(3)
    );
    assert_eq!(config.renewal.window, 0.5);
}

#[test]
fn names_on_demand_need_no_others() {
    let on_demand = OnDemand::names(["*.example.com"]);
    let builder = Engine::builder().issuer("internal", LocalCa::builder());
    let config = config(builder.on_demand(on_demand));
    assert!(config.certificates.is_empty() && config.on_demand.is_some());
}

#[test]
fn mistakes_say_where_what_and_what_to_do() {
    let ca = || AcmeIssuer::builder().directory("https://ca.example/dir");
    assert_mistake(
        Engine::builder(),
        "there is nothing to serve; call 'manage', 'certificate', 'certificate_files', \
         'certificate_directory' or 'on_demand'",
    );
    assert_mistake(
        Engine::builder()
            .issuer("ca", ca().email("ops"))
            .manage(["example.com"]),
        "issuers.ca.acme.email: 'ops' is not an e-mail address; write one address, such as \
         ops@example.com",
    );
    assert_mistake(
        Engine::builder()
            .issuer("ca", ca())
            .issuer("ca", LocalCa::builder())
            .manage(["example.com"]),
        "issuers.ca: there is an issuer of this name already; give it another one",
    );
    assert_mistake(
        Engine::builder()
            .issuer("ca", NullIssuer::new(&"other".into()))
            .manage(["example.com"]),
        "issuers.ca: the issuer calls itself \"other\"; add it by that name",
    );
    assert_mistake(
        Engine::builder()
            .issuer("ca", ca())
            .dns_provider("main", Own("other"))
            .manage(["example.com"]),
        "dns.main: the DNS provider calls itself \"other\"; add it by that name",
    );
    let wildcard = mistakes(
        Engine::builder()
            .issuer("ca", ca())
            .manage(["*.example.com"]),
    );
    let [wildcard] = &*wildcard else {
        panic!("{wildcard:?}");
    };
    for part in [
        "certificates[0].names[0]: ",
        "*.example.com",
        "no entry in 'dns'",
    ] {
        assert!(wildcard.contains(part), "{part}: {wildcard}");
    }
    let certificate = ManagedCertificate::new(["example.com"]).issuers(["cb"]);
    let unknown = mistakes(
        Engine::builder()
            .issuer("ca", ca())
            .certificate(certificate),
    );
    assert!(
        unknown[0].contains("there is no issuer 'cb'"),
        "{unknown:?}"
    );
}

#[test]
fn empty_lists_and_counts_of_zero_are_mistakes() {
    let empty = mistakes(
        Engine::builder()
            .issuer("internal", LocalCa::builder())
            .issuer(
                "ca",
                AcmeIssuer::builder().order_limit(0, Duration::from_secs(1)),
            )
            .dns_provider("main", DnsSettings::cloudflare("token").ttl(0))
            .certificate(ManagedCertificate::new::<&str>([]).issuers(["ca"]))
            .on_demand(
                OnDemand::names::<&str>([])
                    .max_waiting(0)
                    .per_minute(0)
                    .per_client(0, Duration::from_secs(60)),
            ),
    );
    assert_eq!(
        empty,
        [
            "certificates[0].names: the list is empty; add at least one entry",
            "on_demand.allow: the list is empty; add at least one entry",
            "issuers.ca.acme.limit.orders: '0' is out of range; give 1 or more",
            "dns.main.ttl: '0' is out of range; give 1 or more",
            "on_demand.limits.max_waiting: '0' is out of range; give 1 or more",
            "on_demand.limits.per_minute: '0' is out of range; give 1 or more",
            "on_demand.limits.per_client.names: '0' is out of range; give 1 or more",
        ]
    );
}

#[test]
fn a_list_of_challenges_must_not_be_empty() {
    let ca = AcmeIssuer::builder().directory("https://ca.example/dir");
    let found = mistakes(
        Engine::builder()
            .issuer("ca", ca.challenges([]))
            .manage(["example.com"]),
    );
    let empty = "issuers.ca.acme.challenges: the list is empty; add at least one entry";
    assert!(found.iter().any(|one| one == empty), "{found:?}");
    assert!(
        !found.iter().any(|one| one.contains("can be answered")),
        "{found:?}"
    );
}

#[test]
fn a_list_of_names_has_no_decision_times() {
    let second = Duration::from_secs(1);
    let names = OnDemand::names(["*.example.com"]);
    assert_mistake(
        Engine::builder()
            .issuer("internal", LocalCa::builder())
            .on_demand(names.decision_times(second, second, second)),
        "on_demand: a list of names takes no decisions, so they have no times; remove \
         'decision_times', or use 'decide' or 'ask' instead of 'names'",
    );
}

#[test]
fn short_times_are_rounded_up() {
    let texts = |time| format!("{:?}", values::duration(time));
    let millisecond = texts(Duration::from_millis(1));
    assert_eq!(texts(Duration::from_nanos(1)), millisecond);
    assert_ne!(texts(Duration::ZERO), millisecond);
}

#[test]
fn several_mistakes_are_reported_at_once_and_secrets_are_not() {
    let ca = AcmeIssuer::builder()
        .directory("http://ca.example/dir")
        .eab("kid", "hunter 2")
        .proxy("socks://proxy");
    let found = mistakes(Engine::builder().issuer("ca", ca).manage(["example..com"]));
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        !found.iter().any(|one| one.contains("hunter")),
        "{found:#?}"
    );
    let error = BuildError::Invalid { mistakes: found };
    assert_eq!(error.to_string().lines().count(), 4);
}

#[test]
fn without_a_runtime_there_is_an_explanation() {
    let start = Engine::builder().storage(MemoryStorage::default()).start();
    let started = futures::FutureExt::now_or_never(start).expect("at once");
    let error = started.err();
    assert!(matches!(error, Some(BuildError::NoRuntime)), "{error:?}");
}
