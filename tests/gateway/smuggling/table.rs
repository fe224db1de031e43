//! Requests that are ambiguous or malformed, and what each is answered with.

/// One request, up to where another could be smuggled in.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: u16,
}

fn case(name: impl Into<String>, bytes: impl AsRef<[u8]>, status: u16) -> Case {
    Case {
        name: name.into(),
        bytes: bytes.as_ref().to_vec(),
        status,
    }
}

/// A POST with these fields and this body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /case HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n{body}").into_bytes()
}

/// All of them; `HOST` stands for a host that is served.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = framing();
    cases.extend(fields());
    cases.extend(request_lines());
    cases.extend(chunks());
    cases.extend(sizes());
    cases
}

fn framing() -> Vec<Case> {
    let ends = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "content-length: 5\r\ntransfer-encoding: Chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \x0cchunked\r\n",
        "Transfer-Encoding: chunked\x0b\r\n",
        "Transfer-Encoding: \u{e7}hunked\r\n",
        "Transfer-Encoding: cow\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding\r\n",
        "Transfer-Encoding chunked\r\n",
        "Transfer-Encoding: x\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5e0\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: \u{0665}\r\n",
        "Content-Length:\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\x0b\r\n",
        "Content-Length: 5\0\r\n",
    ];
    let mut cases: Vec<Case> = ends
        .iter()
        .map(|fields| case(*fields, post(fields, "0\r\n\r\n"), 400))
        .collect();
    for version in ["1.0", "1.1"] {
        let old = format!(
            "POST /case HTTP/{version}\r\nHost: HOST\r\nConnection: keep-alive\r\n\
             Transfer-Encoding: chunked\r\n{}\r\n0\r\n\r\n",
            if version == "1.0" {
                ""
            } else {
                "Content-Length: 4\r\n"
            }
        );
        cases.push(case(format!("chunked in {version}"), old, 400));
    }
    cases
}

fn fields() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        "X: a\rb\r\n",
        "X: a\nb\r\n",
        "X: a\0b\r\n",
        "X: a\x7fb\r\n",
        "X: a\x01b\r\n",
        "X\0Y: a\r\n",
        "X Y: a\r\n",
        "X : a\r\n",
        "X(Y): a\r\n",
        "X\u{fc}: a\r\n",
        ": a\r\n",
        "X\r\n",
        "\x0bX: a\r\n",
        "X: a\n",
        "Host: other.test\r\n",
        "Host: HOST\r\n",
        "host : other.test\r\n",
    ]
    .iter()
    .map(|fields| case(*fields, post(fields, ""), 400))
    .collect();
    for (name, head) in [
        ("no host", "GET /case HTTP/1.1\r\n\r\n".to_owned()),
        (
            "a first field that is folded",
            "GET /case HTTP/1.1\r\n Host: HOST\r\n\r\n".to_owned(),
        ),
        (
            "lines that end in LF",
            "GET /case HTTP/1.1\nHost: HOST\n\n".to_owned(),
        ),
        (
            "a head that ends in LF",
            "GET /case HTTP/1.1\r\nHost: HOST\r\n\n".to_owned(),
        ),
        (
            "a head that ends in CR",
            "GET /case HTTP/1.1\r\nHost: HOST\r\n\r\r\n".to_owned(),
        ),
        (
            "two empty lines before",
            "\r\n\r\nGET /case HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
        ),
        (
            "an empty line of LF before",
            "\nGET /case HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
        ),
    ] {
        cases.push(case(name, head, 400));
    }
    for host in [
        "",
        " ",
        "HOST:80:80",
        "HOST:x",
        "HOST/x",
        "HOST?x",
        "HOST#x",
        "x@HOST",
        "HOST, HOST",
        "HOST HOST",
        "http://HOST",
        "a..test",
        "[::1",
        "HOST\\x",
        "%61.test",
    ] {
        let head = format!("GET /case HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(case(format!("Host: {host}"), head, 400));
    }
    cases
}

