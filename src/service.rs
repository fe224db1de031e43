//! What runs beside the edge: watching files, reloading, stopping.

pub mod live;
mod next;
mod outcome;
pub mod reload;
mod stamps;
pub mod stop;
pub mod watch;
