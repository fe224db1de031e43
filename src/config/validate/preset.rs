//! The public CAs that are known by name, and the names that no public CA certifies.
//!
//! One table, independent of any configuration. A CA is in it while it is sure to be supported; any
//! other is used by the URL of its directory.

use std::net::IpAddr;

/// A public CA.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) directory: &'static str,
    /// Where failed orders are rehearsed. Only if the same account data works for both.
    pub(super) staging: Option<&'static str>,
    /// Where its external account binding comes from, if it requires one.
    pub(super) eab: Option<&'static str>,
    /// Whether it offers renewal information (RFC 9773).
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the table of the documentation")
    )]
    pub(super) ari: Fact,
    /// The profiles that it is known to have.
    pub(super) profiles: &'static [&'static str],
    /// Whether it accepts `notBefore` and `notAfter` in an order.
    pub(super) lifetime: Fact,
    /// Whether it issues Must-Staple certificates.
    pub(super) must_staple: Fact,
    /// Whether it issues for IP addresses (RFC 8738).
    pub(super) addresses: Addresses,
    /// What it allows in which time, for people.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the table of the documentation")
    )]
    pub(super) limits: &'static str,
}

/// What is known of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    No,
    /// It does not say, or it was not tried.
    Unsaid,
    Yes,
}

/// Whether a CA issues for IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    No,
    /// Only with this profile.
    Profile(&'static str),
    Yes,
}

const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

const LETS_ENCRYPT: Preset = Preset {
    name: "letsencrypt",
    directory: "https://acme-v02.api.letsencrypt.org/directory",
    staging: Some(LETS_ENCRYPT_STAGING),
    eab: None,
    ari: Fact::Yes,
    profiles: &["classic", "tlsserver", "shortlived"],
    lifetime: Fact::No,
    must_staple: Fact::No,
    addresses: Addresses::Profile("shortlived"),
    limits: "for an account 300 orders in 3 h, for a registered domain 50 certificates in 7 d, for \
             one set of names 5 in 7 d, for a name 5 failed validations in 1 h; renewals by ARI \
             are free",
};

const GOOGLE: Preset = Preset {
    name: "google",
    directory: "https://dv.acme-v02.api.pki.goog/directory",
    // Its accounts there are separate.
    staging: None,
    eab: Some("make one with: gcloud publicca external-account-keys create"),
    ari: Fact::Yes,
    profiles: &[],
    lifetime: Fact::Yes,
    must_staple: Fact::No,
    addresses: Addresses::Yes,
    limits: "set by the quota of the cloud project; an `eab` must be used within 7 d",
};

const SSLCOM: Preset = Preset {
    name: "sslcom",
    directory: "https://acme.ssl.com/sslcom-dv-ecc",
    staging: None,
    eab: Some("take it from the API credentials of the account at https://secure.ssl.com"),
    ari: Fact::Unsaid,
    profiles: &[],
    lifetime: Fact::Unsaid,
    must_staple: Fact::Unsaid,
    addresses: Addresses::No,
    limits: "one name and its `www` on a free certificate; it charges an account that has funds",
};

const PRESETS: [Preset; 7] = [
    LETS_ENCRYPT,
    Preset {
        name: "letsencrypt-staging",
        directory: LETS_ENCRYPT_STAGING,
        staging: None,
        limits: "much higher than those of `letsencrypt`",
        ..LETS_ENCRYPT
    },
    GOOGLE,
    Preset {
        name: "google-staging",
        directory: "https://dv.acme-v02.test-api.pki.goog/directory",
        eab: Some(
            "make one with: gcloud publicca external-account-keys create, set to Google's staging \
             environment",
        ),
        ..GOOGLE
    },
    Preset {
        name: "zerossl",
        directory: "https://acme.zerossl.com/v2/DV90",
        staging: None,
        eab: Some("make one at https://app.zerossl.com/developer"),
        ari: Fact::Unsaid,
        profiles: &[],
        lifetime: Fact::Unsaid,
        must_staple: Fact::Unsaid,
        addresses: Addresses::No,
        limits: "not published",
    },
    SSLCOM,
    Preset {
        name: "sslcom-rsa",
        directory: "https://acme.ssl.com/sslcom-dv-rsa",
        ..SSLCOM
    },
];

/// The suffixes of names outside the public DNS: RFC 6761, RFC 6762 (with appendix G), RFC 8375,
/// and what ICANN reserves for private use.
const PRIVATE: [&str; 12] = [
    "corp",
    "example",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localhost",
    "private",
    "test",
];

/// The CA with this name or directory.
pub(super) fn find_preset(directory: &str) -> Option<&'static Preset> {
    let url = directory.trim_end_matches('/');
    PRESETS
        .iter()
        .find(|preset| preset.name == directory || preset.directory.eq_ignore_ascii_case(url))
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    PRESETS.iter().map(|preset| preset.name)
}

