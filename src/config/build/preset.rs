//! The public CAs that are known by name, and the names that no public CA certifies.
//!
//! One table, and nothing that depends on a configuration. A CA is in it while it is sure to be
//! served; any other is reached by the URL of its directory.

use crate::host::HostName;

/// A public CA.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) directory: &'static str,
    /// Where failed orders are rehearsed. Only where the same account data is good for both.
    pub(super) staging: Option<&'static str>,
    /// Where its external account binding comes from, where it asks for one.
    pub(super) eab: Option<&'static str>,
}

const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

const PRESETS: [Preset; 7] = [
    Preset {
        name: "letsencrypt",
        directory: "https://acme-v02.api.letsencrypt.org/directory",
        staging: Some(LETS_ENCRYPT_STAGING),
        eab: None,
    },
    Preset {
        name: "letsencrypt-staging",
        directory: LETS_ENCRYPT_STAGING,
        staging: None,
        eab: None,
    },
    // Its staging environment has external accounts of its own.
    Preset {
        name: "google",
        directory: "https://dv.acme-v02.api.pki.goog/directory",
        staging: None,
        eab: Some("make one with: gcloud publicca external-account-keys create"),
    },
    Preset {
        name: "google-staging",
        directory: "https://dv.acme-v02.test-api.pki.goog/directory",
        staging: None,
        eab: Some(
            "make one with: gcloud publicca external-account-keys create, set to Google's staging \
             environment",
        ),
    },
    Preset {
        name: "zerossl",
        directory: "https://acme.zerossl.com/v2/DV90",
        staging: None,
        eab: Some("make one at https://app.zerossl.com/developer"),
    },
    Preset {
        name: "sslcom",
        directory: "https://acme.ssl.com/sslcom-dv-ecc",
        staging: None,
        eab: Some("take it from the API credentials of the account at https://secure.ssl.com"),
    },
    Preset {
        name: "sslcom-rsa",
        directory: "https://acme.ssl.com/sslcom-dv-rsa",
        staging: None,
        eab: Some("take it from the API credentials of the account at https://secure.ssl.com"),
    },
];

/// What names end in that are not part of the public DNS: RFC 6761, RFC 6762 (with appendix G),
/// RFC 8375, and what ICANN keeps for private use.
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

/// The CA that a configuration names, or whose directory it names.
pub(super) fn find(directory: &str) -> Option<&'static Preset> {
    let url = directory.trim_end_matches('/');
    PRESETS
        .iter()
        .find(|preset| preset.name == directory || preset.directory.eq_ignore_ascii_case(url))
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    PRESETS.iter().map(|preset| preset.name)
}

/// Why no public CA certifies a name, where that is so.
pub(super) fn never_certified(host: &HostName) -> Option<String> {
    let host = host.as_str();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_by_name_and_by_url() {
        for preset in &PRESETS {
            let directory = preset.directory;
            for text in [preset.name, directory, &format!("{directory}/")] {
                let found = find(text).map(|preset| preset.name);
                assert_eq!(found, Some(preset.name), "{text}");
            }
            assert!(preset.directory.starts_with("https://"));
            assert_ne!(preset.staging, Some(preset.directory));
        }
        for other in ["", "off", "LetsEncrypt", "https://ca.example/directory"] {
            assert!(find(other).is_none(), "{other}");
        }
    }

    #[test]
    fn names_beyond_the_public_dns() {
        let never = |name: &str| never_certified(&name.parse().expect("a name")).is_some();
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
}
