//! The file in which one outbox is kept: values by keys, changed by appending.
//!
//! Each line is one batch of changes, a JSON array of pairs of a key and a value, `null` where the
//! value is gone. A line that is not whole, because the process or the machine ended while it was
//! written, was never promised, and ends the file. When changes have made the file long, it is begun
//! anew from what holds, under another name that replaces it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::outbox::Change;

/// How long a file may become before it is begun anew, if what holds is shorter.
const MIN_REWRITE: u64 = 256 << 10;

/// What of a file that is begun anew is what holds: a quarter.
const GROWTH: u64 = 4;

/// A file that is appended to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    length: u64,
    /// The length from which on it is begun anew.
    limit: u64,
}

/// What is kept in the file at `path`; nothing if there is none.
///
/// # Errors
/// If it cannot be read.
pub(super) fn load(path: &Path) -> io::Result<BTreeMap<String, Value>> {
    let mut kept = BTreeMap::new();
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
        Err(error) => return Err(error),
    };
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Ok(changes) = serde_json::from_slice::<Vec<(String, Option<Value>)>>(&line) else {
            break;
        };
        if line.last() != Some(&b'\n') {
            break;
        }
        for (key, value) in changes {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
        line.clear();
    }
    Ok(kept)
}

impl Journal {
    /// A file at `path` that keeps this, in place of one that may be there.
    ///
    /// # Errors
    /// If it cannot be written. What was there remains.
    pub(super) fn create(path: &Path, kept: Vec<(String, Value)>) -> io::Result<Self> {
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let kept: Vec<Change> = kept
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect();
        let text = line(&kept)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let length = text.len() as u64;
        Ok(Self {
            file,
            length,
            limit: (length * GROWTH).max(MIN_REWRITE),
        })
    }

    /// Keeps changes: they outlive the process and a power failure once this returns.
    ///
    /// # Errors
    /// If they cannot be written. The file may end in a part of them then: it is to be begun anew.
    pub(super) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let text = line(changes)?;
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Returns true if the file is long enough to be begun anew.
    pub(super) fn is_long(&self) -> bool {
        self.length > self.limit
    }
}

fn line(changes: &[Change]) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(changes)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(key: &str, value: Option<Value>) -> Change {
        (key.to_owned(), value)
    }

    #[test]
    fn changes_are_kept_and_a_torn_line_is_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        assert!(load(&path).expect("nothing").is_empty());
        let mut journal = Journal::create(&path, Vec::new()).expect("created");
        let both = [
            change("a", Some(json!(1))),
            change("b", Some(json!("x\ny"))),
        ];
        journal.append(&both).expect("kept");
        journal.append(&[change("a", None)]).expect("kept");
        let expected = BTreeMap::from([("b".to_owned(), json!("x\ny"))]);
        assert_eq!(load(&path).expect("kept"), expected);
        // However much of the next line has been written.
        let whole = fs::read(&path).expect("a file");
        let next = line(&[change("c", Some(json!(3)))]).expect("JSON");
        for length in 0..next.len() {
            let torn = [&whole, next.get(..length).expect("a part")].concat();
            fs::write(&path, torn).expect("written");
            assert_eq!(load(&path).expect("kept"), expected, "{length}");
        }
        // Nor does a hole that a power failure has left.
        fs::write(&path, [&*whole, &[0; 4096], &*next].concat()).expect("written");
        assert_eq!(load(&path).expect("kept"), expected);
    }

    #[test]
    fn a_long_file_is_begun_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        let mut journal = Journal::create(&path, Vec::new()).expect("created");
        let long = json!("x".repeat(1000));
        while !journal.is_long() {
            journal
                .append(&[change("a", Some(long.clone()))])
                .expect("kept");
        }
        let kept: Vec<_> = load(&path).expect("kept").into_iter().collect();
        let journal = Journal::create(&path, kept).expect("created");
        assert!(!journal.is_long());
        assert_eq!(load(&path).expect("kept").get("a"), Some(&long));
        let length = fs::metadata(&path).expect("a file").len();
        assert!(length < 2000, "{length}");
    }
}
