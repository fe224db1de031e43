//! Trust stores: which ones a machine has, and the commands that add a root certificate.
//!
//! Everything here only decides; `ca` carries it out. Each step is a command that can be pasted
//! into a shell.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use openssl::sha::sha256;

/// A machine on which to find trust stores.
#[derive(Debug)]
pub(super) struct Machine {
    /// `/`, except in tests.
    pub(super) root: PathBuf,
    pub(super) home: Option<PathBuf>,
    /// Whether this is root already.
    pub(super) privileged: bool,
    /// Where to find programs.
    pub(super) programs: Vec<PathBuf>,
}

/// A trust store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// A directory of roots, and the command that rescans it.
    System {
        directory: PathBuf,
        suffix: &'static str,
        refresh: &'static [&'static str],
    },
    /// An NSS database, as browsers have.
    Nss(PathBuf),
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    /// Whether a failure does not matter, as when removing what does not exist.
    pub(super) may_fail: bool,
}

impl Machine {
    /// Every trust store that exists.
    pub(super) fn stores(&self) -> Vec<Store> {
        let mut stores: Vec<Store> = [
            // Debian and its relatives; then Fedora, RHEL and theirs.
            (
                "usr/local/share/ca-certificates",
                "crt",
                ["update-ca-certificates"].as_slice(),
            ),
            (
                "etc/pki/ca-trust/source/anchors",
                "pem",
                ["update-ca-trust", "extract"].as_slice(),
            ),
        ]
        .into_iter()
        .filter(|(directory, _, refresh)| {
            self.root.join(directory).is_dir()
                && refresh.first().is_some_and(|program| self.has(program))
        })
        .map(|(directory, suffix, refresh)| Store::System {
            directory: self.root.join(directory),
            suffix,
            refresh,
        })
        .collect();
        if self.has("certutil") {
            stores.extend(self.nss_databases().into_iter().map(Store::Nss));
        }
        stores
    }

    fn nss_databases(&self) -> Vec<PathBuf> {
        let Some(home) = &self.home else {
            return Vec::new();
        };
        let profiles = [".mozilla/firefox", "snap/firefox/common/.mozilla/firefox"]
            .iter()
            .filter_map(|directory| fs::read_dir(home.join(directory)).ok())
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let mut databases: Vec<PathBuf> = [".pki/nssdb", "snap/chromium/current/.pki/nssdb"]
            .iter()
            .map(|directory| home.join(directory))
            .chain(profiles)
            .filter(|directory| directory.join("cert9.db").is_file())
            .collect();
        databases.sort();
        databases
    }

    fn has(&self, program: &str) -> bool {
        self.programs
            .iter()
            .any(|directory| directory.join(program).is_file())
    }

    /// A command that needs root privileges.
    fn as_root(&self, words: &[&OsStr]) -> Step {
        if self.privileged || !self.has("sudo") {
            step(words)
        } else {
            let sudo: Vec<&OsStr> = [OsStr::new("sudo")].iter().chain(words).copied().collect();
            step(&sudo)
        }
    }
}

impl Store {
    /// The commands that add the root in `file` to this store, under this name.
    pub(super) fn install(&self, file: &Path, name: &str, machine: &Machine) -> Vec<Step> {
        match self {
            Self::System {
                directory,
                suffix,
                refresh,
            } => vec![
                machine.as_root(&[
                    "install".as_ref(),
                    "-m".as_ref(),
                    "0644".as_ref(),
                    file.as_ref(),
                    anchor(directory, name, suffix).as_ref(),
                ]),
                machine.as_root(&refresh.iter().map(OsStr::new).collect::<Vec<_>>()),
            ],
            Self::Nss(database) => vec![certutil(
                database,
                &["-A", "-t", "C,,", "-n", name, "-i"],
                Some(file),
            )],
        }
    }

    /// The commands that remove the root of this name from this store.
    pub(super) fn uninstall(&self, name: &str, machine: &Machine) -> Vec<Step> {
        match self {
            Self::System {
                directory,
                suffix,
                refresh,
            } => vec![
                machine.as_root(&[
                    "rm".as_ref(),
                    "-f".as_ref(),
                    anchor(directory, name, suffix).as_ref(),
                ]),
                machine.as_root(&refresh.iter().map(OsStr::new).collect::<Vec<_>>()),
            ],
            Self::Nss(database) => {
                let mut step = certutil(database, &["-D", "-n", name], None);
                step.may_fail = true;
                vec![step]
            }
        }
    }
}

