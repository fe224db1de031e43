//! Mail to a server that listens to every word.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::X509;

use super::super::testing::{hostile, one, thousand};
use super::*;
use crate::config::model::MailAddress;
use crate::lock::MutexExt as _;
use crate::secret::Secret;

/// How the server behaves.
#[derive(Clone)]
struct Behavior {
    tls: MailTls,
    /// What it says it can do before and after TLS.
    offers: [&'static str; 2],
    /// What it sends with its answer to STARTTLS.
    injects: &'static str,
    rcpt: fn(&str) -> &'static str,
    /// The answers to mails, then 250; none where it is empty.
    data: VecDeque<&'static str>,
    login: &'static str,
    /// It says nothing at all.
    is_mute: bool,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            tls: MailTls::StartTls,
            offers: ["STARTTLS", "AUTH PLAIN LOGIN"],
            injects: "",
            rcpt: |_| "250 ok",
            data: VecDeque::new(),
            login: "235 welcome",
            is_mute: false,
        }
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Wire {
    fn say(&mut self, words: &str) {
        let words = format!("{words}\r\n");
        let _ = match self {
            Self::Plain(wire) => wire.write_all(words.as_bytes()),
            Self::Tls(wire) => wire.write_all(words.as_bytes()),
        };
    }

    /// A line without its end; `None` once the client has gone.
    fn hear(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let mut octet = [0];
        while !line.ends_with(b"\r\n") {
            let read = match self {
                Self::Plain(wire) => wire.read(&mut octet),
                Self::Tls(wire) => wire.read(&mut octet),
            };
            match read {
                Ok(1..) => line.extend(octet),
                _ => return None,
            }
        }
        let line = String::from_utf8(line).expect("UTF-8");
        Some(line.trim_end().to_owned())
    }
}

/// A mail server on this machine.
struct Server {
    port: u16,
    root: tempfile::NamedTempFile,
    /// Every line, with `clear` or `tls` in front of it.
    heard: Arc<Mutex<Vec<String>>>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(behavior: Behavior) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let rcgen::CertifiedKey { cert, signing_key } = made.expect("a certificate");
        let key = PKey::private_key_from_pem(signing_key.serialize_pem().as_bytes());
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).expect("TLS");
        let parsed = X509::from_pem(cert.pem().as_bytes()).expect("a certificate");
        acceptor.set_certificate(&parsed).expect("a certificate");
        acceptor
            .set_private_key(&key.expect("a key"))
            .expect("its key");
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut root = tempfile::NamedTempFile::new().expect("a file");
        root.write_all(cert.pem().as_bytes()).expect("written");
        let server = Self {
            port: listener.local_addr().expect("bound").port(),
            root,
            heard: Arc::default(),
            mails: Arc::default(),
        };
        let (heard, mails) = (Arc::clone(&server.heard), Arc::clone(&server.mails));
        let mut behavior = behavior;
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                converse(stream, &acceptor, &mut behavior, &heard, &mails);
            }
        });
        server
    }

    fn config(&self, tls: MailTls) -> Mail {
        let address = |name: Option<&str>, address: &str| MailAddress {
            name: name.map(str::to_owned),
            address: address.to_owned(),
        };
        Mail {
            host: "localhost".to_owned(),
            port: self.port,
            tls,
            from: address(Some("Snigate Wächter"), "snigate@example.com"),
            to: address(None, "ops@example.com"),
            credentials: Some(("user".to_owned(), Secret::new("hunter2".to_owned()))),
            ca_file: Some(self.root.path().to_owned()),
            timeout: Duration::from_secs(20),
        }
    }

    fn sender(&self, tls: MailTls) -> MailSender {
        MailSender::new(&self.config(tls)).expect("a sender")
    }

    /// The first words of all lines.
    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock_unpoisoned();
        let first = |line: &String| {
            let mut words = line.split_whitespace();
            let (how, verb) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            format!("{how} {verb}")
        };
        heard.iter().map(first).collect()
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock_unpoisoned().clone()
    }
}

