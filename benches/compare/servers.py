"""The servers that are compared, each set up in the way that suits it best. Where a setting
differs from a server's default, the reason stands beside it."""

import json
import os
import re
import signal
import socket
import subprocess
import textwrap
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from machine import DESCRIPTORS, Failed, Processes, free_port, output

# What all have in common: TLS 1.2 and 1.3, X25519 then P-256, session tickets, no access log, no
# HTTP/3, one thread on one core, kept connections that are not closed after some number of
# requests. Certificates are the same files.
SERVER_CORE = 0
CLIENT_CORE = SERVER_CORE + 1
# The upstream shares the client's core where there is no third.
UPSTREAM_CORE = min(SERVER_CORE + 2, os.cpu_count() - 1)
DOMAIN = "bench.example"

# Idle connections to an upstream that a server keeps: as many as there are requests at once.
KEPT_CONNECTIONS = 256


def host(number):
    return f"s{number:06}.{DOMAIN}"


class Case:
    """What a server is to serve: the first `sites` of the certificates, answers of `body` octets
    of its own, or an upstream's, to requests with `upload` octets."""

    def __init__(self, certificates, sites=1, body=1024, upload=0, upstream=None):
        self.certificates = certificates
        self.sites = sites
        self.body = body
        self.upload = upload
        self.upstream = upstream

    def files(self):
        return [self.file(number) for number in range(1, self.sites + 1)]

    def file(self, number):
        return self.certificates / f"{host(number)}.pem"


class Server:
    """One server, in a directory and on ports of its own."""

    name = ""
    # Said where the table does.
    note = ""

    def __init__(self, directory, case):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.case = case
        self.port = free_port()
        self.process = None
        self.configure()

    def body(self):
        """The answer, as a file."""
        path = self.directory / "body.txt"
        path.write_text("x" * self.case.body)
        return path

    def write(self, name, text):
        path = self.directory / name
        path.write_text(textwrap.dedent(text).lstrip())
        return path

    def configure(self):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def start(self):
        log = self.directory / "log"
        command = [*self.under, *self.command()]
        self.process = Processes(command, SERVER_CORE, log, self.environment())

    # What runs the command, with its arguments.
    under = ()

    # Whether callgrind can run it.
    can_simulate = True

    def environment(self):
        return {}

    def stop(self):
        if self.process:
            self.process.stop(self.stop_signal)
            self.process = None

    stop_signal = signal.SIGTERM

    def renew(self, number):
        """Makes the server take the certificate of one site, which has been replaced."""
        raise NotImplementedError

    @classmethod
    def version(cls):
        raise NotImplementedError


class Snigate(Server):
    name = "Snigate"
    binary = None

    def configure(self):
        self.admin = free_port()
        self.config = self.directory / "snigate.yaml"
        self.config.write_text(self.text())

    def sites(self):
        return [f'- hosts: ["*.{DOMAIN}"]']

    def answer(self):
        if self.case.upstream:
            return "upstream: app"
        body = "x" * self.case.body
        return f'routes: [{{ respond: {{ status: 200, body: "{body}" }} }}]'

    def source(self):
        if self.case.sites == len(os.listdir(self.case.certificates)):
            return f"- directory: {self.case.certificates}"
        return "\n".join(f"- files: {{ cert: {file} }}" for file in self.case.files())

    def text(self):
        upstream = ""
        if self.case.upstream:
            upstream = f'upstreams: {{ app: {{ servers: ["{self.case.upstream}"] }} }}\n'
        sites = "".join(f"  {site}\n    {self.answer()}\n" for site in self.sites())
        return (
            "server:\n"
            f'  https: ["127.0.0.1:{self.port}"]\n'
            "  http: []\n"
            f'  admin: "127.0.0.1:{self.admin}"\n'
            "  threads: 1\n"
            "tls:\n"
            # Not the default, which prefers X25519MLKEM768: the others have no such group.
            "  groups: [X25519, P-256]\n"
            f"storage: {{ file: {{ path: {self.directory}/data }} }}\n"
            "log: { level: warn, access: off }\n"
            "certificates:\n"
            + textwrap.indent(self.source(), "  ")
            + "\n"
            + upstream
            + "sites:\n"
            + sites
        )

    def command(self):
        return [self.binary, "run", "--config", self.config]

    def renew(self, number):
        """Nothing: it watches its files."""

    def is_ready(self):
        """Whether all certificates are loaded."""
        try:
            said = urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5)
        except HTTPError as error:
            # What it says may also be that no certificate is for the wildcard of the site.
            said = error
        except OSError:
            return False
        return b"certificates loaded" not in said.read()

    @classmethod
    def version(cls):
        return output([cls.binary, "--version"]).strip()


