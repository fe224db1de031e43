//! Opens what is beneath a directory, and nothing else: whatever a path says and whatever changes
//! meanwhile.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// How often the kernel is asked again if something moves while it resolves a path.
const ATTEMPTS: usize = 16;

/// A directory in which paths are resolved.
pub(super) struct Root {
    directory: OwnedFd,
    /// Whether symbolic links may lead out of it.
    follows_links: bool,
}

/// What a path leads to.
pub(super) enum Opened {
    File(File, Metadata),
    Directory(File),
    /// A pipe, a device or the like, from which nothing is read.
    Other,
}

impl Root {
    pub(super) fn open(path: &Path, follows_links: bool) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: openat(CWD, path, flags, Mode::empty())?,
            follows_links,
        })
    }

    /// Opens a relative path, which has no `..`. Nothing blocks.
    pub(super) fn open_path(&self, path: &[u8]) -> io::Result<Opened> {
        // A pipe without a writer would keep the thread waiting.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = if path.is_empty() { b"." } else { path };
        let descriptor = match self.follows_links {
            true => openat(&self.directory, path, flags, Mode::empty())?,
            false => self.open_beneath(path, flags)?,
        };
        let file = File::from(descriptor);
        let metadata = file.metadata()?;
        Ok(if metadata.is_file() {
            Opened::File(file, metadata)
        } else if metadata.is_dir() {
            Opened::Directory(file)
        } else {
            Opened::Other
        })
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..ATTEMPTS {
            match openat2(&self.directory, path, flags, Mode::empty(), resolve) {
                Ok(descriptor) => return Ok(descriptor),
                Err(Errno::AGAIN) => {}
                // Kernels before 5.6 lack it, and some sandboxes refuse it.
                Err(Errno::NOSYS | Errno::PERM) => return self.open_without_links(path, flags),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens a path one name at a time, and follows no link.
    fn open_without_links(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut names = path.split(|&octet| octet == b'/');
        let last = names.next_back().unwrap_or_default();
        let mut parent: Option<OwnedFd> = None;
        for name in names {
            let directory = parent.as_ref().unwrap_or(&self.directory).as_fd();
            parent = Some(openat(directory, name, through, Mode::empty())?);
        }
        let directory = parent.as_ref().unwrap_or(&self.directory).as_fd();
        Ok(openat(
            directory,
            last,
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A directory `root` with files and links, beside a file that nobody may get.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().expect("a directory");
        let at = |path: &str| tree.path().join(path);
        fs::create_dir_all(at("root/a/b")).expect("a directory");
        fs::write(at("secret"), "secret").expect("a file");
        fs::write(at("root/file"), "file").expect("a file");
        fs::write(at("root/a/b/deep"), "deep").expect("a file");
        for (to, link) in [
            ("../file", "root/a/inside"),
            ("../../secret", "root/a/outside"),
            ("nowhere", "root/dangling"),
            ("loop", "root/loop"),
            ("..", "root/up"),
            ("/proc/self/root", "root/magic"),
        ] {
            symlink(to, at(link)).expect("a link");
        }
        symlink(at("root/file"), at("root/absolute")).expect("a link");
        nix::unistd::mkfifo(&at("root/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        symlink("/dev/zero", at("root/device")).expect("a link");
        tree
    }

    fn content(opened: io::Result<Opened>) -> Result<String, String> {
        match opened {
            Ok(Opened::File(mut file, _)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).expect("text");
                Ok(text)
            }
            Ok(Opened::Directory(_)) => Err("directory".to_owned()),
            Ok(Opened::Other) => Err("other".to_owned()),
            Err(error) => Err(Errno::from_io_error(&error).expect("an error").to_string()),
        }
    }

    fn error(errno: Errno) -> Result<String, String> {
        Err(errno.to_string())
    }

    #[test]
    fn only_what_is_beneath_is_opened() {
        let tree = tree();
        let root = Root::open(&tree.path().join("root"), false).expect("a directory");
        let _listener = UnixListener::bind(tree.path().join("root/socket")).expect("a socket");
        for (path, expected) in [
            ("file", Ok("file".to_owned())),
            ("a/b/deep", Ok("deep".to_owned())),
            ("a/inside", Ok("file".to_owned())),
            ("up/root/file", error(Errno::XDEV)),
            ("a/outside", error(Errno::XDEV)),
            ("absolute", error(Errno::XDEV)),
            ("magic/etc/passwd", error(Errno::XDEV)),
            ("device", error(Errno::XDEV)),
            ("../secret", error(Errno::XDEV)),
            ("/etc/passwd", error(Errno::XDEV)),
            ("dangling", error(Errno::NOENT)),
            ("loop", error(Errno::LOOP)),
            ("file/x", error(Errno::NOTDIR)),
            ("none", error(Errno::NOENT)),
            ("socket", error(Errno::NXIO)),
            ("pipe", Err("other".to_owned())),
            ("a", Err("directory".to_owned())),
            ("", Err("directory".to_owned())),
        ] {
            assert_eq!(content(root.open_path(path.as_bytes())), expected, "{path}");
        }
    }

    #[test]
    fn without_the_kernels_help_no_link_is_followed() {
        let tree = tree();
        let root = Root::open(&tree.path().join("root"), false).expect("a directory");
        let open = |path: &str| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = root.open_without_links(path.as_bytes(), flags);
            content(opened.and_then(|descriptor| {
                let file = File::from(descriptor);
                let metadata = file.metadata()?;
                Ok(Opened::File(file, metadata))
            }))
        };
        assert_eq!(open("file"), Ok("file".to_owned()));
        assert_eq!(open("a/b/deep"), Ok("deep".to_owned()));
        for path in ["a/inside", "a/outside", "absolute", "dangling", "loop"] {
            assert_eq!(open(path), error(Errno::LOOP), "{path}");
        }
        assert_eq!(open("up/root/file"), error(Errno::NOTDIR));
    }

    #[test]
    fn links_are_followed_if_they_may_be() {
        let tree = tree();
        let root = Root::open(&tree.path().join("root"), true).expect("a directory");
        let secret = Ok("secret".to_owned());
        assert_eq!(content(root.open_path(b"a/outside")), secret);
        assert_eq!(content(root.open_path(b"absolute")), Ok("file".to_owned()));
        assert_eq!(content(root.open_path(b"device")), Err("other".to_owned()));
    }

    #[test]
    fn what_is_swapped_meanwhile_leads_nowhere_else() {
        let tree = tree();
        let at = |path: &str| tree.path().join(path);
        fs::write(at("root/a/b/secret"), "harmless").expect("a file");
        symlink("../..", at("root/link")).expect("a link");
        let root = Root::open(&at("root"), false).expect("a directory");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                while !is_over.load(Ordering::Relaxed) {
                    let (one, other) = (at("root/a/b"), at("root/link"));
                    _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, exchange);
                }
            });
            for _ in 0..20_000 {
                if let Ok(text) = content(root.open_path(b"a/b/secret")) {
                    assert_eq!(text, "harmless");
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
