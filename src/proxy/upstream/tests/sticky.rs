//! Clients that stay at their servers.

use super::*;
use crate::config::model;

/// A pool whose servers have one request each at most.
fn sticky() -> Pool {
    let sticky = model::Sticky {
        cookie: "home".into(),
        max_age: None,
    };
    let pool = pool_of(Upstream {
        sticky: Some(sticky),
        ..Upstream::new("app", limited([1, 2], 1))
    });
    let key = StickyKey::generate().expect("randomness");
    pool.with_sticky_key(Some(&key))
}

/// The session of a request with this cookie.
fn session(pool: &Pool, cookie: &str) -> Box<Session> {
    let mut map = HeaderMap::new();
    map.insert("cookie", cookie.parse().expect("a value"));
    let request = Request {
        method: "GET",
        target: b"/",
        authority: b"a",
        version: "HTTP/2.0",
        fields: Fields::Map(&map),
        client: None,
        port: None,
        tls: None,
        socket: None,
        accepted: None,
        relayed: None,
    };
    pool.session(&request).expect("clients stay")
}

/// `NAME=VALUE` of the cookie that the response of a server gets.
fn cookie(pool: &Pool, session: &mut Session, choice: &Choice) -> Option<String> {
    pool.settle(session, choice, true);
    let text = session.cookie()?.to_str().expect("text");
    Some(text.split(';').next().expect("a pair").to_owned())
}

#[test]
fn any_valid_one_of_several_cookies_leads_to_its_server() {
    let pool = sticky();
    let first = next(&pool);
    let home = cookie(&pool, &mut session(&pool, "other=1"), &first).expect("a cookie");
    for cookies in [
        format!("home=x; {home}"),
        format!("{home}; home=x"),
        format!("home=a; home=; home=b; {home}"),
    ] {
        let picked = pool.home_server(&session(&pool, &cookies));
        assert_eq!(port(&picked.expect("its server").choice), port(&first));
    }
}

#[test]
fn a_cookie_leads_to_its_server() {
    let pool = sticky();
    let first = next(&pool);
    let mut newcomer = session(&pool, "other=1");
    assert!(pool.home_server(&newcomer).is_none());
    let home = cookie(&pool, &mut newcomer, &first).expect("a cookie");
    for _ in 0..4 {
        let mut client = session(&pool, &format!("other=1; {home}"));
        let picked = pool.home_server(&client).expect("its server");
        assert_eq!(port(&picked.choice), port(&first));
        assert_eq!(cookie(&pool, &mut client, &picked.choice), None);
    }
}

#[test]
fn a_cookie_is_kept_while_its_server_is_full_and_replaced_while_it_is_out() {
    let pool = sticky();
    let first = next(&pool);
    let home = cookie(&pool, &mut session(&pool, "a=b"), &first).expect("a cookie");
    let mut client = session(&pool, &home);
    let held = pool.home_server(&client).expect("its server");
    assert!(pool.home_server(&client).is_none());
    let other = next(&pool);
    assert_ne!(port(&other), port(&first));
    assert_eq!(cookie(&pool, &mut client, &other), None);
    drop(held);
    assert!(pool.home_server(&client).is_some());
    pool.avoid_server(&first);
    assert!(pool.home_server(&client).is_none());
    let moved = cookie(&pool, &mut client, &other).expect("another cookie");
    assert_ne!(moved, home);
    let mut client = session(&pool, &moved);
    let picked = pool.home_server(&client).expect("its server");
    assert_eq!(port(&picked.choice), port(&other));
    assert_eq!(cookie(&pool, &mut client, &picked.choice), None);
}

#[tokio::test(start_paused = true)]
async fn a_cookie_overtakes_no_request_that_waits() {
    let pool = sticky();
    let held = [(); 2].map(|()| pool.next_server(None).expect("room"));
    let home = cookie(&pool, &mut session(&pool, "a=b"), &held[0].choice).expect("a cookie");
    let client = session(&pool, &home);
    let patience = Duration::from_secs(5);
    let waiting = pool.wait_for_server(None, None, None, patience);
    let leave = async {
        tokio::task::yield_now().await;
        let [first, second] = held;
        drop(first);
        assert!(pool.home_server(&client).is_none());
        second
    };
    let (waited, second) = tokio::join!(waiting, leave);
    let waited = waited.expect("room");
    // In line it gets its own server, though the other one has room too.
    let waiting = pool.wait_for_server(None, Some(&client), None, patience);
    let leave = async {
        tokio::task::yield_now().await;
        drop((second, waited));
    };
    let (own, ()) = tokio::join!(waiting, leave);
    let own = own.expect("room").choice;
    let home = client.home().expect("its server");
    assert_eq!(own.endpoint.text, home.endpoint.text);
}
