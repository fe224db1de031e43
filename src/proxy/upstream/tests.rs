//! Pools by themselves, in a time that the tests make pass.

mod draining;
mod reload;
mod slow_start;
mod sticky;

use std::collections::HashMap;

use http::HeaderMap;

use super::*;
use crate::config::model::{Eject, StatusSet, UpstreamAddress, UpstreamServer};
use crate::proxy::availability::Standing;
use crate::proxy::known_addresses::FoundAddress;
use crate::proxy::no_server::NoServer;
use crate::proxy::request::Fields;

fn pool(servers: Vec<UpstreamServer>) -> Pool {
    pool_of(Upstream::new("app", servers))
}

fn pool_of(upstream: Upstream) -> Pool {
    Pool::new(&Arc::new(upstream), &Metrics::new().expect("metrics"))
}

fn ip(port: u16, weight: u32) -> UpstreamServer {
    let address = UpstreamAddress::Ip(([127, 0, 0, 1], port).into());
    UpstreamServer {
        weight,
        ..UpstreamServer::new(address)
    }
}

fn ips(ports: impl IntoIterator<Item = u16>) -> Vec<UpstreamServer> {
    ports.into_iter().map(|port| ip(port, 1)).collect()
}

fn next(pool: &Pool) -> Choice {
    pool.next_server(None).expect("a server").choice
}

/// The port of the address that a request goes to.
fn port(choice: &Choice) -> u16 {
    let (_, port) = choice.endpoint.text.rsplit_once(':').expect("a port");
    port.parse().expect("a port")
}

fn turns(pool: &Pool, count: usize) -> HashMap<String, usize> {
    let mut turns = HashMap::new();
    for _ in 0..count {
        *turns
            .entry(next(pool).endpoint.text.to_string())
            .or_default() += 1;
    }
    turns
}

