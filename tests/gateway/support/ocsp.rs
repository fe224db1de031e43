//! An OCSP responder, that of OpenSSL's command, and the extensions that lead to one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::{Ca, Pair, Port};

/// What a responder says of a certificate.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    Good,
    /// With this reason, as OpenSSL writes it.
    Revoked(&'static str),
}

/// A running responder; killed when dropped.
pub struct OcspResponder {
    port: Port,
    dir: TempDir,
    child: Option<Child>,
}

impl OcspResponder {
    /// A port for one, which [`Self::start`] starts.
    pub fn new() -> Self {
        Self {
            port: Port::take(),
            dir: tempfile::tempdir().expect("a directory"),
            child: None,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.port.address())
    }

    /// Answers for certificates of `ca`, as `signer` signs, valid for so many minutes. Those that are not
    /// listed are unknown.
    pub fn start(&mut self, ca: &Ca, signer: &Pair, listed: &[(&Pair, Says)], minutes: u32) {
        self.start_for(&ca.pem(), signer, listed, minutes);
    }

    /// The same for an authority with this certificate.
    pub fn start_for(&mut self, ca: &str, signer: &Pair, listed: &[(&Pair, Says)], minutes: u32) {
        self.stop();
        let path = self.write(ca, signer, listed);
        let child = command(&path)
            .args(["-port", &self.port.number().to_string(), "-ignore_err"])
            .args(["-nmin", &minutes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("openssl is installed");
        // A connection without a request would occupy it forever.
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let ready = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("waiting")));
        assert!(ready.is_some(), "the responder does not start");
        thread::spawn(move || said.for_each(drop));
        self.child = Some(child);
    }

    /// A response for `pair`, made without a server.
    pub fn respond(
        &self,
        ca: &Ca,
        signer: &Pair,
        pair: &Pair,
        says: Says,
        minutes: u32,
    ) -> Vec<u8> {
        let path = self.write(&ca.pem(), signer, &[(pair, says)]);
        fs::write(path.join("leaf.pem"), pair.certificate.to_pem().unwrap()).expect("written");
        let output = command(&path)
            .args([
                "-issuer",
                &at(&path, "ca.pem"),
                "-cert",
                &at(&path, "leaf.pem"),
            ])
            .args(["-reqout", &at(&path, "request.der"), "-no_nonce"])
            .output();
        assert!(output.expect("openssl").status.success());
        let output = command(&path)
            .args(["-reqin", &at(&path, "request.der")])
            .args(["-respout", &at(&path, "response.der")])
            .args(["-nmin", &minutes.to_string()])
            .output()
            .expect("openssl");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        fs::read(path.join("response.der")).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Nobody answers from now on.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn write(&self, ca: &str, signer: &Pair, listed: &[(&Pair, Says)]) -> std::path::PathBuf {
        let path = self.dir.path().to_owned();
        fs::write(path.join("ca.pem"), ca).expect("written");
        fs::write(
            path.join("signer.pem"),
            signer.certificate.to_pem().unwrap(),
        )
        .expect("written");
        fs::write(path.join("signer.key"), &signer.key).expect("written");
        let lines = listed.iter().map(|(pair, says)| {
            let serial = pair.certificate.serial_number().to_bn().unwrap();
            let serial = serial.to_hex_str().unwrap().to_string();
            match says {
                Says::Good => format!("V\t491231000000Z\t\t{serial}\tunknown\t/CN={serial}\n"),
                Says::Revoked(reason) => {
                    format!("R\t491231000000Z\t250101000000Z,{reason}\t{serial}\tunknown\t/CN={serial}\n")
                }
            }
        });
        fs::write(path.join("index.txt"), lines.collect::<String>()).expect("written");
        path
    }
}

impl Drop for OcspResponder {
    fn drop(&mut self) {
        self.stop();
    }
}

fn command(path: &Path) -> Command {
    let mut command = Command::new("openssl");
    command
        .arg("ocsp")
        .args(["-index", &at(path, "index.txt"), "-CA", &at(path, "ca.pem")])
        .args(["-rsigner", &at(path, "signer.pem")])
        .args(["-rkey", &at(path, "signer.key")]);
    command
}

fn at(path: &Path, name: &str) -> String {
    path.join(name).to_string_lossy().into_owned()
}

/// The extension that names an OCSP responder.
pub fn responder_at(url: &str) -> (&'static str, Vec<u8>) {
    let method = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01";
    let access = [method, &*tagged(0x86, url.as_bytes())].concat();
    ("1.3.6.1.5.5.7.1.1", tagged(0x30, &tagged(0x30, &access)))
}

/// The extension that names a revocation list.
pub fn list_at(url: &str) -> (&'static str, Vec<u8>) {
    let name = tagged(0xa0, &tagged(0xa0, &tagged(0x86, url.as_bytes())));
    ("2.5.29.31", tagged(0x30, &tagged(0x30, &name)))
}

/// The extension of a certificate that is to come with an OCSP response.
pub fn must_staple() -> (&'static str, Vec<u8>) {
    ("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x05".to_vec())
}

/// A short value in DER.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("short");
    assert!(length < 128);
    [&[tag, length], value].concat()
}
