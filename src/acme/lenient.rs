//! Reads what CAs really send: members that are null, absent or of another type than in the RFC are
//! mended or left out before any strict type sees them.
//!
//! [`Reader`] turns each reply into one with exactly the members and types that instant-acme wants.
//! A member that the status of a resource requires and the reply lacks is named in an
//! [`Unreadable`]; nothing else makes a reply unreadable.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use http::Uri;
use serde_json::{Map, Value, json};

use super::json::{json, member, text, texts, url_at, url_member, word};
use super::problem::Problem;
use crate::host::Identifier;
use crate::printable::one_line;

/// How much is shown of an unreadable reply, in characters.
pub(super) const EXCERPT: usize = 160;

/// The kinds of resources of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Account,
    Order,
    Authorization,
    Challenge,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "the account",
            Self::Order => "the order",
            Self::Authorization => "the authorization",
            Self::Challenge => "the challenge",
        })
    }
}

/// Why a reply cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    resource: Resource,
    /// What is wrong, to follow the name of the resource.
    why: String,
    excerpt: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource, self.why)?;
        match self.excerpt.is_empty() {
            true => Ok(()),
            false => write!(f, " (it begins with {})", self.excerpt),
        }
    }
}

impl std::error::Error for Unreadable {}

/// What a challenge says about a persistent record (draft-ietf-acme-dns-persist, section 3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lasting {
    /// The account that the record must name.
    pub(super) account: Option<String>,
    /// The CA's issuer names, of which the record has one.
    pub(super) issuers: Vec<String>,
}

/// Reads the replies that concern one order at a time.
#[derive(Default)]
pub(super) struct Reader {
    /// The resources at the URLs that earlier replies contained.
    resources: HashMap<String, Resource>,
    /// What earlier replies said about the order, in case later ones leave it out.
    authorizations: Vec<String>,
    finalize: Option<String>,
    /// The only identifier of the order, if it has one.
    identifier: Option<Value>,
    /// What challenges say about persistent records, by the URL of the challenge.
    lasting: HashMap<String, Lasting>,
}

impl Reader {
    /// Forgets one order for the next.
    pub(super) fn begin_order(&mut self) {
        *self = Self::default();
    }

    /// The kind of resource at `url`: an order if no reply has contained it, since URLs of orders
    /// are stored between attempts.
    pub(super) fn resource(&self, url: &str) -> Resource {
        self.resources.get(url).copied().unwrap_or(Resource::Order)
    }

    /// What the challenge at `url` says about a persistent record.
    pub(super) fn lasting(&self, url: &str) -> Option<&Lasting> {
        self.lasting.get(url)
    }

    /// A successful reply from `url`, as instant-acme reads it.
    ///
    /// # Errors
    /// If it lacks what its status requires.
    pub(super) fn read(
        &mut self,
        resource: Resource,
        url: &Uri,
        body: &Bytes,
    ) -> Result<Bytes, Unreadable> {
        let found = json(body);
        let (members, none) = (found.as_ref().and_then(Value::as_object), Map::new());
        let read = match (resource, members) {
            (Resource::Account, _) => return Ok(body.clone()),
            // The challenge was accepted, whatever the reply is.
            (Resource::Challenge, members) => {
                Ok(challenge(url, members.unwrap_or(&none), "pending"))
            }
            (_, None) if body.trim_ascii().is_empty() => {
                Err("is missing: the response is empty".to_owned())
            }
            (_, None) => Err("is missing: the response is not a JSON object".to_owned()),
            (Resource::Order, Some(members)) => self.order(url, members),
            (Resource::Authorization, Some(members)) => self.authorization(url, members),
        };
        match read {
            Ok(value) => Ok(value.to_string().into()),
            Err(why) => Err(Unreadable {
                resource,
                why,
                excerpt: one_line(String::from_utf8_lossy(body).trim(), EXCERPT),
            }),
        }
    }

