//! Reads the ClientHello that a connection begins with (RFC 8446, sections 4.1.2 and 5.1), for the
//! name that it requests (RFC 6066, section 3).
//!
//! A pure function of octets: it reads from no connection, and nothing is answered. It is at least as
//! strict as OpenSSL about what it reads, so that no hello has one name here and another there.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use super::alpn::is_validation;

/// How many octets a connection may begin with before its hello is complete.
pub const LONGEST_HELLO: usize = 32 * 1024;

/// The header of a record: type, version and length.
const RECORD_HEADER: usize = 5;

/// The type of records with handshake messages.
const HANDSHAKE: u8 = 22;

/// The first octet of every version since SSL 3.
const MAJOR_VERSION: u8 = 3;

/// The largest content of a record.
const LARGEST_RECORD: usize = 16 * 1024;

/// The type of the message, and the header that it begins with: type and length.
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;

/// A version and a random value.
const FIXED: usize = 2 + 32;

const LONGEST_SESSION_ID: usize = 32;

const SERVER_NAME: usize = 0;
const ALPN: usize = 16;
const HOST_NAME: usize = 0;
const LONGEST_NAME: usize = 255;

/// What the first octets of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHello<'a> {
    /// There has to be more.
    Incomplete,
    /// A whole hello that requests this name, which need not be one of a host.
    Name(&'a [u8]),
    /// A whole hello that requests no name.
    Nameless,
    /// Not a hello that a server accepts.
    Malformed,
}

/// Reads a hello as it arrives, each octet once.
#[derive(Debug, Default)]
pub struct ClientHelloReader {
    records: Records,
    /// The message, whose parts may be in several records.
    message: Vec<u8>,
}

/// Finds the end of a hello as it arrives, and keeps nothing of it.
#[derive(Debug, Default)]
pub struct ClientHelloEnd {
    records: Records,
    /// What the message begins with, and how much of that has arrived.
    header: [u8; MESSAGE_HEADER],
    /// How many octets of the message have arrived.
    received: usize,
}

/// The records that a message is in.
#[derive(Debug, Default)]
struct Records {
    /// How many octets have been read.
    read: usize,
    /// How many octets are left of the current record.
    left: usize,
}

/// Not a hello that a server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

impl ClientHelloReader {
    /// Reads on in `octets`, which are all that has arrived: those of the call before, and more.
    pub fn read(&mut self, octets: &[u8]) -> ClientHello<'_> {
        match self.collect(octets) {
            Ok(true) => match requested_name(&self.message) {
                Ok(Some(name)) => ClientHello::Name(name),
                Ok(None) => ClientHello::Nameless,
                Err(Malformed) => ClientHello::Malformed,
            },
            Ok(false) if octets.len() < LONGEST_HELLO => ClientHello::Incomplete,
            Ok(false) | Err(Malformed) => ClientHello::Malformed,
        }
    }

    /// Whether a whole hello offers the protocol alone in which a CA validates a name.
    pub fn offers_validation_alone(&self) -> bool {
        let found = extensions(&self.message).map(|extensions| {
            extensions.is_some_and(|mut extensions| {
                loop {
                    match extensions.take_extension() {
                        Ok(Some((ALPN, content))) => return is_validation(content),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(Malformed) => return false,
                    }
                }
            })
        });
        found == Ok(true)
    }

    /// Collects the message from its records, and returns whether it is complete.
    fn collect(&mut self, octets: &[u8]) -> Result<bool, Malformed> {
        while !is_complete(&self.message, self.message.len(), &self.records)? {
            let Some(part) = self.records.next_part(octets)? else {
                return Ok(false);
            };
            self.message.extend_from_slice(part);
        }
        Ok(true)
    }
}

impl ClientHelloEnd {
    /// Whether there has to be more of a hello whose first octets are `octets`, which are all that
    /// has arrived: those of the call before, and more. False as well for what is no hello.
    pub fn is_awaited(&mut self, octets: &[u8]) -> bool {
        self.find(octets) == Ok(false) && octets.len() < LONGEST_HELLO
    }

    fn find(&mut self, octets: &[u8]) -> Result<bool, Malformed> {
        loop {
            let header = self.header.get(..self.received).unwrap_or(&self.header);
            if is_complete(header, self.received, &self.records)? {
                return Ok(true);
            }
            let Some(part) = self.records.next_part(octets)? else {
                return Ok(false);
            };
            let missing = self.header.iter_mut().skip(self.received);
            for (place, octet) in missing.zip(part) {
                *place = *octet;
            }
            self.received += part.len();
        }
    }
}

