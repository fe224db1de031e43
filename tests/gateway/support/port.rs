//! Ports that no other test has, in this process or another.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the ports that the kernel gives to outgoing connections, which could take them away.
const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// A free port of 127.0.0.1, held by a lock on a file for as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes one that nobody holds or listens on.
    pub fn take() -> Self {
        let directory = std::env::temp_dir().join("snigate-test-ports");
        fs::create_dir_all(&directory).expect("a directory for locks");
        for _ in 0..10_000 {
            let number = fastrand::u16(RANGE);
            let lock = File::create(directory.join(number.to_string())).expect("a lock file");
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no port of 127.0.0.1 is free");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
