use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use openssl::hash::{MessageDigest, hash};
use openssl::pkey::PKey;
use openssl::sign::Signer;
use roxmltree::{Document, Node};

use super::*;
use crate::dns::route53::Route53Provider;

const SET: &str = "/2013-04-01/hostedzone/Z1/rrset";

/// The state of Route 53: sets of quoted values by name, and the polls until a change has spread.
#[derive(Default)]
struct Route53 {
    sets: Vec<(String, u32, Vec<String>)>,
    pending: u32,
    /// Interferes before the next change.
    rival: Option<String>,
}

impl Route53 {
    fn new() -> Self {
        let set = |name: &str, value: &str| (name.to_owned(), 300, vec![value.to_owned()]);
        Self {
            sets: vec![
                set("_acme-challenge.www.example.com.", "\"foreign\""),
                set("_acme-challenge.xyz.example.com.", "\"elsewhere\""),
            ],
            ..Self::default()
        }
    }

    fn answer(&mut self, ask: &Ask) -> Reply {
        if !is_signed(ask) {
            return failure(
                403,
                "SignatureDoesNotMatch",
                "The signature does not match.",
            );
        }
        match &*ask.line() {
            "GET /2013-04-01/hostedzonesbyname" => zones(ask),
            "GET /2013-04-01/hostedzone/Z1/rrset" => self.list(ask),
            "POST /2013-04-01/hostedzone/Z1/rrset" => self.change(ask),
            "GET /2013-04-01/change/C7" => {
                self.pending = self.pending.saturating_sub(1);
                info(if self.pending == 0 {
                    "INSYNC"
                } else {
                    "PENDING"
                })
            }
            _ => panic!("{ask:?}"),
        }
    }

    fn list(&self, ask: &Ask) -> Reply {
        assert_eq!(ask.parameter("type"), Some("TXT"));
        let name = ask.parameter("name").expect("a name");
        // The list continues with other names if there is none.
        let sets = self.sets.iter().filter(|(one, ..)| one == name);
        let set = sets.chain(&self.sets).next();
        let mut xml = String::new();
        if let Some((name, ttl, values)) = set {
            let values: String = values.iter().fold(String::new(), |mut all, value| {
                let value = value.replace('"', "&quot;");
                write!(
                    all,
                    "<ResourceRecord><Value>{value}</Value></ResourceRecord>"
                )
                .expect("ok");
                all
            });
            write!(
                xml,
                "<ResourceRecordSet><Name>{name}</Name><Type>TXT</Type><TTL>{ttl}</TTL>\
                 <ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
            )
            .expect("written");
        }
        answer(
            "ListResourceRecordSetsResponse",
            &format!("<ResourceRecordSets>{xml}</ResourceRecordSets>"),
        )
    }

    /// All or nothing, and only if the old set is named exactly.
    fn change(&mut self, ask: &Ask) -> Reply {
        if let Some(rival) = self.rival.take() {
            let (_, _, values) = &mut self.sets[0];
            values.push(rival);
        }
        assert_eq!(ask.header("content-type"), "text/xml");
        let text = String::from_utf8(ask.body.clone()).expect("text");
        let document = Document::parse(&text).expect("XML");
        let mut sets = self.sets.clone();
        let is_change = |node: &Node<'_, '_>| node.has_tag_name((NAMESPACE, "Change"));
        for change in document.descendants().filter(is_change) {
            let texts = |name: &str| -> Vec<String> {
                let nodes = change.descendants();
                let nodes = nodes.filter(|node| node.tag_name().name() == name);
                nodes
                    .map(|node| node.text().expect("a text").to_owned())
                    .collect()
            };
            let one = |name: &str| texts(name).pop().expect("one");
            assert_eq!(one("Type"), "TXT");
            let set = (
                one("Name"),
                one("TTL").parse().expect("a number"),
                texts("Value"),
            );
            match &*one("Action") {
                "DELETE" => match sets.iter().position(|one| *one == set) {
                    Some(index) => drop(sets.remove(index)),
                    None => return outrun("the values provided do not match the current values"),
                },
                "CREATE" if sets.iter().any(|(name, ..)| *name == set.0) => {
                    return outrun("it already exists");
                }
                "CREATE" => sets.push(set),
                action => panic!("{action}"),
            }
        }
        self.sets = sets;
        self.pending = 3;
        info("PENDING")
    }
}

