//! Values for tests: a test names the fields that it is about and takes the rest from here.

use super::*;

impl Config {
    /// An empty configuration: no listener, no certificate, no site.
    pub(crate) fn sample() -> Self {
        Self {
            server: Server {
                balancers: Balancers::default(),
                trusted_proxies: NetworkSet::default(),
                https: Vec::new(),
                http: Vec::new(),
                admin: Admin::Off,
                admin_token: None,
                threads: 1,
                user: None,
                grace_period: Duration::from_secs(1),
                resolvers: Vec::new(),
                limits: Limits::sample(),
                https_optional: false,
                error_pages: None,
            },
            tls: Tls::sample(),
            storage: Storage::File {
                path: "/nonexistent".into(),
            },
            issuers: IndexMap::new(),
            dns: IndexMap::new(),
            certificates: [].into(),
            certificates_in_memory: InMemory::All,
            certificate_cache: 1 << 20,
            renewal: Renewal {
                window: 0.33,
                check_every: Duration::from_secs(600),
                ari: true,
                required_at_start: false,
            },
            revocation: Revocation::default(),
            validity: Validity::default(),
            on_demand: None,
            upstreams: IndexMap::new(),
            sites: Vec::new(),
            key_servers: Vec::new(),
            events: Vec::new(),
            vetoes: Vec::new(),
            tracing: None,
            places: Places::default(),
            log: Log {
                access: LogTarget::Off,
                ..Log::default()
            },
        }
    }
}

impl Limits {
    /// Ten seconds for everything, and unlimited connections.
    pub(crate) fn sample() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(10),
            max_header_bytes: 65_536,
            max_connections: 0,
            max_connections_per_ip: 0,
            max_handshakes_per_ip: 0,
            h2_streams: 100,
            upstream_connections: 0,
            max_body: 0,
        }
    }
}

impl Tls {
    pub(crate) fn sample() -> Self {
        Self {
            versions: TlsVersion::ALL,
            ciphers: None,
            protocols: None,
            groups: Vec::new(),
            default_certificate: None,
            unknown_sni: UnknownSni::Default,
            session_tickets: SessionTickets::Off,
            policy: None,
            key_log: None,
        }
    }
}

impl Acme {
    /// A CA at this directory that validates by http-01.
    pub(crate) fn sample(directory: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            staging: None,
            email: None,
            challenges: vec![ChallengeType::Http01],
            dns: None,
            order: OrderTerms::default(),
            key_type: KeyType::P256,
            reuse_key: false,
            ca_file: None,
            eab: None,
            zerossl: None,
            proxy: None,
            check_caa: true,
            resolvers: Vec::new(),
            order_limit: OrderLimit {
                orders: 10,
                per: Duration::from_secs(10),
            },
        }
    }
}
