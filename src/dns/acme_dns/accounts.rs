//! acme-dns accounts in a file: JSON as in lego, goacmedns and cert-manager, an object with one
//! account per domain.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Registered;
use crate::host::HostName;
use crate::printable::Printable as _;
use crate::secret::Secret;

/// The accounts to set records with.
pub(super) enum Accounts {
    One(Account),
    File(AccountFile),
}

impl Accounts {
    pub(super) fn in_file(path: PathBuf) -> Self {
        Self::File(AccountFile {
            path,
            turn: Arc::default(),
        })
    }
}

/// An account and the name whose records it may set.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) username: String,
    pub(super) password: Secret,
    pub(super) subdomain: String,
    /// The full name, if known.
    pub(super) full_domain: Option<HostName>,
}

impl Account {
    /// Returns true if the account sets the records of a name.
    pub(super) fn is_for(&self, name: &HostName) -> bool {
        match &self.full_domain {
            Some(full) => full == name,
            None => {
                let label = name.as_str().split('.').next();
                label.is_some_and(|label| label.eq_ignore_ascii_case(&self.subdomain))
            }
        }
    }
}

/// The file.
pub(super) struct AccountFile {
    path: PathBuf,
    /// One registration at a time: two for one name would each need a CNAME.
    turn: Arc<Mutex<()>>,
}

/// An account as in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    username: String,
    password: String,
    #[serde(rename = "fulldomain")]
    full_domain: String,
    subdomain: String,
    /// Fields for other programs, which are kept.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// The accounts in the file, while nobody else changes it.
pub(super) struct OpenFile {
    path: PathBuf,
    accounts: BTreeMap<String, Stored>,
    _turn: OwnedMutexGuard<()>,
}

impl AccountFile {
    /// Reads the file; a missing one has no accounts. The error says what is wrong.
    pub(super) async fn open(&self) -> Result<OpenFile, String> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let accounts = match tokio::fs::read(&self.path).await {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                // The error's own text may contain part of a password.
                format!(
                    "the accounts in {} are not JSON as acme-dns clients write it (line {}, column \
                     {}); correct it, or move it away to have them created again",
                    self.path.printable(),
                    error.line(),
                    error.column()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                let path = self.path.printable();
                return Err(format!("cannot read the accounts in {path}: {error}"));
            }
        };
        Ok(OpenFile {
            path: self.path.clone(),
            accounts,
            _turn: turn,
        })
    }
}

impl OpenFile {
    /// The account that sets the records of a name.
    pub(super) fn find(&self, name: &HostName) -> Option<Account> {
        let mut accounts = self.accounts.values().filter_map(Stored::account);
        accounts.find(|account| account.is_for(name))
    }

    /// The name to which a domain's challenge name must lead, if the domain has an account.
    pub(super) fn of_domain(&self, domain: &str) -> Option<String> {
        let account = self.accounts.get(domain)?.account()?;
        account.full_domain.map(|full| full.to_string())
    }

    /// Adds the account of a domain, and returns the name to which its challenge name must lead.
    pub(super) async fn save(
        mut self,
        domain: &str,
        registered: Registered,
        endpoint: &str,
    ) -> Result<String, String> {
        let account = registered
            .account()
            .ok_or_else(|| "acme-dns answered a registration without a 'fulldomain'".to_owned())?;
        let target = account.full_domain.map(|full| full.to_string());
        let target = target.unwrap_or_default();
        let stored = Stored {
            username: account.username,
            password: account.password.expose().to_owned(),
            full_domain: target.clone(),
            subdomain: account.subdomain,
            others: BTreeMap::from([("server_url".to_owned(), endpoint.into())]),
        };
        self.accounts.insert(domain.to_owned(), stored);
        let written =
            tokio::task::spawn_blocking(move || write_accounts(&self.path, &self.accounts));
        match written.await {
            Ok(Ok(())) => Ok(target),
            Ok(Err(what)) => Err(what),
            Err(error) => Err(format!("cannot write the accounts: {error}")),
        }
    }
}

impl Stored {
    fn account(&self) -> Option<Account> {
        let full_domain: HostName = self.full_domain.parse().ok()?;
        Some(Account {
            username: self.username.clone(),
            password: Secret::new(self.password.clone()),
            subdomain: self.subdomain.clone(),
            full_domain: Some(full_domain),
        })
    }
}

/// Writes the file atomically, readable by us alone.
fn write_accounts(path: &Path, accounts: &BTreeMap<String, Stored>) -> Result<(), String> {
    let attempt = || -> io::Result<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        serde_json::to_writer_pretty(&mut file, accounts)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(|error| {
        let path = path.printable();
        format!("cannot write the accounts to {path}: {error}; let Snigate's user write there")
    })
}
