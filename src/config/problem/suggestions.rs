//! Names in messages: quoted, and compared with those that may have been meant.

/// A text in quotes on one line, shortened if it is long.
pub(in crate::config) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut quoted = String::from("'");
    for (count, char) in text.chars().enumerate() {
        if count == LONGEST {
            quoted.push('…');
            break;
        }
        if char.is_control() {
            quoted.extend(char.escape_default());
        } else {
            quoted.push(char);
        }
    }
    quoted.push('\'');
    quoted
}

/// The name most similar to `name`, if any is similar. Considers the first thousand.
pub(in crate::config) fn nearest<'n>(
    name: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    // The cost of a distance is the product of the lengths: no name is longer.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let length = name.chars().count();
    let limit = 1 + length / 3;
    let name = name.to_lowercase();
    known
        .into_iter()
        .take(1_000)
        .filter(|known| known.len().abs_diff(name.len()) <= 2 * limit && known.len() <= LONGEST)
        .map(|known| (strsim::osa_distance(&name, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= limit && *distance < length)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// What to do about an unknown name: the nearest one, or all of them.
pub(in crate::config) fn suggest<'n>(
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> String {
    const MOST: usize = 24;
    if let Some(nearest) = nearest(name, known.clone()) {
        return format!("did you mean '{nearest}'?");
    }
    let mut all: Vec<&str> = known.take(MOST + 1).collect();
    if all.is_empty() {
        return "there are none yet".to_owned();
    }
    if all.len() > MOST {
        all.truncate(MOST);
        return format!("there are {}, and more", all.join(", "));
    }
    format!("there are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_like_it_are_suggested() {
        let known = ["upstream", "redirect", "respond", "path"];
        for (name, near) in [
            ("upstreem", Some("upstream")),
            ("UPSTREAM", Some("upstream")),
            ("pth", Some("path")),
            ("redirects", Some("redirect")),
            ("timeout", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), near, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
        assert_eq!(suggest("x", ["b", "a"].into_iter()), "there are b, a");
        assert_eq!(suggest("x", [].into_iter()), "there are none yet");
    }

    #[test]
    fn quoted_text_stays_on_one_short_line() {
        assert_eq!(quote("a\nb\u{1b}"), "'a\\nb\\u{1b}'");
        assert_eq!(quote(&"ä".repeat(100)), format!("'{}…'", "ä".repeat(80)));
    }
}
