//! A resolver that follows aliases over the zones of one name server, as those that CAs use do:
//! the name server itself does not go from one of its zones into another.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{Name, RData};

/// Runs until dropped.
pub struct Recursor {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Recursor {
    /// Answers over UDP with what `server` knows.
    pub fn over(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = socket.local_addr().expect("an address");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time-out");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopping.load(Ordering::SeqCst) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer)
                    && let Some(answer) = answer(&buffer[..length], server)
                {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { address, stop }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Recursor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn answer(question: &[u8], server: SocketAddr) -> Option<Vec<u8>> {
    let mut question = Message::from_vec(question).ok()?;
    let wanted = question.queries.first()?.query_type();
    let mut answer = ask(&question, server)?;
    for _ in 0..8 {
        let is_there =
            |answer: &Message| answer.answers.iter().any(|one| one.record_type() == wanted);
        let Some(target) = alias(&answer).filter(|_| !is_there(&answer)) else {
            break;
        };
        question.queries[0].set_name(target);
        answer.answers.extend(ask(&question, server)?.answers);
    }
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    answer.to_vec().ok()
}

/// Where the last record leads to, where it is an alias.
fn alias(answer: &Message) -> Option<Name> {
    match &answer.answers.last()?.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    }
}

fn ask(question: &Message, server: SocketAddr) -> Option<Message> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    socket.send_to(&question.to_vec().ok()?, server).ok()?;
    let mut buffer = [0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    Message::from_vec(&buffer[..length]).ok()
}