const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";

fn answer(root: &str, xml: &str) -> Reply {
    let head = "<?xml version=\"1.0\"?>\n";
    Reply::new(
        200,
        &format!("{head}<{root} xmlns=\"{NAMESPACE}\">{xml}</{root}>"),
    )
}

fn info(status: &str) -> Reply {
    let xml = format!("<ChangeInfo><Id>/change/C7</Id><Status>{status}</Status></ChangeInfo>");
    answer("GetChangeResponse", &xml)
}

fn failure(status: u16, code: &str, message: &str) -> Reply {
    let xml = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error></ErrorResponse>"
    );
    Reply::new(status, &xml)
}

fn outrun(message: &str) -> Reply {
    let xml = format!(
        "<InvalidChangeBatch xmlns=\"{NAMESPACE}\"><Messages><Message>{message}</Message>\
         </Messages></InvalidChangeBatch>"
    );
    Reply::new(400, &xml)
}

fn zones(ask: &Ask) -> Reply {
    let zone = |name: &str, id: &str, private: bool| {
        format!(
            "<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}.</Name>\
             <Config><PrivateZone>{private}</PrivateZone></Config></HostedZone>"
        )
    };
    let zones = match ask.parameter("dnsname") {
        Some("example.com.") => [
            zone("example.com", "Z0", true),
            zone("example.com", "Z1", false),
            zone("example.net", "Z2", false),
        ]
        .concat(),
        Some("twice.example.") => [
            zone("twice.example", "Z3", false),
            zone("twice.example", "Z4", false),
        ]
        .concat(),
        _ => zone("zzz.example", "Z9", false),
    };
    let xml = format!("<HostedZones>{zones}</HostedZones>");
    answer("ListHostedZonesByNameResponse", &xml)
}

/// Returns true if a request is signed as AWS describes it, computed from what has arrived.
fn is_signed(ask: &Ask) -> bool {
    let hex = |octets: &[u8]| {
        octets
            .iter()
            .map(|one| format!("{one:02x}"))
            .collect::<String>()
    };
    let digest = |data: &[u8]| hex(&hash(MessageDigest::sha256(), data).expect("a digest"));
    let hmac = |key: &[u8], data: &str| {
        let key = PKey::hmac(key).expect("a key");
        let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
        signer.sign_oneshot_to_vec(data.as_bytes()).expect("signed")
    };
    let authorization = ask.header("authorization");
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(name).expect(name);
        rest.split(',').next().expect("a part").to_owned()
    };
    let credential = part("Credential=");
    let (key_id, scope) = credential.split_once('/').expect("a scope");
    assert_eq!(key_id, "AKIDTEST");
    let names = part("SignedHeaders=");
    let fields: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", ask.header(name)))
        .collect();
    for needed in ["host", "x-amz-date", "x-amz-security-token"] {
        assert!(names.split(';').any(|name| name == needed), "{names}");
    }
    let mut query: Vec<&str> = ask.query.split('&').filter(|one| !one.is_empty()).collect();
    query.sort_unstable();
    let canonical = [
        &*ask.method,
        &ask.path,
        &query.join("&"),
        &fields,
        &names,
        &digest(&ask.body),
    ]
    .join("\n");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        ask.header("x-amz-date"),
        digest(canonical.as_bytes())
    );
    let first = format!("AWS4{TOKEN}").into_bytes();
    let key = scope.split('/').fold(first, |key, part| hmac(&key, part));
    assert!(
        scope.ends_with("/us-east-1/route53/aws4_request"),
        "{scope}"
    );
    hex(&hmac(&key, &to_sign)) == part("Signature=")
}

fn stand_in() -> (StandIn, Arc<Mutex<Route53>>) {
    let route53 = Arc::new(Mutex::new(Route53::new()));
    let state = Arc::clone(&route53);
    let stand_in = StandIn::start(move |ask| state.lock().expect("not poisoned").answer(ask));
    (stand_in, route53)
}

