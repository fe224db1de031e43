//! Nothing that two servers could read in two ways gets to an upstream.

mod http1;
mod http2;
mod recorder;
mod table;

use crate::support::{Gateway, serving_app};
use recorder::Recorder;

/// What must never reach the origin.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A gateway that passes `a.test` to the recorder, over TLS, and `plain.test` without.
#[track_caller]
fn in_front_of(recorder: &Recorder) -> Gateway {
    serving_app(recorder.address()).start()
}
