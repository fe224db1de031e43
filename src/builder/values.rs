//! Values as a configuration has them: as text.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::schema;
use crate::secret::Secret;

/// `names` as texts.
pub(super) fn texts<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Vec<String> {
    names
        .into_iter()
        .map(|name| name.as_ref().to_owned())
        .collect()
}

/// A secret.
pub(super) fn secret(text: &str) -> schema::SecretText {
    schema::SecretText(Secret::new(text.to_owned()))
}

/// A path as text. What is no text is a mistake.
pub(super) fn path_text(path: PathBuf, mistakes: &mut Vec<String>) -> String {
    path.into_os_string().into_string().unwrap_or_else(|path| {
        let path = path.to_string_lossy().into_owned();
        mistakes.push(format!(
            "the path {path:?} is not UTF-8; rename the file or its directory"
        ));
        path
    })
}

/// A duration as configurations have it.
pub(super) fn duration(duration: Duration) -> schema::Duration {
    let text = match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        // Rounded up: no time at all means something else.
        _ => format!("{}ms", duration.as_nanos().div_ceil(1_000_000)),
    };
    schema::Duration::new(&text)
}
