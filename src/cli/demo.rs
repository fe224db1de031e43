//! `snigate demo`: a gateway to try, from nothing, without root.
//!
//! Everything it writes is in one directory. The upstream is a small server in this process, the
//! certificates come from a local CA, and the names end in `.localhost`, which browsers and curl
//! resolve to this machine.

mod echo;
mod screen;

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use super::client::{Address, Client};
use super::failure::Failure;
use super::gateway;
use super::output::Output;
use screen::Screen;

use crate::printable::Printable as _;
use crate::proxy::Lane;
use crate::service::signals::Signals;

/// How often the gateway is asked whether it is ready.
const POLL: Duration = Duration::from_millis(50);

/// The ports of a demo, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
struct Ports {
    https: u16,
    http: u16,
    admin: u16,
    upstream: u16,
}

/// Sets everything up, runs the gateway, and once it is ready shows what to try.
pub(super) fn demo(
    output: &Output,
    data: Option<PathBuf>,
    signals: Signals,
) -> Result<(), Failure> {
    // A temporary directory lives as long as the demo.
    let (data, _temporary) = match data.or_else(own_directory) {
        Some(directory) => (directory, None),
        None => {
            let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
            (directory.path().to_owned(), Some(directory))
        }
    };
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.printable()))?;
    let data = data
        .canonicalize()
        .with_context(|| format!("cannot use {}", data.printable()))?;

    let ports = Ports {
        https: free_port(8443)?,
        http: free_port(8080)?,
        admin: free_port(9180)?,
        upstream: echo::start().context("cannot start the built-in upstream")?,
    };
    let config = data.join("snigate.yaml");
    write(&config, &configuration(ports))?;
    let root = data.join("root.pem");
    write(&root, &gateway::root(output, &config)?)?;

    let screen = Screen {
        ports,
        config: config.clone(),
        root,
    };
    show_when_ready(*output, screen)?;
    gateway::run(output, &config, Lane::default(), signals)
}

fn own_directory() -> Option<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|directory| directory.join("snigate-demo"))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(fs::write(path, text).with_context(|| format!("cannot write {}", path.printable()))?)
}

/// The wanted port, or a nearby one, or any.
fn free_port(wanted: u16) -> Result<u16, Failure> {
    let port = (wanted..wanted.saturating_add(10))
        .chain([0])
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .context("no port of 127.0.0.1 is free")?
        .local_addr()
        .context("a bound port has no address")?
        .port();
    Ok(port)
}

fn configuration(ports: Ports) -> String {
    let Ports {
        https,
        http,
        admin,
        upstream,
    } = ports;
    format!(
        r#"# The demo's configuration: written again at each start, and reloaded when you change it.
server:
  https: ["127.0.0.1:{https}"]
  http: ["127.0.0.1:{http}"]
  admin: "127.0.0.1:{admin}"
  grace_period: 3s

storage:
  file: {{ path: ./data }}

issuers:
  local:
    local_ca: {{ name: "Snigate Demo CA" }}

upstreams:
  echo: {{ servers: ["127.0.0.1:{upstream}"] }}

sites:
  - hosts: [hello.localhost]
    tls: local
    routes:
      - {{ path: /old, redirect: {{ to: "https://hello.localhost:{https}/", status: 301 }} }}
      - {{ respond: {{ status: 200, body: "Hello from Snigate.\n" }} }}
  - hosts: [app.localhost]
    tls: local
    upstream: echo
  - hosts: ["*.shop.localhost"]
    tls: local
    upstream: echo

log: {{ level: warn, access: stdout }}
"#
    )
}

/// Waits in another thread than the gateway, which has the main one. Ends with the process.
fn show_when_ready(output: Output, screen: Screen) -> Result<(), Failure> {
    let address = Address::Tcp {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port: screen.ports.admin,
    };
    thread::Builder::new()
        .name("demo".to_owned())
        .spawn(move || {
            let client = Client::new(address, None);
            while !client
                .get("/readyz")
                .is_ok_and(|answer| answer.status.is_success())
            {
                thread::sleep(POLL);
            }
            let _ = output.data(screen.render(output.style()));
        })
        .context("cannot start a thread")?;
    Ok(())
}
