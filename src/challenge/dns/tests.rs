//! The journal of records, with a provider that keeps them in memory.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::super::{Challenge, DnsContext};
use super::entry::Opened;
use super::journal::SetError;
use super::*;
use crate::clock::ManualClock;
use crate::dns::lookup::{LookupOptions, Lookups, Propagation};
use crate::dns::{DnsError, DnsProvider, TxtRecord};
use crate::event::{EventKind, Severity};
use crate::host::HostName;
use crate::storage::{MemoryStorage, keys};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: i64 = 86_400;

/// A provider with records in memory.
#[derive(Default)]
struct Fake {
    records: Mutex<BTreeSet<(String, String)>>,
    is_down: AtomicBool,
    is_refusing: AtomicBool,
    needs_no_zone: AtomicBool,
    /// How many notes there were when a record was last set.
    notes: Mutex<usize>,
    storage: MemoryStorage,
}

impl Fake {
    fn values(&self) -> Vec<String> {
        let records = self.records.lock().expect("whole");
        records.iter().map(|(_, value)| value.clone()).collect()
    }

    fn answer(&self) -> Result<(), DnsError> {
        if self.is_refusing.load(Ordering::SeqCst) {
            return Err(DnsError::Refused("it refuses".to_owned()));
        }
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(DnsError::Unreachable("it is down".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl DnsProvider for Fake {
    fn name(&self) -> &str {
        "main"
    }

    fn needs_zone(&self) -> bool {
        !self.needs_no_zone.load(Ordering::SeqCst)
    }

    async fn add(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        *self.notes.lock().expect("whole") = notes(&self.storage);
        self.answer()?;
        let mut records = self.records.lock().expect("whole");
        records.insert((record.name.to_string(), record.value.clone()));
        Ok(())
    }

    async fn remove(&self, _: &HostName, record: &TxtRecord) -> Result<(), DnsError> {
        self.answer()?;
        let mut records = self.records.lock().expect("whole");
        records.remove(&(record.name.to_string(), record.value.clone()));
        Ok(())
    }

    async fn list(&self, _: &HostName, _: &HostName) -> Result<Option<Vec<String>>, DnsError> {
        Ok(None)
    }
}

fn notes(storage: &MemoryStorage) -> usize {
    let all = storage.list(&keys::dns_records().expect("a key"));
    all.map_or(0, |all| all.len())
}

fn record(value: &str) -> TxtRecord {
    TxtRecord {
        name: "_acme-challenge.a.example".parse().expect("a name"),
        value: value.to_owned(),
    }
}

fn zone() -> HostName {
    "a.example".parse().expect("a name")
}

fn bench() -> (MemoryStorage, Arc<Fake>, Arc<dyn DnsProvider>) {
    let storage = MemoryStorage::default();
    let fake = Arc::new(Fake {
        storage: storage.clone(),
        ..Fake::default()
    });
    let provider: Arc<dyn DnsProvider> = fake.clone();
    (storage, fake, provider)
}

fn journal(storage: &MemoryStorage) -> Journal {
    Journal::new(Arc::new(storage.clone()), Arc::new(ManualClock::at(NOW)))
}

#[tokio::test]
async fn a_record_is_noted_before_it_is_set_and_until_it_is_gone() {
    let (storage, fake, provider) = bench();
    let journal = journal(&storage);
    let held = journal
        .acquire(&provider, zone(), record("v"))
        .expect("a key");
    assert!(journal.set_record(&held).await.is_ok());
    assert_eq!(*fake.notes.lock().expect("whole"), 1);
    assert_eq!(fake.values(), ["v"]);
    // Somebody still needs it.
    journal.remove_unwanted(&held).await.expect("nothing to do");
    assert_eq!(fake.values(), ["v"]);
    journal.release(&held);
    fake.is_down.store(true, Ordering::SeqCst);
    let (_, is_noted) = journal.remove_unwanted(&held).await.expect_err("down");
    assert!(is_noted && notes(&storage) == 1);
    // It belongs to whoever sweeps then.
    fake.is_down.store(false, Ordering::SeqCst);
    let left = journal.abandoned().await.expect("readable").pop();
    let left = left.expect("one");
    journal
        .remove_abandoned(left, &*provider)
        .await
        .expect("removed");
    assert_eq!((fake.values().len(), notes(&storage)), (0, 0));
}

#[tokio::test]
async fn what_was_refused_need_not_be_removed() {
    let (storage, fake, provider) = bench();
    let journal = journal(&storage);
    let held = journal
        .acquire(&provider, zone(), record("v"))
        .expect("a key");
    fake.is_refusing.store(true, Ordering::SeqCst);
    let error = journal.set_record(&held).await.err();
    assert!(matches!(error, Some(SetError::Dns(DnsError::Refused(_)))));
    journal.release(&held);
    journal
        .remove_unwanted(&held)
        .await
        .expect("nothing to remove");
    assert_eq!(notes(&storage), 0);
}

#[tokio::test]
async fn two_who_want_the_same_record_both_have_it() {
    let (storage, fake, provider) = bench();
    let journal = journal(&storage);
    let want = |value| {
        journal
            .acquire(&provider, zone(), record(value))
            .expect("a key")
    };
    let (one, other, third) = (want("v"), want("v"), want("w"));
    for held in [&one, &other, &third] {
        assert!(journal.set_record(held).await.is_ok());
    }
    assert_eq!(fake.values(), ["v", "w"], "two values of one name");
    assert_eq!(notes(&storage), 2);
    journal.release(&one);
    journal.remove_unwanted(&one).await.expect("nothing to do");
    assert_eq!(fake.values(), ["v", "w"]);
    journal.release(&other);
    journal.remove_unwanted(&other).await.expect("removed");
    assert_eq!(fake.values(), ["w"]);
    // It can be needed again.
    let again = want("v");
    assert!(journal.set_record(&again).await.is_ok());
    assert_eq!(fake.values(), ["v", "w"]);
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_by_another() {
    let (storage, fake, provider) = bench();
    let killed = journal(&storage);
    let held = killed
        .acquire(&provider, zone(), record("v"))
        .expect("a key");
    assert!(killed.set_record(&held).await.is_ok());
    let other = journal(&storage);
    let found = other.abandoned().await.expect("readable");
    assert!(found.is_empty(), "its process lives");
    drop((held, killed));
    let mut found = other.abandoned().await.expect("readable");
    assert_eq!(found.len(), 1);
    // While one process removes it, no other does.
    let third = journal(&storage).abandoned().await.expect("readable");
    assert!(third.is_empty());
    let one = found.pop().expect("one");
    assert_eq!(one.name(), "_acme-challenge.a.example");
    other
        .remove_abandoned(one, &*provider)
        .await
        .expect("removed");
    assert_eq!((fake.values().len(), notes(&storage)), (0, 0));
}

#[tokio::test]
async fn who_comes_back_takes_its_record_over() {
    let (storage, fake, provider) = bench();
    let killed = journal(&storage);
    let held = killed
        .acquire(&provider, zone(), record("v"))
        .expect("a key");
    assert!(killed.set_record(&held).await.is_ok());
    drop((held, killed));
    let next = journal(&storage);
    let held = next.acquire(&provider, zone(), record("v")).expect("a key");
    assert!(next.set_record(&held).await.is_ok());
    let found = next.abandoned().await.expect("readable");
    assert!(found.is_empty(), "it is wanted");
    next.release(&held);
    next.remove_unwanted(&held).await.expect("removed");
    assert_eq!((fake.values().len(), notes(&storage)), (0, 0));
}

#[tokio::test]
async fn a_storage_that_fails_keeps_nobody_from_a_proof() {
    let (storage, fake, provider) = bench();
    storage.set_failure(Some(ErrorKind::StorageFull));
    let journal = journal(&storage);
    let held = journal
        .acquire(&provider, zone(), record("v"))
        .expect("a key");
    assert!(journal.set_record(&held).await.is_ok());
    assert_eq!(fake.values(), ["v"]);
    journal.release(&held);
    journal.remove_unwanted(&held).await.expect("removed");
    assert!(fake.values().is_empty());
    fake.is_down.store(true, Ordering::SeqCst);
    let held = journal
        .acquire(&provider, zone(), record("v"))
        .expect("a key");
    let error = journal.set_record(&held).await.err();
    assert!(matches!(
        error,
        Some(SetError::Dns(DnsError::Unreachable(_)))
    ));
}

#[tokio::test]
async fn what_cannot_be_removed_is_tried_less_and_less_often() {
    let mut sweeper = Sweeper::default();
    let key: Key = "dns/set/a.json".parse().expect("a key");
    let pauses = (0..7).map(|_| sweeper.postpone(key.clone(), NOW).as_secs());
    let pauses: Vec<u64> = pauses.collect();
    assert_eq!(pauses, [60, 300, 1200, 3600, 3600, 3600, 3600]);
    assert_eq!(sweeper.failed[&key].1, NOW + 3600);
}

/// An entry whose resolver does not respond.
fn deaf() -> Arc<Entry> {
    Arc::new(Entry::of(Opened {
        provider: None,
        lookups: Lookups::new(LookupOptions {
            resolvers: vec!["127.0.0.1:9".parse().expect("an address")],
            patience: Duration::from_millis(20),
            ..LookupOptions::default()
        }),
        propagation: None,
    }))
}

#[tokio::test]
async fn the_end_of_a_lasting_record_is_told_in_time_once_a_day() {
    let clock = Arc::new(ManualClock::at(NOW));
    let events = EventBus::default();
    let storage = MemoryStorage::default();
    let of_lasting: Arc<dyn Storage> = Arc::new(storage.clone());
    let persist_expiry =
        || PersistExpiry::new(Arc::clone(&of_lasting), clock.clone(), events.clone());
    let told = || events.recent().len();
    let domain: HostName = "a.example".parse().expect("a name");
    let name: HostName = "_validation-persist.a.example".parse().expect("a name");
    let dns = DnsContext {
        account: "https://ca.example/1".to_owned(),
        ..DnsContext::default()
    };
    let first = persist_expiry();
    let entry = deaf();
    let end = NOW + 40 * DAY;
    first
        .record_expiry(&entry, &domain, &name, &dns, Some(end))
        .await;
    let look = async |persist_expiry: &PersistExpiry| {
        let looked = persist_expiry.check_expiries(|_| Arc::clone(&entry)).await;
        looked.expect("readable");
    };
    look(&first).await;
    assert_eq!(told(), 0, "there is time");

    // Ten days later, in another process.
    clock.advance(10 * DAY);
    let second = persist_expiry();
    look(&second).await;
    look(&second).await;
    assert_eq!(told(), 1);
    let event = events.recent().pop().expect("one");
    assert_eq!(event.kind, EventKind::ValidationExpiring);
    assert_eq!(
        (event.severity, event.domain.as_str()),
        (Severity::Warning, "a.example")
    );
    for part in [
        "_validation-persist.a.example",
        "persistUntil",
        "2027-02-24T",
    ] {
        assert!(event.message.contains(part), "{part}: {}", event.message);
    }
    clock.advance(DAY);
    look(&second).await;
    assert_eq!(told(), 2);
    clock.advance(30 * DAY);
    look(&second).await;
    let event = events.recent().pop().expect("one");
    assert_eq!(event.severity, Severity::Error);
    assert!(event.message.contains("expired"), "{}", event.message);

    // A record without an end is forgotten.
    second
        .record_expiry(&entry, &domain, &name, &dns, None)
        .await;
    let proofs = keys::persistent_proofs().expect("a key");
    assert!(storage.list(&proofs).expect("readable").is_empty());
}

#[tokio::test]
async fn each_account_has_a_note_of_its_own_and_earlier_ones_are_moved() {
    let clock = Arc::new(ManualClock::at(NOW));
    let events = EventBus::default();
    let storage = MemoryStorage::default();
    let of_lasting: Arc<dyn Storage> = Arc::new(storage.clone());
    let persist_expiry = PersistExpiry::new(of_lasting, clock.clone(), events.clone());
    let domain: HostName = "a.example".parse().expect("a name");
    let name: HostName = "_validation-persist.a.example".parse().expect("a name");
    let entry = deaf();
    let of = |account: &str| DnsContext {
        account: account.to_owned(),
        ..DnsContext::default()
    };
    let (one, two) = (of("https://one.example/1"), of("https://two.example/1"));
    persist_expiry
        .record_expiry(&entry, &domain, &name, &one, Some(NOW + 5 * DAY))
        .await;
    persist_expiry
        .record_expiry(&entry, &domain, &name, &two, Some(NOW + 9 * DAY))
        .await;
    let all = || {
        storage
            .list(&keys::persistent_proofs().expect("a key"))
            .expect("readable")
    };
    assert_eq!(all().len(), 2);
    assert_eq!(events.recent().len(), 2, "each is reported");
    // The one that is gone here stays for the other.
    persist_expiry
        .record_expiry(&entry, &domain, &name, &one, None)
        .await;
    assert_eq!(all().len(), 1);

    // As stored before: by the domain alone.
    let kept = all().pop().expect("one");
    let value = storage.load(&kept).expect("readable").expect("there");
    let old: Key = "dns/persistent/a.example.json".parse().expect("a key");
    storage.store(&old, &value).expect("stored");
    storage.delete(&kept).expect("deleted");
    persist_expiry
        .check_expiries(|_| Arc::clone(&entry))
        .await
        .expect("readable");
    assert_eq!(all(), [kept]);
}

/// A name server with the zones `k.test` and `other.test`, in which `*.k.test` is an alias of
/// `lb.other.test`, and `far.test` one of a name in no zone. It serves until the test ends.
async fn aliases() -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await;
    let socket = socket.expect("a free port");
    let address = socket.local_addr().expect("an address");
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    let soa = move || SOA::new(name("ns.test."), name("me.test."), 1, 2, 3, 4, 5);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let mut message = Message::from_vec(&buffer[..length]).expect("a question");
            let query = message.queries.first().expect("a question").clone();
            let asked = query.name().to_ascii();
            let data = match (query.query_type(), &*asked) {
                (RecordType::SOA, "k.test." | "other.test.") => Some(RData::SOA(soa())),
                (RecordType::TXT, one) if one.ends_with(".k.test.") => {
                    Some(RData::CNAME(CNAME(name("lb.other.test."))))
                }
                (RecordType::TXT, one) if one.ends_with(".far.test.") => {
                    Some(RData::CNAME(CNAME(name("lb.nowhere."))))
                }
                _ => None,
            };
            let records = data.map(|data| Record::from_rdata(query.name().clone(), 60, data));
            message.answers.extend(records);
            message.metadata.message_type = MessageType::Response;
            let answer = message.to_vec().expect("an answer");
            let _ = socket.send_to(&answer, client).await;
        }
    });
    address
}

#[tokio::test]
async fn whatever_fails_behind_an_alias_names_the_alias() {
    let address = aliases().await;
    let (storage, fake, provider) = bench();
    let present = async |domain: &str, propagation: Option<Propagation>| {
        let entry = Entry::of(Opened {
            provider: Some(Arc::clone(&provider)),
            lookups: Lookups::new(LookupOptions {
                resolvers: vec![address],
                servers: vec![address],
                ..LookupOptions::default()
            }),
            propagation,
        });
        let challenge = Challenge {
            kind: ChallengeType::Dns01,
            domain: domain.parse().expect("a name"),
            token: "token".to_owned(),
            key_authorization: "token.key".to_owned(),
            dns: Some(DnsContext::default()),
        };
        let journal = Arc::new(journal(&storage));
        let solver = Dns01Solver::new(ChallengeType::Dns01, Arc::new(entry), journal);
        let presented = solver.present(&challenge).await;
        fake.is_refusing.store(false, Ordering::SeqCst);
        solver.clean_up(&challenge).await;
        presented.map_err(|failure| failure.message)
    };
    let told = |presented: Result<(), String>, own: &str, target: &str| {
        let why = presented.expect_err("it fails");
        let alias = format!("{target}, to which {own} is an alias (CNAME)");
        let place = format!("{target} in other.test, to which {own} is an alias (CNAME)");
        assert!(why.contains(&alias) || why.contains(&place), "{why}");
    };
    let own = "_acme-challenge.a.k.test";
    assert_eq!(present("a.k.test", None).await, Ok(()));
    fake.is_refusing.store(true, Ordering::SeqCst);
    told(present("a.k.test", None).await, own, "lb.other.test");
    let unseen = Propagation {
        timeout: Duration::from_millis(50),
        interval: Duration::from_millis(10),
        wait: Duration::ZERO,
    };
    told(
        present("a.k.test", Some(unseen)).await,
        own,
        "lb.other.test",
    );
    let far = present("a.far.test", None).await;
    told(far, "_acme-challenge.a.far.test", "lb.nowhere");
    // A record at its own name needs no mention of an alias.
    fake.is_refusing.store(true, Ordering::SeqCst);
    let why = present("other.test", None)
        .await
        .expect_err("it is refused");
    assert!(!why.contains("alias"), "{why}");
}

#[tokio::test]
async fn no_zone_is_looked_for_where_nobody_needs_one() {
    let (storage, fake, provider) = bench();
    let challenge = Challenge {
        kind: ChallengeType::Dns01,
        domain: "a.example".parse().expect("a name"),
        token: "token".to_owned(),
        key_authorization: "token.key".to_owned(),
        dns: Some(DnsContext::default()),
    };
    let present = async |needs_no_zone: bool, propagation: Option<Propagation>| {
        fake.needs_no_zone.store(needs_no_zone, Ordering::SeqCst);
        let entry = Entry::of(Opened {
            provider: Some(Arc::clone(&provider)),
            lookups: Lookups::new(LookupOptions {
                resolvers: vec!["127.0.0.1:9".parse().expect("an address")],
                patience: Duration::from_millis(20),
                ..LookupOptions::default()
            }),
            propagation,
        });
        let journal = Arc::new(journal(&storage));
        let solver = Dns01Solver::new(ChallengeType::Dns01, Arc::new(entry), journal);
        let presented = solver.present(&challenge).await;
        let values = fake.values().len();
        solver.clean_up(&challenge).await;
        presented.map(|()| values)
    };
    assert_eq!(
        present(true, None).await.map_err(|error| error.message),
        Ok(1)
    );
    assert!(fake.values().is_empty());
    // The zone must be known to wait for its servers, and for a provider that needs it.
    let wait = Propagation {
        timeout: Duration::from_secs(1),
        interval: Duration::from_millis(100),
        wait: Duration::ZERO,
    };
    assert!(present(true, Some(wait)).await.is_err());
    assert!(present(false, None).await.is_err());
}
