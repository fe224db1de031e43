//! gRPC between tonic and tonic.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::support::{Gateway, GrpcServer, Octets, grpc_channel, serving, wait_for};

/// How soon a server learns that nobody waits for its response.
const NOTICE: Duration = Duration::from_secs(2);

fn in_front_of(server: &GrpcServer) -> Gateway {
    let yaml = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"], protocol: h2 }} }}\n\
         sites: [{{ hosts: [a.test], upstream: app }}]\n",
        server.address()
    );
    serving(&[&["a.test"]], yaml).start()
}

/// Makes calls by a client of tonic.
fn play(play: impl AsyncFnOnce(&GrpcServer, Grpc<Channel>)) {
    let server = GrpcServer::start();
    let gateway = in_front_of(&server);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut client = Grpc::new(grpc_channel(gateway.https, "a.test").await);
        client.ready().await.expect("open");
        play(&server, client).await;
    });
}

fn method(name: &str) -> PathAndQuery {
    let path = format!("/test.Calls/{name}");
    path.parse().expect("a path")
}

async fn unary(client: &mut Grpc<Channel>, name: &str, text: &str) -> Result<Vec<u8>, Status> {
    client.ready().await.expect("open");
    let request = Request::new(text.as_bytes().to_vec());
    let response = client.unary(request, method(name), Octets).await?;
    Ok(response.into_inner())
}

async fn rest(mut messages: Streaming<Vec<u8>>) -> Result<Vec<Vec<u8>>, Status> {
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.push(message);
    }
    Ok(all)
}

#[test]
fn unary_calls() {
    play(async |_, mut client| {
        for text in ["", "hello", &"long ".repeat(100_000)] {
            let message = unary(&mut client, "Echo", text).await.expect("a message");
            assert!(message == text.as_bytes());
        }
    });
}

#[test]
fn calls_with_a_stream_of_the_client() {
    play(async |_, mut client| {
        let messages = (0..100).map(|number: u8| vec![number]);
        let request = Request::new(stream::iter(messages));
        let joined = client.client_streaming(request, method("Join"), Octets);
        let joined = joined.await.expect("a message").into_inner();
        assert_eq!(joined, (0..100).collect::<Vec<u8>>());
    });
}

#[test]
fn calls_with_a_stream_of_the_server() {
    play(async |_, mut client| {
        let request = Request::new(b"abc".to_vec());
        let messages = client.server_streaming(request, method("Split"), Octets);
        let messages = rest(messages.await.expect("a stream").into_inner()).await;
        assert_eq!(messages.expect("no failure"), [b"a", b"b", b"c"]);
    });
}

#[test]
fn calls_with_streams_of_both() {
    play(async |_, mut client| {
        let (sender, receiver) = mpsc::channel(1);
        let messages = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Vec<u8>>| {
            Some((receiver.recv().await?, receiver))
        });
        let request = Request::new(messages.boxed());
        let answers = client.streaming(request, method("Echo"), Octets);
        // A message comes back before the next one is sent.
        sender.send(vec![0]).await.expect("open");
        let mut answers = answers.await.expect("a stream").into_inner();
        for number in 0..50 {
            let answer = answers.message().await.expect("no failure");
            assert_eq!(answer, Some(vec![number]));
            sender.send(vec![number + 1]).await.expect("open");
        }
        drop(sender);
        assert_eq!(rest(answers).await.expect("no failure"), [[50]]);
    });
}

#[test]
fn errors_of_the_server_before_and_after_messages() {
    play(async |_, mut client| {
        let error = unary(&mut client, "Refuse", "").await.expect_err("refused");
        assert_eq!(error.code(), Code::PermissionDenied);
        assert_eq!(error.message(), "not yours");
        client.ready().await.expect("open");
        let request = Request::new(Vec::new());
        let messages = client.server_streaming(request, method("Break"), Octets);
        let mut messages = messages.await.expect("a stream").into_inner();
        let first = messages.message().await.expect("no failure");
        assert_eq!(first.as_deref(), Some(&b"begun"[..]));
        let error = messages.message().await.expect_err("broken");
        assert_eq!(error.code(), Code::DataLoss);
        assert_eq!(error.message(), "half of it");
        let error = unary(&mut client, "Other", "").await.expect_err("unknown");
        assert_eq!(error.code(), Code::Unimplemented);
    });
}

#[test]
fn a_server_learns_of_deadlines_and_cancelled_calls() {
    play(async |server, mut client| {
        let mut request = Request::new(Vec::new());
        request.set_timeout(Duration::from_millis(300));
        let begun = Instant::now();
        let error = client.unary(request, method("Wait"), Octets).await;
        let error = error.expect_err("no response").code();
        assert!(
            [Code::DeadlineExceeded, Code::Cancelled].contains(&error),
            "{error:?}"
        );
        assert!(begun.elapsed() < NOTICE);
        let notice = wait_until_left(server);
        eprintln!("the server has learnt of a deadline after {notice:?}");

        client.ready().await.expect("open");
        let call = client.unary(Request::new(Vec::new()), method("Wait"), Octets);
        let waiting = async {
            while server.waiting() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = call => panic!("it waits: {ended:?}"),
            () = waiting => {}
        }
        // The call is dropped, and so cancelled.
        let notice = wait_until_left(server);
        eprintln!("the server has learnt of a cancelled call after {notice:?}");
    });
}

/// Waits until no call is open; how long that took.
fn wait_until_left(server: &GrpcServer) -> Duration {
    let begun = Instant::now();
    wait_for("the server to learn that nobody waits", || {
        (server.waiting() == 0).then_some(())
    });
    assert!(begun.elapsed() < NOTICE, "{:?}", begun.elapsed());
    begun.elapsed()
}

#[test]
fn a_server_that_cannot_be_reached_is_unavailable() {
    let server = GrpcServer::start();
    let gateway = in_front_of(&server);
    drop(server);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut client = Grpc::new(grpc_channel(gateway.https, "a.test").await);
        let error = unary(&mut client, "Echo", "")
            .await
            .expect_err("nobody there");
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    });
}
