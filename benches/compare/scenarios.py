"""What is measured, and how."""

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import machine
import servers
from machine import Failed, output, pinned
from servers import CLIENT_CORE, DOMAIN, Case, host

PATTERN = f"s{{}}.{DOMAIN}"

# Kept connections at once, and requests at once in each of HTTP/2.
CONNECTIONS = 32
STREAMS = 8

# What is passed on: octets of the request's body, octets of the answer's.
PROXIED = {
    "GET 1 KB": (0, 1024),
    "GET 100 KB": (0, 102_400),
    "POST 100 KB": (102_400, 8),
}

# Requests a second, of all connections together, at which their latency is measured.
RATE = 2000

# Requests whose instructions are counted in a simulation, less those of a shorter run.
COUNTED = (200, 1200)

# New names a second on demand.
NEW_NAMES = 500

# A flood: so many clients with one handshake after the other, which they break off when the server
# has done the most of it. Beside it kept connections with a request each in so many microseconds.
FLOOD = 64
KEPT = 8
PACE = 10_000


class Bench:
    """What all scenarios share: programs, certificates, rounds, the clock."""

    def __init__(self, options, directory, binaries):
        self.options = options
        # How instructions are counted, if they are.
        self.counter = machine.find_counter(options.instructions)
        self.directory = Path(directory)
        self.binaries = Path(binaries)
        self.client_binary = self.binaries / "examples/compare-client"
        self.end = time.monotonic() + options.time
        self.rounds = options.rounds
        self.seconds = options.seconds
        self.limit = options.limit
        # How long certificates took to make, by their number.
        self.made = {}
        # Why a server is left out of all larger cases of a kind.
        self.given_up = {}
        # To be stopped whatever happens.
        self.running = []
        self.count = 0

    def is_late(self):
        return time.monotonic() > self.end

    def say(self, text):
        print(f"  {text}", file=sys.stderr, flush=True)

    def certificates(self, count):
        """A directory with so many certificates, each with a key of its own."""
        where = self.directory / f"certificates-{count}"
        if count not in self.made:
            started = time.monotonic()
            self.make(where, count)
            self.made[count] = time.monotonic() - started
        return where / "certs"

    def make(self, where, count, first=1):
        command = [self.binaries / "examples/certificates", "--directory", where, "--keys", "own"]
        said = subprocess.run(
            [*map(str, command), "--domain", DOMAIN, "--count", str(count), "--first", str(first)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if said.returncode != 0:
            raise Failed(f"cannot make certificates: {said.stdout.strip()}")

    def forget(self, count):
        """Removes certificates that are not needed again."""
        if self.made.pop(count, None) is not None:
            shutil.rmtree(self.directory / f"certificates-{count}")

    def server(self, kind, case):
        self.count += 1
        return kind(self.directory / f"{self.count}-{kind.__name__.lower()}", case)

    def start(self, server):
        """Starts a server and waits for the first right handshake. How long it took."""
        site = (server.case.sites + 1) // 2
        client = self.client_started(
            server, "first", "--seconds", self.limit, "--ca", self.root(server.case), name=host(site)
        )
        begun = server.begun = time.time()
        if server not in self.running:
            self.running.append(server)
        server.start()
        while client.poll() is None and server.process.is_alive():
            time.sleep(0.05)
        if not server.process.is_alive():
            client.kill()
        try:
            at = self.client_result(client, self.limit + 30)["at"]
        except Failed:
            at = None
        if at is None:
            alive = server.process.is_alive()
            tail = server.process.tail()
            self.stop(server)
            raise Failed(f"not up in {self.limit:.0f} s" if alive else f"does not start: {tail}")
        return at - begun

    def ready(self, server, limit):
        """Waits until a gateway has all its certificates. How long after its start that is."""
        while not server.is_ready():
            if time.time() - server.begun > limit or not server.process.is_alive():
                raise Failed(f"not ready in {limit:.0f} s: {server.process.tail()}")
            time.sleep(0.02)
        return time.time() - server.begun

    def stop(self, server):
        server.stop()
        if server in self.running:
            self.running.remove(server)
        shutil.rmtree(server.directory, ignore_errors=True)

    def stop_all(self):
        for server in list(self.running):
            self.stop(server)

    def root(self, case):
        return case.certificates.parent / "root.pem"

    def client_started(self, server, command, *arguments, name=PATTERN, first=False):
        words = [self.client_binary, command, "--to", f"127.0.0.1:{server.port}", "--name", name]
        words = pinned(CLIENT_CORE, [*words, *map(str, arguments)])
        if first and os.geteuid() == 0:
            words = ["nice", "--adjustment=-20", *words]
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def client_result(self, client, patience=120):
        try:
            said, wrong = client.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            client.kill()
            client.communicate()
            raise Failed("the client has not come to an end") from None
        if client.returncode != 0:
            raise Failed(f"the client failed: {wrong.strip()[-300:]}")
        return json.loads(said.strip().splitlines()[-1])

    def client(self, server, command, *arguments, **named):
        client = self.client_started(server, command, *arguments, **named)
        return self.client_result(client, self.limit + 60)

    def up(self, kinds, case):
        """Starts one server of each kind; those that fail are left out, with why."""
        up, failed = [], []
        for kind in kinds:
            try:
                server = self.server(kind, case)
                self.start(server)
                up.append(server)
            except Failed as why:
                failed.append({"server": kind.name, "why": str(why)})
        return up, failed

    def interleaved(self, up, measure):
        """Measures each server in each round, and begins each round with another one. The medians
        of what `measure` gives."""
        seen = {server: [] for server in up}
        for number in range(self.rounds):
            for at in range(len(up)):
                server = up[(at + number) % len(up)]
                if server in seen:
                    try:
                        seen[server].append(measure(server))
                    except Failed as why:
                        seen[server] = str(why)
                        up = [other for other in up if other is not server]
                        return self.without(seen, up, measure, str(why), server)
        return [
            {"server": server.name, **medians(rounds)} for server, rounds in seen.items() if rounds
        ]

    def without(self, seen, up, measure, why, failed):
        """Continues without a server that failed."""
        rows = self.interleaved(up, measure)
        return [*rows, {"server": failed.name, "why": why}]


def medians(rounds):
    """The median of each figure, and how far apart the rounds are (of the first figure)."""
    row = {}
    for key in rounds[0]:
        row[key] = statistics.median(one[key] for one in rounds)
    first = next(iter(rounds[0]))
    values = [one[first] for one in rounds]
    if row[first]:
        row["spread"] = (max(values) - min(values)) / row[first]
    return row


def with_ratios(rows, key, ratio="of_nginx"):
    """Adds each row's ratio to nginx."""
    base = next((row.get(key) for row in rows if row["server"] == "nginx"), None)
    for row in rows:
        if base and row.get(key):
            row[ratio] = row[key] / base
    return rows


def handshakes(bench, kinds, resume):
    """Handshakes of TLS 1.3, each on a new connection that is closed in order."""
    case = Case(bench.certificates(1))
    up, failed = bench.up(kinds, case)

    def measure(server):
        return one_round(bench, server, resume=resume)

    for server in up:
        bench.client(server, "handshakes", "--seconds", 0.5, "--resume", int(resume))
    rows = bench.interleaved(up, measure) + failed
    for server in up:
        bench.stop(server)
    return with_ratios(rows, "cpu_us")


def one_round(bench, server, resume=False, sites=0, seconds=None):
    before = server.process.cpu()
    arguments = ["--seconds", seconds or bench.seconds, "--resume", int(resume)]
    if sites:
        arguments += ["--sites", sites]
    result = bench.client(server, "handshakes", *arguments)
    spent = server.process.cpu() - before
    done = result["done"]
    if done == 0 or result["failed"] > done / 100:
        raise Failed(f"{result['failed']} handshakes failed: {result['why']}")
    if resume and result["resumed"] < 0.95 * done:
        raise Failed(f"only {result['resumed']} of {done} sessions were resumed")
    return {
        "cpu_us": 1e6 * spent / done,
        "rate": done / result["seconds"],
        "cpu_s_per_1000": 1000 * spent / done,
        "p99_ms": result["p99_us"] / 1000,
    }


def flood(bench, kinds):
    """Requests on kept connections at a steady pace, alone and beside a flood of handshakes."""
    case = Case(bench.certificates(1))
    up, failed = bench.up(kinds, case)

    def measure(server):
        alone = bench.client_result(kept_requests(bench, server, bench.seconds))
        before = server.process.cpu()
        # The flood begins before the requests, and ends after them.
        crowd = bench.client_started(
            server, "hellos", "--seconds", bench.seconds + 1, "--threads", FLOOD
        )
        time.sleep(0.5)
        beside = bench.client_result(kept_requests(bench, server, bench.seconds))
        crowd = bench.client_result(crowd)
        spent = server.process.cpu() - before
        wrong = [one for one in (alone, beside, crowd) if one["failed"]]
        if wrong:
            raise Failed(f"{wrong[0]['failed']} failed: {wrong[0]['why']}")
        return {
            "beside_p99_ms": beside["p99_us"] / 1000,
            "beside_p50_ms": beside["p50_us"] / 1000,
            "alone_p99_ms": alone["p99_us"] / 1000,
            "rate": crowd["done"] / crowd["seconds"],
            "handshake_p99_ms": crowd["p99_us"] / 1000,
            "cpu_us": 1e6 * spent / crowd["done"],
        }

    for server in up:
        bench.client(server, "handshakes", "--seconds", 0.5)
    rows = bench.interleaved(up, measure) + failed
    for server in up:
        bench.stop(server)
    return rows


def kept_requests(bench, server, seconds):
    arguments = ["--seconds", seconds, "--connections", KEPT, "--every", PACE]
    # Before the flood's clients on their core, so that it is the server that is measured.
    return bench.client_started(server, "requests", *arguments, first=True)


def requests(bench, kinds, version, body):
    """Requests on kept connections, as h2load makes them, with answers of the server's own."""
    up, failed = bench.up(kinds, Case(bench.certificates(1), body=body))
    rows = bench.interleaved(up, lambda server: load(bench, server, version)) + failed
    for server in up:
        bench.stop(server)
    return with_ratios(rows, "cpu_us")


def proxied(bench, kinds, version, exchange):
    """Requests on kept connections, as h2load makes them, with answers of an upstream."""
    case = start_upstream(bench, *PROXIED[exchange])
    up, failed = bench.up(kinds, case)
    rows = bench.interleaved(up, lambda server: load(bench, server, version)) + failed
    for server in up:
        bench.stop(server)
    if bench.counter == "callgrind":
        of = {kind.name: kind for kind in kinds}
        for row in [row for row in rows if "why" not in row]:
            kind = of[row["server"]]
            if kind.can_simulate:
                row["instructions"] = simulate_instructions(bench, kind, case, version)
    bench.stop_all()
    with_ratios(rows, "rate", "rate_of_nginx")
    with_ratios(rows, "instructions", "instructions_of_nginx")
    return with_ratios(rows, "cpu_us")


def paced(bench, kinds, version, exchange):
    """Requests at a fixed rate, on kept connections, with answers of an upstream."""
    up, failed = bench.up(kinds, start_upstream(bench, *PROXIED[exchange]))
    every = 1_000_000 * CONNECTIONS // RATE
    arguments = ["--connections", CONNECTIONS, "--every", every, "--http", version]

    def measure(server):
        before = server.process.cpu()
        result = bench.client(server, "requests", "--seconds", bench.seconds, *arguments)
        spent = server.process.cpu() - before
        if result["failed"]:
            raise Failed(f"{result['failed']} requests failed: {result['why']}")
        return {
            "p50_us": result["p50_us"],
            "p99_us": result["p99_us"],
            "cpu_us": 1e6 * spent / result["done"],
        }

    rows = bench.interleaved(up, measure) + failed
    bench.stop_all()
    for key in ("p50", "p99"):
        with_ratios(rows, f"{key}_us", f"{key}_of_nginx")
    return rows


def start_upstream(bench, upload, body):
    """Starts an upstream that takes so many octets and answers with so many. The case of a server
    in front of it."""
    case = Case(bench.certificates(1), body=body, upload=upload)
    upstream = bench.server(servers.Upstream, case)
    bench.running.append(upstream)
    upstream.start()
    wait_for_port(upstream)
    address = f"127.0.0.1:{upstream.port}"
    return Case(case.certificates, body=body, upload=upload, upstream=address)


def wait_for_port(server):
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise Failed(f"{server.name} does not listen: {server.process.tail()}")


def load(bench, server, version):
    """Requests for some time: what each costs, and how many there are in a second."""
    body, upload = server.case.body, server.case.upload
    counts = bench.counter == "perf" and server.case.upstream
    before = server.process.cpu()
    with server.process.counted() if counts else nullcontext([]) as instructions:
        done, rate = run_h2load(bench, server, version, "-D", bench.seconds)
    spent = server.process.cpu() - before
    figures = {
        "cpu_us": 1e6 * spent / done,
        "rate": rate,
        "cpu_s_per_10000": 1e4 * spent / done,
        "busy": rate * spent / done,
        "mb_s": rate * max(body, upload) / 1e6,
    }
    if instructions:
        figures["instructions"] = instructions[0] / done
    return figures


def run_h2load(bench, server, version, *extent):
    """Runs h2load: how many requests were answered, and how many in a second."""
    body, upload = server.case.body, server.case.upload
    command = ["h2load", "-t", 1, "-c", CONNECTIONS, *extent]
    command += ["--h1"] if version == 1 else ["-m", STREAMS]
    if upload:
        file = bench.directory / "upload"
        file.write_text("x" * upload)
        command += ["-d", file]
    command += [f"--connect-to=127.0.0.1:{server.port}", f"https://{host(1)}/"]
    said = output(pinned(CLIENT_CORE, command), bench.seconds + 60)
    numbers = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", said)
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", said)
    octets = re.search(r"traffic: .*?, .*\((\d+)\) data", said)
    if not (numbers and rate and octets):
        raise Failed(f"h2load said: {said[-300:]}")
    done, wrong = int(numbers[1]), int(numbers[2]) + int(numbers[3])
    other = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    wrong += sum(map(int, other.groups()[1:]))
    if done == 0 or wrong > 0:
        raise Failed(f"{wrong} requests failed, {done} succeeded")
    if int(octets[1]) < 0.98 * done * body:
        raise Failed(f"answers are too short: {octets[1]} octets in {done}")
    return done, float(rate[1])


def simulate_instructions(bench, kind, case, version):
    """Instructions of a request, in user mode, on the processor that callgrind simulates: what a
    longer run takes more than a shorter one. Nothing where that does not work."""
    counts = []
    for number in COUNTED:
        server = bench.server(kind, case)
        server.under = machine.CALLGRIND
        try:
            bench.start(server)
            run_h2load(bench, server, version, "-n", number)
            server.process.stop(server.stop_signal, patience=30)
            counts.append(server.process.simulated_instructions())
        except Failed as why:
            bench.say(f"{kind.name}: instructions are not counted: {why}")
            return None
        finally:
            bench.stop(server)
    return (counts[1] - counts[0]) / (COUNTED[1] - COUNTED[0])


def idle(bench, kinds, count):
    """Memory of kept connections that have had one request each."""
    case = Case(bench.certificates(1))
    rows = []
    for kind in kinds:
        try:
            server = bench.server(kind, case)
            bench.start(server)
            # What is set up once, at the first connections.
            for _ in range(3):
                bench.client(server, "handshakes", "--seconds", 0.2)
            before = server.process.settled_memory()
            client = bench.client_started(server, "idle", "--connections", count)
            if client.stdout.readline().strip() != "ready":
                raise Failed(f"the client failed: {client.communicate()[1][-300:]}")
            open_ = server.process.settled_memory()
            client.communicate("\n")
            after = server.process.settled_memory()
            rows.append(
                {
                    "server": kind.name,
                    "kib": (open_ - before) / count / 1024,
                    "empty_mib": before / 2**20,
                    "after_mib": after / 2**20,
                }
            )
            bench.stop(server)
        except Failed as why:
            rows.append({"server": kind.name, "why": str(why)})
            bench.stop_all()
    return with_ratios(rows, "kib")


def sites(bench, kinds, count):
    """So many sites: start, memory, handshakes for any of them, one certificate replaced."""
    case = Case(bench.certificates(count), sites=count)
    rows = []
    for kind in kinds:
        if kind in bench.given_up:
            rows.append({"server": kind.name, "why": bench.given_up[kind]})
            continue
        if bench.is_late():
            rows.append({"server": kind.name, "why": "no time left"})
            continue
        bench.say(f"{kind.name}, {count:,} sites")
        row = {"server": kind.name}
        rows.append(row)
        try:
            server = bench.server(kind, case)
            row["start_s"] = bench.start(server)
            if issubclass(kind, servers.Snigate):
                row["ready_s"] = bench.ready(server, 10 * bench.limit)
                server.stop()
                row["warm_start_s"] = bench.start(server)
                row["warm_ready_s"] = bench.ready(server, bench.limit)
            row["memory_mib"] = server.process.settled_memory() / 2**20
            row["random"] = one_round(bench, server, sites=count)["cpu_us"]
            row["after_mib"] = server.process.settled_memory() / 2**20
            row.update(renewed(bench, server))
        except Failed as why:
            row["why"] = str(why)
            bench.given_up[kind] = f"given up: {why} at {count:,}"
        bench.stop_all()
    return rows


def renewed(bench, server):
    """One certificate replaced: how long until it is served, and how many handshakes failed."""
    case = server.case
    watch = bench.client_started(
        server, "change", "--seconds", bench.limit, "--sites", case.sites, "--ca", bench.root(case)
    )
    if watch.stdout.readline().strip() != "watching":
        raise Failed(f"the client failed: {watch.communicate()[1][-300:]}")
    bench.make(case.certificates.parent, 1, first=1)
    replaced = case.file(1).stat().st_ctime
    server.renew(1)
    result = bench.client_result(watch, bench.limit + 60)
    if result["at"] is None:
        raise Failed(f"a replaced certificate is not served in {bench.limit:.0f} s")
    return {
        "change_s": max(0.0, result["at"] - replaced),
        "failed": result["failed"],
        "longest_ms": result["max_us"] / 1000,
    }


def ours(kinds):
    return [kind for kind in kinds if issubclass(kind, servers.Snigate)]


def on_demand(bench, kinds):
    """New names at a steady pace, each with a certificate made in its handshake, and what that
    does to handshakes for a name that has one."""
    rows = []
    for kind in ours(kinds):
        row = {"server": kind.name}
        rows.append(row)
        try:
            server = bench.server(servers.SnigateOnDemand, Case(bench.certificates(1)))
            bench.running.append(server)
            server.start()
            # Its root is made before its first handshake.
            bench.client(server, "first", "--seconds", bench.limit)
            row.update(new_names(bench, server))
        except Failed as why:
            row["why"] = str(why)
        bench.stop_all()
    return rows


def new_names(bench, server):
    root = server.root()
    other = f"known.{DOMAIN}"
    # Its certificate is made, and what is set up once.
    bench.client(server, "handshakes", "--seconds", 1, "--ca", root, name=other)

    def measure(rate, batch):
        before = server.process.cpu()
        arguments = ["--seconds", bench.seconds, "--rate", rate, "--other", other]
        arguments += ["--every", 5000, "--threads", 32, "--ca", root]
        result = bench.client(server, "new", *arguments, name=f"n{{}}-{batch}.{DOMAIN}")
        failed = result["new"]["failed"] + result["others"]["failed"]
        if failed:
            why = result["new"]["why"] or result["others"]["why"]
            raise Failed(f"{failed} handshakes failed: {why}")
        return result, server.process.cpu() - before

    seen = []
    for batch in range(bench.rounds):
        alone, idle_cpu = measure(0, batch)
        both, cpu = measure(NEW_NAMES, batch)
        made = both["new"]["done"]
        seen.append(
            {
                "rate": made / both["new"]["seconds"],
                "cpu_us": 1e6 * (cpu - idle_cpu) / max(made, 1),
                "new_p99_ms": both["new"]["p99_us"] / 1000,
                "alone_p99_ms": alone["others"]["p99_us"] / 1000,
                "beside_p99_ms": both["others"]["p99_us"] / 1000,
            }
        )
    return medians(seen)


def many(bench, kinds, count):
    """Ours alone, at a number that no other serves on a small machine."""
    rows = []
    one = Case(bench.certificates(1))
    for kind in ours(kinds):
        row = {"server": kind.name}
        rows.append(row)
        try:
            server = bench.server(kind, one)
            bench.start(server)
            bench.client(server, "handshakes", "--seconds", 1)
            empty = server.process.settled_memory()
            base = one_round(bench, server)
            bench.stop(server)
            case = Case(bench.certificates(count), sites=count)
            server = bench.server(kind, case)
            row["start_s"] = bench.start(server)
            row["ready_s"] = bench.ready(server, 900)
            server.stop()
            row["warm_start_s"] = bench.start(server)
            row["warm_ready_s"] = bench.ready(server, 300)
            memory = server.process.settled_memory(60)
            row["memory_mib"] = memory / 2**20
            row["octets_a_site"] = (memory - empty) / count
            cold = one_round(bench, server, sites=count)
            row["cold_cpu_us"] = cold["cpu_us"]
            # A hundred of the names until they are warm.
            one_round(bench, server, sites=100, seconds=1)
            warm = one_round(bench, server, sites=100)
            row["warm_cpu_us"], row["one_site_cpu_us"] = warm["cpu_us"], base["cpu_us"]
            row["after_mib"] = server.process.settled_memory() / 2**20
            row.update(renewed(bench, server))
        except Failed as why:
            row["why"] = str(why)
        bench.stop_all()
    return rows
