//! Servers whose share rises after they have come up.

use super::*;

const TIME: Duration = Duration::from_secs(30);

fn slow(balance: Balance, servers: Vec<UpstreamServer>) -> Pool {
    pool_of(Upstream {
        balance,
        slow_start: Some(TIME),
        eject: Some(RULE),
        ..Upstream::new("app", servers)
    })
}

/// How many of 1000 requests, each of which ends before the next, go to a port.
fn share(pool: &Pool, wanted: u16) -> usize {
    (0..1000).filter(|_| port(&next(pool)) == wanted).count()
}

fn come_up(pool: &Pool, port: u16) {
    pool.begin_warm_up(&choice_of(pool, port).endpoint);
}

#[test]
fn the_share_of_a_server_that_is_back_rises() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let mut pool = slow(balance.clone(), ips([1, 2]));
        assert_eq!(share(&pool, 2), 500, "all are new");
        come_up(&pool, 2);
        assert_eq!(share(&pool, 2), 50, "{balance:?}");
        pass_time(&mut pool, TIME / 3);
        assert_eq!(share(&pool, 2), 200, "{balance:?}");
        pass_time(&mut pool, TIME / 3);
        assert_eq!(share(&pool, 2), 350, "{balance:?}");
        pass_time(&mut pool, TIME / 3);
        assert_eq!(share(&pool, 2), 500, "{balance:?}");
    }
}

#[test]
fn the_share_rises_to_the_weight() {
    let mut pool = slow(Balance::RoundRobin, vec![ip(1, 1), ip(2, 3)]);
    assert_eq!(share(&pool, 2), 750);
    come_up(&pool, 2);
    assert_eq!(share(&pool, 2), 75);
    pass_time(&mut pool, TIME);
    assert_eq!(share(&pool, 2), 750);
}

#[test]
fn requests_in_flight_do_not_lead_to_a_server_that_has_none() {
    let pool = slow(Balance::LeastRequests, ips([1, 2, 3]));
    let held: Vec<Picked> = (0..30)
        .map(|_| pool.next_server(None).expect("a server"))
        .collect();
    let held: Vec<Picked> = held
        .into_iter()
        .filter(|picked| port(&picked.choice) != 3)
        .collect();
    assert_eq!(held.len(), 20);
    come_up(&pool, 3);
    let more: Vec<Picked> = (0..300)
        .map(|_| pool.next_server(None).expect("a server"))
        .collect();
    let third = more.iter().filter(|one| port(&one.choice) == 3).count();
    assert_eq!(third, 10, "a tenth of a third");
}

#[test]
fn a_server_with_a_small_share_is_better_than_none() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let pool = slow(balance, ips([1, 2]));
        come_up(&pool, 2);
        choice_of(&pool, 1).endpoint.availability.set_down(true);
        assert_eq!(share(&pool, 2), 1000);
        // If all have come up at the same time, all share.
        choice_of(&pool, 1).endpoint.availability.set_down(false);
        come_up(&pool, 1);
        let first = share(&pool, 1);
        assert!((400..=600).contains(&first), "{first}");
    }
}

#[test]
fn a_server_that_works_again_after_an_ejection_begins_with_a_small_share() {
    let mut pool = slow(Balance::RoundRobin, ips([1, 2]));
    for _ in 0..3 {
        fail(&pool, 2);
    }
    pass_time(&mut pool, Duration::from_secs(31));
    let trial = (0..4).find_map(|_| {
        let mut picked = pool.next_server(None).expect("a server");
        let trial = picked.admission.take_trial();
        trial.map(|trial| (picked.choice, trial))
    });
    let (choice, trial) = trial.expect("a trial");
    pool.record_result(&choice, Some(trial), false);
    assert_eq!(share(&pool, 2), 50);
}

#[test]
fn a_server_that_is_resumed_begins_with_a_small_share() {
    let pool = slow(Balance::RoundRobin, ips([1, 2]));
    pool.set_drained("127.0.0.1:2", true);
    assert_eq!(share(&pool, 2), 0);
    pool.set_drained("127.0.0.1:2", false);
    assert_eq!(share(&pool, 2), 50);
    // One that was not drained has not come back.
    pool.set_drained("127.0.0.1:1", false);
    assert_eq!(share(&pool, 1), 950);
}

#[test]
fn servers_that_a_reload_adds_begin_with_a_small_share() {
    let successor = |previous: &Pool, servers| slow(Balance::RoundRobin, servers).succeed(previous);
    let first = slow(Balance::RoundRobin, ips([1]));
    let second = successor(&first, ips([1, 2]));
    assert_eq!(share(&second, 2), 50);
    let replaced = successor(&second, ips([3, 4]));
    assert_eq!(share(&replaced, 3), 500, "all are new");
    let with_name = successor(&second, vec![ip(1, 1), named()]);
    let name = &with_name.servers[1];
    with_name.set_addresses(name, &all_found([1]));
    assert_eq!(turns(&with_name, 1000)["10.0.0.1:80"], 50);
}

#[test]
fn addresses_that_a_name_gets_later_begin_with_a_small_share() {
    for balance in [Balance::RoundRobin, Balance::LeastRequests] {
        let mut pool = slow(balance, vec![named()]);
        pool.set_addresses(&pool.servers[0], &all_found([1, 2]));
        assert_eq!(turns(&pool, 1000)["10.0.0.2:80"], 500);
        pool.set_addresses(&pool.servers[0], &all_found([1, 2, 3]));
        let third = turns(&pool, 900)["10.0.0.3:80"];
        assert!((20..=40).contains(&third), "{third}");
        pass_time(&mut pool, TIME);
        assert_eq!(turns(&pool, 900)["10.0.0.3:80"], 300);
    }
}

#[test]
fn keys_stay_at_their_servers_while_those_warm_up() {
    let pool = slow(Balance::Hash(HashKey::ClientIp), ips([1, 2]));
    let at = |key: u64| port(&pool.next_server(Some(key)).expect("a server").choice);
    let keys: Vec<u64> = (0..100_u32)
        .map(|key| hash::of(&key.to_be_bytes()))
        .collect();
    let before: Vec<u16> = keys.iter().map(|key| at(*key)).collect();
    come_up(&pool, 2);
    assert_eq!(before, keys.iter().map(|key| at(*key)).collect::<Vec<_>>());
}
