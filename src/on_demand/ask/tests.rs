//! Against a server of HTTP on loopback.

use crate::clock::unix;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;

use super::service::with_query;
use super::*;
use crate::clock::ManualClock;
use crate::on_demand::tests::with_ask;
use crate::on_demand::{IntoDecision, decide_with};

/// A service that gives each of these answers in turn, the last one ever after; an empty one is
/// silence.
struct Service {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn new(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!(
            "http://{}/check?key=secret",
            listener.local_addr().expect("bound")
        );
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answers, hears) = (answers.to_vec(), Arc::clone(&heard));
        thread::spawn(move || {
            let mut held = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("a connection");
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let line = head.lines().next().unwrap_or_default().to_owned();
                hears.lock().expect("whole").push(line);
                match answers.get(number).or_else(|| answers.last()) {
                    Some(&"") | None => held.push(stream),
                    Some(answer) => {
                        let answer = format!(
                            "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                        );
                        let _ = stream.write_all(answer.as_bytes());
                    }
                }
            }
        });
        Self { url, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("whole").clone()
    }

    fn asker(&self) -> (Arc<ManualClock>, Asker) {
        let clock = Arc::new(ManualClock::at(unix(1000)));
        let mut ask = with_ask(&[], &self.url).ask.expect("given");
        ask.timeout = Duration::from_millis(300);
        let asker = Asker::new(&ask, None, clock.clone()).expect("plain HTTP needs nothing");
        (clock, asker)
    }
}

fn name(text: &str) -> HostName {
    text.parse().expect("a name")
}

fn nothing(said: Answer) -> String {
    match said {
        Answer::Nothing(why) => why,
        said => panic!("{said:?}"),
    }
}

#[tokio::test]
async fn the_question_has_name_and_client() {
    let service = Service::new(&["200 OK"]);
    let (_, asker) = service.asker();
    let client = Some("::ffff:192.0.2.7".parse().expect("an address"));
    assert_eq!(
        asker.ask_decider(&name("a.example"), client).await,
        Answer::Yes
    );
    assert_eq!(
        asker.ask_decider(&name("b.example"), None).await,
        Answer::Yes
    );
    assert_eq!(
        service.heard(),
        [
            "GET /check?key=secret&domain=a.example&client=192.0.2.7 HTTP/1.1",
            "GET /check?key=secret&domain=b.example HTTP/1.1",
        ]
    );
    let bare = with_query("http://h/check#top", &name("a.example"), None);
    assert_eq!(bare, "http://h/check?domain=a.example");
}

#[tokio::test]
async fn answers_are_kept_for_their_time() {
    let service = Service::new(&["204 No", "404 No", "200 OK"]);
    let (clock, asker) = service.asker();
    let (a, b) = (name("a.example"), name("b.example"));
    for _ in 0..3 {
        assert_eq!(asker.ask_decider(&a, None).await, Answer::Yes);
        assert_eq!(asker.ask_decider(&b, None).await, Answer::No);
    }
    assert_eq!(service.heard().len(), 2);
    assert_eq!(asker.cached_answer("a.example"), Some(true));
    assert_eq!(asker.cached_answer("b.example"), Some(false));
    clock.advance(299);
    assert_eq!(asker.cached_answer("b.example"), Some(false));
    clock.advance(1);
    assert_eq!(asker.cached_answer("b.example"), None);
    assert_eq!(asker.ask_decider(&b, None).await, Answer::Yes);
    clock.advance(3301);
    assert_eq!(asker.cached_answer("a.example"), None);
}

#[tokio::test]
async fn what_the_answer_says_of_its_time_goes_first() {
    let service = Service::new(&[
        "403 No\r\ncache-control: max-age=10",
        "403 No\r\ncache-control: no-store",
        "200 OK\r\ncache-control: max-age=60, s-maxage=5",
    ]);
    let (clock, asker) = service.asker();
    let a = name("a.example");
    assert_eq!(asker.ask_decider(&a, None).await, Answer::No);
    clock.advance(9);
    assert_eq!(asker.cached_answer("a.example"), Some(false));
    clock.advance(1);
    assert_eq!(asker.ask_decider(&a, None).await, Answer::No);
    assert_eq!(asker.cached_answer("a.example"), None);
    assert_eq!(asker.ask_decider(&a, None).await, Answer::Yes);
    clock.advance(5);
    assert_eq!(asker.cached_answer("a.example"), None);
}

