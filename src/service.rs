//! What runs beside the edge: watching files, reloading, stopping.

pub mod stop;
pub mod watch;