fn configured(url: &str, secret: &str, more: &str) -> Route53Provider {
    let dns = entry(&format!(
        "route53: {{ access_key_id: AKIDTEST, secret_access_key: \"{secret}\", \
         session_token: \"a/b+c==\", endpoint: \"{url}\", {more} }}"
    ));
    let DnsService::Route53(config) = &dns.provider else {
        panic!("another provider")
    };
    let provider = Route53Provider::new("main", config, &dns).expect("opened");
    provider.with_pause(Duration::from_millis(5))
}

#[tokio::test]
async fn values_are_kept_one_by_one() {
    let (stand_in, _) = stand_in();
    let provider = configured(&stand_in.url, TOKEN, "");
    keeps_each_value_by_itself(&provider, "foreign").await;
    let looks = stand_in.count("GET /2013-04-01/change/C7");
    assert_eq!(looks, 4 * 3, "each of four changes is waited for");
    tells_trouble_from_refusal(&provider, &stand_in).await;
}

#[tokio::test]
async fn what_others_set_in_between_is_not_lost() {
    let (stand_in, route53) = stand_in();
    let provider = configured(&stand_in.url, TOKEN, "");
    route53.lock().expect("not poisoned").rival = Some("\"rival\"".to_owned());
    let added = provider.add(&zone(), &record("ours")).await;
    added.expect("added in the end");
    assert_eq!(listed(&provider).await, ["foreign", "ours", "rival"]);
    assert_eq!(stand_in.count(&format!("POST {SET}")), 2);
    // A set is removed and another added, without anyone else's.
    let other = TxtRecord {
        name: name("_acme-challenge.example.com"),
        value: "alone".to_owned(),
    };
    let zone = zone();
    provider.add(&zone, &other).await.expect("added");
    let values = provider.list(&zone, &other.name).await;
    assert_eq!(values, Ok(Some(vec!["alone".to_owned()])));
    provider.remove(&zone, &other).await.expect("removed");
    let values = provider.list(&zone, &other.name).await;
    assert_eq!(values, Ok(Some(Vec::new())));
}

#[tokio::test]
async fn being_asked_too_often_is_waited_out() {
    let (stand_in, _) = stand_in();
    let provider = configured(&stand_in.url, TOKEN, "hosted_zone_id: Z1");
    // Every second request of the first change.
    let reply = failure(400, "Throttling", "Rate exceeded");
    stand_in.answer_with(reply.clone(), 1);
    let error = provider.list(&zone(), &record("").name).await;
    let error = error.expect_err("throttled");
    assert!(matches!(error, DnsError::Unreachable(_)), "{error}");
    let (zone, record) = (zone(), record("ours"));
    let list = "<ResourceRecordSets></ResourceRecordSets>";
    stand_in.answer_with(answer("ListResourceRecordSetsResponse", list), 1);
    stand_in.answer_with(
        failure(400, "PriorRequestNotComplete", "The request was rejected"),
        1,
    );
    provider.add(&zone, &record).await.expect("in the end");
    assert_eq!(listed(&provider).await, ["foreign", "ours"]);
    let lookups = stand_in.count("GET /2013-04-01/hostedzonesbyname");
    assert_eq!(lookups, 0, "the zone is configured");
}

#[tokio::test]
async fn keys_and_zones_that_are_wrong_are_told() {
    let (stand_in, _) = stand_in();
    let wrong = configured(&stand_in.url, "wrong", "");
    let error = wrong.add(&zone(), &record("a")).await;
    let text = error.expect_err("a wrong key").to_string();
    assert!(
        text.contains("SignatureDoesNotMatch") && text.contains("'secret_access_key'"),
        "{text}"
    );
    let provider = configured(&stand_in.url, TOKEN, "");
    for (zone, words) in [
        ("example.org", "no public hosted zone example.org"),
        ("twice.example", "'hosted_zone_id'"),
    ] {
        let error = provider.add(&name(zone), &record("a")).await;
        let error = error.expect_err(zone);
        assert!(
            matches!(&error, DnsError::Refused(what) if what.contains(words)),
            "{error}"
        );
    }
    stand_in.answer_with(Reply::new(200, "{}"), 1);
    let error = provider.list(&zone(), &zone()).await;
    let text = error.expect_err("no XML").to_string();
    assert!(text.contains("'endpoint'"), "{text}");
}
