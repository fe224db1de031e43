"""Requests of an application: httpx_client.py FUNCTION VERSION PORT PLAIN_PORT ROOT.

Each function asks for something else. Ends with an error where an answer is not what it has to be.
"""

import asyncio
import hashlib
import random
import socket
import ssl
import sys
import time

import brotli  # noqa: F401 -- without it httpx does not ask for this coding
import h11
import h2.config
import h2.connection
import h2.events
import httpx
import zstandard

FUNCTION, VERSION, PORT, PLAIN_PORT, ROOT = sys.argv[1:]
BASE = f"https://a.test:{PORT}"

# Every name is at the gateway.
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: look_up("127.0.0.1", *rest, **more)

# Where all connections lead, in their order.
connections_to = []


class CountedSocket(socket.socket):
    def connect(self, address):
        connections_to.append(address)
        return super().connect(address)


socket.socket = CountedSocket


def options():
    return {
        "base_url": BASE,
        "verify": ROOT,
        "http2": VERSION == "2",
        "timeout": 30,
        "trust_env": False,
    }


def client():
    return httpx.Client(**options())


def check(response, status=200):
    assert response.status_code == status, (response, response.headers, response.read()[:500])
    assert response.http_version == f"HTTP/{VERSION}", response.http_version


def put(session, path, content):
    response = session.put(path, content=content)
    check(response, response.status_code)
    assert response.status_code in (201, 204), response


def parts(seed, count):
    source = random.Random(seed)
    for _ in range(count):
        yield source.randbytes(64 * 1024)


def digest(octets):
    sha = hashlib.sha256()
    for part in octets:
        sha.update(part)
    return sha.hexdigest()


def bodies():
    """Uploads without a length and with one, which come back as they were."""
    with client() as session:
        start = time.monotonic()
        for name, count in [("empty", 0), ("small", 1), ("large", 128)]:
            path = f"/files/{name}-{VERSION}"
            put(session, path, parts(name, count))
            with session.stream("GET", path) as response:
                check(response)
                assert digest(response.iter_raw()) == digest(parts(name, count)), name
        whole = b"".join(parts("whole", 16))
        put(session, "/files/whole", whole)
        assert session.get("/files/whole").content == whole
        part = session.get("/files/whole", headers={"Range": "bytes=1000-1999"})
        check(part, 206)
        assert part.content == whole[1000:2000]
        # One that is not read to its end costs the next request nothing.
        with session.stream("GET", f"/files/large-{VERSION}") as response:
            next(response.iter_raw())
        check(session.head("/files/whole"))
        print(f"17 MiB in {time.monotonic() - start:.2f} s")


def redirects():
    """Those of the server, those of the gateway, and the one to HTTPS."""
    with client() as session:
        session.follow_redirects = True
        text = session.get("/files/text").text
        for url, statuses in [
            ("/moved", [302]),
            ("/old", [308]),
            (f"http://a.test:{PLAIN_PORT}/files/text?x=y", [308]),
        ]:
            response = session.get(url)
            check(response)
            seen = [(one.status_code, one.headers["location"]) for one in response.history]
            assert [status for status, _ in seen] == statuses, (url, seen)
            assert response.text == text, (url, seen)
            assert str(response.url).startswith(f"{BASE}/files/text"), response.url
        assert str(response.url).endswith("?x=y"), response.url
        # The method and the body stay.
        response = session.put("/kept", content=b"kept")
        assert response.status_code in (201, 204), response
        assert [one.status_code for one in response.history] == [307]
        assert session.get("/files/kept").content == b"kept"


def codings():
    """Those that the gateway applies, and the server's own."""
    with client() as session:
        plain = session.get("/compress/text", headers={"Accept-Encoding": "identity"})
        check(plain)
        assert "content-encoding" not in plain.headers
        for path, coding in [
            ("/compress/text", "gzip"),
            ("/compress/text", "br"),
            ("/gzip/text", "gzip"),
        ]:
            with session.stream("GET", path, headers={"Accept-Encoding": coding}) as response:
                check(response)
                assert response.headers["content-encoding"] == coding, response.headers
                assert "accept-encoding" in response.headers.get("vary", "").lower() or (
                    path == "/gzip/text"
                )
                assert response.read() == plain.content, (path, coding)
                assert response.num_bytes_downloaded < len(plain.content) / 2
        with session.stream("GET", "/compress/text", headers={"Accept-Encoding": "zstd"}) as one:
            check(one)
            assert one.headers["content-encoding"] == "zstd", one.headers
            decoder = zstandard.ZstdDecompressor().decompressobj()
            assert b"".join(map(decoder.decompress, one.iter_raw())) == plain.content
        # What httpx asks for by itself.
        response = session.get("/compress/text")
        assert response.headers["content-encoding"] in ("gzip", "br", "zstd")
        assert response.content == plain.content


