//! A scripted upstream, however wrong its script, which remembers what it got.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::http1::{header, read_body, read_head};
use super::{PATIENCE, Port, wait_for};

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Request line and fields, with the blank line.
    pub head: String,
    /// Without transfer coding.
    pub body: Vec<u8>,
    /// With it.
    pub raw_body: Vec<u8>,
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Which request of that connection it is, from 0.
    pub number: usize,
}

impl Received {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// One thing to do in answer to a request.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Vec<u8>),
    /// Sends this many octets, as fast as they are taken.
    Flood(usize),
    /// Reads this many octets of a body that was left to the script, see [`Origin::early`].
    Take(usize),
    /// Reads this many and sends each part back before it reads the next.
    Echo(usize),
    /// Waits until [`Origin::release`].
    Hold,
    /// Waits for a time that is itself part of the test.
    Pause(Duration),
    /// Closes in an orderly way.
    Close,
    /// Closes with a reset.
    Reset,
    /// Says nothing more and waits until the other side closes.
    Silence,
}

impl Act {
    pub fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(bytes.as_ref().to_vec())
    }

    /// A whole response with this status and body.
    pub fn respond(status: u16, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        Self::Send(bytes)
    }
}

/// Runs until dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    released: (Mutex<bool>, Condvar),
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Received>,
    connections: usize,
    open: usize,
    sent: usize,
    taken: usize,
}

impl Origin {
    /// Answers every request with what `script` says, once it is here with its body.
    pub fn start(script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::listen(ANY, Body::Read, script)
    }

    /// The same at this address.
    pub fn start_at(
        address: SocketAddr,
        script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, Body::Read, script)
    }

    /// Answers every request once its head is here: its body is the script's to read, by
    /// [`Act::Take`] and [`Act::Echo`]. The kernel receives little of it before.
    pub fn early(script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::listen(ANY, Body::Left, script)
    }

    fn listen(
        address: SocketAddr,
        body: Body,
        script: impl Fn(&Received) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        if body == Body::Left {
            // Connections that are accepted inherit it.
            let socket = socket2::SockRef::from(&listener);
            socket.set_recv_buffer_size(SMALL).expect("a small buffer");
            socket.set_send_buffer_size(SMALL).expect("a small buffer");
        }
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let (script, accepting) = (Arc::new(script), Arc::clone(&shared));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let connection = accepting.opened();
                let (script, shared) = (Arc::clone(&script), Arc::clone(&accepting));
                thread::spawn(move || {
                    shared.serve(stream, connection, body, &*script);
                    shared.seen().open -= 1;
                });
            }
        });
        Self { address, shared }
    }

    /// Answers with 200 and the request as it came, byte for byte.
    pub fn echo() -> Self {
        Self::start(|request| {
            let mut body = request.head.clone().into_bytes();
            body.extend_from_slice(&request.raw_body);
            vec![Act::respond(200, body)]
        })
    }

    /// Answers with 200 and its name, to tell origins apart.
    pub fn named(name: &'static str) -> Self {
        Self::start(move |_| vec![Act::respond(200, name)])
    }

    /// Sends these bytes, whatever they are, and closes: garbage, a cut response, two lengths.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self::start(move |_| vec![Act::Send(bytes.clone()), Act::Close])
    }

    /// Takes the request and resets the connection.
    pub fn resetting() -> Self {
        Self::start(|_| vec![Act::Reset])
    }

    /// Takes the request and never answers.
    pub fn silent() -> Self {
        Self::start(|_| vec![Act::Silence])
    }

    /// A port on which nobody listens: connecting is refused.
    pub fn refusing() -> Port {
        Port::take()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.seen().requests.clone()
    }

    /// Waits until there have been this many requests.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} requests at the origin"), || {
            let requests = self.requests();
            (requests.len() >= count).then_some(requests)
        })
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.seen().connections
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.seen().open
    }

    /// How many octets [`Act::Flood`] has sent.
    pub fn sent(&self) -> usize {
        self.shared.seen().sent
    }

    /// How many octets [`Act::Take`] and [`Act::Echo`] have read.
    pub fn taken(&self) -> usize {
        self.shared.seen().taken
    }

    /// Lets everything continue that is at [`Act::Hold`], now and later.
    pub fn release(&self) {
        *self.shared.released.0.lock().expect("not poisoned") = true;
        self.shared.released.1.notify_all();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.release();
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("not poisoned")
    }

    fn opened(&self) -> usize {
        let mut seen = self.seen();
        seen.open += 1;
        seen.connections += 1;
        seen.connections - 1
    }

    fn serve(
        &self,
        mut stream: TcpStream,
        connection: usize,
        body: Body,
        script: &(dyn Fn(&Received) -> Vec<Act> + Send + Sync),
    ) {
        let _ = stream.set_nodelay(true);
        for number in 0.. {
            let Ok(Some(head)) = read_head(&mut stream) else {
                return;
            };
            let head = String::from_utf8_lossy(&head).into_owned();
            if body == Body::Read && header(&head, "expect").is_some() {
                let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let read = match body {
                Body::Read => read_body(&mut stream, &head, false),
                Body::Left => Ok((Vec::new(), Vec::new())),
            };
            let Ok((body, raw_body)) = read else {
                return;
            };
            let received = Received {
                head,
                body,
                raw_body,
                connection,
                number,
            };
            self.seen().requests.push(received.clone());
            for act in script(&received) {
                if !self.perform(&mut stream, act) {
                    return;
                }
            }
        }
    }

    /// Whether the connection stays open.
    fn perform(&self, stream: &mut TcpStream, act: Act) -> bool {
        match act {
            Act::Send(bytes) => stream.write_all(&bytes).is_ok(),
            Act::Flood(count) => self.flood(stream, count),
            Act::Take(count) => self.take_body(stream, count, false),
            Act::Echo(count) => self.take_body(stream, count, true),
            Act::Hold => {
                let released = self.released.0.lock().expect("not poisoned");
                let waited = self
                    .released
                    .1
                    .wait_timeout_while(released, PATIENCE * 4, |done| !*done);
                drop(waited.expect("not poisoned"));
                true
            }
            Act::Pause(time) => {
                thread::sleep(time);
                true
            }
            Act::Close => {
                let _ = stream.shutdown(Shutdown::Write);
                drain(stream);
                false
            }
            Act::Reset => {
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                false
            }
            Act::Silence => {
                drain(stream);
                false
            }
        }
    }

    fn flood(&self, stream: &mut TcpStream, mut left: usize) -> bool {
        let part = [b'x'; PART];
        while left > 0 {
            let Ok(count @ 1..) = stream.write(&part[..left.min(PART)]) else {
                return false;
            };
            self.seen().sent += count;
            left -= count;
        }
        true
    }

    fn take_body(&self, stream: &mut TcpStream, mut left: usize, is_echoed: bool) -> bool {
        let mut part = [0; PART];
        while left > 0 {
            let Ok(count @ 1..) = stream.read(&mut part[..left.min(PART)]) else {
                return false;
            };
            self.seen().taken += count;
            left -= count;
            if is_echoed && stream.write_all(&part[..count]).is_err() {
                return false;
            }
        }
        true
    }
}

/// Any free port.
const ANY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// How much is read or written at once.
const PART: usize = 16 * 1024;

/// What becomes of the bodies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Read,
    Left,
}

/// What the kernel may hold in each direction for an origin that leaves bodies to its script.
const SMALL: usize = 64 * 1024;

/// Reads until the other side closes.
fn drain(stream: &mut TcpStream) {
    let _ = std::io::copy(stream, &mut std::io::sink());
}