/// The ports that many requests in turn go to.
fn ports(pool: &Pool) -> Vec<u16> {
    let mut ports: Vec<u16> = (0..24).map(|_| port(&next(pool))).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn pass_time(pool: &mut Pool, time: Duration) {
    pool.started = pool.started.checked_sub(time).expect("the machine is up");
}

/// A request that the server at `port` fails.
fn fail(pool: &Pool, port: u16) {
    let choice = choice_of(pool, port);
    pool.record_result(&choice, None, true);
}

fn choice_of(pool: &Pool, wanted: u16) -> Choice {
    let mut choices = pool.servers.iter().enumerate().flat_map(|(server, one)| {
        let endpoints = one.endpoints().to_vec();
        endpoints
            .into_iter()
            .map(move |endpoint| Choice { server, endpoint })
    });
    choices
        .find(|choice| port(choice) == wanted)
        .expect("the server")
}

#[test]
fn servers_take_turns_by_weight() {
    let turns = turns(&pool(vec![ip(1, 1), ip(2, 3)]), 400);
    assert_eq!((turns["127.0.0.1:1"], turns["127.0.0.1:2"]), (100, 300));
}

#[test]
fn a_failed_server_is_passed_over_until_it_is_back() {
    let pool = pool(ips([1, 2]));
    let first = next(&pool);
    pool.avoid_server(&first);
    let second = next(&pool);
    assert_ne!(first.endpoint.text, second.endpoint.text);
    assert_eq!(turns(&pool, 10).len(), 1);
    // If none is left, the failed ones are tried all the same.
    pool.avoid_server(&second);
    assert_eq!(turns(&pool, 10).len(), 2);
    pool.record_connected(&first);
    assert_eq!(
        turns(&pool, 10),
        HashMap::from([(first.endpoint.text.to_string(), 10)])
    );
    let standings: Vec<Standing> = pool.endpoints().iter().map(|one| one.standing).collect();
    assert_eq!(standings, [Standing::Up, Standing::Avoided]);
}

#[test]
fn every_server_is_tried_once_and_those_in_use_first() {
    let pool = pool(ips([1, 2, 3]));
    let failed = next(&pool);
    let out = next(&pool);
    pool.avoid_server(&out);
    pool.avoid_server(&failed);
    let mut tried = vec![Arc::clone(&failed.endpoint)];
    assert!(pool.same_server(&failed, &tried).is_none());
    let other = |tried: &[Arc<Endpoint>]| pool.other_server(None, tried).map(|one| one.choice);
    let second = other(&tried).expect("a server");
    assert_ne!(second.endpoint.text, out.endpoint.text);
    tried.push(Arc::clone(&second.endpoint));
    let third = other(&tried).expect("a server that is passed over");
    assert_eq!(third.endpoint.text, out.endpoint.text);
    tried.push(third.endpoint);
    assert!(other(&tried).is_none());
}

/// An address that was found for a name.
fn found(last: u8) -> FoundAddress {
    FoundAddress::equal(([10, 0, 0, last], 80).into())
}

/// A look-up that has found these addresses.
fn all_found<const N: usize>(lasts: [u8; N]) -> Found<FoundAddress> {
    Found {
        values: lasts.map(found).to_vec(),
        ttl: Duration::from_secs(60),
        is_complete: true,
    }
}

fn named() -> UpstreamServer {
    let host = "app.internal".parse().expect("a name");
    UpstreamServer::new(UpstreamAddress::Name { host, port: 80 })
}

#[test]
fn a_name_has_every_address_that_was_found() {
    let pool = pool(vec![named()]);
    assert_eq!(
        pool.next_server(None).err(),
        Some(NoServer::Unresolved),
        "it was never looked up"
    );
    let server = &pool.servers[0];
    let left = || pool.time_until_look_up(server).expect("a name");
    assert_eq!(left(), Duration::ZERO, "it was never looked up");
    let addresses = [found(1), found(2)];
    assert!(server.note_lost(), "it is new that it cannot be found");
    assert!(!server.note_lost());
    pool.set_next_look_up(server, Duration::from_secs(10));
    assert!(server.set_addresses(&addresses, true));
    assert!(!left().is_zero() && left() <= Duration::from_secs(10));
    assert_eq!(turns(&pool, 10).len(), 2);
    let choice = next(&pool);
    pool.avoid_server(&choice);
    let tried = [Arc::clone(&choice.endpoint)];
    let other = pool
        .same_server(&choice, &tried)
        .expect("the other address");
    assert_ne!(other.choice.endpoint.text, choice.endpoint.text);
    assert_eq!(turns(&pool, 10).len(), 1);
    // The state of an address outlives the next look-up, and one that fails changes nothing.
    server.set_addresses(&addresses, true);
    assert!(server.note_lost());
    assert_eq!(turns(&pool, 10).len(), 1);
    server.set_addresses(&addresses[..1], true);
    assert_eq!(pool.endpoints().len(), 1);
}

/// Addresses that SRV records have named: two of priority 10 with these weights, one of 20.
fn ranked(weights: [u16; 2]) -> [FoundAddress; 3] {
    let rank = |last, priority, weight| FoundAddress {
        priority,
        weight,
        ..found(last)
    };
    let [first, second] = weights;
    [rank(1, 10, first), rank(2, 10, second), rank(3, 20, 1)]
}

fn service() -> UpstreamServer {
    let name = "_http._tcp.app.internal".parse().expect("a name");
    UpstreamServer::new(UpstreamAddress::Service(name))
}

#[test]
fn addresses_of_a_service_are_used_by_priority_and_weight() {
    let pool = pool(vec![service()]);
    let server = &pool.servers[0];
    server.set_addresses(&ranked([3, 1]), true);
    let counts = turns(&pool, 40);
    assert_eq!(counts["10.0.0.1:80"], 30);
    assert_eq!(counts["10.0.0.2:80"], 10);
    for _ in 0..2 {
        pool.avoid_server(&next(&pool));
    }
    assert_eq!(
        turns(&pool, 10).into_keys().collect::<Vec<_>>(),
        ["10.0.0.3:80"]
    );
    let views = pool.endpoints().into_iter();
    let views: Vec<_> = views.map(|view| (view.weight, view.backup)).collect();
    assert_eq!(views, [(3, false), (1, false), (1, true)]);
}

#[test]
fn the_least_busy_address_of_a_service_is_of_the_lowest_priority() {
    let pool = pool_of(Upstream {
        balance: Balance::LeastRequests,
        ..Upstream::new("app", vec![service()])
    });
    pool.servers[0].set_addresses(&ranked([3, 1]), true);
    let held: Vec<_> = (0..8)
        .map(|_| pool.next_server(None).expect("a server"))
        .collect();
    let at = |text: &str| {
        let texts = held.iter().map(|picked| &*picked.choice.endpoint.text);
        texts.filter(|one| *one == text).count()
    };
    assert_eq!((at("10.0.0.1:80"), at("10.0.0.2:80")), (6, 2));
}

#[test]
fn a_key_belongs_to_an_address_of_the_lowest_priority() {
    let pool = by_key(vec![service()], HashKey::ClientIp);
    pool.servers[0].set_addresses(&ranked([1, 1]), true);
    for key in 0..50 {
        let picked = pool.next_server(Some(key)).expect("a server");
        assert_ne!(&*picked.choice.endpoint.text, "10.0.0.3:80");
    }
}

const RULE: Eject = Eject {
    failures: 3,
    within: Duration::from_secs(10),
    status: StatusSet::range(502, 504),
    time: Duration::from_secs(30),
};

fn is_trial(picked: &Picked) -> bool {
    picked.admission.is_trial()
}

fn ejecting(servers: Vec<UpstreamServer>) -> Pool {
    pool_of(Upstream {
        eject: Some(RULE),
        ..Upstream::new("app", servers)
    })
}

#[test]
fn a_server_that_fails_requests_is_ejected_and_then_tried_by_one() {
    let mut pool = ejecting(ips([1, 2]));
    pool.avoid_server(&choice_of(&pool, 1));
    assert_eq!(ports(&pool), [1, 2], "connections that fail are counted");
    for _ in 0..2 {
        fail(&pool, 1);
    }
    assert_eq!(ports(&pool), [1, 2]);
    fail(&pool, 1);
    assert_eq!(ports(&pool), [2]);
    pass_time(&mut pool, Duration::from_secs(31));
    let find_trial = || {
        let mut picked = (0..4).map(|_| pool.next_server(None).expect("a server"));
        let mut trial = picked.find(is_trial)?;
        assert_eq!(port(&trial.choice), 1);
        assert_eq!(ports(&pool), [2], "others wait for its result");
        let result = trial.admission.take_trial();
        Some((trial.choice, result))
    };
    let (choice, trial) = find_trial().expect("a trial");
    assert!(find_trial().is_none());
    pool.record_result(&choice, trial, true);
    assert_eq!(ports(&pool), [2]);
    assert_eq!(pool.metrics.ejected.get(), 1);

    let mut pool = pool;
    pass_time(&mut pool, Duration::from_secs(31));
    assert_eq!(ports(&pool), [2], "it is out for longer");
    pass_time(&mut pool, Duration::from_secs(30));
    let trial = (0..4).find_map(|_| {
        let mut picked = pool.next_server(None).expect("a server");
        let trial = picked.admission.take_trial();
        trial.map(|trial| (picked.choice, trial))
    });
    let (choice, trial) = trial.expect("a trial");
    pool.record_result(&choice, Some(trial), false);
    assert_eq!(ports(&pool), [1, 2]);
}

#[test]
fn a_trial_that_loses_a_race_has_failed() {
    let mut pool = ejecting(ips([1, 2]));
    for _ in 0..3 {
        fail(&pool, 1);
    }
    pass_time(&mut pool, Duration::from_secs(31));
    let trial = (0..4).find_map(|_| pool.next_server(None).ok().filter(is_trial));
    pool.record_lost(trial.expect("a trial"));
    assert_eq!(ports(&pool), [2], "it is out again");
}

#[test]
fn a_server_that_works_again_is_not_ejected_by_an_earlier_trial() {
    let mut pool = ejecting(ips([1, 2]));
    for _ in 0..3 {
        fail(&pool, 1);
    }
    let trial = |pool: &mut Pool| {
        pass_time(pool, Duration::from_secs(61));
        let picked = (0..4).find_map(|_| pool.next_server(None).ok().filter(is_trial));
        let mut picked = picked.expect("a trial");
        (picked.choice, picked.admission.take_trial())
    };
    let (choice, slow) = trial(&mut pool);
    let (_, fast) = trial(&mut pool);
    pool.record_result(&choice, fast, false);
    for _ in 0..3 {
        fail(&pool, 2);
    }
    pool.record_result(&choice, slow, true);
    assert_eq!(ports(&pool), [1], "no more than half are out");
}

#[test]
fn a_trial_without_a_result_is_repeated() {
    let mut pool = ejecting(ips([1, 2]));
    for _ in 0..3 {
        fail(&pool, 1);
    }
    pass_time(&mut pool, Duration::from_secs(31));
    let trials = || {
        let picked = (0..4).filter_map(|_| pool.next_server(None).ok());
        // Those that are dropped give their trial up.
        picked.filter(is_trial).count()
    };
    assert!(trials() > 0);
    assert!(trials() > 0);
}

#[test]
fn no_more_than_half_of_the_addresses_are_ejected() {
    let pool = ejecting(ips([1, 2, 3, 4, 5]));
    for port in 1..=5 {
        for _ in 0..5 {
            fail(&pool, port);
        }
    }
    assert_eq!(ports(&pool), [3, 4, 5]);
    let alone = ejecting(ips([1]));
    for _ in 0..5 {
        fail(&alone, 1);
    }
    assert_eq!(ports(&alone), [1]);
}

#[test]
fn if_no_server_is_left_the_one_that_was_ejected_first_is_tried() {
    let mut pool = ejecting(ips([1, 2, 3, 4]));
    for port in [2, 1] {
        for _ in 0..3 {
            fail(&pool, port);
        }
        pass_time(&mut pool, Duration::from_secs(1));
    }
    for port in [3, 4] {
        let choice = choice_of(&pool, port);
        choice.endpoint.availability.set_down(true);
    }
    assert_eq!(ports(&pool), [2]);
    // Its success counts, its failures do not make it worse.
    let mut picked = pool.next_server(None).expect("a server");
    let trial = picked.admission.take_trial();
    pool.record_result(&picked.choice, trial, true);
    assert_eq!(ports(&pool), [2]);
    pool.record_result(&picked.choice, trial, false);
    let standings: Vec<Standing> = pool.endpoints().iter().map(|one| one.standing).collect();
    use Standing::{Down, Ejected, Up};
    assert_eq!(standings, [Ejected, Up, Down, Down]);
}

#[test]
fn servers_that_are_down_get_nothing_while_another_is_up() {
    let pool = pool(ips([1, 2]));
    choice_of(&pool, 1).endpoint.availability.set_down(true);
    assert_eq!(ports(&pool), [2]);
    // The checks may be wrong about all of them, so they take turns.
    choice_of(&pool, 2).endpoint.availability.set_down(true);
    assert_eq!(ports(&pool), [1, 2]);
    let first = next(&pool);
    let other = pool.other_server(None, &[Arc::clone(&first.endpoint)]);
    assert_ne!(port(&other.expect("the other").choice), port(&first));
    choice_of(&pool, 1).endpoint.availability.set_down(false);
    assert_eq!(ports(&pool), [1]);
    // One that fails requests is better than one whose checks fail.
    pool.avoid_server(&choice_of(&pool, 1));
    assert_eq!(ports(&pool), [1]);
}

#[test]
fn servers_that_are_down_have_no_more_requests_than_they_may() {
    let pool = pool(limited([1, 2], 1));
    for port in [1, 2] {
        choice_of(&pool, port).endpoint.availability.set_down(true);
    }
    let held = [(); 2].map(|()| pool.next_server(None).expect("room"));
    assert_ne!(port(&held[0].choice), port(&held[1].choice));
    assert_eq!(pool.next_server(None).err(), Some(NoServer::Full));
    pool.set_drained("127.0.0.1:1", true);
    drop(held);
    for _ in 0..4 {
        assert_eq!(port(&pool.next_server(None).expect("room").choice), 2);
    }
}

#[test]
fn a_backup_is_used_only_while_no_other_is_available() {
    let backup = UpstreamServer {
        backup: true,
        ..ip(3, 1)
    };
    let pool = pool(vec![backup, ip(1, 1), ip(2, 1)]);
    assert_eq!(ports(&pool), [1, 2]);
    pool.avoid_server(&choice_of(&pool, 1));
    assert_eq!(ports(&pool), [2]);
    pool.avoid_server(&choice_of(&pool, 2));
    assert_eq!(ports(&pool), [3]);
    choice_of(&pool, 3).endpoint.availability.set_down(true);
    assert_eq!(ports(&pool), [1, 2], "avoided ones are better than none");
    pool.record_connected(&choice_of(&pool, 2));
    assert_eq!(ports(&pool), [2]);
}

fn least_requests(servers: Vec<UpstreamServer>) -> Pool {
    pool_of(Upstream {
        balance: Balance::LeastRequests,
        ..Upstream::new("app", servers)
    })
}

/// How many requests are in flight at each server.
fn in_flight(pool: &Pool) -> Vec<usize> {
    let endpoints = pool.endpoints().into_iter();
    endpoints.map(|one| one.requests).collect()
}

#[test]
fn the_server_with_the_fewest_requests_is_next() {
    let pool = least_requests(vec![ip(1, 1), ip(2, 3)]);
    let take = || pool.next_server(None).expect("a server");
    let mut held: Vec<Picked> = (0..8).map(|_| take()).collect();
    assert_eq!(in_flight(&pool), [2, 6]);
    held.retain(|picked| port(&picked.choice) == 1);
    assert_eq!(in_flight(&pool), [2, 0]);
    held.extend((0..6).map(|_| take()));
    assert_eq!(in_flight(&pool), [2, 6]);
    drop(held);
    assert_eq!(in_flight(&pool), [0, 0]);
    // Without any in flight, they take turns.
    assert_eq!(turns(&pool, 40)["127.0.0.1:1"], 10);
}

#[test]
fn of_many_servers_none_gets_many_more_requests_than_others() {
    let pool = least_requests(ips(1..=50));
    let held: Vec<Picked> = (0..500)
        .map(|_| pool.next_server(None).expect("a server"))
        .collect();
    let counts = in_flight(&pool);
    let most = counts.iter().max().copied().expect("servers");
    assert!(most < 20, "{counts:?}");
    drop(held);
    for port in 2..=50 {
        choice_of(&pool, port).endpoint.availability.set_down(true);
    }
    assert_eq!(ports(&pool), [1], "the one that is left is found");
}

fn by_key(servers: Vec<UpstreamServer>, key: HashKey) -> Pool {
    pool_of(Upstream {
        balance: Balance::Hash(key),
        ..Upstream::new("app", servers)
    })
}

#[test]
fn a_key_stays_at_its_server_and_moves_on_while_that_is_out() {
    let pool = by_key(ips(1..=5), HashKey::ClientIp);
    let at = |key: u64| port(&pool.next_server(Some(key)).expect("a server").choice);
    let keys: Vec<u64> = (0..200_u32)
        .map(|key| hash::of(&key.to_be_bytes()))
        .collect();
    let before: Vec<u16> = keys.iter().map(|key| at(*key)).collect();
    assert_eq!(before, keys.iter().map(|key| at(*key)).collect::<Vec<_>>());
    pool.avoid_server(&choice_of(&pool, 3));
    for (key, before) in keys.iter().zip(&before) {
        let now = at(*key);
        assert!(
            now == *before || (*before == 3 && now != 3),
            "{before} to {now}"
        );
    }
    pool.record_connected(&choice_of(&pool, 3));
    assert_eq!(before, keys.iter().map(|key| at(*key)).collect::<Vec<_>>());
    // Requests without a key go anywhere.
    assert_eq!(ports(&pool), [1, 2, 3, 4, 5]);
}

#[test]
fn a_key_stays_at_its_address_of_a_name() {
    let pool = by_key(vec![named()], HashKey::ClientIp);
    let server = &pool.servers[0];
    server.set_addresses(&[found(1), found(2), found(3)], true);
    let at = |key| {
        let picked = pool.next_server(Some(key)).expect("a server");
        picked.choice.endpoint.text.clone()
    };
    let before: Vec<_> = (0..100).map(at).collect();
    server.set_addresses(&[found(3), found(1)], true);
    for (key, before) in (0..100).zip(&before) {
        assert!(at(key) == *before || &**before == "10.0.0.2:80");
    }
}

#[test]
fn the_key_of_a_request_is_what_is_configured() {
    let mut map = HeaderMap::new();
    map.insert("x-user", "alice".parse().expect("a value"));
    map.insert("cookie", "a=1; id=7".parse().expect("a value"));
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
    let client = Some(IpAddr::from([10, 0, 0, 1]));
    let key = |key| by_key(ips([1]), key).balance_key(&request, client);
    assert_eq!(key(HashKey::ClientIp), Some(hash::of(&[10, 0, 0, 1])));
    let header = |name: &str| HashKey::Header(name.parse().expect("a name"));
    assert_eq!(key(header("X-User")), Some(hash::of(b"alice")));
    assert_eq!(key(header("X-Other")), None);
    assert_eq!(key(HashKey::Cookie("id".into())), Some(hash::of(b"7")));
    assert_eq!(key(HashKey::Cookie("b".into())), None);
    assert_eq!(pool(ips([1])).balance_key(&request, client), None);
}

fn limited(ports: impl IntoIterator<Item = u16>, most: usize) -> Vec<UpstreamServer> {
    let servers = ips(ports).into_iter();
    servers
        .map(|server| UpstreamServer {
            max_connections: most,
            ..server
        })
        .collect()
}

#[test]
fn no_address_has_more_requests_than_it_may() {
    let (clients, keys) = (Balance::Hash(HashKey::ClientIp), [7, 8, 9]);
    for balance in [Balance::RoundRobin, Balance::LeastRequests, clients] {
        let pool = pool_of(Upstream {
            balance,
            ..Upstream::new("app", limited([1, 2], 3))
        });
        let take = |key| pool.next_server(Some(key));
        let mut held: Vec<Picked> = keys
            .iter()
            .chain(&keys)
            .map(|key| take(*key).expect("room"))
            .collect();
        assert_eq!(in_flight(&pool), [3, 3]);
        assert_eq!(take(1).err(), Some(NoServer::Full));
        held.pop();
        assert!(take(1).is_ok());
        assert_eq!(held.len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_room() {
    let pool = Arc::new(pool(limited([1], 1)));
    let held = pool.next_server(None).expect("room");
    let patience = Duration::from_secs(5);
    let waited = pool.wait_for_server(None, None, None, patience).await;
    assert_eq!(waited.err(), Some(NoServer::Full));
    let waiting = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.wait_for_server(None, None, None, patience).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(
        pool.next_server(None).err(),
        Some(NoServer::Full),
        "a later request waits behind it"
    );
    drop(held);
    let picked = waiting.await.expect("no panic").expect("room");
    assert_eq!(in_flight(&pool), [1]);
    drop(picked);
    assert!(pool.next_server(None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_counts_for_retries() {
    let pool = pool(limited([1], 1));
    let mut held = pool.next_server(None).expect("room");
    for _ in 1..500 {
        let patience = Duration::from_secs(5);
        let waiting = pool.wait_for_server(None, None, None, patience);
        let leave = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let (waited, ()) = tokio::join!(waiting, leave);
        held = waited.expect("room");
    }
    let allowed = (0..500).take_while(|_| pool.try_retry(20)).count();
    assert_eq!(allowed, 100);
}