    /// An order (RFC 8555, section 7.1.3).
    fn order(&mut self, base: &Uri, members: &Map<String, Value>) -> Result<Value, String> {
        let url = |name: &str| url_member(base, members, name);
        let certificate = url("certificate");
        let said = word(members, "status");
        let status = match &*said {
            // The status alone does not prove that there is a certificate.
            "valid" if certificate.is_none() => "processing",
            "" if certificate.is_some() => "valid",
            "" => return Err(lacks("status")),
            known @ ("pending" | "ready" | "processing" | "valid" | "invalid") => known,
            // RFC 8555 has these for authorizations only; some CAs use them for orders too.
            "deactivated" | "expired" | "revoked" | "canceled" | "cancelled" => "invalid",
            _ => "processing",
        };
        let authorizations: Vec<String> = texts(members.get("authorizations"))
            .filter_map(|url| url_at(base, &url))
            .collect();
        if !authorizations.is_empty() {
            self.authorizations = authorizations;
        }
        self.finalize = url("finalize").or_else(|| self.finalize.take());
        if status == "pending" && self.authorizations.is_empty() {
            return Err(lacks("authorizations"));
        }
        if status == "ready" && self.finalize.is_none() {
            return Err(lacks("finalize"));
        }
        if let Some(Value::Array(identifiers)) = members.get("identifiers")
            && let [one] = identifiers.as_slice()
        {
            self.identifier = Some(one.clone());
        }
        for url in &self.authorizations {
            self.resources.insert(url.clone(), Resource::Authorization);
        }
        let mut order = json!({
            "status": status,
            "authorizations": self.authorizations,
            "finalize": self.finalize.as_deref().unwrap_or_default(),
        });
        set_member(&mut order, "certificate", certificate.map(Value::from));
        set_member(
            &mut order,
            "profile",
            member(members, "profile").map(Value::from),
        );
        set_member(&mut order, "replaces", replaces(members).map(Value::from));
        // An unfinished order has not failed, whatever this member says.
        let error = members.get("error").filter(|_| status == "invalid");
        let error = error.and_then(Problem::from_json);
        set_member(&mut order, "error", error.map(|error| error.to_json()));
        Ok(order)
    }

    /// An authorization (section 7.1.4).
    fn authorization(&mut self, base: &Uri, members: &Map<String, Value>) -> Result<Value, String> {
        let offered = match members.get("challenges") {
            Some(Value::Array(offered)) => offered.as_slice(),
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            _ => &[],
        };
        let offered: Vec<&Map<String, Value>> =
            offered.iter().filter_map(Value::as_object).collect();
        let any = |status: &str| offered.iter().any(|one| word(one, "status") == status);
        let said = word(members, "status");
        let status = match &*said {
            known @ ("pending" | "valid" | "invalid" | "revoked" | "expired" | "deactivated") => {
                known
            }
            "" if any("valid") => "valid",
            "" if any("invalid") => "invalid",
            _ => "pending",
        };
        let is_open = status == "pending";
        let mut challenges = Vec::with_capacity(offered.len());
        for members in offered {
            let challenge = challenge(base, members, if is_open { "pending" } else { status });
            if is_open && !is_answerable(&challenge) {
                continue;
            }
            if let Some(url) = challenge.get("url").and_then(Value::as_str) {
                self.resources.insert(url.to_owned(), Resource::Challenge);
                if members.contains_key("issuer-domain-names") {
                    self.lasting.insert(url.to_owned(), lasting(members));
                }
            }
            challenges.push(challenge);
        }
        if is_open && challenges.is_empty() {
            return Err(lacks("challenges"));
        }
        let named = members.get("identifier").and_then(identifier);
        let named = named.or_else(|| identifier(self.identifier.as_ref()?));
        let (identifier, is_wildcard) = match named {
            Some(named) => named,
            // This name no longer needs validation.
            None if status == "valid" => (json!({ "type": "dns", "value": "a name" }), false),
            None => return Err(lacks("identifier")),
        };
        Ok(json!({
            "status": status, "identifier": identifier, "challenges": challenges,
            "wildcard": is_wildcard || word(members, "wildcard") == "true",
        }))
    }
}

fn lacks(member: &str) -> String {
    format!("has no readable '{member}'")
}

fn set_member(value: &mut Value, name: &str, member: Option<Value>) {
    if let (Some(members), Some(member)) = (value.as_object_mut(), member) {
        members.insert(name.to_owned(), member);
    }
}