def events():
    """Each comes when it was sent, not with the last."""
    with client() as session, session.stream("GET", "/events") as response:
        check(response)
        assert response.headers["content-type"] == "text/event-stream"
        start, times = time.monotonic(), {}
        for line in response.iter_lines():
            if line.startswith("id: "):
                times[line[4:].strip()] = time.monotonic() - start
        assert list(times) == ["0", "1", "2", "3"], times
        assert times["3"] - times["0"] > 1.5, times
        assert times["3"] - times["1"] > 0.5, times
        print("events after", ", ".join(f"{at:.2f} s" for at in times.values()))


def connections():
    """All go over the first connection."""
    with client() as session:
        start = time.monotonic()
        for number in range(300):
            if number % 3 == 0:
                put(session, "/files/small", parts(number, 1))
            else:
                check(session.get(["/files/text", "/"][number % 2]))
        assert len(connections_to) == 1, connections_to
        print(f"300 requests in {time.monotonic() - start:.2f} s")


def concurrency():
    """A hundred at a time, on one connection where the version allows it."""

    async def run():
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(**options(), limits=limits) as session:
            text = (await session.get("/files/text")).content

            async def one(number):
                path = f"/files/{VERSION}-{number}"
                response = await session.put(path, content=str(number).encode())
                assert response.status_code in (201, 204), response
                assert (await session.get(path)).text == str(number)
                response = await session.get("/files/text")
                check(response)
                assert response.content == text

            await asyncio.gather(*map(one, range(100)))
            assert len(connections_to) <= (1 if VERSION == "2" else 20), connections_to

    start = time.monotonic()
    asyncio.run(run())
    print(f"300 requests in {time.monotonic() - start:.2f} s")


def trailers():
    """httpx reads over them. The libraries that it stands on have them."""
    with client() as session:
        text = session.get("/trailers/text").content
        assert text == session.get("/files/text").content
    context = ssl.create_default_context(cafile=ROOT)
    context.set_alpn_protocols(["http/1.1" if VERSION == "1.1" else "h2"])
    plain = socket.create_connection(("127.0.0.1", int(PORT)), timeout=30)
    with context.wrap_socket(plain, server_hostname="a.test") as connection:
        exchange = exchange_h11 if VERSION == "1.1" else exchange_h2
        body, fields = exchange(connection)
    assert body == text
    assert dict(fields) == {b"x-check": b"done"}, fields


def exchange_h11(connection):
    state, body = h11.Connection(h11.CLIENT), b""
    fields = [("Host", "a.test"), ("TE", "trailers"), ("Connection", "TE")]
    request = h11.Request(method="GET", target="/trailers/text", headers=fields)
    connection.sendall(state.send(request) + state.send(h11.EndOfMessage()))
    while True:
        event = state.next_event()
        if event is h11.NEED_DATA:
            state.receive_data(connection.recv(65536))
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return body, list(event.headers)


def exchange_h2(connection):
    config = h2.config.H2Configuration(header_encoding=None)
    state, body, trailing = h2.connection.H2Connection(config), b"", []
    state.initiate_connection()
    state.send_headers(
        1,
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a.test"),
            (":path", "/trailers/text"),
            ("te", "trailers"),
        ],
        end_stream=True,
    )
    while True:
        connection.sendall(state.data_to_send())
        for event in state.receive_data(connection.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                state.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.TrailersReceived):
                trailing = event.headers
            elif isinstance(event, h2.events.StreamEnded):
                return body, trailing
            assert not isinstance(event, h2.events.StreamReset), event


globals()[FUNCTION]()
