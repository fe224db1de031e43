//! What every process exports by these names: processor time, memory, file descriptors, threads and
//! its start, read from `/proc` at the time of the scrape.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit};

use super::exposition::{Exposition, Family, Kind, Source};

const fn family(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family {
        name,
        kind,
        labels: &[],
        help,
    }
}

/// What is written here, in the order of [`Usage::values`].
pub(super) const FAMILIES: [Family; 7] = [
    family(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time in user and system mode, in seconds.",
    ),
    family(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory in octets.",
    ),
    family(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Virtual memory in octets.",
    ),
    family("process_threads", Kind::Gauge, "Threads of the process."),
    family(
        "process_start_time_seconds",
        Kind::Gauge,
        "Unix time at which the process started.",
    ),
    family("process_open_fds", Kind::Gauge, "Open file descriptors."),
    family(
        "process_max_fds",
        Kind::Gauge,
        "The most file descriptors that may be open.",
    ),
];

/// In how many parts of a second the kernel gives times to programs, on every architecture that
/// this runs on.
const TICKS: f64 = 100.0;

/// When the process started, as it was read first: it seems to change when the clock is set.
static START: OnceLock<f64> = OnceLock::new();

/// The process itself.
pub(super) struct Process;

impl Source for Process {
    fn write(&self, to: &mut Exposition) {
        let values = Usage::read().values();
        for (
            Family {
                name, kind, help, ..
            },
            value,
        ) in FAMILIES.iter().zip(values)
        {
            if let Some(value) = value {
                to.begin(name, *kind, help);
                to.sample(name, &[], value);
            }
        }
    }
}

/// What a process uses; nothing of what cannot be read.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    processor: Option<f64>,
    resident: Option<f64>,
    virtual_memory: Option<f64>,
    threads: Option<f64>,
    start: Option<f64>,
    descriptors: Option<f64>,
    most_descriptors: Option<f64>,
}

impl Usage {
    fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let most = getrlimit(Resource::Nofile).current;
        let parsed = Self::parse(&stat, &status, &read("/proc/stat"));
        Self {
            descriptors: open_descriptors().map(|count| count as f64),
            most_descriptors: most.map(|most| most as f64),
            start: parsed.start.map(|start| *START.get_or_init(|| start)),
            ..parsed
        }
    }

    /// Reads what `/proc/self/stat`, `/proc/self/status` and `/proc/stat` say (proc(5)).
    fn parse(stat: &str, status: &str, booted: &str) -> Self {
        // The name of the program, in parentheses, may contain spaces.
        let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
        // The first of them is the third.
        let field = |number: usize| {
            let mut fields = fields.split_ascii_whitespace();
            fields.nth(number - 3)?.parse::<f64>().ok()
        };
        let line = |text: &str, start: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
            rest.split_ascii_whitespace().next()?.parse::<f64>().ok()
        };
        let memory = |start| line(status, start).map(|kilobytes| kilobytes * 1024.0);
        let used = field(14).zip(field(15));
        let started = field(22).zip(line(booted, "btime"));
        Self {
            processor: used.map(|(user, system)| (user + system) / TICKS),
            threads: line(status, "Threads:"),
            start: started.map(|(since, boot)| boot + since / TICKS),
            virtual_memory: memory("VmSize:"),
            resident: memory("VmRSS:"),
            ..Self::default()
        }
    }

    fn values(&self) -> [Option<f64>; 7] {
        [
            self.processor,
            self.resident,
            self.virtual_memory,
            self.threads,
            self.start,
            self.descriptors,
            self.most_descriptors,
        ]
    }
}

/// How many descriptors are open.
fn open_descriptors() -> Option<u64> {
    let directory = "/proc/self/fd";
    // Linux says so from version 6.2, without a walk through as many as there may be connections.
    match fs::metadata(directory).ok()?.len() {
        0 => {
            let walked = fs::read_dir(directory).ok()?.count();
            // The directory that is being read is one of them.
            Some(walked.saturating_sub(1) as u64)
        }
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_program_confuses_nothing() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 9 0 0 0 250 150 0 0 20 0 12 0 350 4096 2 3";
        let status = "Name:\ta Threads: 1\nVmSize:\t   4 kB\nVmRSS:\t 2 kB\nThreads:\t12\n";
        let usage = Usage::parse(stat, status, "cpu 1 2\nbtime 1000\nx 1\n");
        let expected = Usage {
            processor: Some(4.0),
            threads: Some(12.0),
            start: Some(1003.5),
            virtual_memory: Some(4096.0),
            resident: Some(2048.0),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!(Usage::parse("", "", ""), Usage::default());
    }

    #[test]
    fn this_process_is_known() {
        // The processor time is counted in hundredths of a second.
        let values = std::iter::repeat_with(|| Usage::read().values());
        let used = values
            .take(1_000_000)
            .find(|values| values.iter().flatten().all(|value| *value > 0.0));
        let used = used.expect("time passes");
        assert!(used.iter().all(Option::is_some), "{used:?}");
    }
}
