use super::*;

/// A header that names nobody.
fn nobody(len: usize) -> Parsed {
    Parsed::Header {
        len,
        addresses: None,
    }
}

fn header(len: usize, source: &str, destination: &str) -> Parsed {
    Parsed::Header {
        len,
        addresses: Some(Addresses {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        }),
    }
}

/// A header of version 2.
fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let mut octets = SIGNATURE.to_vec();
    octets.extend([command, family]);
    octets.extend(length.to_be_bytes());
    octets.extend(content);
    octets
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().expect("an address").octets();
    [
        &ip("2001:db8::1")[..],
        &ip("2001:db8::2"),
        &[0, 1],
        &[1, 187],
    ]
    .concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short").to_be_bytes();
    [&[kind][..], &length, value].concat()
}

/// A header with these fields before and after a checksum that is right.
fn with_checksum(before: &[u8], after: &[u8]) -> Vec<u8> {
    let content = [&V4[..], before, &field(CHECKSUM, &[0; 4]), after].concat();
    let mut octets = binary(0x21, 0x11, &content);
    let at = FIXED + V4.len() + before.len() + 3;
    let sum = checksum_of(&octets, at).to_be_bytes();
    octets[at..at + 4].copy_from_slice(&sum);
    octets
}

#[test]
fn the_checksum_is_crc32c() {
    // The check value of the algorithm, and a vector of RFC 3720, appendix B.4.
    assert_eq!(checksum_of(b"123456789", 9), 0xe306_9283);
    assert_eq!(checksum_of(&[0; 32], 32), 0x8a91_36aa);
}

#[test]
fn a_line_names_the_client() {
    for (line, source, destination) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            "192.0.2.1:56324",
            "198.51.100.7:443",
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:DB8::2 0 65535\r\n",
            "[2001:db8::1]:0",
            "[2001:db8::2]:65535",
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 1 2\r\n",
            "192.0.2.1:1",
            "198.51.100.7:2",
        ),
    ] {
        let expected = header(line.len(), source, destination);
        assert_eq!(parse(line.as_bytes()), expected, "{line}");
        // What follows is not looked at.
        let more = [line.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&more), expected, "{line}");
    }
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN 192.0.2.1 whatever it is\r\n",
        "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), nobody(line.len()), "{line}");
    }
}

#[test]
fn a_line_that_is_not_exactly_one_is_malformed() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
        "PROXY TCP4 192.0.2.1\t198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.7 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY TCP6 [::1] [::1] 1 2\r\n",
        "PROXY TCP6 ::1%lo ::1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN\n",
    ] {
        assert_eq!(
            parse(line.as_bytes()),
            Parsed::Invalid(Malformed),
            "{line:?}"
        );
    }
    assert_eq!(parse(b"PROXY UNKNOWN \xff\r\n"), Parsed::Invalid(Malformed));
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 16));
    assert_eq!(parse(longest.as_bytes()), nobody(LONGEST_LINE));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 15));
    assert_eq!(parse(longer.as_bytes()), Parsed::Invalid(Malformed));
    let endless = format!("PROXY TCP4 {}", "1".repeat(LONGEST_LINE));
    assert_eq!(parse(endless.as_bytes()), Parsed::Invalid(Malformed));
}

#[test]
fn version_2_names_the_client() {
    for family in [0x11, 0x12] {
        let octets = binary(0x21, family, &V4);
        let expected = header(28, "192.0.2.1:56324", "198.51.100.7:443");
        assert_eq!(parse(&octets), expected);
        assert_eq!(parse(&[&octets[..], b"\x16\x03\x01"].concat()), expected);
    }
    for family in [0x21, 0x22] {
        assert_eq!(
            parse(&binary(0x21, family, &v6())),
            header(52, "[2001:db8::1]:1", "[2001:db8::2]:443")
        );
    }
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    mapped[26..32].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 7]);
    assert_eq!(
        parse(&binary(0x21, 0x21, &mapped)),
        header(52, "192.0.2.1:0", "198.51.100.7:0")
    );
}

#[test]
fn version_2_may_name_nobody() {
    let junk = [0xff; 40];
    for (command, family, content) in [
        // The balancer's own, whatever else it says.
        (0x20, 0x00, &junk[..0]),
        (0x20, 0x00, &junk),
        (0x20, 0x11, &V4),
        (0x20, 0x11, &V4[..3]),
        (0x20, 0xee, &junk),
        // Of an unknown family.
        (0x21, 0x00, &[]),
        (0x21, 0x00, &junk),
        // A UNIX socket.
        (0x21, 0x31, &[b'/'; UNIX]),
        (0x21, 0x32, &[b'/'; UNIX]),
    ] {
        let octets = binary(command, family, content);
        assert_eq!(parse(&octets), nobody(octets.len()), "{command} {family}");
    }
}

