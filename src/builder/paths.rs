//! Where certificates are kept by default.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use nix::unistd::geteuid;

use super::BuildError;

/// The directory of a storage in files, see [`super::manage`].
pub(super) fn default_storage() -> Result<PathBuf, BuildError> {
    default_storage_in(|name| env::var_os(name), geteuid().is_root())
}

fn default_storage_in(
    variable: impl Fn(&str) -> Option<OsString>,
    is_root: bool,
) -> Result<PathBuf, BuildError> {
    // XDG Base Directory Specification: a relative path is invalid and ignored.
    let directory = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let data = match directory("XDG_DATA_HOME") {
        Some(data) => data,
        None if is_root => "/var/lib".into(),
        None => directory("HOME")
            .ok_or(BuildError::NoPlace)?
            .join(".local/share"),
    };
    Ok(data.join("snigate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_place_is_that_of_the_platform() {
        let place = |variables: &[(&str, &str)], is_root| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            };
            default_storage_in(variable, is_root)
        };
        let home = ("HOME", "/home/a");
        for (variables, is_root, expected) in [
            (&[home][..], false, "/home/a/.local/share/snigate"),
            (&[home, ("XDG_DATA_HOME", "/data")], false, "/data/snigate"),
            (
                &[home, ("XDG_DATA_HOME", "data")],
                false,
                "/home/a/.local/share/snigate",
            ),
            (&[home], true, "/var/lib/snigate"),
            (&[("XDG_DATA_HOME", "/data")], true, "/data/snigate"),
        ] {
            let path = place(variables, is_root).expect("a place");
            assert_eq!(path, PathBuf::from(expected));
        }
        let error = place(&[], false).expect_err("no place");
        assert!(error.to_string().contains("call 'storage'"), "{error}");
    }
}