class SnigateCache(Snigate):
    """With certificates left in their files until somebody asks for them."""

    name = "Snigate, certificates_in_memory: cache"

    def text(self):
        return "certificates_in_memory: cache\n" + super().text()


class SnigateEntries(Snigate):
    """With an entry of its own in the configuration for each site."""

    name = "Snigate, an entry for each site"

    def text(self):
        # A file has at most 16 MiB.
        entries = self.directory / "sites.d"
        entries.mkdir(exist_ok=True)
        step = 20_000
        for first in range(1, self.case.sites + 1, step):
            last = min(first + step, self.case.sites + 1)
            lines = (f"- {{ hosts: [{host(n)}], {self.entry()} }}\n" for n in range(first, last))
            (entries / f"{first:07}.yaml").write_text("sites:\n" + "".join(lines))
        return f'include: ["{entries}/*.yaml"]\n' + super().text().replace("sites:\n", "")

    def entry(self):
        return 'routes: [{ respond: { status: 200, body: "hello" } }]'

    def sites(self):
        return []


class SnigateOnDemand(Snigate):
    """With certificates on demand from its own CA."""

    def source(self):
        return "[]"

    def text(self):
        return super().text() + (
            "issuers: { local: { local_ca: {} } }\n"
            f'on_demand: {{ issuer: local, allow: ["*.{DOMAIN}"], limits: {{ per_minute: 100000 }} }}\n'
        )

    def root(self):
        """Its root certificate, as a file."""
        text = output([self.binary, "ca", "root", "--config", self.config])
        return self.write("root.pem", text)


class Pingora(Server):
    """Pingora alone, without any of Snigate. It only passes requests on."""

    name = "Pingora"
    binary = None
    # At a SIGTERM it takes minutes to end.
    stop_signal = signal.SIGINT

    def configure(self):
        """Nothing: it has arguments."""

    def command(self):
        listen = f"127.0.0.1:{self.port}"
        return [self.binary, listen, self.case.upstream, self.case.file(1)]

    @classmethod
    def version(cls):
        lock = (Path(__file__).resolve().parents[2] / "Cargo.lock").read_text()
        version = re.search(r'name = "pingora-proxy"\nversion = "(.*)"', lock)[1]
        return f"Pingora {version}, OpenSSL of Snigate"


