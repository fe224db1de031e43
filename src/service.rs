//! What runs beside the edge: watching files, reloading, stopping.

pub mod live;
pub mod reload;
mod stamps;
pub mod stop;
pub mod watch;