#[tokio::test]
async fn what_is_no_answer_is_neither_yes_nor_no() {
    let service = Service::new(&[
        "500 Broken",
        "429 Slow down",
        "302 Found\r\nlocation: /other",
        "",
    ]);
    let (_, asker) = service.asker();
    for words in [
        "500",
        "429",
        "302 Found, which is not followed",
        "no response within",
    ] {
        let why = nothing(asker.ask_decider(&name("a.example"), None).await);
        assert!(
            why.contains(words) && why.contains(asker.decider.place()),
            "{why}"
        );
        assert!(!why.contains("secret"), "{why}");
        assert_eq!(asker.cached_answer("a.example"), None);
    }
    assert_eq!(service.heard().len(), 4);
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_left_alone() {
    let service = Service::new(&[
        "503 Busy", "503 Busy", "503 Busy", "503 Busy", "503 Busy", "200 OK",
    ]);
    let (clock, asker) = service.asker();
    let ask = |number: usize| {
        let name = name(&format!("{number}.example"));
        let asker = &asker;
        async move { asker.ask_decider(&name, None).await }
    };
    for number in 0..5 {
        nothing(ask(number).await);
    }
    for number in 0..20 {
        let why = nothing(ask(number).await);
        assert!(why.contains("will not be asked for a while"), "{why}");
    }
    assert_eq!(service.heard().len(), 5);
    clock.advance(10);
    assert_eq!(ask(0).await, Answer::Yes);
    assert_eq!(ask(1).await, Answer::Yes);
}

#[test]
fn roots_that_are_missing_are_told_without_the_secret() {
    let mut ask = with_ask(&[], "https://ask.example/?key=secret")
        .ask
        .expect("given");
    ask.ca_file = Some("/nowhere/roots.pem".into());
    let clock = Arc::new(ManualClock::at(unix(0)));
    let error = Asker::new(&ask, None, clock).err().expect("no roots");
    assert!(
        error.contains("ask.example") && error.contains("/nowhere"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
}

/// An asker of a function, with a time limit of 300 ms.
fn asker_of<R, D>(
    decide: impl Fn(HostName) -> R + Send + Sync + 'static,
) -> (Arc<ManualClock>, Asker)
where
    R: Future<Output = D> + Send + 'static,
    D: IntoDecision + 'static,
{
    let clock = Arc::new(ManualClock::at(unix(1000)));
    let ask = Ask {
        url: None,
        timeout: Duration::from_millis(300),
        ..with_ask(&[], "http://unused.example/").ask.expect("given")
    };
    let decider = decide_with(decide);
    let asker = Asker::new(&ask, Some(&decider), clock.clone());
    (clock, asker.expect("nothing is needed"))
}

#[tokio::test]
async fn a_function_decides_and_is_remembered() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asks = Arc::clone(&asked);
    let (clock, asker) = asker_of(move |name| {
        asks.lock().expect("whole").push(name.to_string());
        async move { name.as_str() == "a.example" }
    });
    for _ in 0..3 {
        let (a, b) = (name("a.example"), name("b.example"));
        assert_eq!(asker.ask_decider(&a, None).await, Answer::Yes);
        assert_eq!(asker.ask_decider(&b, None).await, Answer::No);
    }
    assert_eq!(*asked.lock().expect("whole"), ["a.example", "b.example"]);
    clock.advance(3600);
    assert_eq!(asker.cached_answer("a.example"), None);
}

#[tokio::test]
async fn a_function_says_how_long_its_decision_is_good() {
    let (clock, asker) = asker_of(|_| async {
        Decision::Allow {
            valid_for: Some(Duration::from_secs(5)),
        }
    });
    let a = name("a.example");
    assert_eq!(asker.ask_decider(&a, None).await, Answer::Yes);
    clock.advance(5);
    assert_eq!(asker.cached_answer("a.example"), None);
}

#[tokio::test]
async fn a_function_that_fails_or_hangs_decides_nothing_and_is_left_alone() {
    let (_, hanging) = asker_of(|_| std::future::pending::<bool>());
    let why = nothing(hanging.ask_decider(&name("a.example"), None).await);
    assert_eq!(why, "the decision function: no response within 300ms");

    let (clock, failing) = asker_of(|_| async { Err::<bool, _>("the database is away") });
    for number in 0..5 {
        let name = name(&format!("{number}.example"));
        let why = nothing(failing.ask_decider(&name, None).await);
        assert!(
            why.starts_with("the decision function: the database is away"),
            "{why}"
        );
    }
    let why = nothing(failing.ask_decider(&name("6.example"), None).await);
    assert!(why.contains("will not be asked for a while"), "{why}");
    clock.advance(10);
    let why = nothing(failing.ask_decider(&name("6.example"), None).await);
    assert!(why.contains("the database is away"), "{why}");
}