class Nginx(Server):
    name = "nginx"
    stop_signal = signal.SIGTERM

    def configure(self):
        self.body()
        self.config = self.write("nginx.conf", self.text())

    def location(self):
        if self.case.upstream:
            return (
                "location / { proxy_pass http://app; proxy_http_version 1.1; "
                'proxy_set_header Connection ""; }'
            )
        if self.case.body <= 4000:
            return f'location / {{ return 200 "{"x" * self.case.body}"; }}'
        # A parameter has at most 4,096 octets, so a file, held open.
        return (
            f"location / {{ root {self.directory}; try_files /body.txt =404; "
            "open_file_cache max=10; open_file_cache_valid 1h; }"
        )

    def servers(self):
        listen = f"listen 127.0.0.1:{self.port} ssl http2;"
        for number in range(1, self.case.sites + 1):
            file = self.case.file(number)
            yield (
                f"server {{ {listen} server_name {host(number)}; ssl_certificate {file}; "
                f"ssl_certificate_key {file}; {self.location()} }}\n"
            )

    def text(self):
        upstream = ""
        if self.case.upstream:
            # By default it opens a connection for each request. One that it keeps is closed after
            # 1,000 requests by default.
            upstream = (
                f"upstream app {{ server {self.case.upstream}; keepalive {KEPT_CONNECTIONS}; "
                "keepalive_requests 1000000000; }\n    "
                # By default a body of more than 16 KB goes through a file, and buffers for answers
                # have 4 KB: an upload costs more than twice as much, 100 KB a tenth to a quarter more.
                "client_body_buffer_size 128k; proxy_buffer_size 32k; proxy_buffers 4 32k; "
                "proxy_busy_buffers_size 96k;"
            )
        # The tables of names must be given for so many. A connection is closed after 1,000
        # requests by default.
        # Its workers read keys and bodies here, so they stay who they are.
        user = "user root;" if os.geteuid() == 0 else ""
        return f"""{user}
daemon off;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log warn;
worker_processes 1;
worker_rlimit_nofile {DESCRIPTORS};
events {{ worker_connections {DESCRIPTORS // 2}; }}
http {{
    access_log off;
    client_body_temp_path {self.directory}/body;
    proxy_temp_path {self.directory}/proxy;
    fastcgi_temp_path {self.directory}/fastcgi;
    uwsgi_temp_path {self.directory}/uwsgi;
    scgi_temp_path {self.directory}/scgi;
    sendfile on;
    keepalive_requests 1000000000;
    server_names_hash_max_size 4194304;
    server_names_hash_bucket_size 128;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:P-256;
    default_type text/plain;
    {upstream}
{"".join(self.servers())}}}
"""

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return path

    def command(self):
        return ["nginx", "-p", self.directory, "-c", self.config, "-e", self.directory / "error.log"]

    def renew(self, number):
        self.process.child.send_signal(signal.SIGHUP)

    @classmethod
    def version(cls):
        said = output(["nginx", "-V"])
        version = re.search(r"nginx/(\S+)", said)[1]
        running = re.search(r"running with (OpenSSL \S+)", said)
        built = re.search(r"built with (OpenSSL \S+)", said)
        return f"nginx {version}, {(running or built)[1]}"


class NginxVariable(Nginx):
    """One server for all names, which reads the certificate's file in each handshake."""

    name = "nginx, certificate by variable"

    def servers(self):
        file = f"{self.case.certificates}/$ssl_server_name.pem"
        yield (
            f"server {{ listen 127.0.0.1:{self.port} ssl http2; server_name _; "
            f'ssl_certificate "{file}"; ssl_certificate_key "{file}"; {self.location()} }}\n'
        )

    def renew(self, number):
        """Nothing: it reads the file each time."""


class Haproxy(Server):
    name = "HAProxy"

    def configure(self):
        self.socket = self.directory / "admin.sock"
        self.config = self.write("haproxy.cfg", self.text())

    def certificates(self):
        if self.case.sites == len(os.listdir(self.case.certificates)):
            return self.case.certificates
        chosen = self.directory / "certs"
        chosen.mkdir(exist_ok=True)
        for file in self.case.files():
            link = chosen / file.name
            if not link.exists():
                link.symlink_to(file)
        return chosen

    def text(self):
        # An answer of its own must fit a buffer, which has 16 KiB by default.
        bufsize = f"tune.bufsize {self.case.body + 8192}" if self.case.body > 8192 else ""
        if self.case.upstream:
            bufsize = ""
            action, backend = "default_backend app", f"""
        backend app
            server app {self.case.upstream}
"""
        else:
            file, backend = self.body(), ""
            action = f"http-request return status 200 content-type text/plain file {file}"
        return f"""
        global
            nbthread 1
            maxconn 8000
            stats socket {self.socket} level admin
            ssl-default-bind-options ssl-min-ver TLSv1.2
            tune.ssl.default-dh-param 2048
            {bufsize}
        defaults
            mode http
            timeout client 60s
            timeout http-keep-alive 60s
            timeout connect 5s
            timeout server 60s
        frontend edge
            bind 127.0.0.1:{self.port} ssl crt {self.certificates()} curves X25519:P-256 alpn h2,http/1.1
            {action}
{backend}"""

    def command(self):
        return ["haproxy", "-db", "-f", self.config]

    def renew(self, number):
        file = Path(self.certificates()) / self.case.file(number).name
        pem = self.case.file(number).read_text()
        # A value ends at the first empty line.
        pem = "".join(line for line in pem.splitlines(True) if line.strip())
        for command in (f"set ssl cert {file} <<\n{pem}\n", f"commit ssl cert {file}\n"):
            with socket.socket(socket.AF_UNIX) as admin:
                admin.settimeout(60)
                admin.connect(str(self.socket))
                admin.sendall(command.encode())
                said = b""
                while part := admin.recv(4096):
                    said += part
                if b"pdated" not in said and b"Success" not in said and b"created" not in said:
                    raise Failed(f"HAProxy: {said.decode(errors='replace').strip()}")

    @classmethod
    def version(cls):
        version = re.search(r"version (\S+)", output(["haproxy", "-v"]))[1]
        running = re.search(r"Running on OpenSSL version : (OpenSSL \S+)", output(["haproxy", "-vv"]))
        return f"HAProxy {version.split('-')[0]}, {running[1] if running else 'OpenSSL'}"


