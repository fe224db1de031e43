//! What the documentation shows, as a reader would try it.

mod coming_from;
mod shapes;

use crate::support::{Act, Origin};

/// An origin that answers with its name and the head of the request.
fn named_echo(name: &'static str) -> Origin {
    Origin::start(move |request| {
        let body = format!("{name}\n{}", request.head);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Powered-By: it\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        vec![Act::send(head + &body)]
    })
}
