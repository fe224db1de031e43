//! The machine that the gateway runs on.

/// The host name of this machine; `None` if it has none, or one that is not text.
pub(crate) fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
