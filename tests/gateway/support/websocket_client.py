"""A WebSocket and what it is for: websocket_client.py VERSION PORT ROOT.

Over HTTP/1.1 by the library websockets, over HTTP/2 (RFC 8441) by h2 and wsproto.
"""

import asyncio
import random
import socket
import ssl
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
import websockets
import wsproto.connection
import wsproto.events
import wsproto.extensions

VERSION, PORT, ROOT = sys.argv[1], int(sys.argv[2]), sys.argv[3]

# What compresses well, and what does not.
TEXTS = ["", "hello", "grüße " * 20_000]
OCTETS = [b"", b"\0", random.Random(1).randbytes(1_000_000)]
SHORT = 100


async def over_http1():
    context = ssl.create_default_context(cafile=ROOT)
    url = f"wss://a.test:{PORT}/chat"
    where = {"host": "127.0.0.1", "port": PORT, "ssl": context, "server_hostname": "a.test"}
    options = {"subprotocols": ["chat"], "max_size": None}
    async with websockets.connect(url, **where, **options) as connection:
        assert connection.subprotocol == "chat", connection.subprotocol
        for message in TEXTS + OCTETS:
            await connection.send(message)
            assert await connection.recv() == message
        pong = await connection.ping(b"are you there")
        await asyncio.wait_for(pong, 30)
        start = time.monotonic()
        for number in range(SHORT):
            await connection.send(str(number))
            assert await connection.recv() == str(number)
        print(f"{SHORT} messages in {time.monotonic() - start:.3f} s")
        # Several under way.
        for number in range(SHORT):
            await connection.send(str(number))
        assert [await connection.recv() for _ in range(SHORT)] == list(map(str, range(SHORT)))
        await connection.close(4321, "enough")
    assert connection.close_code == 4321, connection.close_code


class Http2Socket:
    """A WebSocket in stream 1 of a connection."""

    def __init__(self, connection):
        self.connection = connection
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.deflate = wsproto.extensions.PerMessageDeflate()
        self.websocket = None
        self.response = None
        self.has_ended = False
        self.events = []
        self.http.initiate_connection()
        self.flush()
        allowed = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        while self.http.remote_settings.get(allowed) != 1:
            self.receive()

    def flush(self):
        self.connection.sendall(self.http.data_to_send())

    def receive(self):
        octets = self.connection.recv(65536)
        assert octets, "the connection has ended"
        for event in self.http.receive_data(octets):
            if isinstance(event, h2.events.ResponseReceived):
                self.response = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.http.acknowledge_received_data(event.flow_controlled_length, 1)
                if event.data:
                    self.websocket.receive_data(event.data)
                self.events.extend(self.websocket.events())
            elif isinstance(event, h2.events.StreamEnded):
                self.has_ended = True
            assert not isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated))
        self.flush()

    def open(self):
        offer = "permessage-deflate; " + self.deflate.offer()
        self.http.send_headers(
            1,
            [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", f"a.test:{PORT}"),
                (":path", "/chat"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-protocol", "chat"),
                ("sec-websocket-extensions", offer),
            ],
        )
        self.flush()
        while self.response is None:
            self.receive()
        assert self.response[":status"] == "200", self.response
        assert self.response["sec-websocket-protocol"] == "chat", self.response
        assert "sec-websocket-accept" not in self.response, self.response
        self.deflate.finalize(self.response["sec-websocket-extensions"])
        kind = wsproto.connection.ConnectionType.CLIENT
        self.websocket = wsproto.connection.Connection(kind, extensions=[self.deflate])

    def send(self, event):
        octets = self.websocket.send(event)
        while octets:
            room = min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size)
            if room == 0:
                self.receive()
                continue
            self.http.send_data(1, octets[:room])
            octets = octets[room:]
            self.flush()

    def next(self):
        while not self.events:
            self.receive()
        return self.events.pop(0)

    def next_message(self):
        parts = []
        while True:
            event = self.next()
            assert isinstance(event, wsproto.events.Message), event
            parts.append(event.data)
            if event.message_finished:
                return type(event.data)().join(parts)


def message(data):
    kind = wsproto.events.TextMessage if isinstance(data, str) else wsproto.events.BytesMessage
    return kind(data=data)


def over_http2():
    context = ssl.create_default_context(cafile=ROOT)
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", PORT), timeout=30)
    with context.wrap_socket(plain, server_hostname="a.test") as connection:
        stream = Http2Socket(connection)
        stream.open()
        for data in TEXTS + OCTETS:
            stream.send(message(data))
            assert stream.next_message() == data
        stream.send(wsproto.events.Ping(payload=b"are you there"))
        assert stream.next() == wsproto.events.Pong(payload=b"are you there")
        start = time.monotonic()
        for number in range(SHORT):
            stream.send(message(str(number)))
            assert stream.next_message() == str(number)
        print(f"{SHORT} messages in {time.monotonic() - start:.3f} s")
        for number in range(SHORT):
            stream.send(message(str(number)))
        assert [stream.next_message() for _ in range(SHORT)] == list(map(str, range(SHORT)))
        stream.send(wsproto.events.CloseConnection(code=4321, reason="enough"))
        end = stream.next()
        assert isinstance(end, wsproto.events.CloseConnection), end
        assert end.code == 4321, end
        while not stream.has_ended:
            stream.receive()


if VERSION == "1.1":
    asyncio.run(over_http1())
else:
    over_http2()
