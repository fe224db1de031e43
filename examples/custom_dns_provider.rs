//! A DNS provider of the program's own, which proves names by `dns-01`: no listener is needed, and
//! wildcards can be had.
//!
//! ```sh
//! cargo run --example custom_dns_provider -- 127.0.0.1:8055 '*.a.test' \
//!     https://127.0.0.1:14000/dir roots.pem
//! ```
//!
//! The provider speaks to the management interface of `pebble-challtestsrv`, the name server of Let's
//! Encrypt's test CA; the last argument is a file with the roots to trust for that CA's HTTPS.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::env::args;

use async_trait::async_trait;
use serde_json::{Value, json};
use snigate::dns::{DnsError, DnsProvider, TxtRecord};
use snigate::host::HostName;
use snigate::storage::MemoryStorage;
use snigate::{AcmeIssuer, DnsSettings, Engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sets records in a name server for tests.
struct TestServer {
    address: String,
}

impl TestServer {
    async fn post(&self, path: &str, body: &Value) -> Result<(), DnsError> {
        let away = |error: std::io::Error| {
            DnsError::Unreachable(format!("{}: {error}; is it running?", self.address))
        };
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.0\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        let mut stream = TcpStream::connect(&self.address).await.map_err(away)?;
        stream.write_all(request.as_bytes()).await.map_err(away)?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.map_err(away)?;
        match response.split(' ').nth(1) {
            Some("200") => Ok(()),
            status => Err(DnsError::Refused(format!(
                "{} responded to {path} with {status:?}",
                self.address
            ))),
        }
    }
}

#[async_trait]
impl DnsProvider for TestServer {
    fn name(&self) -> &str {
        "test-server"
    }

    /// This server has no zones.
    fn needs_zone(&self) -> bool {
        false
    }

    async fn add(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        println!("add {} {}", record.name, record.value);
        let host = format!("{}.", record.name);
        self.post("/set-txt", &json!({ "host": host, "value": record.value }))
            .await
    }

    /// This server forgets all values of a name at once. Others remove only the one of the record.
    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        println!("remove {} {}", record.name, record.value);
        let host = format!("{}.", record.name);
        self.post("/clear-txt", &json!({ "host": host })).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [address, name, directory, roots] = &*arguments else {
        return Err("usage: custom_dns_provider ADDRESS:PORT NAME DIRECTORY ROOTS".into());
    };
    let provider = TestServer {
        address: address.clone(),
    };
    // A real provider needs none of these: zones and name servers are found in the DNS.
    let provider = DnsSettings::own(provider).without_propagation_check();
    let ca = AcmeIssuer::builder()
        .directory(directory)
        .root_certificates(roots)
        .check_caa(false)
        .dns01(provider);
    let engine = Engine::builder()
        .storage(MemoryStorage::default())
        .issuer("ca", ca)
        .manage([name])
        .start()
        .await?;
    engine.wait_until_covered().await;
    engine.stop().await;
    println!("{name} has a certificate");
    Ok(())
}
