//! The pieces of a text with names in braces: `{host}/x`. `{{` and `}}` stand for braces.

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Never empty, and never after another one.
    Text(Box<str>),
    /// What stands between braces.
    Name(&'t str),
}

/// Why a text has no such pieces, or none that are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("there is no placeholder {{{0}}}")]
    Unknown(String),
    #[error("a '{{' has no '}}'")]
    Unclosed,
    #[error("a '}}' has no '{{'")]
    Unopened,
}

/// The pieces of a text in their order, up to the first error.
pub(super) struct Pieces<'t> {
    rest: &'t str,
    /// A name that follows the text before it.
    name: Option<&'t str>,
}

impl<'t> Pieces<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self {
            rest: text,
            name: None,
        }
    }

    /// The text before the next name, which is kept.
    fn read(&mut self) -> Result<String, TemplateError> {
        let mut literal = String::new();
        while let Some(at) = self.rest.find(['{', '}']) {
            let (before, braced) = self.rest.split_at_checked(at).unwrap_or((self.rest, ""));
            literal.push_str(before);
            if let Some(after) = braced.strip_prefix("{{") {
                literal.push('{');
                self.rest = after;
            } else if let Some(after) = braced.strip_prefix("}}") {
                literal.push('}');
                self.rest = after;
            } else if let Some(after) = braced.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
                (self.name, self.rest) = (Some(name), after);
                return Ok(literal);
            } else {
                return Err(TemplateError::Unopened);
            }
        }
        literal.push_str(std::mem::take(&mut self.rest));
        Ok(literal)
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Result<Piece<'t>, TemplateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(name) = self.name.take() {
            return Some(Ok(Piece::Name(name)));
        }
        match self.read() {
            Ok(literal) if literal.is_empty() => self.name.take().map(|name| Ok(Piece::Name(name))),
            Ok(literal) => Some(Ok(Piece::Text(literal.into()))),
            Err(error) => {
                self.rest = "";
                Some(Err(error))
            }
        }
    }
}