#[test]
fn what_version_2_does_not_have_is_malformed() {
    let junk = [0; 300];
    for (command, family, content) in [
        (0x11, 0x11, &V4[..]),
        (0x31, 0x11, &V4),
        (0x22, 0x11, &V4),
        (0x2f, 0x11, &V4),
        (0x21, 0x01, &V4),
        (0x21, 0x10, &V4),
        (0x21, 0x13, &V4),
        (0x21, 0x41, &junk),
        (0x21, 0xff, &junk),
        (0x21, 0x11, &V4[..11]),
        (0x21, 0x11, &[]),
        (0x21, 0x21, &junk[..35]),
        (0x21, 0x31, &junk[..215]),
    ] {
        let octets = binary(command, family, content);
        assert_eq!(
            parse(&octets),
            Parsed::Invalid(Malformed),
            "{command} {family}"
        );
    }
    // Known before the rest arrives.
    let octets = binary(0x21, 0x41, &junk);
    assert_eq!(parse(&octets[..FIXED]), Parsed::Invalid(Malformed));
}

#[test]
fn fields_are_skipped_if_they_are_whole() {
    let known = |fields: &[u8]| parse(&binary(0x21, 0x11, &[&V4[..], fields].concat()));
    for fields in [
        field(0x04, &[]),
        field(0x05, &[7; 128]),
        [field(0x01, b"h2"), field(0xea, b"\x01vpce-1")].concat(),
        field(0x04, &[0; 60_000]),
    ] {
        let expected = header(28 + fields.len(), "192.0.2.1:56324", "198.51.100.7:443");
        assert_eq!(known(&fields), expected);
        for cut in [1, 2] {
            let broken = &fields[..fields.len() - cut];
            assert_eq!(known(broken), Parsed::Invalid(Malformed));
        }
    }
    assert_eq!(known(&[4, 0]), Parsed::Invalid(Malformed));
    assert_eq!(known(&[4, 0xff, 0xff, 0]), Parsed::Invalid(Malformed));
}

#[test]
fn a_checksum_is_verified() {
    let (alpn, noop) = (field(0x01, b"h2"), field(0x04, b"\0\0"));
    let none = Vec::new();
    for (before, after) in [
        (&none, &none),
        (&alpn, &none),
        (&none, &noop),
        (&alpn, &noop),
    ] {
        let octets = with_checksum(before, after);
        let expected = header(octets.len(), "192.0.2.1:56324", "198.51.100.7:443");
        assert_eq!(parse(&octets), expected);
        // With another type it would be another field.
        let kind = FIXED + V4.len() + before.len();
        for at in (FIXED..octets.len()).filter(|&at| at != kind) {
            let mut damaged = octets.clone();
            damaged[at] ^= 0x40;
            assert!(
                matches!(parse(&damaged), Parsed::Invalid(Malformed | Checksum)),
                "{at}"
            );
        }
        let mut other = octets.clone();
        other[FIXED] ^= 1;
        assert_eq!(parse(&other), Parsed::Invalid(Checksum));
    }
    let twice = with_checksum(&field(CHECKSUM, &[0; 4]), &[]);
    assert_eq!(parse(&twice), Parsed::Invalid(Malformed));
    let short = binary(0x21, 0x11, &[&V4[..], &field(CHECKSUM, &[0; 3])].concat());
    assert_eq!(parse(&short), Parsed::Invalid(Malformed));
}

#[test]
fn every_beginning_of_a_header_is_incomplete() {
    let unix = binary(0x21, 0x31, &[0; UNIX]);
    let local = binary(0x20, 0x00, &[]);
    for whole in [
        &b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"[..],
        b"PROXY UNKNOWN\r\n",
        &with_checksum(&field(0x01, b"h2"), &[]),
        &unix,
        &local,
    ] {
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), Parsed::Incomplete, "{len}");
        }
        assert!(matches!(parse(whole), Parsed::Header { len, .. } if len == whole.len()));
    }
}

#[test]
fn anything_else_is_no_header_from_its_first_octet_that_differs() {
    for other in [
        &b"\x16\x03\x01"[..],
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"POST",
        b"proxy TCP4",
        b"PROXYTCP4",
        b"\n",
        b"\r\n\r\nGET",
        b"\r\n\r\n\0\r\nQUIX",
        b"\0",
        b"\xff",
    ] {
        assert_eq!(parse(other), Parsed::Invalid(Missing), "{other:?}");
    }
    assert_eq!(parse(b""), Parsed::Incomplete);
}
