//! The file of the index: records that are only ever added, each with a check sum.
//!
//! A record that is not whole, as a kill or a lost disk leaves it, ends the file: what comes after
//! is cut off and known no more. What is no longer true is dropped now and then, by writing all the
//! rest to another file that takes this one's place.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ahash::{HashMap, HashSet, RandomState};
use hashbrown::HashTable;
use thiserror::Error;

use super::record::Link;

/// What the file begins with: what it is, and how it is written.
const KIND: &[u8; 16] = b"snigate index 2\n";

/// The octets before the first record.
const HEAD: usize = 24;

/// What the file begins with. Another release, or another OpenSSL, may think otherwise of what it
/// finds in files: it looks for itself.
fn head() -> [u8; HEAD] {
    let by = format!(
        "{} {}",
        env!("CARGO_PKG_VERSION"),
        openssl::version::number()
    );
    let mut head = [0; HEAD];
    let octets = KIND.iter().copied().chain(check_sum(by.as_bytes()));
    head.iter_mut()
        .zip(octets)
        .for_each(|(to, from)| *to = from);
    head
}

/// The octets before each record: its length and its check sum.
const BEFORE: usize = 12;

/// The longest record. That of a certificate with a thousand names takes 64 KiB.
const LONGEST: usize = 1 << 20;

/// How many octets are read and written at a time.
const BLOCK: usize = 1 << 18;

const ENTRY: u8 = b'E';
const GONE: u8 = b'G';
const LINK: u8 = b'C';

