//! Starting and stopping, in order and not.

mod disconnects;
mod logs;
mod privileges;
mod signals;
mod stalled;
mod start;
mod stop;
mod user;
mod without;

use std::time::Duration;

use nix::unistd::{Uid, User};

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

/// A user that is not root: `nobody` where the test can choose, else whoever runs it.
fn someone() -> User {
    let user = if Uid::effective().is_root() {
        User::from_name("nobody")
    } else {
        User::from_uid(Uid::effective())
    };
    user.expect("readable").expect("a user")
}
