//! Compressed responses whose bodies stand in the configuration.

use super::super::{PINGORA, all, over};
use super::{CODINGS, decode, text};
use crate::support::serving;

#[test]
fn a_configured_body_is_compressed_too() {
    let body = text(5_000);
    let quoted = serde_json::to_string(&body).expect("JSON");
    let yaml = format!(
        r#"
sites:
  - hosts: [a.test]
    compress: {{ algorithms: [zstd, br, gzip] }}
    routes:
      - path: /text
        respond: {{ body: {quoted} }}
        response_headers:
          set: {{ ETag: '"abc"', Vary: Origin }}
          add: {{ Repr-Digest: "sha-256=:eA==:" }}
      - {{ path: /small, respond: {{ body: small }} }}
      - {{ path: /image, respond: {{ body: {quoted}, content_type: image/png }} }}
      - path: /final
        respond: {{ body: {quoted} }}
        response_headers: {{ set: {{ Cache-Control: "public, No-Transform" }} }}
      - {{ path: /off, compress: off, respond: {{ body: {quoted} }} }}
      - {{ path: /gzip, compress: {{ algorithms: [gzip] }}, respond: {{ body: {quoted} }} }}
log: {{ access: off }}
"#
    );
    let own = serving(&[&["a.test"]], &yaml).start();
    let pingora = serving(&[&["a.test"]], &yaml)
        .over_own_lane()
        .run_by(&PINGORA)
        .start();
    for (gateway, version) in [
        (&own, "1.1"),
        (&own, "2"),
        (&pingora, "1.1"),
        (&pingora, "2"),
    ] {
        let get = |path: &str, fields: &[&str]| {
            let mut curl = over(version, gateway, "a.test", path);
            for field in fields {
                curl = curl.args(["-H", field]);
            }
            curl.send()
        };
        for coding in CODINGS {
            let accept = format!("Accept-Encoding: {coding}");
            let reply = get("/text", &[&accept]);
            let what = format!("{version} {coding}: {}", reply.head);
            assert_eq!(reply.status, 200, "{what}");
            assert_eq!(reply.header("content-encoding"), Some(coding), "{what}");
            assert_eq!(
                all(&reply.head, "vary"),
                ["Origin", "Accept-Encoding"],
                "{what}"
            );
            assert_eq!(reply.header("etag"), Some("W/\"abc\""), "{what}");
            assert_eq!(reply.header("repr-digest"), None, "{what}");
            let length = reply.body.len().to_string();
            assert_eq!(reply.header("content-length"), Some(&*length), "{what}");
            assert!(decode(coding, &reply.body) == body.as_bytes(), "{what}");
            let head = over(version, gateway, "a.test", "/text")
                .args(["--head", "-H", &accept])
                .send();
            assert_eq!(head.header("content-length"), Some(&*length), "{what}");
        }
        let plain = get("/text", &[]);
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(plain.header("etag"), Some("\"abc\""));
        assert_eq!(plain.header("repr-digest"), Some("sha-256=:eA==:"));
        assert_eq!(all(&plain.head, "vary"), ["Origin", "Accept-Encoding"]);
        assert!(plain.text() == body);
        let any = "Accept-Encoding: zstd, br, gzip";
        let unchanged = get("/text", &[any, "Cache-Control: no-transform"]);
        assert!(unchanged.text() == body);
        assert_eq!(
            get("/text", &[any]).header("content-encoding"),
            Some("zstd")
        );
        assert_eq!(
            get("/gzip", &[any]).header("content-encoding"),
            Some("gzip")
        );
        for path in ["/small", "/image", "/final", "/off"] {
            let reply = get(path, &[any]);
            assert_eq!(reply.header("content-encoding"), None, "{path}");
            assert_eq!(reply.header("vary"), None, "{path}");
        }
    }
}
