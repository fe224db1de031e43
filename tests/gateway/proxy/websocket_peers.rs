//! WebSockets between libraries of Python, over both versions of HTTP.

use super::{VERSIONS, passing_to};
use crate::support::{PythonServer, python};

#[test]
fn messages_come_back_over_both_versions() {
    let server = PythonServer::start("websocket_server.py");
    let gateway = passing_to(server.address(), "").over_own_lane().start();
    for version in VERSIONS {
        let port = gateway.https.port().to_string();
        let root = gateway.dir().join("root.pem").display().to_string();
        let printed = python("websocket_client.py", &[version, &port, &root]);
        eprint!("{version}: {printed}");
    }
}
