//! A stream of server-sent events, read as they come.

use anyhow::{anyhow, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::admin::EventView;

/// The maximum length of a line.
const MAX_LINE: usize = 1024 * 1024;

/// The events that a gateway sends.
#[derive(Debug)]
pub(in crate::cli) struct Events {
    body: Incoming,
    lines: Lines,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            lines: Lines::default(),
        }
    }

    /// The next event; `None` once the gateway has ended the stream. Nothing is lost if this is
    /// dropped before its end.
    pub(in crate::cli) async fn next(&mut self) -> anyhow::Result<Option<EventView>> {
        loop {
            if let Some(event) = self.lines.event()? {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(anyhow!(error).context("the event stream was cut short"));
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.lines.push(data);
                    }
                }
            }
        }
    }
}

/// Bytes that are not parsed yet.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    name: String,
    data: String,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole event of the gateway; those with a name are about the stream.
    fn event(&mut self) -> anyhow::Result<Option<EventView>> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let (name, data) = (
                    std::mem::take(&mut self.name),
                    std::mem::take(&mut self.data),
                );
                if name.is_empty() && !data.is_empty() {
                    return Ok(Some(serde_json::from_str(&data)?));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            } else if let Some(name) = line.strip_prefix("event:") {
                self.name = name.trim().to_owned();
            }
        }
        if self.bytes.len() > MAX_LINE {
            bail!("the gateway sent something other than an event");
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let event = r#"{"at":"2025-09-15T00:00:00Z","kind":"certificate_renewed","severity":"info","domain":"a.example","issuer":null,"attempt":null,"next":null,"not_after":null,"message":"é","url":null}"#;
        let (first, second) = event.split_at(event.find(",\"kind").expect("there"));
        let stream = format!(
            ":\n\nevent: lost\ndata: {{\"lost\":3}}\n\ndata: {event}\r\n\r\ndata:{first}\ndata: {second}\n\ndata: {{"
        );
        for size in [1, 2, 7, stream.len()] {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for bytes in stream.as_bytes().chunks(size) {
                lines.push(bytes);
                while let Some(event) = lines.event().expect("events") {
                    seen.push(event.message);
                }
            }
            assert_eq!(seen, ["é", "é"], "{size}");
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let mut lines = Lines::default();
        lines.push(b"data: <html>\n\n");
        assert!(lines.event().is_err());
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE + 1]);
        assert!(lines.event().is_err());
    }
}
