//! Permissions of stored files: modes that let others in are removed and reported.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::DIRECTORY_MODE;

use crate::printable::Printable as _;

/// The mode bits that grant access to others than the owner.
const OTHERS: u32 = 0o077;

/// Removes the permissions beyond `mode`, and reports it.
///
/// A directory with the sticky bit is shared on purpose, like `/tmp`.
pub(super) fn tighten(path: &Path, metadata: &Metadata, mode: u32) {
    let found = metadata.mode() & 0o7777;
    if found & OTHERS == 0 || found & 0o1000 != 0 {
        return;
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => tracing::warn!(
            path = %path.printable(),
            found = format_args!("{found:04o}"),
            now = format_args!("{mode:04o}"),
            "others could read stored keys: mode corrected"
        ),
        Err(error) => tracing::error!(
            path = %path.printable(),
            found = format_args!("{found:04o}"),
            %error,
            "others can read stored keys, and the mode cannot be corrected"
        ),
    }
}

/// Tightens the modes of `directory` and all above it, below `root`. The root may be anybody's
/// directory, and our own content is protected anyway.
pub(super) fn tighten_directories(root: &Path, directory: &Path) -> io::Result<()> {
    directory
        .ancestors()
        .take_while(|path| path.starts_with(root) && *path != root)
        .try_for_each(|path| {
            tighten(path, &fs::metadata(path)?, DIRECTORY_MODE);
            Ok(())
        })
}
