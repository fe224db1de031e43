//! Which directories lead to files: those in which a change can make a path another file.
//!
//! Asked after every change, of thousands of files mostly in few directories. So what leads to a
//! directory is found out once for all files in it, and of many files in one directory it is the
//! directory that says which are links or directories, not each file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

/// How many symbolic links are followed on the way to one file.
const MAX_LINKS: usize = 16;

/// With so many files in one directory, the directory is read instead of each being looked at.
const MANY: usize = 16;

/// The files of a directory, by their names.
type Group = BTreeSet<OsString>;

/// Finds out which directories lead to some files.
#[derive(Debug, Default)]
pub(super) struct PathComponents {
    /// All that have been found.
    directories: BTreeSet<PathBuf>,
    /// Directories whose own way is among them.
    known: BTreeSet<PathBuf>,
    /// How often the file system was asked.
    asked: usize,
}

impl PathComponents {
    /// The directories that lead to `paths`; directories among these belong to them.
    pub(super) fn leading_to<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut components = Self::default();
        let mut groups = BTreeMap::new();
        for path in paths {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            components.group_path(&path, &mut groups);
        }
        for _ in 0..MAX_LINKS {
            if groups.is_empty() {
                break;
            }
            let mut targets = BTreeMap::new();
            for (parent, files) in std::mem::take(&mut groups) {
                components.add_leading(&parent);
                components.look_into(&parent, &files, &mut targets);
            }
            groups = targets;
        }
        components
    }

    pub(super) fn into_directories(self) -> BTreeSet<PathBuf> {
        self.directories
    }

    /// Puts a path to the others of its directory.
    fn group_path(&mut self, path: &Path, groups: &mut BTreeMap<PathBuf, Group>) {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => match groups.get_mut(parent) {
                Some(files) => {
                    files.insert(name.to_owned());
                }
                None => {
                    groups.insert(parent.to_owned(), [name.to_owned()].into());
                }
            },
            // The root, or a path that ends with `..`.
            _ => self.add_leading(path),
        }
    }

    /// Continues from those of `files` that are directories or links.
    fn look_into(&mut self, parent: &Path, files: &Group, targets: &mut BTreeMap<PathBuf, Group>) {
        for (name, kind) in self.kinds(parent, files) {
            let path = parent.join(name);
            if kind.is_symlink() {
                self.asked += 2;
                if path.is_dir() {
                    self.directories.insert(path.clone());
                }
                if let Ok(target) = fs::read_link(&path) {
                    self.group_path(&parent.join(target), targets);
                }
            } else if kind.is_dir() {
                self.directories.insert(path);
            }
        }
    }

    /// Those of `files` that are there, with what they are.
    fn kinds<'f>(&mut self, parent: &Path, files: &'f Group) -> Vec<(&'f OsStr, FileType)> {
        if files.len() >= MANY {
            self.asked += 1;
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            return entries
                .filter_map(|entry| {
                    let name = files.get(&entry.file_name())?;
                    Some((name.as_os_str(), entry.file_type().ok()?))
                })
                .collect();
        }
        self.asked += files.len();
        let kind = |name: &'f OsString| {
            let metadata = parent.join(name).symlink_metadata().ok()?;
            Some((name.as_os_str(), metadata.file_type()))
        };
        files.iter().filter_map(kind).collect()
    }

    /// Adds what leads to an entry of `directory`: itself, or what there is of it, and for each
    /// link on the way the link's own directory.
    fn add_leading(&mut self, directory: &Path) {
        let mut directory = directory.to_owned();
        for _ in 0..MAX_LINKS {
            if !self.known.insert(directory.clone()) {
                return;
            }
            self.asked += 2 * directory.ancestors().count();
            let existing = directory.ancestors().find(|ancestor| ancestor.is_dir());
            self.directories.extend(existing.map(Path::to_owned));
            let links = directory.ancestors().filter(|one| one.is_symlink());
            let Some(link) = links.last().map(Path::to_owned) else {
                return;
            };
            let (Some(parent), Ok(target)) = (link.parent(), fs::read_link(&link)) else {
                return;
            };
            self.directories.insert(parent.to_owned());
            let rest = directory
                .strip_prefix(&link)
                .unwrap_or_else(|_| Path::new(""));
            directory = if rest.as_os_str().is_empty() {
                parent.join(target)
            } else {
                parent.join(target).join(rest)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directories(path: &Path) -> BTreeSet<PathBuf> {
        PathComponents::leading_to([path]).into_directories()
    }

    #[test]
    fn thousands_of_files_in_one_directory_are_few_questions() {
        let dir = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("a directory");
        let file = |number: usize| dir.path().join(format!("{number}.pem"));
        for number in 0..2_000 {
            fs::write(file(number), "").expect("written");
        }
        let target = other.path().join("target.pem");
        fs::write(&target, "").expect("written");
        fs::remove_file(file(7)).expect("removed");
        symlink(&target, file(7)).expect("linked");
        let files: Vec<PathBuf> = (0..2_000).map(file).collect();
        let components = PathComponents::leading_to(files.iter().map(PathBuf::as_path));
        assert!(components.asked < 50, "{} questions", components.asked);
        let expected = [dir.path().to_owned(), other.path().to_owned()];
        assert_eq!(components.into_directories(), expected.into());
    }

    #[test]
    fn links_are_followed_to_their_end_and_no_further() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "b", "real"] {
            fs::create_dir(at(name)).expect("made");
        }
        fs::write(at("real/file"), "").expect("written");
        symlink("../b/link", at("a/file")).expect("linked");
        symlink(at("real/file"), at("b/link")).expect("linked");
        let found = directories(&at("a/file"));
        let through = [at("a"), at("a/../b"), at("real")];
        assert_eq!(found, through.into());

        // A directory that is a link, and one that is not there.
        symlink("real", at("alias")).expect("linked");
        let found = directories(&at("alias/file"));
        assert_eq!(
            found,
            [at("alias"), dir.path().to_owned(), at("real")].into()
        );
        let found = directories(&at("alias/none/file"));
        assert_eq!(
            found,
            [at("alias"), dir.path().to_owned(), at("real")].into()
        );

        // Links that lead nowhere but to each other.
        symlink("two", at("one")).expect("linked");
        symlink("one", at("two")).expect("linked");
        assert_eq!(directories(&at("one")), [dir.path().to_owned()].into());
    }
}
