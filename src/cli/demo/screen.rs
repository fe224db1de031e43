//! The demo's first screen: what is running, and a line to paste.

use std::path::PathBuf;

use super::Ports;
use crate::cli::output::Style;
use crate::cli::trust::quoted;

/// What the screen shows.
pub(super) struct Screen {
    pub(super) ports: Ports,
    pub(super) config: PathBuf,
    pub(super) root: PathBuf,
}

impl Screen {
    /// The screen as text.
    pub(super) fn render(&self, style: Style) -> String {
        let Ports {
            https, http, admin, ..
        } = self.ports;
        let root = quoted(self.root.as_os_str());
        let config = quoted(self.config.as_os_str());
        let title = style.bold(&format!("Snigate {}", env!("CARGO_PKG_VERSION")));
        let site = |host: &str, what: &str| {
            let url = format!("https://{host}:{https}/");
            format!(
                "  {}{}  {what}",
                style.cyan(&url),
                " ".repeat(38_usize.saturating_sub(url.len()))
            )
        };
        let entry =
            |name: &str, what: String| format!("  {}  {what}", style.dim(&format!("{name:<7}")));
        [
            String::new(),
            format!("  {title} serves three sites on one address, each with its own certificate."),
            String::new(),
            site("hello.localhost", "answered by the gateway itself"),
            site("app.localhost", "passed to an upstream that echoes"),
            site(
                "any.shop.localhost",
                "one wildcard certificate for all shops",
            ),
            String::new(),
            format!("  {}", style.green("Try it:")),
            String::new(),
            format!(
                "curl --cacert {root} --resolve hello.localhost:{https}:127.0.0.1 \
                 https://hello.localhost:{https}/"
            ),
            String::new(),
            entry(
                "http",
                format!("http://app.localhost:{http}/ redirects to https"),
            ),
            entry(
                "change",
                format!("{config} is applied as soon as you save it"),
            ),
            entry("trust", format!("snigate ca trust --config {config}")),
            entry(
                "see",
                format!("http://127.0.0.1:{admin}/metrics /readyz /api/v1/certificates"),
            ),
            entry("stop", "Ctrl-C".to_owned()),
            String::new(),
            String::new(),
        ]
        .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::output::Output;

    use super::*;

    #[test]
    fn the_line_to_try_stands_alone_and_is_quoted() {
        let screen = Screen {
            ports: Ports {
                https: 8443,
                http: 8080,
                admin: 9180,
                upstream: 1,
            },
            config: "/tmp/my demo/snigate.yaml".into(),
            root: "/tmp/my demo/root.pem".into(),
        };
        let text = screen.render(Output::plain().style());
        let line = text
            .lines()
            .find(|line| line.starts_with("curl "))
            .expect("a line");
        assert_eq!(
            line,
            "curl --cacert '/tmp/my demo/root.pem' --resolve hello.localhost:8443:127.0.0.1 \
             https://hello.localhost:8443/"
        );
    }
}
