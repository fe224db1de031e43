//! Spans of requests, as a collector gets them.

mod collectors;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::support::{Act, Builder, Curl, Gateway, Origin, Received, serving, wait_for};

/// The file with the configuration.
const CONFIG: &str = "snigate.yaml";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector that takes everything.
fn collector() -> Origin {
    Origin::start(|_| vec![taken()])
}

fn taken() -> Act {
    Act::send(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
    )
}

/// A gateway before `app` that exports to `collector`, with more keys of `tracing`.
fn traced(app: &Origin, collector: &Origin, keys: &str) -> Builder {
    let address = collector.address();
    let tracing = format!("tracing: {{ endpoint: \"http://{address}\", {keys} }}\n");
    serving(&[&["a.test"]], tracing + &sites(app))
}

fn sites(app: &Origin) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }}, gone: {{ servers: [\"127.0.0.1:1\"] }} }}\n\
             sites:\n\
             - hosts: [a.test]\n  \
               routes:\n  \
               - {{ path: /own, respond: {{ body: own }} }}\n  \
               - {{ path: /gone, upstream: gone }}\n  \
               - {{ path: /set, upstream: app, request_headers: {{ set: {{ traceparent: mine }} }} }}\n  \
               - {{ upstream: app }}\n\
             log: {{ access: access.log, format: json }}\n",
        app.address(),
    )
}

fn get(gateway: &Gateway, path: &str) -> Curl {
    let root = gateway.dir().join("root.pem");
    gateway.curl("a.test", path).cacert(&root)
}

/// The spans of a request to a collector, which the official schema has to read without a rest.
fn decode(request: &Received) -> Vec<Span> {
    assert_eq!(
        request.header("content-type"),
        Some("application/x-protobuf")
    );
    let decoded = ExportTraceServiceRequest::decode(&*request.body).expect("a message of OTLP");
    assert_eq!(decoded.encode_to_vec(), request.body, "{decoded:?}");
    let scopes = decoded
        .resource_spans
        .into_iter()
        .flat_map(|one| one.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// All spans that have come, once there are as many.
fn spans(collector: &Origin, count: usize) -> Vec<Span> {
    let mut found = Vec::new();
    wait_for("the spans", || {
        found = collector.requests().iter().flat_map(decode).collect();
        (found.len() >= count).then_some(())
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

fn text(attributes: &[KeyValue]) -> HashMap<&str, String> {
    let value = |one: &KeyValue| match one.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    };
    let pairs = attributes.iter();
    pairs
        .filter_map(|one| Some((&*one.key, value(one)?)))
        .collect()
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        write!(text, "{octet:02x}").expect("written");
        text
    })
}

#[test]
fn a_request_is_a_span_and_so_is_the_attempt_at_its_server() {
    let (app, collector) = (Origin::named("app"), collector());
    let gateway = traced(
        &app,
        &collector,
        "sample: 1, service: edge, headers: { X-Key: secret }",
    )
    .start();
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-00");
    let reply = get(&gateway, "/x?secret=1")
        .args(["-H", &parent, "-H", "tracestate: v=1"])
        .args(["-H", "Tracestate: w=2", "-H", "baggage: k=v"])
        .send();
    assert_eq!(reply.status, 200);

    let found = spans(&collector, 2);
    let server = found
        .iter()
        .find(|span| span.kind == 2)
        .expect("of the gateway");
    let client = found
        .iter()
        .find(|span| span.kind == 3)
        .expect("of the attempt");
    for span in [server, client] {
        assert_eq!(hexadecimal(&span.trace_id), TRACE);
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        assert!(span.status.is_none(), "{span:?}");
    }
    assert_eq!(hexadecimal(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(client.parent_span_id, server.span_id);
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    let attributes = text(&server.attributes);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.scheme", "https"),
        ("url.path", "/x"),
        ("server.address", "a.test"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.name", "http"),
    ] {
        assert_eq!(
            attributes.get(name).map(String::as_str),
            Some(value),
            "{attributes:?}"
        );
    }
    assert!(!format!("{found:?}").contains("secret"), "{found:?}");
    // Without a route of its own, its name is the method alone.
    assert_eq!((&*server.name, &*client.name), ("GET", "GET"));
    let attributes = text(&client.attributes);
    let (port, url) = (app.address().port(), format!("http://{}/x", app.address()));
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("server.port", &*port.to_string()),
        ("url.full", &*url),
        ("snigate.upstream", "app"),
    ] {
        assert_eq!(
            attributes.get(name).map(String::as_str),
            Some(value),
            "{attributes:?}"
        );
    }
    assert_eq!(attributes.get("http.request.resend_count"), None);

    // The server continues below the attempt, with the decision to record.
    let asked = app.requests();
    let told = format!("00-{TRACE}-{}-01", hexadecimal(&client.span_id));
    assert_eq!(asked[0].header("traceparent"), Some(&*told));
    assert_eq!(asked[0].head.matches("traceparent").count(), 1);
    let head = asked[0].head.to_lowercase();
    assert!(head.contains("\r\ntracestate: v=1\r\n"), "{head}");
    assert!(head.contains("\r\ntracestate: w=2\r\n"), "{head}");
    assert_eq!(asked[0].header("baggage"), Some("k=v"));
    let export = &collector.requests()[0];
    assert_eq!(export.line(), "POST /v1/traces HTTP/1.1");
    assert_eq!(export.header("x-key"), Some("secret"));
}

#[test]
fn what_is_not_recorded_is_passed_on_as_decided() {
    let (app, collector) = (Origin::named("app"), collector());
    let gateway = traced(&app, &collector, "sample: 0").start();
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    for field in [
        format!("traceparent: {parent}"),
        "traceparent: nonsense".to_owned(),
    ] {
        let state = ["-H", &*field, "-H", "tracestate: v=1"];
        assert_eq!(get(&gateway, "/").args(state).send().status, 200);
    }
    // Two are as good as none.
    let field = format!("traceparent: {parent}");
    let twice = [
        "-H",
        &*field,
        "-H",
        "Traceparent: 00-1",
        "-H",
        "tracestate: v=1",
    ];
    assert_eq!(get(&gateway, "/twice").args(twice).send().status, 200);
    assert_eq!(get(&gateway, "/set").send().status, 200);
    let asked = app.requests();
    // A client that nobody trusts has asked for it to be recorded.
    let told = format!("00-{TRACE}-00f067aa0ba902b7-00");
    assert_eq!(asked[0].header("traceparent"), Some(&*told));
    assert_eq!(asked[0].header("tracestate"), Some("v=1"));
    let begun = asked[1].header("traceparent").expect("a trace of its own");
    assert!(
        begun.starts_with("00-") && begun.ends_with("-00"),
        "{begun}"
    );
    assert!(!begun.contains(TRACE), "{begun}");
    assert_eq!(asked[1].header("tracestate"), None);
    assert!(!asked[2].head.contains(TRACE), "{}", asked[2].head);
    assert_eq!(asked[2].header("tracestate"), None);
    assert_eq!(asked[3].header("traceparent"), Some("mine"));
    assert!(!asked[3].head.contains("00-"), "{}", asked[3].head);
    assert_eq!(collector.requests(), []);
}

#[test]
fn trusted_proxies_decide_what_is_recorded() {
    let (app, collector) = (Origin::named("app"), collector());
    let gateway = traced(&app, &collector, "sample: 0").server("trusted_proxies: [127.0.0.0/8]");
    let gateway = gateway.start();
    for (path, flags) in [("/a", "00"), ("/b", "01")] {
        let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}");
        assert_eq!(get(&gateway, path).args(["-H", &parent]).send().status, 200);
    }
    for span in spans(&collector, 2) {
        if span.kind == 2 {
            assert_eq!(text(&span.attributes)["url.path"], "/b");
        }
    }
}

#[test]
fn failures_and_responses_of_the_gateway_are_spans() {
    let (app, collector) = (Origin::named("app"), collector());
    let gateway = traced(&app, &collector, "sample: 1").start();
    assert_eq!(get(&gateway, "/own").send().status, 200);
    assert_eq!(get(&gateway, "/gone").send().status, 502);
    let found = spans(&collector, 3);
    let of = |path: &str, kind: i32| {
        let mut found = found.iter().filter(|span| span.kind == kind);
        found.find(|span| kind == 3 || text(&span.attributes)["url.path"] == path)
    };
    let own = of("/own", 2).expect("a span");
    assert!(own.status.is_none());
    assert_eq!(own.name, "GET /own");
    assert_eq!(text(&own.attributes)["http.route"], "/own");
    let failed = of("/gone", 2).expect("a span");
    assert_eq!(failed.status.as_ref().expect("an error").code, 2);
    let attributes = text(&failed.attributes);
    assert_eq!(attributes["http.response.status_code"], "502");
    assert_eq!(attributes["error.type"], "502");
    let attempt = of("/gone", 3).expect("a span");
    assert_eq!(attempt.status.as_ref().expect("an error").code, 2);
    let attributes = text(&attempt.attributes);
    assert_eq!(attributes["error.type"], "connect_failed");
    assert_eq!(attributes.get("http.response.status_code"), None);
}

#[test]
fn each_attempt_is_a_span_that_its_server_continues() {
    let busy = Origin::start(|_| vec![Act::respond(503, "busy")]);
    let (app, dead, collector) = (Origin::named("app"), Origin::refusing(), collector());
    let servers = [dead.address(), busy.address(), app.address()].map(|one| format!("\"{one}\""));
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "tracing: {{ endpoint: \"http://{}\", sample: 1 }}\n\
             upstreams: {{ app: {{ servers: [{}] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [{{ upstream: app, \
             retries: {{ attempts: 2, on: [connect, 503] }} }}] }}]\n\
             log: {{ access: off }}\n",
            collector.address(),
            servers.join(", "),
        ),
    );
    let gateway = gateway.start();
    for _ in 0..4 {
        assert_eq!(get(&gateway, "/").send().text(), "app");
    }
    assert!(!busy.requests().is_empty());
    let found = wait_for("the spans", || {
        let found: Vec<Span> = collector.requests().iter().flat_map(decode).collect();
        let count = found.iter().filter(|span| span.kind == 2).count();
        (count == 4).then_some(found)
    });
    // What each server was told, and so the spans that it continues.
    let told = |origin: &Origin| -> Vec<String> {
        let requests = origin.requests().into_iter();
        let parent = |one: Received| {
            one.header("traceparent")
                .map(|field| field[36..52].to_owned())
        };
        requests.filter_map(parent).collect()
    };
    let (of_busy, of_app) = (told(&busy), told(&app));
    assert_eq!(of_app.len(), 4);
    let (mut refused, mut turned_away) = (0, 0);
    for server in found.iter().filter(|span| span.kind == 2) {
        assert!(server.status.is_none(), "{server:?}");
        let mut attempts: Vec<&Span> = found
            .iter()
            .filter(|span| span.parent_span_id == server.span_id)
            .collect();
        attempts.sort_by_key(|span| span.start_time_unix_nano);
        for (number, span) in attempts.iter().enumerate() {
            let attributes = text(&span.attributes);
            let resent = (number > 0).then(|| number.to_string());
            assert_eq!(attributes.get("http.request.resend_count"), resent.as_ref());
            assert_eq!(span.status.is_some(), attributes.contains_key("error.type"));
            let (id, status) = (
                hexadecimal(&span.span_id),
                attributes.get("http.response.status_code"),
            );
            match status.map(String::as_str) {
                Some("200") => {
                    assert_eq!(number + 1, attempts.len());
                    assert!(of_app.contains(&id) && span.status.is_none(), "{span:?}");
                }
                Some("503") => {
                    turned_away += 1;
                    assert_eq!(attributes["error.type"], "503");
                    assert!(of_busy.contains(&id), "{span:?}");
                }
                None => {
                    refused += 1;
                    assert_eq!(attributes["error.type"], "connect_failed");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 0, "{found:?}");
    assert_eq!(turned_away, of_busy.len());
}

#[test]
fn a_response_that_its_server_breaks_off_is_an_error() {
    let app = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        vec![Act::send(head), Act::Close]
    });
    let collector = collector();
    let gateway = traced(&app, &collector, "sample: 1").start();
    assert!(get(&gateway, "/").args(["-X", "ODD"]).try_send().is_err());
    for span in spans(&collector, 2) {
        assert_eq!(span.status.as_ref().expect("an error").code, 2, "{span:?}");
        let attributes = text(&span.attributes);
        assert_eq!(attributes["error.type"], "reset");
        assert_eq!(attributes["http.response.status_code"], "200");
        // Any client could make up more of these.
        assert_eq!(span.name, "HTTP");
        assert_eq!(attributes["http.request.method"], "_OTHER");
    }
}

#[test]
fn traces_begin_and_end_with_a_reload() {
    let (app, collector) = (Origin::named("app"), collector());
    let gateway = traced(&app, &collector, "sample: 1").start();
    let with_traces = fs::read_to_string(gateway.dir().join(CONFIG)).expect("the configuration");
    let is_other = |line: &&str| !line.starts_with("tracing");
    let without: Vec<&str> = with_traces.lines().filter(is_other).collect();
    gateway.write(CONFIG, &(without.join("\n") + "\n"));
    assert_eq!(gateway.reload().0, 200);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let field = format!("traceparent: {parent}");
    assert_eq!(get(&gateway, "/").args(["-H", &field]).send().status, 200);
    assert_eq!(app.requests()[0].header("traceparent"), Some(&*parent));
    gateway.write(CONFIG, &with_traces);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(get(&gateway, "/again").send().status, 200);
    for span in spans(&collector, 2) {
        assert_ne!(hexadecimal(&span.trace_id), TRACE);
    }
}
