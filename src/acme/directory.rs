//! The directory of a CA (RFC 8555, section 7.1.1): the URLs of its resources, and its metadata.

use bytes::Bytes;
use http::uri::Uri;
use serde_json::{Map, Value, json};

use super::json::{json, texts, url_member, word};
use super::problem::words;

pub(super) struct Directory {
    pub(super) url: Uri,
    pub(super) body: Bytes,
    pub(super) new_nonce: String,
    pub(super) new_account: String,
    pub(super) new_order: String,
    pub(super) revoke_cert: Option<String>,
    pub(super) key_change: Option<String>,
    /// The base URL of renewal information (RFC 9773, section 3), if the CA offers it.
    pub(super) renewal_info: Option<String>,
    pub(super) meta: Meta,
}

/// The metadata of a CA (RFC 8555, section 7.1.1; draft-ietf-acme-profiles).
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) external_account_required: bool,
    /// The issuer domain names that identify it in CAA records (RFC 8659, section 4.2).
    pub(super) caa_identities: Vec<String>,
    /// The names of its profiles.
    pub(super) profiles: Vec<String>,
}

/// Parses the directory at `url`, or says what is wrong with it. Unreadable members are absent.
pub(super) fn read_directory(url: &Uri, body: &[u8]) -> Result<Directory, String> {
    let value = json(body);
    let Some(members) = value.as_ref().and_then(Value::as_object) else {
        let words = words(body).unwrap_or_default();
        return Err(format!("the response is not a JSON object: {words:?}"));
    };
    let needed = |name: &str| {
        url_member(url, members, name).ok_or_else(|| format!("it has no valid URL for '{name}'"))
    };
    let optional = ["revokeCert", "keyChange", "renewalInfo"];
    let optional = optional.map(|name| url_member(url, members, name));
    let [revoke_cert, key_change, renewal_info] = optional;
    let meta = members.get("meta").and_then(Value::as_object);
    let meta = meta.map(meta_of).unwrap_or_default();
    let mut directory = Directory {
        url: url.clone(),
        body: Bytes::new(),
        new_nonce: needed("newNonce")?,
        new_account: needed("newAccount")?,
        new_order: needed("newOrder")?,
        revoke_cert,
        key_change,
        renewal_info,
        meta,
    };
    let body = json!({
        "newNonce": directory.new_nonce, "newAccount": directory.new_account,
        "newOrder": directory.new_order, "renewalInfo": directory.renewal_info,
    });
    directory.body = body.to_string().into();
    Ok(directory)
}

fn meta_of(members: &Map<String, Value>) -> Meta {
    let profiles = match members.get("profiles") {
        Some(Value::Object(profiles)) => {
            let described = profiles.iter().filter(|(_, value)| !value.is_null());
            described.map(|(name, _)| name.clone()).collect()
        }
        named => texts(named).collect(),
    };
    Meta {
        external_account_required: word(members, "externalAccountRequired") == "true",
        caa_identities: texts(members.get("caaIdentities")).collect(),
        profiles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(body: &str) -> Result<Directory, String> {
        read_directory(&Uri::from_static("https://ca.test/dir"), body.as_bytes())
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let read = directory(
            r#"{ "newNonce": "/n", "newAccount": "/a", "newOrder": "/o", "revokeCert": null,
                 "keyChange": {}, "renewalInfo": 17, "newAuthz": 17,
                 "meta": { "caaIdentities": null, "externalAccountRequired": null,
                           "profiles": { "classic": "for all", "old": null, "odd": 1 } } }"#,
        )
        .expect("a directory");
        let meta = &read.meta;
        assert!(!meta.external_account_required && meta.caa_identities.is_empty());
        assert_eq!(meta.profiles, ["classic", "odd"]);
        assert_eq!(
            (read.revoke_cert, read.key_change, read.renewal_info),
            (None, None, None)
        );
        for meta in [
            "null",
            "17",
            "[]",
            "\"\"",
            r#"{"profiles":17,"caaIdentities":{}}"#,
        ] {
            let body =
                format!(r#"{{"newNonce":"/n","newAccount":"/a","newOrder":"/o","meta":{meta}}}"#);
            assert!(directory(&body).is_ok(), "{meta}");
        }
        let text = r#"{"newNonce":"https://ca.test/n","newAccount":"//ca.test/a","newOrder":"/o",
            "meta":{"caaIdentities":"ca.test","externalAccountRequired":"true"}}"#;
        let read = directory(&format!("\u{feff}{text}\0\n")).expect("a directory");
        assert_eq!(read.new_order, "https://ca.test/o");
        assert!(read.meta.external_account_required);
        assert_eq!(read.meta.caa_identities, ["ca.test"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let whole = r#"{"newNonce":"/n","newAccount":"/a","newOrder":"/o"}"#;
        for name in ["newNonce", "newAccount", "newOrder"] {
            let why = directory(&whole.replace(name, "other"))
                .err()
                .expect("not whole");
            assert!(why.contains(name), "{why}");
        }
        let why = directory("<title>Welcome</title>").err().expect("a page");
        assert!(why.contains("Welcome"), "{why}");
    }
}