fn converse(
    tcp: TcpStream,
    acceptor: &SslAcceptor,
    behavior: &mut Behavior,
    heard: &Mutex<Vec<String>>,
    mails: &Mutex<Vec<String>>,
) {
    let mut wire = match behavior.tls {
        MailTls::Implicit => match acceptor.accept(tcp) {
            Ok(stream) => Wire::Tls(Box::new(stream)),
            Err(_) => return,
        },
        MailTls::StartTls | MailTls::Off => Wire::Plain(tcp),
    };
    if behavior.is_mute {
        let _ = wire.hear();
        return;
    }
    wire.say("220 mx.test ESMTP");
    while let Some(line) = wire.hear() {
        let is_tls = matches!(wire, Wire::Tls(_));
        let how = if is_tls { "tls" } else { "clear" };
        heard.lock_unpoisoned().push(format!("{how} {line}"));
        let [verb, rest] = match line.split_once(' ') {
            Some((verb, rest)) => [verb, rest],
            None => [&*line, ""],
        };
        match verb {
            "EHLO" => {
                wire.say("250-mx.test");
                wire.say(&format!("250-{}", behavior.offers[usize::from(is_tls)]));
                wire.say("250 8BITMIME");
            }
            "STARTTLS" => {
                wire.say(&format!("220 go ahead{}", behavior.injects));
                let Wire::Plain(tcp) = wire else { return };
                wire = match acceptor.accept(tcp) {
                    Ok(stream) => Wire::Tls(Box::new(stream)),
                    Err(_) => return,
                };
            }
            "AUTH" if rest == "LOGIN" => {
                for (asks, expected) in [
                    ("VXNlcm5hbWU6", "dXNlcg=="),
                    ("UGFzc3dvcmQ6", "aHVudGVyMg=="),
                ] {
                    wire.say(&format!("334 {asks}"));
                    assert_eq!(wire.hear().as_deref(), Some(expected));
                }
                wire.say(behavior.login);
            }
            "AUTH" => {
                let expected = encode_block(b"\0user\0hunter2");
                assert_eq!(rest, format!("PLAIN {expected}"));
                wire.say(behavior.login);
            }
            "RCPT" => wire.say((behavior.rcpt)(rest)),
            "DATA" => {
                wire.say("354 end with a dot");
                let mut mail = String::new();
                while let Some(line) = wire.hear().filter(|line| line != ".") {
                    mail.push_str(&line);
                    mail.push('\n');
                }
                let answer = behavior.data.pop_front().unwrap_or("250 queued");
                if answer.starts_with('2') {
                    mails.lock_unpoisoned().push(mail);
                }
                if answer.is_empty() {
                    let _ = wire.hear();
                    return;
                }
                wire.say(answer);
            }
            "QUIT" => {
                wire.say("221 bye");
                return;
            }
            _ => wire.say("250 ok"),
        }
    }
}

/// The lines of a mail's head, unfolded, and its text, decoded.
fn read(mail: &str) -> (Vec<String>, String) {
    let (head, text) = mail.split_once("\n\n").expect("a head and a text");
    let head = head.replace("\n ", " ");
    let text = match head.contains("Content-Transfer-Encoding: quoted-printable") {
        true => decode(text),
        false => text.to_owned(),
    };
    (head.lines().map(str::to_owned).collect(), text)
}

/// Decodes quoted-printable (RFC 2045, section 6.7).
fn decode(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = match (first, others) {
            (b'=', [high, low, others @ ..]) => {
                let digits = String::from_utf8(vec![*high, *low]).expect("digits");
                octets.push(u8::from_str_radix(&digits, 16).expect("a number"));
                others
            }
            _ => {
                octets.push(*first);
                others
            }
        };
    }
    String::from_utf8(octets).expect("UTF-8")
}

