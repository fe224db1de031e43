//! A scripted resolver, which may fail in many ways.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Port, wait_for};

/// What becomes of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Honest,
    /// No answer comes.
    Silent,
    /// This code, without a record.
    Fails(ResponseCode),
    /// The answer is to another question.
    WrongId,
    /// There is nothing of the kind.
    Empty,
    /// Over UDP only a part of the answer comes.
    Truncating,
    /// And over TCP too.
    AlwaysTruncating,
    /// Aliases are not followed.
    Lazy,
    /// The answer repeats a question for another name.
    OtherQuestion,
    /// All records are another name's.
    OtherName,
    /// Half of the answer comes, as if it were all.
    Cut,
    /// What comes is no message.
    Garbage,
}

/// It lives as long as the test.
pub struct Resolver {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _port: Option<Port>,
}

struct Shared {
    /// By name: the time to live, and the records.
    records: HashMap<Name, (u32, Vec<RData>)>,
    moods: HashMap<Name, Mood>,
    questions: Vec<(Name, RecordType)>,
    over_tcp: usize,
}

impl Resolver {
    /// One at any port.
    pub fn start() -> Self {
        let port = Port::take();
        let mut resolver = Self::start_at(port.address());
        resolver._port = Some(port);
        resolver
    }

    /// One at this address.
    pub fn start_at(address: SocketAddr) -> Self {
        let udp = UdpSocket::bind(address).expect("a port");
        let tcp = TcpListener::bind(address).expect("a port");
        let shared = Arc::new(Mutex::new(Shared {
            records: HashMap::new(),
            moods: HashMap::new(),
            questions: Vec::new(),
            over_tcp: 0,
        }));
        let over_udp = Arc::clone(&shared);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let answer = lock(&over_udp).answer(&buffer[..length], false);
                if let Some(answer) = answer {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let over_tcp = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut question = vec![0; u16::from_be_bytes(length).into()];
                if stream.read_exact(&mut question).is_err() {
                    continue;
                }
                if let Some(answer) = lock(&over_tcp).answer(&question, true) {
                    let length = u16::try_from(answer.len()).expect("a length");
                    let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat());
                }
            }
        });
        Self {
            address,
            shared,
            _port: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What becomes of questions for a name.
    pub fn set_mood(&self, name: &str, mood: Mood) {
        lock(&self.shared).moods.insert(wire(name), mood);
    }

    /// Replaces the records of a name by these addresses.
    pub fn set_addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let data = addresses.iter().map(|address| match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        });
        self.set(name, ttl, data.collect());
    }

    /// Makes a name an alias.
    pub fn set_alias(&self, name: &str, ttl: u32, target: &str) {
        self.set(name, ttl, vec![RData::CNAME(CNAME(wire(target)))]);
    }

    /// Replaces the records of a name by these: priority, weight, port and target.
    pub fn set_services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let data = services.iter().map(|(priority, weight, port, target)| {
            RData::SRV(SRV::new(*priority, *weight, *port, wire(target)))
        });
        self.set(name, ttl, data.collect());
    }

    fn set(&self, name: &str, ttl: u32, data: Vec<RData>) {
        lock(&self.shared).records.insert(wire(name), (ttl, data));
    }

    /// How often records of a type have been asked for.
    pub fn questions(&self, name: &str, kind: RecordType) -> usize {
        let (name, shared) = (wire(name), lock(&self.shared));
        let asked = shared.questions.iter();
        asked.filter(|one| one.0 == name && one.1 == kind).count()
    }

    /// How many questions came over TCP.
    pub fn over_tcp(&self) -> usize {
        lock(&self.shared).over_tcp
    }

    /// Waits until the addresses of a name have been asked for this many times more.
    #[track_caller]
    pub fn wait_for_questions(&self, name: &str, more: usize) {
        let before = self.questions(name, RecordType::A);
        wait_for("another look-up", || {
            (self.questions(name, RecordType::A) >= before + more).then_some(())
        });
    }
}

impl Shared {
    /// The answer to a question, if there is one.
    fn answer(&mut self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let (name, kind) = (query.name().clone(), query.query_type());
        self.questions.push((name.clone(), kind));
        self.over_tcp += usize::from(over_tcp);
        let mut answer = Message::new(question.id, MessageType::Response, question.op_code);
        answer.metadata.recursion_available = true;
        answer.add_query(query);
        let mood = self.moods.get(&name).copied().unwrap_or(Mood::Honest);
        match mood {
            Mood::Silent => return None,
            Mood::Fails(code) => answer.metadata.response_code = code,
            Mood::Empty => {}
            Mood::WrongId => answer.metadata.id = question.id.wrapping_add(1),
            Mood::Truncating if !over_tcp => return answer.truncate().to_vec().ok(),
            Mood::AlwaysTruncating => return answer.truncate().to_vec().ok(),
            Mood::Garbage => return Some(b"220 mail.example ESMTP\r\n".to_vec()),
            _ => {
                if !self.records.contains_key(&name) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                let mut at = name;
                while let Some((ttl, data)) = self.records.get(&at) {
                    let mut target = None;
                    for data in data {
                        if let RData::CNAME(alias) = data {
                            target = Some(alias.0.clone());
                        } else if data.record_type() != kind {
                            continue;
                        }
                        answer.add_answer(Record::from_rdata(at.clone(), *ttl, data.clone()));
                    }
                    match target {
                        Some(target) if mood != Mood::Lazy => at = target,
                        _ => break,
                    }
                }
            }
        }
        match mood {
            Mood::OtherQuestion => _ = answer.queries[0].set_name(wire("other.internal")),
            Mood::OtherName => {
                let records = answer.answers.iter_mut();
                records.for_each(|record| record.name = wire("other.internal"));
            }
            _ => {}
        }
        let mut octets = answer.to_vec().ok()?;
        if mood == Mood::Cut {
            octets.truncate(octets.len() / 2);
        }
        Some(octets)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("not poisoned")
}

fn wire(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).expect("a name")
}