/// The certificate that an order replaces, if it is written as in RFC 9773.
fn replaces(members: &Map<String, Value>) -> Option<String> {
    let text = member(members, "replaces")?;
    let (authority, serial) = text.split_once('.')?;
    let is_part = |part: &str| {
        let is_of_it = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        !part.is_empty() && part.bytes().all(is_of_it)
    };
    (is_part(authority) && is_part(serial)).then_some(text)
}

/// An identifier, and whether it is a wildcard: RFC 8555 does not show that in the value, but some
/// CAs do.
fn identifier(value: &Value) -> Option<(Value, bool)> {
    let name = match value {
        Value::Object(members) => member(members, "value")?,
        other => text(other)?,
    };
    let bare = name.strip_prefix("*.");
    let name = bare.unwrap_or(&name);
    match name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()?
    {
        Identifier::Ip(address) => Some((json!({ "type": "ip", "value": address }), false)),
        Identifier::Dns(name) => Some((
            json!({ "type": "dns", "value": name.as_str() }),
            bare.is_some(),
        )),
    }
}

/// A challenge (section 7.1.5) of an authorization with this status.
fn challenge(base: &Uri, members: &Map<String, Value>, authorization: &str) -> Value {
    let said = word(members, "status");
    let status = match &*said {
        known @ ("pending" | "processing" | "valid" | "invalid") => known,
        "" if matches!(authorization, "valid" | "invalid") => authorization,
        _ => "pending",
    };
    let url = url_member(base, members, "url");
    let mut challenge = json!({
        "type": word(members, "type"), "url": url.unwrap_or_default(), "status": status,
        "token": member(members, "token").unwrap_or_default(),
    });
    let error = members.get("error").and_then(Problem::from_json);
    // A failed challenge has failed even if it does not say why.
    let error = error.or_else(|| (status == "invalid").then(Problem::default));
    set_member(&mut challenge, "error", error.map(|error| error.to_json()));
    challenge
}

/// Returns true if a challenge can be used: it has a URL, and a token if its type needs one.
fn is_answerable(challenge: &Value) -> bool {
    let has = |name: &str| {
        challenge
            .get(name)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
    };
    let kind = challenge.get("type").and_then(Value::as_str);
    let wants_token = matches!(
        kind,
        Some("http-01" | "tls-alpn-01" | "dns-01" | "dns-account-01")
    );
    has("type") && has("url") && (has("token") || !wants_token)
}

