//! The media types of files, by the ends of their names.

use http::HeaderValue;

/// The media type of a file that is named like this.
pub(crate) fn media_type(name: &str) -> HeaderValue {
    let Some(known) = mime_guess::from_path(name).first_raw() else {
        return HeaderValue::from_static("application/octet-stream");
    };
    if known.starts_with("text/") {
        let text = format!("{known}; charset=utf-8");
        return HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(known));
    }
    HeaderValue::from_static(known)
}

/// Whether files of a media type are text.
pub(crate) fn is_text(media_type: &HeaderValue) -> bool {
    let essence = essence(media_type);
    essence.starts_with(b"text/")
        || [&b"json"[..], b"xml", b"javascript"]
            .iter()
            .any(|end| essence.ends_with(end))
}

/// Whether a media type is that of JSON.
pub(crate) fn is_json(media_type: &HeaderValue) -> bool {
    essence(media_type).ends_with(b"json")
}

/// A media type without its parameters.
fn essence(media_type: &HeaderValue) -> &[u8] {
    let mut parts = media_type.as_bytes().split(|&octet| octet == b';');
    parts.next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_type_of_their_extension() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.CSS", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.png", "image/png"),
            ("a.tar.gz", "application/gzip"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.unheard-of", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(media_type(name), expected, "{name}");
        }
    }

    #[test]
    fn text_and_json_are_known() {
        let of = |name| {
            let media_type = media_type(name);
            (is_text(&media_type), is_json(&media_type))
        };
        assert_eq!(of("a.html"), (true, false));
        assert_eq!(of("a.json"), (true, true));
        assert_eq!(of("a.svg"), (true, false));
        assert_eq!(of("a.png"), (false, false));
        assert_eq!(of("a"), (false, false));
    }
}