class Caddy(Server):
    name = "Caddy"
    # It fails on Go's runtime.
    can_simulate = False

    def configure(self):
        self.admin = free_port()
        case = self.case
        if case.upstream:
            # By default it keeps 32 connections.
            kept = {"max_idle_conns_per_host": KEPT_CONNECTIONS}
            handler = {
                "handler": "reverse_proxy",
                "upstreams": [{"dial": case.upstream}],
                "transport": {"protocol": "http", "keep_alive": kept},
            }
        else:
            handler = {"handler": "static_response", "status_code": 200, "body": "x" * case.body}
        if case.sites == len(os.listdir(case.certificates)):
            load = {"load_folders": [str(case.certificates)]}
        else:
            files = [{"certificate": str(file), "key": str(file)} for file in case.files()]
            load = {"load_files": files}
        config = {
            "admin": {"listen": f"127.0.0.1:{self.admin}", "config": {"persist": False}},
            "storage": {"module": "file_system", "root": str(self.directory / "data")},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {
                "http": {
                    "servers": {
                        "edge": {
                            "listen": [f"127.0.0.1:{self.port}"],
                            "protocols": ["h1", "h2"],
                            "automatic_https": {"disable": True},
                            "routes": [{"handle": [handler]}],
                            "tls_connection_policies": [{"curves": ["x25519", "secp256r1"]}],
                        }
                    }
                },
                # Beyond 10,000 it throws certificates out by default.
                "tls": {
                    "certificates": load,
                    "cache": {"capacity": 2 * case.sites + 100},
                    "automation": {"policies": []},
                },
            },
        }
        self.config = self.write("caddy.json", json.dumps(config))

    def environment(self):
        return {
            "GOMAXPROCS": "1",
            "XDG_DATA_HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory),
        }

    def command(self):
        return ["caddy", "run", "--config", self.config]

    def renew(self, number):
        # Forced, since the configuration is the same. It may take long; the client sees the end.
        with open(self.directory / "log", "ab") as log:
            subprocess.Popen(
                ["caddy", "reload", "--force", "--config", self.config]
                + ["--address", f"127.0.0.1:{self.admin}"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @classmethod
    def version(cls):
        return f"Caddy {output(['caddy', 'version']).split()[0]}, Go's TLS"


class Upstream(Nginx):
    """What all pass requests on to: nginx without TLS."""

    name = "upstream"

    def location(self):
        if not self.case.upload:
            return super().location()
        # `mirror` makes it read the whole body before it answers, without another request. A request
        # whose length has fewer digits has lost its body on the way.
        digits = len(str(self.case.upload))
        return f"""
        client_body_buffer_size {self.case.upload};
        location / {{ mirror /read; empty_gif; error_page 405 = @received; }}
        location = /read {{ internal; return 204; }}
        location @received {{
            if ($request_length !~ "^[0-9]{{{digits}}}") {{ return 400; }}
            return 200 "{"x" * self.case.body}";
        }}"""

    def servers(self):
        yield f"server {{ listen 127.0.0.1:{self.port}; {self.location()} }}\n"

    def start(self):
        self.process = Processes(self.command(), UPSTREAM_CORE, self.directory / "log")


ALL = [Snigate, Pingora, Nginx, Haproxy, Caddy]
