//! Reloads: how another configuration takes the place of the one that is served, or is refused as a
//! whole.
//!
//! [`Task`] waits for a reason, [`GatewayState`] reads, prepares, applies and publishes, and
//! [`ReloadReport`] says what came of it.

mod apply;
mod file_versions;
mod prepare;
mod report;
mod state;
mod task;

pub use self::prepare::{ProgramLog, access_log, settings, trace_target};
pub use self::report::{ReloadError, ReloadOutcome, ReloadReport};
pub use self::state::{GatewayEdge, GatewayListeners, GatewayState, StateDeps};
pub use self::task::{Reloader, Task, task};
