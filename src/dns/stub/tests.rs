//! Look-ups at resolvers that are silent, slow, or cannot tell.

use std::net::Ipv4Addr;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::A;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::*;

/// A port that nobody reads from, as long as it is kept.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let socket = socket.expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// A resolver that answers with this code after `delay`. To it, every name is at 127.0.0.1.
async fn resolver(code: ResponseCode, delay: Duration) -> SocketAddr {
    let (socket, address) = silent().await;
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let mut answer = Message::new(question.id, MessageType::Response, question.op_code);
            answer.metadata.response_code = code;
            let query = question.queries[0].clone();
            if code == ResponseCode::NoError && query.query_type() == RecordType::A {
                let data = RData::A(A(Ipv4Addr::LOCALHOST));
                answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
            answer.add_query(query);
            sleep(delay).await;
            let bytes = answer.to_vec().expect("an answer");
            socket.send_to(&bytes, from).await.expect("sent");
        }
    });
    address
}

/// How long it takes to find the address.
async fn look_up(stub: &StubResolver) -> Duration {
    let begun = Instant::now();
    let name = "app.internal".parse().expect("a name");
    let found = stub.addresses(&name).await.expect("an answer");
    assert_eq!(found.values, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    assert!(found.is_complete);
    begun.elapsed()
}

#[tokio::test]
async fn silent_resolvers_hold_up_only_the_first_look_up() {
    let (_first, first) = silent().await;
    let (_second, second) = silent().await;
    let good = resolver(ResponseCode::NoError, Duration::ZERO).await;
    let stub = StubResolver::new(&[first, second, good]);
    let (taken, next) = (look_up(&stub).await, look_up(&stub).await);
    assert!(taken < Duration::from_secs(3), "{taken:?}");
    assert!(next < Duration::from_millis(500), "{next:?}");
}

#[tokio::test]
async fn a_resolver_that_cannot_tell_is_not_waited_for() {
    let broken = resolver(ResponseCode::ServFail, Duration::ZERO).await;
    let closed = resolver(ResponseCode::Refused, Duration::ZERO).await;
    let good = resolver(ResponseCode::NoError, Duration::ZERO).await;
    let taken = look_up(&StubResolver::new(&[broken, closed, good])).await;
    // Two head starts would be a second.
    assert!(taken < Duration::from_millis(900), "{taken:?}");
}

#[tokio::test]
async fn a_slow_resolver_is_not_given_up() {
    let (_other, other) = silent().await;
    // It answers one question after the other, so the last one has to be sent again before.
    for delay in [Duration::from_millis(700), Duration::from_millis(800)] {
        let slow = resolver(ResponseCode::NoError, delay).await;
        look_up(&StubResolver::new(&[slow, other])).await;
    }
}

#[test]
fn the_times_of_a_look_up_add_up() {
    let seconds = [QUESTION, TYPE_PATIENCE, NAME_PATIENCE].map(|time| time.as_secs());
    assert_eq!(seconds, [4, 5, 8]);
}