impl Records {
    /// The next part of the message in `octets`, which are all that has arrived, if there is one.
    fn next_part<'a>(&mut self, octets: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let mut rest = octets.get(self.read..).unwrap_or_default();
        if self.left == 0 {
            let Some(length) = content_length(rest)? else {
                return Ok(None);
            };
            self.read += RECORD_HEADER;
            self.left = length;
            rest = rest.get(RECORD_HEADER..).unwrap_or_default();
        }
        let part = rest.get(..self.left).unwrap_or(rest);
        self.read += part.len();
        self.left -= part.len();
        Ok(Some(part).filter(|part| !part.is_empty()))
    }
}

/// Whether a message that begins with `first` is complete once so many octets of it have been
/// received. It ends together with a record.
fn is_complete(first: &[u8], received: usize, records: &Records) -> Result<bool, Malformed> {
    let Some(&kind) = first.first() else {
        return Ok(false);
    };
    if kind != CLIENT_HELLO {
        return Err(Malformed);
    }
    let Some([_, length @ ..]) = first.first_chunk::<MESSAGE_HEADER>() else {
        return Ok(false);
    };
    let length = MESSAGE_HEADER + number(length);
    if length > LONGEST_HELLO {
        return Err(Malformed);
    }
    if received < length {
        return Ok(false);
    }
    if received == length && records.left == 0 {
        Ok(true)
    } else {
        Err(Malformed)
    }
}

/// What a connection begins with whose first octets are `octets`.
pub fn read_client_hello(octets: &[u8], read: impl FnOnce(ClientHello<'_>)) {
    read(ClientHelloReader::default().read(octets));
}

/// The length of the record that `octets` begin with; `None` if its header is not complete.
fn content_length(octets: &[u8]) -> Result<Option<usize>, Malformed> {
    let expected = [HANDSHAKE, MAJOR_VERSION];
    if octets
        .iter()
        .zip(expected)
        .any(|(one, other)| *one != other)
    {
        return Err(Malformed);
    }
    let Some([_, _, _, length @ ..]) = octets.first_chunk::<RECORD_HEADER>() else {
        return Ok(None);
    };
    match number(length) {
        0 => Err(Malformed),
        length if length > LARGEST_RECORD => Err(Malformed),
        length => Ok(Some(length)),
    }
}

/// The name that a whole message requests, if any.
fn requested_name(message: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let Some(mut extensions) = extensions(message)? else {
        return Ok(None);
    };
    let mut name = None;
    while let Some((kind, content)) = extensions.take_extension()? {
        if kind == SERVER_NAME && name.replace(host_name(content)?).is_some() {
            return Err(Malformed);
        }
    }
    Ok(name)
}

/// The extensions of a whole message, if it has any.
fn extensions(message: &[u8]) -> Result<Option<Octets<'_>>, Malformed> {
    let mut hello = Octets(message.get(MESSAGE_HEADER..).unwrap_or_default());
    hello.take(FIXED)?;
    let session_id = hello.take_vector(1)?;
    let cipher_suites = hello.take_vector(2)?;
    let compressions = hello.take_vector(1)?;
    if session_id.len() > LONGEST_SESSION_ID
        || cipher_suites.is_empty()
        || cipher_suites.len() % 2 != 0
        || compressions.is_empty()
    {
        return Err(Malformed);
    }
    if hello.is_empty() {
        return Ok(None);
    }
    let extensions = Octets(hello.take_vector(2)?);
    match hello.is_empty() {
        true => Ok(Some(extensions)),
        false => Err(Malformed),
    }
}

/// The name in the content of a `server_name` extension: a list of exactly one.
fn host_name(content: &[u8]) -> Result<&[u8], Malformed> {
    let mut content = Octets(content);
    let mut list = Octets(content.take_vector(2)?);
    let kind = list.take_number(1)?;
    let name = list.take_vector(2)?;
    let is_name = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(&0);
    match content.is_empty() && list.is_empty() && kind == HOST_NAME && is_name {
        true => Ok(name),
        false => Err(Malformed),
    }
}

/// Octets that are read from their beginning.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// An extension, with its type; `None` at the end.
    fn take_extension(&mut self) -> Result<Option<(usize, &'a [u8])>, Malformed> {
        if self.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.take_number(2)?, self.take_vector(2)?)))
    }

    /// A number of so many octets.
    fn take_number(&mut self, width: usize) -> Result<usize, Malformed> {
        self.take(width).map(number)
    }

    /// A vector whose length is a number of so many octets.
    fn take_vector(&mut self, width: usize) -> Result<&'a [u8], Malformed> {
        let length = self.take_number(width)?;
        self.take(length)
    }
}

