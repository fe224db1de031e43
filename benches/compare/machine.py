"""What the operating system knows: processor time and memory of processes, versions, pinning."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")

# Descriptors for server and client each: idle connections and some to spare.
DESCRIPTORS = 65536


class Failed(Exception):
    """A measurement that could not be taken, and why."""


def free_port():
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def raise_descriptors():
    """Lets this process and its children open as many descriptors as they may, up to DESCRIPTORS."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pinned(core, command):
    """The command, on one core."""
    return ["taskset", "-c", str(core), *map(str, command)]


def put_first(pid):
    """Has the scheduler run the session of a process before all others."""
    try:
        Path(f"/proc/{pid}/autogroup").write_text("-20")
    except OSError as why:
        sys.exit(f"error: cannot have priority: {why}")


class Processes:
    """A process that was started here, with all that it has started."""

    # Whether they run before whatever else the machine does.
    first = False

    def __init__(self, command, core, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                pinned(core, command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        if self.first:
            put_first(self.child.pid)

    def pids(self):
        """The process and its descendants."""
        found, todo = [], [self.child.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as children:
                        todo += map(int, children.read().split())
            except OSError:
                continue
        return found

    def cpu(self):
        """Seconds of processor time of all of them, user and system, those of ended children that
        were waited for included."""
        ticks = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
            except OSError:
                continue
        return ticks / TICK

    @contextmanager
    def counted(self):
        """Counts the instructions of all of them in user mode, by the processor. The number is
        there at the end, in a list."""
        counts = []
        command = [*PERF, "--pid", ",".join(map(str, self.pids()))]
        perf = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            yield counts
        finally:
            perf.send_signal(signal.SIGINT)
            said = perf.communicate(timeout=10)[1]
        count = parse_count(said)
        if count is None:
            raise Failed(f"perf said: {said.strip()[-300:]}")
        counts.append(count)

    def simulated_instructions(self):
        """Those of all of them in user mode, once they have ended under callgrind."""
        with open(self.log, errors="replace") as log:
            counts = re.findall(r"^==\d+== Collected : (\d+)", log.read(), re.M)
        if not counts:
            raise Failed(f"callgrind said: {self.tail()}")
        return sum(map(int, counts))

    def memory(self):
        """Octets of all of them: proportional set size, where shared pages count once."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as rollup:
                    total += 1024 * int(re.search(r"^Pss:\s+(\d+) kB", rollup.read(), re.M)[1])
            except (OSError, TypeError):
                continue
        return total

    def settled_memory(self, patience=10):
        """The memory once it no longer changes much."""
        end = time.monotonic() + patience
        before = self.memory()
        while time.monotonic() < end:
            time.sleep(0.5)
            after = self.memory()
            if abs(after - before) < max(before // 200, 65536):
                return after
            before = after
        return before

    def is_alive(self):
        return self.child.poll() is None

    def tail(self):
        """The last of what the process has said."""
        with open(self.log, errors="replace") as log:
            return log.read()[-800:].strip()

    def stop(self, how=signal.SIGTERM, patience=10):
        """Ends the process and its descendants, which the session that it leads tells apart."""
        pids = self.pids()
        if self.is_alive():
            self.child.send_signal(how)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        for pid in pids:
            try:
                if os.getsid(pid) == self.child.pid:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        self.child.wait()


# Runs a program on a simulated processor, one thread at a time, and says how many instructions it
# had.
CALLGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]

PERF = ["perf", "stat", "--field-separator", ",", "--event", "instructions:u"]


def parse_count(said):
    """What `perf` has counted, if it has."""
    count = re.search(r"^(\d+),", said, re.M)
    return int(count[1]) if count else None


def find_counter(simulate):
    """How instructions are counted: by the processor, which many virtual machines do not let a
    guest do, else in a simulation where that is asked for."""
    if shutil.which("perf") and parse_count(output([*PERF, "true"])) is not None:
        return "perf"
    return "callgrind" if simulate and shutil.which("valgrind") else None


def output(command, patience=60):
    """What a command prints, both ways."""
    try:
        done = subprocess.run(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=patience,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} has not come to an end in {patience} s") from None
    return done.stdout


def describe():
    """The machine, as far as it matters."""
    with open("/proc/cpuinfo") as cpuinfo:
        models = re.findall(r"^model name\s*:\s*(.*)", cpuinfo.read(), re.M)
    with open("/proc/meminfo") as meminfo:
        memory = int(re.search(r"^MemTotal:\s+(\d+)", meminfo.read(), re.M)[1])
    system = "unknown"
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release") as release:
            system = re.search(r'^PRETTY_NAME="?([^"\n]*)', release.read(), re.M)[1]
    return {
        "cores": len(models) or os.cpu_count(),
        "processor": models[0] if models else os.uname().machine,
        "memory_gib": round(memory / 2**20, 1),
        "kernel": os.uname().release,
        "system": system,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "h2load": "nghttp2-client",
    "taskset": "util-linux",
    "valgrind": "valgrind",
}


def install(programs):
    """Installs the Debian packages of programs that are missing. Returns those that
    cannot be installed."""
    # Not in everybody's path, where Debian puts servers.
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({PACKAGES[name] for name in programs if not shutil.which(name)})
    if not missing:
        return set()
    if not shutil.which("apt-get"):
        sys.exit(f"error: this needs the like of Debian's packages: {' '.join(missing)}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and not shutil.which("sudo"):
        sys.exit(f"error: run this as root, then again: apt-get install {' '.join(missing)}")
    print("installing", *missing, file=sys.stderr)
    # The packages start their servers on the ports of the machine; these are not what is measured.
    command = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]
    arguments = ["install", "--yes", "--quiet", "--no-install-recommends"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run([*command, *arguments, *missing], **quiet).returncode != 0:
        subprocess.run([*command, "update", "--quiet"], **quiet)
        for package in missing:
            subprocess.run([*command, *arguments, package], stdout=subprocess.DEVNULL)
    return {name for name in programs if not shutil.which(name)}