/// Two gateways on one machine have two roots, each with its own name.
pub(super) fn nickname(root: &[u8]) -> String {
    let digest = sha256(root.trim_ascii());
    let short: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("snigate-{short}")
}

fn anchor(directory: &Path, name: &str, suffix: &str) -> PathBuf {
    directory.join(format!("{name}.{suffix}"))
}

fn certutil(database: &Path, words: &[&str], file: Option<&Path>) -> Step {
    let mut directory = OsString::from("sql:");
    directory.push(database);
    let mut all: Vec<&OsStr> = vec!["certutil".as_ref(), "-d".as_ref(), &directory];
    all.extend(words.iter().map(OsStr::new));
    all.extend(file.map(Path::as_os_str));
    step(&all)
}

fn step(words: &[&OsStr]) -> Step {
    let mut words = words.iter().map(|word| (*word).to_owned());
    Step {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        may_fail: false,
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.program))?;
        for argument in &self.arguments {
            write!(f, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { directory, .. } => {
                write!(f, "the system's trust store ({})", directory.display())
            }
            Self::Nss(database) => write!(f, "the NSS database {}", database.display()),
        }
    }
}

/// A word quoted for a shell.
pub(super) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these programs and directories.
    fn machine(programs: &[&str], privileged: bool) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().expect("a directory");
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("a directory");
        for program in programs {
            fs::write(bin.join(program), "").expect("a file");
        }
        let machine = Machine {
            root: dir.path().to_owned(),
            home: Some(dir.path().join("home")),
            privileged,
            programs: vec![bin],
        };
        (dir, machine)
    }

    fn commands(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn debian_with_sudo() {
        let (dir, machine) = machine(&["update-ca-certificates", "sudo"], false);
        let anchors = dir.path().join("usr/local/share/ca-certificates");
        fs::create_dir_all(&anchors).expect("a directory");
        let stores = machine.stores();
        let [store] = stores.as_slice() else {
            panic!("{stores:?}")
        };

        let name = anchors.join(format!("{}.crt", "snigate-1"));
        assert_eq!(
            commands(&store.install(Path::new("/tmp/a root.pem"), "snigate-1", &machine)),
            [
                format!("sudo install -m 0644 '/tmp/a root.pem' {}", name.display()),
                "sudo update-ca-certificates".to_owned(),
            ]
        );
        assert_eq!(
            commands(&store.uninstall("snigate-1", &machine)),
            [
                format!("sudo rm -f {}", name.display()),
                "sudo update-ca-certificates".to_owned(),
            ]
        );
    }

    #[test]
    fn fedora_as_root() {
        let (dir, machine) = machine(&["update-ca-trust", "sudo"], true);
        fs::create_dir_all(dir.path().join("etc/pki/ca-trust/source/anchors"))
            .expect("a directory");
        let stores = machine.stores();
        let [store] = stores.as_slice() else {
            panic!("{stores:?}")
        };
        let commands = commands(&store.install(Path::new("r.pem"), "snigate-1", &machine));
        assert!(
            commands[0].starts_with("install -m 0644 r.pem "),
            "{commands:?}"
        );
        assert_eq!(commands[1], "update-ca-trust extract");
    }

    #[test]
    fn browsers_with_certutil() {
        let (dir, machine) = machine(&["certutil"], false);
        let profile = dir.path().join("home/.mozilla/firefox/x.default");
        fs::create_dir_all(&profile).expect("a directory");
        assert_eq!(machine.stores(), []);
        fs::write(profile.join("cert9.db"), "").expect("a file");
        let stores = machine.stores();
        assert_eq!(stores, [Store::Nss(profile.clone())]);
        let commands = commands(&stores[0].install(Path::new("r.pem"), "snigate-1", &machine));
        assert_eq!(
            commands,
            [format!(
                "certutil -d sql:{} -A -t C,, -n {} -i r.pem",
                profile.display(),
                "snigate-1"
            )]
        );
    }

    #[test]
    fn nothing_is_known_of_a_bare_machine() {
        let (_dir, machine) = machine(&[], false);
        assert_eq!(machine.stores(), []);
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted(OsStr::new("/a-b_c.d")), "/a-b_c.d");
        assert_eq!(quoted(OsStr::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(OsStr::new("")), "''");
    }
}
