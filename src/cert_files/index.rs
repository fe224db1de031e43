//! What was in certificate files, so that a restart reads only those that have changed.
//!
//! It is a cache in the storage's directory: whatever is wrong with it costs a start from the files
//! and nothing else. It holds no private key. It is written behind, by a thread of its own; what a
//! kill cuts off is read from the files at the next start.

mod log;
mod record;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use ahash::HashMap;

use self::log::{Log, Reading};
use self::record::{Link, Record};
use super::entry::Entry;
use super::files::{EntryId, Kind, Print};
use crate::certificate::from_index::{CertificateFacts, SharedChain};
use crate::certificate::{CertificateWarning, Loader, TlsCertificate};

/// From how many files on an index is worth it: as many are read in half a second.
const WORTH: usize = 1_000;

/// How much may wait to be written. What finds no room is read from its files at the next start.
const WAITING: usize = 1 << 14;

/// After how long a pause the rest is written.
const IDLE: Duration = Duration::from_millis(200);

/// How many chains the writer remembers.
const CHAINS: usize = 1_024;

/// The index of the certificates from files.
struct Index {
    /// What was there at the start, until all files have been looked at.
    reading: Option<Reading>,
    /// Chains by their links.
    chains: HashMap<Vec<Link>, SharedChain>,
    writer: SyncSender<Task>,
}

/// The index, once there are so many files that it is worth it.
pub(super) struct FileIndex {
    /// Where it is, until it is open.
    place: Option<PathBuf>,
    index: Option<Index>,
    flusher: Flusher,
}

impl FileIndex {
    /// An index in the directory `place`; none at all without one.
    pub(super) fn new(place: Option<PathBuf>) -> Self {
        Self {
            place,
            index: None,
            flusher: Flusher::default(),
        }
    }

    pub(super) fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    /// Opens the index, where there are so many `files` that it is worth it.
    pub(super) fn open(&mut self, files: usize) {
        if files >= WORTH
            && let Some(place) = self.place.take()
        {
            self.index = Index::open(&place, &self.flusher);
        }
    }

    /// What is known of the files of `id`. Each is asked for once.
    pub(super) fn take_known(
        &mut self,
        id: &EntryId,
        kind: Kind,
        loader: &Loader,
    ) -> Option<Box<IndexedCert>> {
        let known = self.index.as_mut()?.take_known(id, kind, loader);
        known.map(Box::new)
    }

    /// Notes what the files of `entry` hold.
    pub(super) fn put(&self, entry: &mut Entry) {
        let Some(index) = &self.index else {
            return;
        };
        let odd = entry.odd.as_deref();
        let Some(certificate) = &entry.certificate else {
            if std::mem::take(&mut entry.indexed) {
                index.remove_entry(&entry.id);
            }
            return;
        };
        if odd.is_some_and(|odd| odd.problem.is_some()) {
            // What is served is not what the files hold.
            return;
        }
        let is_put = index.put_entry(IndexEntry {
            id: entry.id.clone(),
            kind: entry.kind,
            stamps: entry.stamps,
            sure: entry.sure,
            digest: entry.digest,
            misnamed: odd.is_some_and(|odd| odd.misnamed),
            certificate: Arc::clone(certificate),
            warnings: odd.map_or_else(Vec::new, |odd| odd.warnings.clone()),
            is_new: !entry.indexed,
        });
        entry.indexed |= is_put;
    }

    /// Forgets an entry.
    pub(super) fn remove(&self, id: &EntryId) {
        if let Some(index) = &self.index {
            index.remove_entry(id);
        }
    }

    /// Forgets what was there at the start and has not been asked for.
    pub(super) fn forget_unclaimed(&mut self) {
        if let Some(index) = &mut self.index {
            index.forget_unclaimed();
        }
    }
}

/// What is known of an entry's files.
pub(super) struct IndexedCert {
    pub(super) stamps: Print,
    /// Whether the stamps would differ had the files changed since.
    pub(super) sure: bool,
    pub(super) digest: Print,
    pub(super) misnamed: bool,
    pub(super) facts: CertificateFacts,
    pub(super) chain: SharedChain,
    pub(super) warnings: Vec<CertificateWarning>,
}

/// What is to be known of an entry's files.
struct IndexEntry {
    pub(super) id: EntryId,
    pub(super) kind: Kind,
    pub(super) stamps: Print,
    pub(super) sure: bool,
    pub(super) digest: Print,
    pub(super) misnamed: bool,
    pub(super) certificate: Arc<TlsCertificate>,
    pub(super) warnings: Vec<CertificateWarning>,
    /// Whether nothing was known of it.
    pub(super) is_new: bool,
}

/// Has the index written. A handle; clones share the state.
#[derive(Clone, Default)]
pub struct Flusher(Arc<OnceLock<SyncSender<Task>>>);

impl Flusher {
    /// Waits until all that was noted is written, for so long at most.
    pub fn flush(&self, patience: Duration) {
        let Some(writer) = self.0.get() else {
            return;
        };
        let (done, written) = sync_channel(1);
        if writer.try_send(Task::Flush(done)).is_ok() {
            // What is not written by then is read from its files at the next start.
            let _ = written.recv_timeout(patience);
        }
    }
}

enum Task {
    Put(Box<IndexEntry>),
    Remove(Vec<u8>),
    /// Write everything, and confirm it.
    Flush(SyncSender<()>),
}

