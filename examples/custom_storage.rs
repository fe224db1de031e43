//! A storage of the program's own, and a TLS server on plain threads.
//!
//! ```sh
//! cargo run --example custom_storage -- 0.0.0.0:443 www.example.com letsencrypt-staging
//! ```
//!
//! The storage is a table in memory that stands for one of a database which several instances share:
//! each method is what would be one statement or transaction there. A fourth argument names a file
//! with the roots to trust for the CA's own HTTPS.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::collections::BTreeMap;
use std::env::args;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use snigate::clock::{Clock as _, SystemClock, UnixTime};
use snigate::storage::{
    ChangeNotifier, Key, Lease, LeaseBackend, Stat, Storage, StorageError, Value, Watch,
};
use snigate::{AcmeIssuer, Engine};

/// How long a lease lasts without a heartbeat. A program that is stuck for longer loses it.
const LEASE: Duration = Duration::from_secs(30);

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";

/// The "database".
#[derive(Clone, Default)]
pub(crate) struct Database(pub(crate) Arc<Mutex<Tables>>);

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) values: BTreeMap<Key, (Value, UnixTime)>,
    pub(crate) leases: BTreeMap<Key, LeaseRow>,
    last_token: u64,
    watches: Vec<(Key, ChangeNotifier)>,
}

pub(crate) struct LeaseRow {
    token: u64,
    expires: Instant,
}

impl Database {
    /// Begins a "transaction".
    fn begin(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn set(&mut self, key: &Key, value: &[u8]) {
        let row = (Value::new(value.to_vec()), SystemClock.now());
        self.values.insert(key.clone(), row);
        self.notify(key);
    }

    fn notify(&mut self, key: &Key) {
        self.watches
            .retain(|(_, notifier)| !notifier.is_unwatched());
        for (prefix, notifier) in &self.watches {
            if key.is_under(prefix) {
                notifier.notify();
            }
        }
    }

    /// Whether the lease of this token is held, with its heartbeat if so.
    fn holds(&mut self, key: &Key, token: u64) -> bool {
        let now = Instant::now();
        let row = self.leases.get_mut(key);
        let held = row.filter(|row| row.token == token && row.expires > now);
        held.map(|row| row.expires = now + LEASE).is_some()
    }
}

impl Storage for Database {
    fn load(&self, key: &Key) -> Result<Option<Value>, StorageError> {
        let tables = self.begin();
        Ok(tables.values.get(key).map(|(value, _)| value.clone()))
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        self.begin().set(key, value);
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let mut tables = self.begin();
        tables.values.remove(key);
        tables.notify(key);
        Ok(())
    }

    fn list(&self, prefix: &Key) -> Result<Vec<Key>, StorageError> {
        let tables = self.begin();
        let keys = tables.values.keys();
        let listed = keys.filter(|key| key.is_under(prefix) && !key.is_aside());
        Ok(listed.cloned().collect())
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StorageError> {
        let tables = self.begin();
        Ok(tables.values.get(key).map(|(value, modified)| Stat {
            size: value.len() as u64,
            modified: *modified,
        }))
    }

    fn try_lock(&self, key: &Key) -> Result<Option<Lease>, StorageError> {
        let mut tables = self.begin();
        let now = Instant::now();
        if tables.leases.get(key).is_some_and(|row| row.expires > now) {
            return Ok(None);
        }
        tables.last_token += 1;
        let token = tables.last_token;
        let expires = now + LEASE;
        tables
            .leases
            .insert(key.clone(), LeaseRow { token, expires });
        Ok(Some(Lease::new(DatabaseLease {
            database: self.clone(),
            key: key.clone(),
            token,
        })))
    }

    /// A real one would listen to its database, or poll it, and keep a guard that ends this.
    fn watch(&self, prefix: &Key) -> Result<Watch, StorageError> {
        let notifier = ChangeNotifier::default();
        let watch = notifier.watch();
        self.begin().watches.push((prefix.clone(), notifier));
        Ok(watch)
    }
}

/// A lease, given back when it is dropped. A real one would have a heartbeat of its own.
struct DatabaseLease {
    database: Database,
    key: Key,
    token: u64,
}

impl LeaseBackend for DatabaseLease {
    fn token(&self) -> u64 {
        self.token
    }

    fn is_held(&self) -> bool {
        self.database.begin().holds(&self.key, self.token)
    }

    /// Checks and writes in one transaction, so that nobody takes over in between.
    fn store(&self, key: &Key, value: &[u8]) -> Result<(), StorageError> {
        let mut tables = self.database.begin();
        if !tables.holds(&self.key, self.token) {
            return Err(StorageError::lost(key));
        }
        tables.set(key, value);
        Ok(())
    }
}

impl Drop for DatabaseLease {
    fn drop(&mut self) {
        let mut tables = self.database.begin();
        if tables.holds(&self.key, self.token) {
            tables.leases.remove(&self.key);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, name, directory, roots @ ..] = &*arguments else {
        return Err("usage: custom_storage ADDRESS:PORT NAME DIRECTORY [ROOTS]".into());
    };
    let mut ca = AcmeIssuer::builder().directory(directory);
    if let Some(roots) = roots.first() {
        ca = ca.root_certificates(roots);
    }
    let database = Database::default();
    let engine = Engine::builder()
        .storage(database.clone())
        .issuer("ca", ca)
        .manage([name])
        .start()
        .await?;

    let acceptor = engine.acceptor()?;
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let acceptor = acceptor.clone();
            thread::spawn(move || {
                if let Ok(mut tls) = acceptor.accept(stream) {
                    let _ = tls.write_all(RESPONSE);
                    let _ = tls.shutdown();
                }
            });
        }
    });

    engine.wait_until_covered().await;
    for key in database.begin().values.keys() {
        println!("stored {key}");
    }
    std::future::pending().await
}