/// A number as it stands on the wire.
fn number(octets: &[u8]) -> usize {
    octets
        .iter()
        .fold(0, |number, octet| number << 8 | usize::from(*octet))
}

#[cfg(test)]
mod tests {
    use openssl::ssl::{Ssl, SslContext, SslMethod};
    use proptest::prelude::*;

    use super::*;

    fn vector(width: usize, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[4 - width..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(2, content)].concat()
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        let entry = [&[0][..], &vector(2, name)].concat();
        extension(0, &vector(2, &entry))
    }

    /// A message with these extensions.
    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[9; 32]),
            &vector(2, &[0x13, 0x01, 0x0a, 0x0a]),
            &vector(1, &[0]),
            &vector(2, &extensions.concat()),
        ];
        [&[1][..], &vector(3, &body.concat())].concat()
    }

    /// A message in records of at most `size` octets.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let records = message.chunks(size).map(|part| {
            let header = [22, 3, 1];
            [&header[..], &vector(2, part)].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    /// What is read of octets that arrive at once: the name, empty if there is none.
    fn read(octets: &[u8]) -> Result<Option<Vec<u8>>, bool> {
        let mut found = Err(false);
        read_client_hello(octets, |hello| {
            found = match hello {
                ClientHello::Name(name) => Ok(Some(name.to_vec())),
                ClientHello::Nameless => Ok(None),
                ClientHello::Incomplete => Err(false),
                ClientHello::Malformed => Err(true),
            };
        });
        found
    }

    const INCOMPLETE: Result<Option<Vec<u8>>, bool> = Err(false);
    const MALFORMED: Result<Option<Vec<u8>>, bool> = Err(true);

    fn name(name: &[u8]) -> Result<Option<Vec<u8>>, bool> {
        Ok(Some(name.to_vec()))
    }

    /// One octet at a time, until something is known.
    fn read_slowly(octets: &[u8]) -> (usize, Result<Option<Vec<u8>>, bool>) {
        let mut reader = ClientHelloReader::default();
        for end in 0..=octets.len() {
            match reader.read(&octets[..end]) {
                ClientHello::Incomplete => {}
                ClientHello::Name(name) => return (end, Ok(Some(name.to_vec()))),
                ClientHello::Nameless => return (end, Ok(None)),
                ClientHello::Malformed => return (end, MALFORMED),
            }
        }
        (octets.len(), INCOMPLETE)
    }

    #[test]
    fn a_hello_of_a_validation_offers_nothing_else() {
        let protocols = |names: &[&[u8]]| {
            let list: Vec<u8> = names.iter().flat_map(|name| vector(1, name)).collect();
            extension(16, &vector(2, &list))
        };
        for (names, expected) in [
            (&[&b"acme-tls/1"[..]][..], true),
            (&[b"acme-tls/1", b"h2"], false),
            (&[b"h2"], false),
        ] {
            let octets = records(
                &message(&[server_name(b"a.example"), protocols(names)]),
                100,
            );
            let mut reader = ClientHelloReader::default();
            assert_eq!(reader.read(&octets), ClientHello::Name(b"a.example"));
            assert_eq!(reader.offers_validation_alone(), expected, "{names:?}");
        }
        let mut reader = ClientHelloReader::default();
        reader.read(&records(&message(&[server_name(b"a.example")]), 100));
        assert!(!reader.offers_validation_alone());
    }

    #[test]
    fn a_hello_of_openssl_is_read() {
        let context = SslContext::builder(SslMethod::tls_client()).expect("OpenSSL");
        let mut ssl = Ssl::new(&context.build()).expect("OpenSSL");
        ssl.set_hostname("a.example").expect("OpenSSL");
        #[derive(Debug, Default)]
        struct Written(Vec<u8>);
        impl std::io::Read for Written {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::WouldBlock.into())
            }
        }
        impl std::io::Write for Written {
            fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
                self.0.extend_from_slice(octets);
                Ok(octets.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let openssl::ssl::HandshakeError::WouldBlock(begun) =
            ssl.connect(Written::default()).expect_err("no server")
        else {
            panic!("the handshake failed");
        };
        let octets = &begun.get_ref().0;
        assert!(octets.len() > 1200, "with a post-quantum key share");
        assert_eq!(read(octets), name(b"a.example"));
        assert_eq!(read_slowly(octets), (octets.len(), name(b"a.example")));
    }

    #[test]
    fn a_hello_may_be_in_any_number_of_records_and_parts() {
        let grease = extension(0x0a0a, &[]);
        let key_share = extension(51, &[1; 1216]);
        let orders = [
            [
                grease.clone(),
                server_name(b"A.example."),
                key_share.clone(),
            ],
            [
                key_share.clone(),
                grease.clone(),
                server_name(b"A.example."),
            ],
            [server_name(b"A.example."), key_share, grease],
        ];
        for extensions in orders {
            let message = message(&extensions);
            for size in [1, 2, 3, 4, 5, 100, message.len()] {
                let octets = records(&message, size);
                assert_eq!(read(&octets), name(b"A.example."), "{size}");
                let (end, found) = read_slowly(&octets);
                assert_eq!((end, found), (octets.len(), name(b"A.example.")), "{size}");
                // Early data, for example.
                let more = [&octets[..], b"\x17\x03\x03\x00\x01x"].concat();
                assert_eq!(read(&more), name(b"A.example."), "{size}");
            }
        }
    }

    #[test]
    fn a_hello_without_a_name_is_nameless() {
        assert_eq!(read(&records(&message(&[]), 100)), Ok(None));
        assert_eq!(
            read(&records(&message(&[extension(16, b"\x00\x03\x02h2")]), 100)),
            Ok(None)
        );
        let mut short = message(&[]);
        let end = short.len() - 2;
        short.truncate(end);
        short[3] -= 2;
        assert_eq!(
            read(&records(&short, 100)),
            Ok(None),
            "no extensions at all"
        );
    }

    #[test]
    fn a_hello_that_no_server_accepts_is_malformed() {
        let good = message(&[server_name(b"a")]);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = good.clone();
            change(&mut message);
            read(&records(&message, 1000))
        };
        assert_eq!(with(&|_| {}), name(b"a"));
        assert_eq!(
            with(&|message| message[0] = 2),
            MALFORMED,
            "another message"
        );
        assert_eq!(with(&|message| message[3] -= 1), MALFORMED, "too short");
        assert_eq!(with(&|message| message[3] += 1), INCOMPLETE);
        assert_eq!(with(&|message| message[1] = 1), MALFORMED, "too long");
        assert_eq!(with(&|message| message[38] = 33), MALFORMED, "session id");
        assert_eq!(with(&|message| message.push(0)), MALFORMED, "more");
        for extensions in [
            vec![server_name(b"a"), server_name(b"a")],
            vec![server_name(b"")],
            vec![server_name(b"a\0b")],
            vec![server_name(&[b'a'; 256])],
            vec![extension(0, b"")],
            vec![extension(0, &vector(2, b""))],
            vec![extension(0, &vector(2, b"\x01\x00\x01a"))],
            vec![extension(0, &vector(2, b"\x00\x00\x01a\x00\x00\x01b"))],
            vec![extension(
                0,
                &[&vector(2, b"\x00\x00\x01a")[..], b"x"].concat(),
            )],
            vec![server_name(b"a"), b"\x00".to_vec()],
        ] {
            let octets = records(&message(&extensions), 1000);
            assert_eq!(read(&octets), MALFORMED, "{extensions:?}");
        }
        for octets in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"\x16\x02",
            b"\x80\x2e\x01",
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
        ] {
            assert_eq!(read(octets), MALFORMED, "{octets:?}");
        }
        for octets in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x40\x00"] {
            assert_eq!(read(octets), INCOMPLETE, "{octets:?}");
        }
    }

    #[test]
    fn what_is_held_of_a_hello_is_bounded() {
        let endless = records(&[&[1, 0, 0x7f, 0xf0][..], &[0; LONGEST_HELLO]].concat(), 1);
        let (end, found) = read_slowly(&endless);
        assert_eq!((end, found), (LONGEST_HELLO, MALFORMED));
    }

    proptest! {
        #[test]
        fn octets_at_once_and_one_by_one_read_the_same(
            octets in proptest::collection::vec(any::<u8>(), 0..200),
            size in 1..50_usize,
            is_framed in any::<bool>(),
        ) {
            let octets = if is_framed { records(&octets, size) } else { octets };
            let (end, slowly) = read_slowly(&octets);
            prop_assert_eq!(read(&octets[..end]), slowly);
        }
    }
}