impl Index {
    /// Opens the index in `directory`, which `flusher` flushes from then on; `None`, and a warning,
    /// where it cannot be used.
    fn open(directory: &Path, flusher: &Flusher) -> Option<Self> {
        let opened = log::open(directory).map_err(|error| error.to_string());
        let begun = opened.and_then(|(log, reading)| {
            let (writer, tasks) = sync_channel(WAITING);
            let writing = Writer {
                log,
                chains: HashMap::default(),
                place: directory.to_owned(),
            };
            let thread = thread::Builder::new().name("index".to_owned());
            let begun = thread.spawn(move || writing.run(&tasks));
            begun.map_err(|error| error.to_string())?;
            // It is opened once.
            let _ = flusher.0.set(writer.clone());
            Ok(Self {
                reading: Some(reading),
                chains: HashMap::default(),
                writer,
            })
        });
        begun
            .inspect_err(|error| {
                tracing::warn!(
                    directory = %directory.display(),
                    %error,
                    "no certificate index: every start reads all files"
                );
            })
            .ok()
    }

    /// What is known of the files of `id`. Each is asked for once.
    fn take_known(&mut self, id: &EntryId, kind: Kind, loader: &Loader) -> Option<IndexedCert> {
        let reading = self.reading.as_mut()?;
        let Record {
            kind: known_kind,
            sure,
            stamps,
            digest,
            misnamed,
            mut facts,
            chain,
            warnings,
        } = Record::decode(reading.take_value(&key(id))?)?;
        if known_kind != kind {
            return None;
        }
        facts.status = facts.status.map(|said| loader.share_status(&said));
        let chain = match self.chains.get(&chain) {
            Some(known) => known.clone(),
            None => {
                let links = &reading.contents.links;
                let ders = chain.iter().map(|link| links.get(link).map(|der| &**der));
                let ders: Vec<_> = ders.collect::<Option<_>>()?;
                let shared = loader.share_chain(&ders).ok()?;
                self.chains.insert(chain, shared.clone());
                shared
            }
        };
        Some(IndexedCert {
            stamps,
            sure,
            digest,
            misnamed,
            facts,
            chain,
            warnings,
        })
    }

    /// Forgets what no file was found for, now that all have been looked at.
    fn forget_unclaimed(&mut self) {
        self.chains = HashMap::default();
        let Some(mut reading) = self.reading.take() else {
            return;
        };
        for key in reading.take_remaining() {
            // There is no hurry: what is not removed now is at the next start.
            let _ = self.writer.try_send(Task::Remove(key));
        }
    }

    /// Notes what is known. Whether there was room for it.
    fn put_entry(&self, news: IndexEntry) -> bool {
        self.writer.try_send(Task::Put(Box::new(news))).is_ok()
    }

    /// Forgets what was known of the files of `id`.
    fn remove_entry(&self, id: &EntryId) {
        let _ = self.writer.try_send(Task::Remove(key(id)));
    }
}

/// What tells an entry from all others.
fn key(id: &EntryId) -> Vec<u8> {
    let mut key = id.chain().into_os_string().into_encoded_bytes();
    if let Some(path) = &id.key {
        key.push(0);
        key.extend_from_slice(path.as_os_str().as_bytes());
    }
    key
}

/// Writes the index.
struct Writer {
    log: Log,
    /// The links of chains by their addresses.
    chains: HashMap<usize, (SharedChain, Vec<Link>)>,
    place: PathBuf,
}

impl Writer {
    fn run(mut self, tasks: &Receiver<Task>) {
        if let Err(error) = self.write(tasks) {
            // What was written stays good. No more is received.
            tracing::warn!(
                directory = %self.place.display(),
                %error,
                "cannot write the certificate index: the next start rereads what has changed since"
            );
        }
    }

    fn write(&mut self, tasks: &Receiver<Task>) -> io::Result<()> {
        let mut value = Vec::new();
        // The senders are gone at the end.
        while let Ok(task) = tasks.recv() {
            self.run_task(task, &mut value)?;
            while let Ok(task) = tasks.recv_timeout(IDLE) {
                self.run_task(task, &mut value)?;
            }
            self.log.flush()?;
            if self.log.is_mostly_dead() {
                self.log.compact()?;
            }
        }
        Ok(())
    }

    fn run_task(&mut self, task: Task, value: &mut Vec<u8>) -> io::Result<()> {
        let news = match task {
            Task::Put(news) => news,
            Task::Remove(key) => return self.log.append_removal(&key),
            Task::Flush(done) => {
                self.log.flush()?;
                // The caller may no longer wait.
                let _ = done.send(());
                return Ok(());
            }
        };
        let record = Record {
            kind: news.kind,
            sure: news.sure,
            stamps: news.stamps,
            digest: news.digest,
            misnamed: news.misnamed,
            facts: news.certificate.facts(),
            chain: self.chain(&news.certificate)?,
            warnings: news.warnings,
        };
        value.clear();
        record.encode(value);
        self.log.put_entry(&key(&news.id), value, news.is_new)
    }

    /// The links of the chain of `certificate`, which are in the file from now on.
    fn chain(&mut self, certificate: &TlsCertificate) -> io::Result<Vec<Link>> {
        let chain = certificate.shared_chain();
        if let Some((_, links)) = self.chains.get(&chain.address()) {
            return Ok(links.clone());
        }
        let mut links = Vec::new();
        for der in chain.ders()? {
            let link = openssl::sha::sha256(&der);
            self.log.add_link(link, &der)?;
            links.push(link);
        }
        if self.chains.len() >= CHAINS {
            self.chains.clear();
        }
        self.chains.insert(chain.address(), (chain, links.clone()));
        Ok(links)
    }
}