/// Why no public CA certifies `host`, a normalized name; `None` if some may.
pub fn never_certified(host: &str) -> Option<String> {
    let ends = |end: &&&str| {
        host.strip_suffix(**end)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if !host.contains('.') {
        return Some("it has a single label".to_owned());
    }
    if host.contains('_') {
        return Some("it has an underscore".to_owned());
    }
    let end = PRIVATE.iter().find(ends)?;
    Some(format!("names in '.{end}' are private"))
}

/// The maximum number of names that public CAs put into one certificate.
pub(super) const MOST_NAMES: usize = 100;

/// Why no CA at all certifies a name; `None` if some may. It is not a host name (RFC 5890, section
/// 2.3.1; RFC 1123, section 2.1), though a server may respond to it.
pub(super) fn never_valid(host: &str) -> Option<String> {
    host.split('.').find_map(|label| {
        if label.starts_with('-') || label.ends_with('-') {
            return Some(format!("the label '{label}' begins or ends with a hyphen"));
        }
        if label.starts_with("xn--") {
            let (unicode, decoded) = idna::domain_to_unicode(label);
            let is_valid = decoded.is_ok()
                && idna::domain_to_ascii(&unicode).is_ok_and(|encoded| encoded == label);
            return (!is_valid)
                .then(|| format!("'{label}' is not a valid internationalized label"));
        }
        let is_reserved = label.get(2..4) == Some("--");
        is_reserved
            .then(|| format!("labels such as '{label}', with '--' in third place, are reserved"))
    })
}

/// Why no public CA certifies an address; `None` if some may. It is not reachable from the internet
/// (RFC 6890).
pub(super) fn never_routed(address: IpAddr) -> Option<String> {
    let is_local = match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0b1100_0000 == 64;
            v4.is_private()
                || v4.is_link_local()
                || v4.is_documentation()
                || is_shared
                || first == 0
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let is_documentation = first == 0x2001 && second == 0xdb8;
            v6.is_unique_local() || v6.is_unicast_link_local() || is_documentation
        }
    };
    let is_special =
        is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast();
    is_special.then(|| "it is not a public address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_by_name_and_by_url() {
        for preset in &PRESETS {
            let directory = preset.directory;
            for text in [preset.name, directory, &format!("{directory}/")] {
                let found = find_preset(text).map(|preset| preset.name);
                assert_eq!(found, Some(preset.name), "{text}");
            }
            assert!(preset.directory.starts_with("https://"));
            assert_ne!(preset.staging, Some(preset.directory));
        }
        for other in ["", "off", "LetsEncrypt", "https://ca.example/directory"] {
            assert!(find_preset(other).is_none(), "{other}");
        }
    }

    /// The table of docs/certificates.md, a row for each CA.
    fn row(preset: &Preset) -> String {
        let fact = |fact| match fact {
            Fact::No => "no",
            Fact::Unsaid => "",
            Fact::Yes => "yes",
        };
        let addresses = match preset.addresses {
            Addresses::No => "no".to_owned(),
            Addresses::Profile(name) => format!("with `{name}`"),
            Addresses::Yes => "yes".to_owned(),
        };
        let staging = preset.staging.and_then(find_preset).map(|one| one.name);
        let cells = [
            format!("`{}`", preset.name),
            preset.eab.map_or("", |_| "required").to_owned(),
            staging.map_or_else(String::new, |name| format!("`{name}`")),
            fact(preset.ari).to_owned(),
            preset.profiles.join(", "),
            fact(preset.lifetime).to_owned(),
            addresses,
            fact(preset.must_staple).to_owned(),
            preset.limits.to_owned(),
        ];
        let row = format!("| {} |", cells.join(" | "));
        row.replace("|  |", "| |").replace("|  |", "| |")
    }

    #[test]
    fn the_table_of_the_documentation_is_this_one() {
        let documentation = include_str!("../../../docs/certificates.md");
        for preset in &PRESETS {
            let row = row(preset);
            let has_it = documentation.lines().any(|line| line == row);
            assert!(has_it, "docs/certificates.md, \"CAs\", lacks:\n{row}");
        }
    }

    #[test]
    fn names_beyond_the_public_dns() {
        let never = |name: &str| never_certified(name).is_some();
        for name in [
            "localhost",
            "server",
            "a.localhost",
            "printer.local",
            "a.b.internal",
            "a.test",
            "a.example",
            "router.home.arpa",
            "my_host.example.com",
        ] {
            assert!(never(name), "{name}");
        }
        for name in [
            "example.com",
            "local.example.com",
            "notlocal.net",
            "a.mylocal",
        ] {
            assert!(!never(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_never_certified() {
        for name in [
            "-a.example.com",
            "a-.example.com",
            "a.-b.com",
            "xn--.example.com",
            "xn--a.example.com",
            "xn--99999999.example.com",
            "xn--www-.example.com",
            "ab--cd.example.com",
        ] {
            assert!(never_valid(name).is_some(), "{name}");
        }
        for name in [
            "a-b.example.com",
            "a--b.example.com",
            "xn--bcher-kva.example.com",
            "xn--fiqs8s",
            "_acme.example.com",
            "1.2.example.com",
        ] {
            assert!(never_valid(name).is_none(), "{name}");
        }
    }

    #[test]
    fn addresses_beyond_the_internet() {
        let never = |address: &str| never_routed(address.parse().expect("an address")).is_some();
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "192.0.2.7",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
            "ff02::1",
        ] {
            assert!(never(address), "{address}");
        }
        for address in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1"] {
            assert!(!never(address), "{address}");
        }
    }
}
