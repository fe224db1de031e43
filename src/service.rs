//! The gateway as a process: signals, systemd, a start that waits for certificates, and the stop.

pub mod signals;
pub mod start_gate;
pub mod stop;
pub mod systemd;
