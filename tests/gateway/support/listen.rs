//! Changes where a gateway listens while it runs.

use std::fmt::Display;
use std::fs;
use std::net::{SocketAddr, TcpStream};

use super::Gateway;

/// Writes a configuration that listens at these addresses, and reloads. Returns what came of it.
pub fn listen(gateway: &Gateway, https: &[&dyn Display], http: &[&dyn Display]) -> (u16, String) {
    let list = |all: &[&dyn Display]| {
        let all: Vec<_> = all.iter().map(|one| format!("\"{one}\"")).collect();
        format!("[{}]", all.join(", "))
    };
    let text = fs::read_to_string(&gateway.config).expect("readable");
    let lines = text.lines().map(|line| match line.trim_start() {
        key if key.starts_with("https: [") => format!("  https: {}", list(https)),
        key if key.starts_with("http: [") => format!("  http: {}", list(http)),
        _ => line.to_owned(),
    });
    let text: Vec<_> = lines.collect();
    gateway.write("snigate.yaml", &(text.join("\n") + "\n"));
    let (status, summary) = gateway.reload();
    (status, summary.to_string())
}

/// The same where the reload is to be applied, and needs no restart.
#[track_caller]
pub fn relisten(gateway: &Gateway, https: &[&dyn Display], http: &[&dyn Display]) {
    let (status, summary) = listen(gateway, https, http);
    assert_eq!(status, 200, "{summary}");
    assert!(summary.contains("\"restart_needed\":[]"), "{summary}");
}

pub fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}
