//! Servers that people have drained.

use super::*;

fn successor(previous: &Pool, servers: Vec<UpstreamServer>) -> Pool {
    pool(servers).succeed(previous)
}

#[test]
fn a_drained_server_gets_nothing_until_it_is_resumed() {
    for balance in [
        Balance::RoundRobin,
        Balance::LeastRequests,
        Balance::Hash(HashKey::ClientIp),
    ] {
        let pool = pool_of(Upstream {
            balance,
            ..Upstream::new("app", ips([1, 2]))
        });
        assert!(pool.set_drained("127.0.0.1:1", true));
        assert_eq!(ports(&pool), [2]);
        // Not even if no other server is in use.
        pool.avoid_server(&choice_of(&pool, 2));
        assert_eq!(ports(&pool), [2]);
        choice_of(&pool, 2).endpoint.availability.set_down(true);
        assert_eq!(ports(&pool), [2]);
        assert!(pool.set_drained("127.0.0.1:2", true));
        assert_eq!(pool.next_server(None).err(), Some(NoServer::Drained));
        let standings: Vec<Standing> = pool.endpoints().iter().map(|one| one.standing).collect();
        assert_eq!(standings, [Standing::Drained; 2]);
        assert!(pool.set_drained("127.0.0.1:1", false));
        assert_eq!(ports(&pool), [1]);
        assert!(!pool.set_drained("127.0.0.1:3", true));
    }
}

#[test]
fn a_drained_server_is_no_other_server_for_a_retry() {
    let pool = pool(ips([1, 2]));
    let failed = next(&pool);
    let other = 3 - port(&failed);
    pool.set_drained(&format!("127.0.0.1:{other}"), true);
    let tried = [Arc::clone(&failed.endpoint)];
    assert!(pool.other_server(None, &tried).is_none());
}

#[test]
fn drained_servers_do_not_count_among_those_that_may_be_ejected() {
    let pool = ejecting(ips([1, 2, 3]));
    pool.set_drained("127.0.0.1:3", true);
    for port in [1, 2] {
        for _ in 0..3 {
            fail(&pool, port);
        }
    }
    assert_eq!(ports(&pool), [2], "half of the others");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_room_gets_a_server_that_is_resumed() {
    let pool = Arc::new(pool(limited([1, 2], 1)));
    pool.set_drained("127.0.0.1:2", true);
    let _held = pool.next_server(None).expect("room");
    let waiting = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move {
            pool.wait_for_server(None, None, None, Duration::from_secs(5))
                .await
        })
    };
    tokio::task::yield_now().await;
    pool.set_drained("127.0.0.1:2", false);
    let picked = waiting.await.expect("no panic").expect("room");
    assert_eq!(port(&picked.choice), 2);
}

#[test]
fn a_reload_keeps_what_is_drained_and_counts_its_requests() {
    let first = pool(ips([1, 2]));
    let held = first.next_server(None).expect("a server");
    let server = held.choice.endpoint.text.to_string();
    assert!(first.set_drained(&server, true));
    let second = successor(&first, vec![ip(1, 5), ip(2, 5)]);
    assert_eq!(ports(&second).len(), 1);
    let third = successor(&second, vec![ip(2, 1), ip(1, 1)]);
    let requests = || -> usize {
        let endpoints = third.endpoints().into_iter();
        let drained = endpoints.filter(|one| one.standing == Standing::Drained);
        drained.map(|one| one.requests).sum()
    };
    assert_eq!(ports(&third).len(), 1);
    assert_eq!(requests(), 1, "it began two reloads ago");
    drop(held);
    assert_eq!(requests(), 0);
}

#[test]
fn a_server_that_has_been_removed_is_no_longer_drained() {
    let first = pool(ips([1, 2]));
    first.set_drained("127.0.0.1:1", true);
    let without = successor(&first, ips([2]));
    let with = successor(&without, ips([1, 2]));
    assert_eq!(ports(&with), [1, 2]);
}

#[test]
fn what_is_known_of_a_name_outlasts_a_change_of_its_pool() {
    let first = pool(vec![named()]);
    first.set_addresses(&first.servers[0], &all_found([1, 2]));
    let second = successor(&first, vec![named(), ip(9, 1)]);
    assert_eq!(second.servers[0].endpoints().len(), 2);
    assert_eq!(second.servers[0].time_until_look_up(second.now()), Some(0));
}

#[test]
fn a_name_is_drained_with_addresses_that_are_found_later() {
    let pool = pool(vec![named(), ip(9, 1)]);
    let texts = || {
        let mut texts: Vec<String> = turns(&pool, 24).into_keys().collect();
        texts.sort_unstable();
        texts
    };
    pool.set_addresses(&pool.servers[0], &all_found([1]));
    assert!(pool.set_drained("app.internal:80", true));
    pool.set_addresses(&pool.servers[0], &all_found([1, 2]));
    assert_eq!(texts(), ["127.0.0.1:9"]);
    // One address of it.
    assert!(pool.set_drained("10.0.0.2:80", false));
    assert_eq!(texts(), ["10.0.0.2:80", "127.0.0.1:9"]);
    pool.set_addresses(&pool.servers[0], &all_found([2, 1]));
    assert_eq!(texts(), ["10.0.0.2:80", "127.0.0.1:9"]);
    assert!(pool.set_drained("10.0.0.2:80", true));
    assert_eq!(texts(), ["127.0.0.1:9"]);
    assert!(pool.set_drained("app.internal:80", false));
    assert_eq!(texts().len(), 3);
}

#[test]
fn the_metric_shows_what_is_drained() {
    let metrics = Metrics::new().expect("metrics");
    let upstream = |servers| Arc::new(Upstream::new("app", servers));
    let first = Pool::new(&upstream(ips([1, 2])), &metrics);
    let shown = || String::from_utf8(metrics.render(crate::metrics::Format::Text)).expect("text");
    let line = "snigate_upstream_drained{server=\"127.0.0.1:1\",upstream=\"app\"} 1";
    first.set_drained("127.0.0.1:1", true);
    assert!(shown().contains(line));
    let second = Pool::new(&upstream(ips([1])), &metrics).succeed(&first);
    assert!(shown().contains(line));
    second.set_drained("127.0.0.1:1", false);
    assert!(!shown().contains("snigate_upstream_drained{"));
}