/// Why there is no index.
#[derive(Debug, Error)]
pub(super) enum LogError {
    #[error("another process is using it")]
    Busy,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the record of an entry is.
struct Place {
    hash: u64,
    at: u64,
    length: u32,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Contents {
    places: HashTable<Place>,
    hasher: RandomState,
    /// The certificates of chains, DER.
    pub(super) links: HashMap<Link, Vec<u8>>,
    /// How many octets are whole.
    pub(super) length: u64,
    /// How many of them are of entries that are known no more.
    pub(super) dead: u64,
}

/// The file for reading: as it was when it was opened, whatever takes its place.
pub(super) struct Reading {
    file: File,
    pub(super) contents: Contents,
    buffer: Vec<u8>,
}

/// The file for adding to it.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// What is to be written.
    buffer: Vec<u8>,
    /// How many octets are written or to be.
    pub(super) length: u64,
    pub(super) dead: u64,
    links: HashSet<Link>,
    /// Held for as long as this process uses the index.
    _lock: File,
}

/// Opens the index in `directory`, which is made where it is not there. A file of another version
/// is begun anew.
pub(super) fn open(directory: &Path) -> Result<(Log, Reading), LogError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let lock = options().create(true).open(directory.join("lock"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => LogError::Busy,
        TryLockError::Error(error) => LogError::Io(error),
    })?;
    let path = directory.join("certificates");
    let mut file = options().create(true).open(&path)?;
    let contents = scan(&mut file, &path)?;
    file.set_len(contents.length)?;
    let log = Log {
        file: file.try_clone()?,
        buffer: Vec::new(),
        length: contents.length,
        dead: contents.dead,
        links: contents.links.keys().copied().collect(),
        path,
        _lock: lock,
    };
    let reading = Reading {
        file,
        contents,
        buffer: Vec::new(),
    };
    Ok((log, reading))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Reads all of `file` that is whole. `path` is where it is, for people.
fn scan(file: &mut File, path: &Path) -> io::Result<Contents> {
    let mut contents = Contents::default();
    file.seek(SeekFrom::Start(0))?;
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(BLOCK, &mut *file);
    let mut found = [0; HEAD];
    if size >= octets(HEAD) {
        reader.read_exact(&mut found)?;
    }
    if found != head() {
        if size > 0 {
            tell_lost(path, size, "damaged or from another version and is rebuilt");
        }
        return Ok(contents);
    }
    contents.length = octets(HEAD);
    let mut record = Vec::new();
    while read_record(&mut reader, &mut record)? {
        contents.apply_record(&record);
    }
    let lost = size.saturating_sub(contents.length);
    // Less is what a kill cuts off.
    if lost > octets(BEFORE + LONGEST) {
        tell_lost(path, lost, "damaged and is rebuilt in part");
    }
    Ok(contents)
}

fn tell_lost(path: &Path, octets: u64, what: &str) {
    let path = path.display();
    tracing::warn!(%path, octets, "the certificate index is {what}");
}

/// Reads the next record. Whether there is one that is whole.
fn read_record(reader: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    let mut check = [0; 8];
    record.clear();
    let mut read = || -> io::Result<bool> {
        reader.read_exact(&mut length)?;
        reader.read_exact(&mut check)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 || length > LONGEST {
            return Ok(false);
        }
        record.resize(length, 0);
        reader.read_exact(record)?;
        Ok(check_sum(record) == check)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read,
    }
}

fn check_sum(record: &[u8]) -> [u8; 8] {
    let digest = openssl::sha::sha256(record);
    digest.first_chunk().copied().unwrap_or_default()
}

fn octets(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An entry's key, and what stands of it after that.
fn split(record: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = record.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((*tag, key, value))
}

impl Contents {
    /// Takes the next record.
    fn apply_record(&mut self, record: &[u8]) {
        let (at, size) = (self.length, BEFORE + record.len());
        self.length += octets(size);
        if let Some((&LINK, der)) = record.split_first() {
            self.links.insert(openssl::sha::sha256(der), der.to_vec());
            return;
        }
        let Some((tag, key, _)) = split(record) else {
            return;
        };
        let hash = self.hasher.hash_one(key);
        let place = Place {
            hash,
            at: at + octets(BEFORE),
            length: u32::try_from(record.len()).unwrap_or_default(),
        };
        let before = self.places.find_entry(hash, |one| one.hash == hash);
        match (before, tag == ENTRY) {
            (Ok(mut before), true) => {
                self.dead += whole(before.get());
                *before.get_mut() = place;
            }
            (Ok(before), false) => {
                self.dead += whole(before.get()) + octets(size);
                before.remove();
            }
            (Err(_), true) => {
                self.places.insert_unique(hash, place, |one| one.hash);
            }
            (Err(_), false) => self.dead += octets(size),
        }
    }
}

/// The octets that a record takes in the file.
fn whole(place: &Place) -> u64 {
    u64::from(place.length) + octets(BEFORE)
}

impl Reading {
    /// Takes out what is known of the entry of `key`.
    pub(super) fn take_value(&mut self, key: &[u8]) -> Option<&[u8]> {
        let contents = &mut self.contents;
        let hash = contents.hasher.hash_one(key);
        let found = contents.places.find_entry(hash, |one| one.hash == hash);
        let (place, _) = found.ok()?.remove();
        self.read_place(&place)?;
        let (_, found, value) = split(&self.buffer)?;
        (found == key).then_some(value)
    }

    /// The keys of all that has not been taken out.
    pub(super) fn take_remaining(&mut self) -> Vec<Vec<u8>> {
        let places: Vec<_> = self.contents.places.drain().collect();
        let keys = places.iter().filter_map(|place| {
            self.read_place(place)?;
            split(&self.buffer).map(|(_, key, _)| key.to_vec())
        });
        keys.collect()
    }

    fn read_place(&mut self, place: &Place) -> Option<()> {
        self.buffer.resize(usize::try_from(place.length).ok()?, 0);
        self.file.read_exact_at(&mut self.buffer, place.at).ok()
    }
}

impl Log {
    /// Adds what is known of the entry of `key`; `replaced` octets are of no use any more.
    pub(super) fn put_entry(&mut self, key: &[u8], value: &[u8], is_new: bool) -> io::Result<()> {
        let length = self.append(ENTRY, key, value)?;
        if !is_new {
            // About as much as before.
            self.dead += length;
        }
        Ok(())
    }

    /// Notes that the entry of `key` is gone.
    pub(super) fn append_removal(&mut self, key: &[u8]) -> io::Result<()> {
        let length = self.append(GONE, key, &[])?;
        self.dead += 2 * length;
        Ok(())
    }

    /// Adds a certificate of a chain, where it is not there.
    pub(super) fn add_link(&mut self, link: Link, der: &[u8]) -> io::Result<()> {
        if self.links.insert(link) {
            self.write(&[&[LINK], der])?;
        }
        Ok(())
    }

    fn append(&mut self, tag: u8, key: &[u8], value: &[u8]) -> io::Result<u64> {
        let before = self.length;
        // No path is longer than that.
        let length = u16::try_from(key.len()).map_err(io::Error::other)?;
        self.write(&[&[tag], &length.to_be_bytes(), key, value])?;
        Ok(self.length - before)
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if self.length == 0 {
            self.buffer.extend_from_slice(&head());
            self.length = octets(HEAD);
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > LONGEST {
            return Ok(());
        }
        let begin = self.buffer.len();
        let size = u32::try_from(length).unwrap_or_default();
        self.buffer.extend_from_slice(&size.to_be_bytes());
        self.buffer.extend_from_slice(&[0; 8]);
        parts
            .iter()
            .for_each(|part| self.buffer.extend_from_slice(part));
        let record = self.buffer.get(begin + BEFORE..).unwrap_or_default();
        let check = check_sum(record);
        if let Some(room) = self.buffer.get_mut(begin + 4..begin + BEFORE) {
            room.copy_from_slice(&check);
        }
        self.length += octets(BEFORE + length);
        if self.buffer.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is to be written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let at = self.length.saturating_sub(octets(self.buffer.len()));
        self.file.write_all_at(&self.buffer, at)?;
        self.buffer.clear();
        Ok(())
    }

    /// Whether much of the file is of no use.
    pub(super) fn is_mostly_dead(&self) -> bool {
        self.dead > octets(LONGEST) && self.dead > self.length / 3
    }

    /// Drops what is of no use. A crash leaves the one file or the other.
    pub(super) fn compact(&mut self) -> io::Result<()> {
        self.flush()?;
        let mut old = options().open(&self.path)?;
        let contents = scan(&mut old, &self.path)?;
        let fresh = self.path.with_extension("new");
        let file = options().create(true).truncate(true).open(&fresh)?;
        let (file, length) = copy(old, contents, file)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        (self.file, self.length, self.dead) = (file, length, 0);
        Ok(())
    }
}

/// Writes all that is known to `file`.
fn copy(old: File, contents: Contents, file: File) -> io::Result<(File, u64)> {
    let mut writer = io::BufWriter::with_capacity(BLOCK, file);
    writer.write_all(&head())?;
    let mut length = octets(HEAD);
    let mut put = |record: &[u8]| {
        let size = u32::try_from(record.len()).map_err(io::Error::other)?;
        writer.write_all(&size.to_be_bytes())?;
        writer.write_all(&check_sum(record))?;
        writer.write_all(record)?;
        length += octets(BEFORE + record.len());
        Ok::<_, io::Error>(())
    };
    for der in contents.links.values() {
        put(&[&[LINK], &**der].concat())?;
    }
    let mut places: Vec<_> = contents.places.into_iter().collect();
    places.sort_unstable_by_key(|place| place.at);
    let mut record = Vec::new();
    for place in places {
        record.resize(usize::try_from(place.length).map_err(io::Error::other)?, 0);
        old.read_exact_at(&mut record, place.at)?;
        put(&record)?;
    }
    Ok((writer.into_inner().map_err(io::Error::other)?, length))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(directory: &Path, key: &str) -> Option<String> {
        let (_, mut reading) = open(directory).expect("opened");
        let value = reading.take_value(key.as_bytes())?;
        Some(String::from_utf8(value.to_vec()).expect("text"))
    }

    fn put(log: &mut Log, key: &str, value: &str) {
        log.put_entry(key.as_bytes(), value.as_bytes(), true)
            .expect("put");
    }

    #[test]
    fn what_was_written_last_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("deep/index");
        let (mut log, _) = open(&place).expect("opened");
        assert!(matches!(open(&place), Err(LogError::Busy)));
        put(&mut log, "a", "one");
        put(&mut log, "b", "two");
        put(&mut log, "a", "three");
        put(&mut log, "c", "four");
        log.append_removal(b"c").expect("removed");
        let link = openssl::sha::sha256(b"DER");
        log.add_link(link, b"DER").expect("added");
        log.add_link(link, b"DER").expect("added");
        log.flush().expect("flushed");
        let length = log.length;
        drop(log);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        assert_eq!(mode(&place.join("certificates")), 0o600);
        assert_eq!(mode(&place.join("lock")), 0o600);
        assert_eq!(read(&place, "a").as_deref(), Some("three"));
        assert_eq!(read(&place, "c"), None);
        let (mut log, mut reading) = open(&place).expect("opened");
        assert_eq!(reading.contents.links.len(), 1);
        assert_eq!(log.length, length);
        assert!(log.dead > 0);
        log.compact().expect("compacted");
        assert!(log.length < length);
        put(&mut log, "d", "five");
        log.flush().expect("flushed");
        // What was open before stays open.
        assert_eq!(reading.take_value(b"b"), Some(&b"two"[..]));
        assert_eq!(reading.take_remaining(), [b"a".to_vec()]);
        drop((log, reading));
        for (key, value) in [("a", "three"), ("b", "two"), ("d", "five")] {
            assert_eq!(read(&place, key).as_deref(), Some(value));
        }
        let (_, reading) = open(&place).expect("opened");
        assert_eq!(
            (reading.contents.links.len(), reading.contents.dead),
            (1, 0)
        );
    }

    #[test]
    fn however_it_is_cut_off_or_damaged_the_beginning_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path();
        let (mut log, _) = open(place).expect("opened");
        for key in ["a", "b", "c"] {
            put(&mut log, key, key);
        }
        log.flush().expect("flushed");
        drop(log);
        let path = place.join("certificates");
        let whole = fs::read(&path).expect("read");
        let known = |content: &[u8]| {
            fs::write(&path, content).expect("written");
            ["a", "b", "c"].map(|key| u8::from(read(place, key).is_some()))
        };
        let mut before = [0; 3];
        for length in 0..=whole.len() {
            let now = known(whole.get(..length).expect("less"));
            assert!(now >= before, "{length}: {now:?} after {before:?}");
            before = now;
        }
        assert_eq!(before, [1, 1, 1]);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            if let Some(octet) = damaged.get_mut(at) {
                *octet ^= 4;
            }
            let now = known(&damaged);
            assert!(now < [1, 1, 1], "{at}: {now:?}");
        }
        // It continues where it was cut.
        known(whole.get(..whole.len() - 1).expect("less"));
        let (mut log, _) = open(place).expect("opened");
        put(&mut log, "d", "d");
        log.flush().expect("flushed");
        drop(log);
        assert_eq!(read(place, "b").as_deref(), Some("b"));
        assert_eq!(read(place, "c"), None);
        assert_eq!(read(place, "d").as_deref(), Some("d"));
        assert_eq!(known(b"snigate index 0\nand more"), [0, 0, 0]);
    }
}