fn lasting(members: &Map<String, Value>) -> Lasting {
    Lasting {
        account: member(members, "accounturi"),
        issuers: texts(members.get("issuer-domain-names")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Uri {
        Uri::from_static("https://ca.test/orders/1")
    }

    fn read(resource: Resource, body: &str) -> Result<Value, String> {
        let body = Bytes::from(body.to_owned());
        let read = Reader::default().read(resource, &base(), &body);
        let read = read.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&read).expect("JSON"))
    }

    fn order(body: &str) -> Result<Value, String> {
        let order = read(Resource::Order, body)?;
        let theirs: instant_acme::OrderState =
            serde_json::from_value(order.clone()).expect("as instant-acme wants it");
        drop(theirs);
        Ok(order)
    }

    fn authorization(body: &str) -> Result<Value, String> {
        let authorization = read(Resource::Authorization, body)?;
        let theirs: instant_acme::AuthorizationState =
            serde_json::from_value(authorization.clone()).expect("as instant-acme wants it");
        drop(theirs);
        Ok(authorization)
    }

    #[test]
    fn an_order_has_what_its_status_needs() {
        for (body, status) in [
            (
                r#"{"status":"ready","authorizations":null,"finalize":"/f"}"#,
                "ready",
            ),
            (r#"{"status":"processing"}"#, "processing"),
            (
                r#"{"status":"valid","finalize":null,"certificate":"/c"}"#,
                "valid",
            ),
            (
                r#"{"status":null,"certificate":"https://ca.test/c"}"#,
                "valid",
            ),
            (r#"{"status":"valid","certificate":null}"#, "processing"),
            (r#"{"status":" Invalid ","error":{}}"#, "invalid"),
            (r#"{"status":"deactivated"}"#, "invalid"),
            (r#"{"status":"of tomorrow"}"#, "processing"),
            (
                r#"{"status":"pending","authorizations":["/a",null,17]}"#,
                "pending",
            ),
            (r#"{"status":"pending","authorizations":"/a"}"#, "pending"),
        ] {
            let order = order(body).unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!(order["status"], status, "{body}");
            assert!(order.get("error").is_none(), "{body}");
            for url in order["authorizations"].as_array().expect("a list") {
                assert_eq!(url, "https://ca.test/a");
            }
        }
        for (body, lacking) in [
            ("{}", "'status'"),
            (
                r#"{"status":"pending","authorizations":[]}"#,
                "'authorizations'",
            ),
            (r#"{"status":"ready","finalize":17}"#, "'finalize'"),
            ("", "empty"),
            ("<html>\u{202e}</html>", "not a JSON object"),
            ("[]", "not a JSON object"),
        ] {
            let why = order(body).expect_err(body);
            assert!(
                why.starts_with("the order ") && why.contains(lacking),
                "{why}"
            );
            assert!(
                why.chars().all(|char| !crate::printable::is_control(char)),
                "{why:?}"
            );
        }
    }

    #[test]
    fn what_an_earlier_answer_said_of_an_order_counts() {
        let mut reader = Reader::default();
        let mut read = |body: &'static str| {
            let body = Bytes::from_static(body.as_bytes());
            let read = reader
                .read(Resource::Order, &base(), &body)
                .expect("an order");
            serde_json::from_slice::<Value>(&read).expect("JSON")
        };
        read(r#"{"status":"pending","authorizations":["/a"],"finalize":"/f"}"#);
        let ready = read(r#"{"status":"ready","authorizations":null}"#);
        assert_eq!(ready["finalize"], "https://ca.test/f");
        assert_eq!(ready["authorizations"][0], "https://ca.test/a");
        assert_eq!(
            reader.resource("https://ca.test/a"),
            Resource::Authorization
        );
        assert_eq!(reader.resource("https://ca.test/orders/1"), Resource::Order);
        reader.begin_order();
        assert_eq!(reader.resource("https://ca.test/a"), Resource::Order);
    }

    #[test]
    fn an_order_that_failed_says_why_as_far_as_it_can_be_read() {
        let failed = order(
            r#"{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:caa","detail":"no",
                "status":"403","subproblems":[{"identifier":"a.test","detail":"never"}]}}"#,
        );
        let error = &failed.expect("an order")["error"];
        assert_eq!(
            (&error["detail"], &error["subproblems"][0]["detail"]),
            (&json!("no"), &json!("never"))
        );
    }

    #[test]
    fn a_name_is_known_however_it_is_written() {
        let of = |identifier: &str, more: &str| {
            let body = format!(
                r#"{{"status":"pending","identifier":{identifier}{more},
                    "challenges":[{{"type":"http-01","url":"/c","token":"t"}}]}}"#
            );
            authorization(&body).map(|read| (read["identifier"].clone(), read["wildcard"].clone()))
        };
        let dns = |name: &str| json!({ "type": "dns", "value": name });
        for (identifier, more, expected, is_wildcard) in [
            (
                r#"{"type":"dns","value":"a.test"}"#,
                "",
                dns("a.test"),
                false,
            ),
            (
                r#"{"type":"DNS","value":" A.Test. "}"#,
                r#","wildcard":null"#,
                dns("a.test"),
                false,
            ),
            (
                r#"{"type":null,"value":"a.test"}"#,
                r#","wildcard":"true""#,
                dns("a.test"),
                true,
            ),
            (
                r#"{"value":"*.a.test"}"#,
                r#","wildcard":true"#,
                dns("a.test"),
                true,
            ),
            (r#""*.a.test""#, r#","wildcard":17"#, dns("a.test"), true),
            (
                r#"{"type":"ip","value":"192.0.2.7"}"#,
                "",
                json!({"type":"ip","value":"192.0.2.7"}),
                false,
            ),
            (
                r#"{"value":"[2001:db8::1]"}"#,
                "",
                json!({"type":"ip","value":"2001:db8::1"}),
                false,
            ),
        ] {
            let read = of(identifier, more).unwrap_or_else(|why| panic!("{identifier}: {why}"));
            assert_eq!(read, (expected, json!(is_wildcard)), "{identifier}");
        }
        for identifier in ["null", "17", "{}", r#"{"value":null}"#, r#""no name""#] {
            assert!(
                of(identifier, "")
                    .expect_err(identifier)
                    .contains("'identifier'")
            );
        }
    }

    #[test]
    fn an_authorization_has_what_its_status_needs() {
        let name = r#""identifier":"a.test""#;
        for (challenges, status) in [
            (r#""status":"valid""#, "valid"),
            (r#""status":"VALID","challenges":null"#, "valid"),
            (
                r#""status":"valid","challenges":[{"type":"http-01","token":null}]"#,
                "valid",
            ),
            (
                r#""challenges":[{"type":"dns-01","status":"valid"}]"#,
                "valid",
            ),
            (
                r#""challenges":[{"type":"dns-01","status":"invalid"}]"#,
                "invalid",
            ),
            (r#""status":"expired","challenges":17"#, "expired"),
        ] {
            let body = format!("{{{name},{challenges}}}");
            let read = authorization(&body).unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!(read["status"], status, "{body}");
        }
        assert!(
            authorization(r#"{"status":"valid"}"#).is_ok(),
            "nobody has to prove it"
        );
        // A type that nobody can respond to hides no other; one without a token is fine if it needs
        // none.
        let read = authorization(&format!(
            r#"{{{name},"status":"processing","challenges":[
                null, 17, {{"type":"tls-alpn-01","url":"/1","token":null,"status":"pending"}},
                {{"type":"http-01","url":null,"token":"t"}}, {{"url":"/2","token":"t"}},
                {{"type":"DNS-01","url":"/3","token":"t","status":null,"error":{{}}}},
                {{"type":"dns-persist-01","url":"/4","issuer-domain-names":["ca.test",null]}}]}}"#
        ))
        .expect("an authorization");
        assert_eq!(read["status"], "pending");
        let urls: Vec<&Value> = read["challenges"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| &one["url"])
            .collect();
        assert_eq!(
            urls,
            [&json!("https://ca.test/3"), &json!("https://ca.test/4")]
        );
        assert!(read["challenges"][0].get("error").is_none());
        let why = authorization(&format!("{{{name},\"challenges\":[]}}")).expect_err("nothing");
        assert!(why.contains("'challenges'"), "{why}");
    }

    #[test]
    fn a_challenge_that_failed_has_failed_though_it_does_not_say_why() {
        for error in ["null", "{}", "17", r#"{"status":"400"}"#] {
            let body = format!(
                r#"{{"status":"invalid","identifier":"a.test","challenges":[
                    {{"type":"http-01","status":"pending"}},
                    {{"type":"tls-alpn-01","status":"invalid","error":{error}}}]}}"#
            );
            let read = authorization(&body).expect("an authorization");
            assert!(read["challenges"][0].get("error").is_none());
            assert!(read["challenges"][1]["error"].is_object(), "{error}");
        }
        // A request to a challenge was accepted, whatever the reply is.
        for body in [
            "",
            "null",
            "<html>",
            "{}",
            r#"{"type":17,"error":"x","status":"queued"}"#,
        ] {
            let read = read(Resource::Challenge, body).expect("taken");
            let theirs = serde_json::from_value::<instant_acme::Challenge>(read);
            assert!(theirs.is_ok(), "{body}: {theirs:?}");
        }
    }

    #[test]
    fn what_is_said_of_lasting_records_is_kept() {
        let mut reader = Reader::default();
        let body = r#"{"identifier":"a.test","challenges":[{"type":"dns-persist-01","url":"/c",
            "accounturi":"https://ca.test/a/1","issuer-domain-names":"ca.test","token":null}]}"#;
        let body = Bytes::from_static(body.as_bytes());
        reader
            .read(Resource::Authorization, &base(), &body)
            .expect("an authorization");
        let lasting = reader.lasting("https://ca.test/c").expect("it is said");
        assert_eq!(lasting.account.as_deref(), Some("https://ca.test/a/1"));
        assert_eq!(lasting.issuers, ["ca.test"]);
    }
}