fn request_lines() -> Vec<Case> {
    let lines = [
        ("GET /case", 400),
        ("GET /case ", 400),
        ("GET", 400),
        ("GET  /case HTTP/1.1", 400),
        ("GET /case  HTTP/1.1", 400),
        ("GET /case HTTP/1.1 ", 400),
        (" GET /case HTTP/1.1", 400),
        ("GET\t/case\tHTTP/1.1", 400),
        ("GET /case\tHTTP/1.1", 400),
        ("GET /ca se HTTP/1.1", 400),
        ("GET /case\0 HTTP/1.1", 400),
        ("GET /case\rx HTTP/1.1", 400),
        ("GET /case#x HTTP/1.1", 400),
        ("GET case HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET ftp://HOST/case HTTP/1.1", 400),
        ("GET http:///case HTTP/1.1", 400),
        ("GET http://x@HOST/case HTTP/1.1", 400),
        ("GET http://other.test/case HTTP/1.1", 400),
        ("GET //HOST:x/case HTTP/1.1x", 400),
        ("G@T /case HTTP/1.1", 400),
        ("GET /case HTTP/1.10", 400),
        ("GET /case HTTP/01.1", 400),
        ("GET /case HTTP/1", 400),
        ("GET /case HTTP/1,1", 400),
        ("GET /case http/1.1", 400),
        ("GET /case XTTP/1.1", 400),
        ("GET /case HTTP /1.1", 400),
        ("GET /case HTTP/0.9", 400),
        ("GET /case HTTP/1.2", 400),
        ("GET /case HTTP/2.0", 400),
        ("GET /case HTTP/3.0", 400),
        ("PRI * HTTP/2.0", 400),
        ("CONNECT HOST:443 HTTP/1.1", 405),
        ("TRACE /case HTTP/1.1", 405),
    ];
    lines
        .iter()
        .map(|(line, status)| {
            let head = format!("{line}\r\nHost: HOST\r\nX: y\r\n\r\n");
            case(*line, head, *status)
        })
        .collect()
}

fn chunks() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut bodies: Vec<String> = [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na\r0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "2\r\na\r\n0\r\n\r\n",
        "1\r\r\na\r\n0\r\n\r\n",
        "1;x\ny\r\na\r\n0\r\n\r\n",
        "1;x\0y\r\na\r\n0\r\n\r\n",
        "1;x\ry\r\na\r\n0\r\n\r\n",
        "10000000000000001\r\na\r\n0\r\n\r\n",
        "ffffffffffffffff\r\na\r\n0\r\n\r\n",
        "1,1\r\na\r\n0\r\n\r\n",
        "1_\r\na\r\n0\r\n\r\n",
        "\u{0661}\r\na\r\n0\r\n\r\n",
        "0\r\n folded: x\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nX: y\nZ: z\r\n\r\n",
        "0\r\nX: y\0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\n\r\r\n",
    ]
    .map(str::to_owned)
    .into();
    bodies.push(format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5 * 1024)));
    bodies.push(format!("{}0\r\n\r\n", "1;xxxxxxx\r\na\r\n".repeat(1024)));
    bodies.push(format!("0\r\n{}\r\n", "X: y\r\n".repeat(4 * 1024)));
    bodies
        .iter()
        .map(|body| {
            let name: String = body.chars().take(40).collect();
            case(format!("chunks {name:?}"), post(chunked, body), 400)
        })
        .collect()
}

fn sizes() -> Vec<Case> {
    let line = format!(
        "GET /{} HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "x".repeat(16 * 1024)
    );
    let endless = format!("GET /{}", "x".repeat(40 * 1024));
    let large = format!("X: {}\r\n", "y".repeat(64 * 1024));
    let many = "X: y\r\n".repeat(100);
    let no_end = format!(
        "GET /case HTTP/1.1\r\nHost: HOST\r\nX: {}",
        "y".repeat(70 * 1024)
    );
    vec![
        case("a long request line", line, 414),
        case("an endless request line", endless, 414),
        case("a large field", post(&large, ""), 431),
        case("101 fields", post(&many, ""), 431),
        case("a field without end", no_end, 431),
        case("a method without end", "A".repeat(20_000), 400),
    ]
}
