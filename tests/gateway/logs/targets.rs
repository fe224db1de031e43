//! Targets that a reload changes while lines are written.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::BufReader;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::logging;
use super::syslog::{PATIENCE, read_counted};
use crate::support::{Origin, TlsClient, wait_for};

const REQUESTS: usize = 3000;

/// The number in the target of a whole line.
fn number(line: &str) -> usize {
    assert!(
        line.starts_with("127.0.0.1 ") && line.contains(" upstream="),
        "{line}"
    );
    let rest = line
        .split("/n")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    rest.and_then(|rest| rest.parse().ok()).expect("a number")
}

#[test]
fn no_line_is_lost_torn_or_written_twice() {
    let origin = Origin::named("hello");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let place = format!("\"tcp://{}\"", listener.local_addr().expect("bound"));
    let mut gateway = logging(&origin, "access: a.log, target: own-a.log").start();
    let config = fs::read_to_string(&gateway.config).expect("readable");
    let mut received: HashMap<usize, usize> = HashMap::new();
    let sent = AtomicUsize::new(0);
    let (mut reloads, mut counted) = (0, None);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let mut numbers = Vec::new();
            // Each reload makes a connection of its own, unless it had nothing to send.
            for stream in listener.incoming() {
                let stream = stream.expect("accepted");
                stream.set_read_timeout(Some(PATIENCE)).expect("set");
                let mut stream = BufReader::new(stream);
                let before = numbers.len();
                while let Some(message) = read_counted(&mut stream) {
                    numbers.push(number(&message.text));
                }
                if numbers.len() == before && sent.load(Ordering::Relaxed) == usize::MAX {
                    return numbers;
                }
            }
            numbers
        });
        let (https, sent) = (gateway.https, &sent);
        let load = scope.spawn(move || {
            let mut stream = TlsClient::named("a.test").connect(https);
            for number in 0..REQUESTS {
                assert_eq!(stream.get("a.test", &format!("/n{number}")).status, 200);
                sent.store(number + 1, Ordering::Relaxed);
            }
        });
        let places = [
            ("b.log", "own-b.log"),
            (&*place, "own-b.log"),
            ("a.log", "own-a.log"),
        ];
        for (access, own) in places.into_iter().cycle() {
            if load.is_finished() {
                break;
            }
            let next = config.replace("access: a.log", &format!("access: {access}"));
            gateway.write("snigate.yaml", &next.replace("own-a.log", own));
            assert_eq!(gateway.reload().0, 200);
            reloads += 1;
            // Some lines for each.
            let before = sent.load(Ordering::Relaxed);
            wait_for("more requests", || {
                (load.is_finished() || sent.load(Ordering::Relaxed) > before + 20).then_some(())
            });
        }
        load.join().expect("no panic");
        assert!(reloads > 6, "{reloads}");
        // Some of them because the file has changed.
        counted = gateway.metric("snigate_config_reloads_total{result=\"ok\"}");
        assert!(gateway.stop().success());
        sent.store(usize::MAX, Ordering::Relaxed);
        // Ends the wait for another connection.
        drop(std::net::TcpStream::connect(
            listener.local_addr().expect("bound"),
        ));
        for number in receiving.join().expect("no panic") {
            *received.entry(number).or_default() += 1;
        }
    });
    for file in ["a.log", "b.log"] {
        let text = fs::read_to_string(gateway.dir().join(file)).expect("a file");
        assert!(text.ends_with('\n'), "{file}");
        for line in text.lines() {
            *received.entry(number(line)).or_default() += 1;
        }
    }
    let missing: Vec<_> = (0..REQUESTS)
        .filter(|one| !received.contains_key(one))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(received.values().all(|count| *count == 1), "written twice");
    // Each reload has a line of the gateway's own.
    let own: String = ["own-a.log", "own-b.log"]
        .map(|file| fs::read_to_string(gateway.dir().join(file)).expect("a file"))
        .concat();
    let lines: Vec<&str> = own
        .lines()
        .filter(|line| line.contains("reloaded"))
        .collect();
    let different: HashSet<&&str> = lines.iter().collect();
    assert_eq!(different.len(), lines.len(), "{own}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains("INFO") && line.contains("sites=1")),
        "{own}"
    );
    assert!(
        lines.len() as f64 >= counted.expect("a count"),
        "{counted:?}: {own}"
    );
}