#[tokio::test]
async fn a_mail_is_sent_over_tls_and_belongs_to_its_trouble() {
    let server = Server::start(Behavior::default());
    let mut told = one();
    told.entries[0].event.message = "größer als erlaubt: Übel".to_owned();
    let sender = server.sender(MailTls::StartTls);
    sender.deliver(&told).await.expect("delivered");
    assert_eq!(
        server.heard(),
        [
            "clear EHLO",
            "clear STARTTLS",
            "tls EHLO",
            "tls AUTH",
            "tls MAIL",
            "tls RCPT",
            "tls DATA",
            "tls QUIT"
        ]
    );
    let mails = server.mails();
    let (head, text) = read(&mails[0]);
    let field = |name: &str| {
        let found: Vec<_> = head
            .iter()
            .filter_map(|line| line.strip_prefix(name))
            .collect();
        assert_eq!(found.len(), 1, "{name}: {head:?}");
        found[0].to_owned()
    };
    assert!(field("From: ").ends_with("<snigate@example.com>"));
    assert!(field("From: ").contains("=?utf-8?"), "{}", field("From: "));
    assert_eq!(field("To: "), "ops@example.com");
    assert!(field("Subject: ").contains("critical: certificate failed: a.example"));
    assert_eq!(field("Message-ID: "), "<01JC3Z@gw1.example.net>");
    assert_eq!(field("Auto-Submitted: "), "auto-generated");
    assert_eq!(field("Date: "), "Mon, 21 Sep 2026 14:13:20 +0000");
    assert_eq!(field("Content-Type: "), "text/plain; charset=utf-8");
    let thread = field("References: ");
    assert!(thread.starts_with("<trouble.") && thread.ends_with("@gw1.example.net>"));
    assert!(
        text.contains("a.example: größer als erlaubt: Übel"),
        "{text}"
    );
    assert!(mails[0].is_ascii(), "no server has to take 8 bits");

    // The next report of the trouble has another id and the same thread.
    told.id = "an id / that is none".to_owned();
    sender.deliver(&told).await.expect("delivered");
    let mails = server.mails();
    let (next, _) = read(&mails[1]);
    assert!(next.contains(&format!("References: {thread}")), "{next:?}");
    assert!(!next.contains(&"Message-ID: <01JC3Z@gw1.example.net>".to_owned()));
}

#[tokio::test]
async fn tls_may_begin_with_the_connection_and_login_is_done_as_the_server_wants() {
    let server = Server::start(Behavior {
        tls: MailTls::Implicit,
        offers: ["", "AUTH LOGIN"],
        ..Behavior::default()
    });
    let sender = server.sender(MailTls::Implicit);
    sender.deliver(&thousand()).await.expect("delivered");
    let heard = server.heard();
    assert!(
        heard.iter().all(|line| line.starts_with("tls ")),
        "{heard:?}"
    );
    assert_eq!(server.mails().len(), 1, "one mail for a thousand");
    let mail = server.mails().remove(0);
    assert!(mail.len() < 200_000, "{}", mail.len());
    assert!(!mail.contains("References: "), "they are many troubles");
    assert!(mail.lines().all(|line| line.len() <= 998));
    sender.deliver(&hostile()).await.expect("delivered");
}

#[tokio::test]
async fn nothing_is_said_to_a_server_that_will_not_encrypt() {
    for (behavior, words) in [
        (
            Behavior {
                offers: ["AUTH PLAIN LOGIN", ""],
                ..Behavior::default()
            },
            "does not offer STARTTLS",
        ),
        (
            Behavior {
                injects: "\r\n250-mx.test\r\n250 AUTH PLAIN",
                ..Behavior::default()
            },
            "between STARTTLS and TLS",
        ),
    ] {
        let server = Server::start(behavior);
        let sent = server.sender(MailTls::StartTls).deliver(&one()).await;
        let error = sent.expect_err("not encrypted");
        assert_eq!(error.retry, Retry::Later);
        assert!(error.to_string().contains(words), "{error}");
        for line in server.heard() {
            assert!(["clear EHLO", "clear STARTTLS"].contains(&&*line), "{line}");
        }
        assert_eq!(server.mails(), [""; 0]);
    }
}

#[tokio::test]
async fn a_server_that_nobody_has_certified_learns_nothing() {
    let (server, other) = (
        Server::start(Behavior::default()),
        Server::start(Behavior::default()),
    );
    let mut config = server.config(MailTls::StartTls);
    config.ca_file = Some(other.root.path().to_owned());
    let sender = MailSender::new(&config).expect("a sender");
    let error = sender.deliver(&one()).await.expect_err("not trusted");
    assert!(
        error.to_string().contains("certificate is not trusted"),
        "{error}"
    );
    assert_eq!(server.heard(), ["clear EHLO", "clear STARTTLS"]);
    config.ca_file = Some("/nowhere/roots.pem".into());
    assert!(MailSender::new(&config).is_err());
}

