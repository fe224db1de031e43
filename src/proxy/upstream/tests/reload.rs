//! What outlasts a reload that changes an upstream.

use super::*;
use crate::config::model::{HealthCheck, Probe};

fn standing(pool: &Pool, wanted: u16) -> Standing {
    let now = pool.now();
    choice_of(pool, wanted).endpoint.availability.standing(now)
}

fn checked(servers: Vec<UpstreamServer>) -> Upstream {
    let health = HealthCheck {
        probe: Probe::Tcp,
        every: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        healthy: 2,
        unhealthy: 3,
    };
    Upstream {
        health: Some(health),
        ..Upstream::new("app", servers)
    }
}

#[test]
fn a_server_that_is_down_stays_down_as_long_as_it_is_checked() {
    let first = pool_of(checked(ips([1, 2])));
    choice_of(&first, 2).endpoint.availability.set_down(true);
    let second = pool_of(checked(vec![ip(1, 1), ip(2, 3), ip(3, 1)])).succeed(&first);
    assert_eq!(standing(&second, 2), Standing::Down);
    assert_eq!(ports(&second), [1, 3]);
    // What checks still find for the old pool holds for the new one.
    choice_of(&first, 2).endpoint.availability.set_down(false);
    assert_eq!(standing(&second, 2), Standing::Up);
    choice_of(&second, 2).endpoint.availability.set_down(true);
    let unchecked = pool(ips([1, 2])).succeed(&second);
    assert_eq!(standing(&unchecked, 2), Standing::Up);
}

#[test]
fn a_server_that_is_ejected_stays_ejected_and_its_time_passes() {
    let mut first = ejecting(ips([1, 2]));
    pass_time(&mut first, Duration::from_secs(100));
    for _ in 0..3 {
        fail(&first, 2);
    }
    let mut second = ejecting(vec![ip(1, 1), ip(2, 3)]).succeed(&first);
    assert_eq!(standing(&second, 2), Standing::Ejected);
    assert_eq!(ports(&second), [1]);
    pass_time(&mut second, Duration::from_secs(31));
    assert_eq!(ports(&second), [1, 2], "a trial");
    let without = pool(ips([1, 2])).succeed(&second);
    assert_eq!(standing(&without, 2), Standing::Up);
}

#[test]
fn removing_one_rule_keeps_what_the_other_has_found() {
    let eject = ejecting(ips([1])).upstream.eject;
    let both = pool_of(Upstream {
        eject,
        ..checked(ips([1, 2, 3, 4]))
    });
    for _ in 0..3 {
        fail(&both, 1);
    }
    choice_of(&both, 2).endpoint.availability.set_down(true);
    let only_checked = pool_of(checked(ips([1, 2, 3, 4]))).succeed(&both);
    assert_eq!(standing(&only_checked, 1), Standing::Up);
    assert_eq!(standing(&only_checked, 2), Standing::Down);
    let only_ejecting = ejecting(ips([1, 2, 3, 4])).succeed(&both);
    assert_eq!(standing(&only_ejecting, 1), Standing::Ejected);
    assert_eq!(standing(&only_ejecting, 2), Standing::Up);
}

#[test]
fn requests_in_flight_count_against_the_limit_after_a_reload() {
    let first = pool(limited([1], 1));
    let held = first.next_server(None).expect("room");
    let second = pool(limited([1, 2], 1)).succeed(&first);
    let other = second.next_server(None).expect("room");
    assert_eq!(port(&other.choice), 2);
    assert_eq!(second.next_server(None).err(), Some(NoServer::Full));
    let requests: Vec<usize> = second.endpoints().iter().map(|one| one.requests).collect();
    assert_eq!(requests, [1, 1], "each is counted once");
    drop(held);
    let room = second.next_server(None).expect("room");
    assert_eq!(port(&room.choice), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ends_in_the_old_pool_makes_room_in_the_new_one() {
    let first = pool(limited([1], 1));
    let held = first.next_server(None).expect("room");
    let second = Arc::new(
        pool(vec![UpstreamServer {
            weight: 3,
            ..limited([1], 1).remove(0)
        }])
        .succeed(&first),
    );
    let waiting = {
        let pool = Arc::clone(&second);
        tokio::spawn(async move {
            pool.wait_for_server(None, None, None, Duration::from_secs(5))
                .await
        })
    };
    tokio::task::yield_now().await;
    let start = tokio::time::Instant::now();
    drop(held);
    waiting.await.expect("no panic").expect("room");
    assert_eq!(start.elapsed(), Duration::ZERO, "at once");
}

#[test]
fn a_server_that_is_listed_twice_keeps_both_counts() {
    let first = pool(limited([1, 1], 1));
    let held = [(); 2].map(|()| first.next_server(None).expect("room"));
    let second = pool(limited([1, 1, 1], 1)).succeed(&first);
    let requests: Vec<usize> = second.endpoints().iter().map(|one| one.requests).collect();
    assert_eq!(requests, [1, 1, 0]);
    drop(held);
    assert!(second.endpoints().iter().all(|one| one.requests == 0));
}

#[test]
fn requests_count_at_a_server_that_is_removed_and_added_again() {
    let first = pool(ips([1, 2]));
    let held = [(); 2].map(|()| first.next_server(None).expect("a server"));
    let second = pool(vec![ip(1, 2), ip(2, 1)]).succeed(&first);
    let third = pool(ips([2])).succeed(&second);
    drop((first, second));
    let fourth = pool(ips([2, 1])).succeed(&third);
    let requests = || -> Vec<usize> { fourth.endpoints().iter().map(|one| one.requests).collect() };
    assert_eq!(requests(), [1, 1]);
    drop(held);
    assert_eq!(requests(), [0, 0]);
}

#[test]
fn what_is_known_of_found_addresses_outlasts_a_reload() {
    let first = pool_of(checked(vec![named()]));
    first.set_addresses(&first.servers[0], &all_found([1, 2]));
    let down = |pool: &Pool| -> Vec<bool> {
        let endpoints = pool.servers[0].endpoints();
        endpoints
            .iter()
            .map(|one| one.availability.is_down())
            .collect()
    };
    first.servers[0].endpoints()[1].availability.set_down(true);
    let second = pool_of(checked(vec![named(), ip(9, 1)])).succeed(&first);
    assert_eq!(down(&second), [false, true]);
    second.set_addresses(&second.servers[0], &all_found([1, 2, 3]));
    assert_eq!(down(&second), [false, true, false]);
}
