//! Certificates as the `openssl` command makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory in which certificates are made.
pub struct Pki(tempfile::TempDir);

impl Pki {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    #[track_caller]
    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("openssl is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
    }

    /// Makes `NAME.key`. With these options instead of a P-256 key, if there are any.
    fn key(&self, name: &str, options: &[&str]) {
        let file = format!("{name}.key");
        let default = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let options = if options.is_empty() {
            &default[..]
        } else {
            options
        };
        self.openssl(&[&["genpkey", "-out", &file], options].concat());
    }

    /// Makes a root, `NAME.pem` with `NAME.key`.
    pub fn root(&self, name: &str) {
        self.key(name, &[]);
        let (file, key, subject) = (
            format!("{name}.pem"),
            format!("{name}.key"),
            format!("/CN={name}"),
        );
        self.openssl(&[
            "req", "-x509", "-new", "-key", &key, "-out", &file, "-subj", &subject, "-days", "3650",
        ]);
    }

    /// Makes an intermediate CA below `issuer`.
    pub fn intermediate(&self, name: &str, issuer: &str, key: &[&str]) {
        let extensions = "basicConstraints=critical,CA:TRUE\n\
                          keyUsage=critical,keyCertSign,cRLSign\n\
                          subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
        self.issue(name, issuer, key, extensions);
    }

    /// Makes a server's certificate for `name`, with these lines of extensions besides.
    pub fn leaf(&self, name: &str, issuer: &str, key: &[&str], more: &str) {
        let extensions = format!(
            "subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth\n\
             authorityKeyIdentifier=keyid\n{more}"
        );
        self.issue(name, issuer, key, &extensions);
    }

    fn issue(&self, name: &str, issuer: &str, key: &[&str], extensions: &str) {
        self.key(name, key);
        let of = |kind: &str| format!("{name}.{kind}");
        fs::write(self.path(&of("ext")), extensions).expect("written");
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req",
            "-new",
            "-key",
            &of("key"),
            "-out",
            &of("csr"),
            "-subj",
            &subject,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &of("csr"),
            "-CA",
            &format!("{issuer}.pem"),
            "-CAkey",
            &format!("{issuer}.key"),
            "-CAcreateserial",
            "-days",
            "90",
            "-extfile",
            &of("ext"),
            "-out",
            &of("pem"),
        ]);
    }

    /// Writes `HOST.pem` with `HOST.key` into `directory`, with these certificates after its own.
    pub fn install(&self, directory: &Path, host: &str, above: &[&str]) {
        let above: String = above
            .iter()
            .map(|name| self.read(&format!("{name}.pem")))
            .collect();
        let pem = self.read(&format!("{host}.pem")) + &above;
        fs::create_dir_all(directory).expect("made");
        for (kind, text) in [("key", self.read(&format!("{host}.key"))), ("pem", pem)] {
            let (fresh, file) = (
                directory.join(format!(".{host}.{kind}")),
                directory.join(format!("{host}.{kind}")),
            );
            fs::write(&fresh, text).expect("written");
            fs::rename(fresh, file).expect("renamed");
        }
    }
}