#[tokio::test]
async fn a_mail_waits_for_the_right_password_which_is_never_shown() {
    let server = Server::start(Behavior {
        // It says what it was sent: base64 of user and password, and of the password.
        login: "535 5.7.8 not for AHVzZXIAaHVudGVyMg== or aHVudGVyMg== or hunter2",
        ..Behavior::default()
    });
    let sent = server.sender(MailTls::StartTls).deliver(&one()).await;
    let error = sent.expect_err("refused");
    assert_eq!(error.retry, Retry::Later);
    let said = "check 'user' and 'password'";
    assert!(error.to_string().contains(said), "{error}");
    let masked = "not for [redacted] or [redacted] or [redacted]";
    assert!(error.to_string().contains(masked), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
    // Without TLS it is not even tried.
    let server = Server::start(Behavior {
        tls: MailTls::Off,
        offers: ["AUTH PLAIN", ""],
        ..Behavior::default()
    });
    let sent = server.sender(MailTls::Off).deliver(&one()).await;
    assert_eq!(sent.expect_err("in clear").retry, Retry::Never);
    assert_eq!(
        server
            .heard()
            .iter()
            .filter(|line| line.contains("AUTH"))
            .count(),
        0
    );
    let mut config = server.config(MailTls::Off);
    config.credentials = None;
    let sender = MailSender::new(&config).expect("a sender");
    sender.deliver(&one()).await.expect("delivered");
}

#[tokio::test]
async fn what_a_server_cannot_take_now_is_tried_again() {
    let server = Server::start(Behavior {
        data: ["451 try later", "554 this is spam"].into(),
        ..Behavior::default()
    });
    let sender = server.sender(MailTls::StartTls);
    let error = sender.deliver(&one()).await.expect_err("not now");
    assert_eq!(error.retry, Retry::Later);
    assert!(error.to_string().contains("451"), "{error}");
    let error = sender.deliver(&one()).await.expect_err("never");
    assert_eq!(error.retry, Retry::Never);
    assert!(error.to_string().contains("this is spam"), "{error}");
    sender.deliver(&one()).await.expect("delivered");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_recipient_that_is_put_off_gets_its_mail_later_and_one_that_is_refused_does_not() {
    let put_off: fn(&str) -> &'static str = |_| "450 greylisted";
    let refuse: fn(&str) -> &'static str = |_| "550 nobody here";
    for (rcpt, said, retry) in [
        (put_off, "greylisted", Retry::Later),
        (refuse, "nobody here", Retry::Never),
    ] {
        let server = Server::start(Behavior {
            rcpt,
            ..Behavior::default()
        });
        let sent = server.sender(MailTls::StartTls).deliver(&one()).await;
        let error = sent.expect_err("not taken");
        assert_eq!(error.retry, retry);
        let text = error.to_string();
        let says = "cannot send to ops@example.com";
        assert!(text.contains(says) && text.contains(said), "{text}");
        assert_eq!(server.mails(), [""; 0]);
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let server = Server::start(Behavior {
        is_mute: true,
        ..Behavior::default()
    });
    let mut config = server.config(MailTls::StartTls);
    config.timeout = Duration::from_millis(300);
    let sender = MailSender::new(&config).expect("a sender");
    let error = sender.deliver(&one()).await.expect_err("silence");
    assert_eq!(error.retry, Retry::Later);
    assert!(
        error.to_string().contains("not taken within 300ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_mail_that_is_not_confirmed_is_not_sent_again_soon() {
    let server = Server::start(Behavior {
        data: ["", "451 try later"].into(),
        ..Behavior::default()
    });
    let mut config = server.config(MailTls::StartTls);
    config.timeout = Duration::from_secs(2);
    let sender = MailSender::new(&config).expect("a sender");
    let error = sender.deliver(&one()).await.expect_err("no answer");
    assert_eq!(error.retry, Retry::After(UNCONFIRMED));
    assert!(error.to_string().contains("but may arrive"), "{error}");
    // An answer says that the server does not have it.
    let error = sender.deliver(&one()).await.expect_err("not now");
    assert_eq!(error.retry, Retry::Later);
    sender.deliver(&one()).await.expect("delivered");
}
