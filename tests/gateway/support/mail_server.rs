//! A mail server with STARTTLS and a login, by OpenSSL, that keeps what it takes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::X509;

use super::certs::Pair;
use super::wait_for;

/// The user that it knows, with the password.
const LOGIN: &[u8] = b"\0snigate\0hunter2-hunter2";

/// How it behaves once it has all of a mail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnMail {
    Take,
    /// It says nothing more, and keeps the mail.
    Hang,
    Refuse,
    /// It takes mail, but puts off addresses that begin with `later` until [`MailServer::take_all`].
    PutOff,
}

/// Runs until dropped.
pub struct MailServer {
    port: u16,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    mails: Mutex<Vec<String>>,
    /// The first word of each line that came in clear.
    clear: Mutex<Vec<String>>,
    takes_all: AtomicBool,
}

impl MailServer {
    /// One at `localhost` with this certificate.
    pub fn start(pair: &Pair, on_mail: OnMail) -> Self {
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server()).unwrap();
        let certificate = X509::from_pem(pair.chain.as_bytes()).unwrap();
        acceptor.set_certificate(&certificate).unwrap();
        let key = PKey::private_key_from_pem(pair.key.as_bytes()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        let acceptor = Arc::new(acceptor.build());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let (kept, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (acceptor, seen) = (Arc::clone(&acceptor), Arc::clone(&kept));
                thread::spawn(move || serve(stream, &acceptor, on_mail, &seen));
            }
        });
        Self { port, seen, stop }
    }

    /// As `server` of the configuration.
    pub fn place(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// All mails so far, each with its head.
    pub fn mails(&self) -> Vec<String> {
        self.seen.mails.lock().expect("not poisoned").clone()
    }

    /// Waits until there are so many.
    #[track_caller]
    pub fn wait_for_mails(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} mails"), || {
            Some(self.mails()).filter(|mails| mails.len() >= count)
        })
    }

    /// Puts nobody off any more.
    pub fn take_all(&self) {
        self.seen.takes_all.store(true, Ordering::Relaxed);
    }

    /// The first word of each line that came in clear.
    pub fn heard_in_clear(&self) -> Vec<String> {
        self.seen.clear.lock().expect("not poisoned").clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn serve(mut stream: TcpStream, acceptor: &SslAcceptor, on_mail: OnMail, seen: &Seen) {
    say(&mut stream, "220 mx.test ESMTP");
    while let Some(line) = hear(&mut stream) {
        let word = line.split(' ').next().unwrap_or_default().to_owned();
        let is_tls = word == "STARTTLS";
        let is_hello = word == "EHLO";
        seen.clear.lock().expect("not poisoned").push(word);
        if is_tls {
            say(&mut stream, "220 go ahead");
            if let Ok(stream) = acceptor.accept(stream) {
                serve_over_tls(stream, on_mail, seen);
            }
            return;
        }
        match is_hello {
            true => say(&mut stream, "250-mx.test\r\n250 STARTTLS"),
            false => say(&mut stream, "530 use STARTTLS"),
        }
    }
}

fn serve_over_tls(mut stream: impl Read + Write, on_mail: OnMail, seen: &Seen) {
    let login = format!("AUTH PLAIN {}", openssl::base64::encode_block(LOGIN));
    while let Some(line) = hear(&mut stream) {
        let word = line.split(' ').next().unwrap_or_default();
        match word {
            "EHLO" => say(&mut stream, "250-mx.test\r\n250 AUTH PLAIN"),
            "AUTH" if line == login => say(&mut stream, "235 welcome"),
            "AUTH" => say(&mut stream, "535 who are you?"),
            "RCPT"
                if on_mail == OnMail::PutOff
                    && line.contains("<later@")
                    && !seen.takes_all.load(Ordering::Relaxed) =>
            {
                say(&mut stream, "450 the mailbox is full");
            }
            "DATA" => {
                say(&mut stream, "354 end with a dot");
                let mut mail = String::new();
                loop {
                    match hear(&mut stream) {
                        Some(line) if line == "." => break,
                        Some(line) => mail.push_str(&(line + "\n")),
                        None => return,
                    }
                }
                if on_mail != OnMail::Refuse {
                    seen.mails.lock().expect("not poisoned").push(mail);
                }
                match on_mail {
                    OnMail::Take | OnMail::PutOff => say(&mut stream, "250 queued"),
                    OnMail::Refuse => say(&mut stream, "554 this looks like spam"),
                    OnMail::Hang => {
                        let _ = hear(&mut stream);
                        return;
                    }
                }
            }
            "QUIT" => return say(&mut stream, "221 bye"),
            _ => say(&mut stream, "250 ok"),
        }
    }
}

fn say(stream: &mut impl Write, words: &str) {
    let _ = stream.write_all(format!("{words}\r\n").as_bytes());
}

/// A line without its end; `None` once the client has gone.
fn hear(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut octet = [0];
    while !line.ends_with(b"\r\n") {
        match stream.read(&mut octet) {
            Ok(1..) => line.extend(octet),
            _ => return None,
        }
    }
    let line = String::from_utf8(line).expect("UTF-8");
    Some(line.trim_end_matches("\r\n").to_owned())
}
