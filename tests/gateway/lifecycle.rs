//! Starting and stopping, in order and not.

mod disconnects;
mod signals;
mod stalled;
mod start;
mod stop;
mod user;
mod without;

use std::time::Duration;

use crate::support::{Builder, Origin, serving};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway that passes `a.test` to this origin.
fn in_front_of(origin: &Origin) -> Builder {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}]\n\
             log: {{ access: off }}\n",
            origin.address()
        ),
    )
}
