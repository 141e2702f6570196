"""The four wires of the page: each carries frames as dicts, says how it ended, and can be misused on purpose."""

import asyncio
import hashlib
import json
import ssl
from urllib.parse import urlsplit

import websockets
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StopSendingReceived, StreamDataReceived

import codec

# Whatever does not come within this time, in seconds, is missing.
PATIENCE = 20
# The kind of stream that names its conversation.
CONVERSATION = 1
CLOSE_CAPSULE = 0x2843


class Ended(Exception):
    """The wire ended instead of bringing a frame; `code` is the transport's own."""

    def __init__(self, code, reason=""):
        super().__init__(f"it ended: {code} {reason}")
        self.code, self.reason = code, reason


def trusting(pin):
    """A TLS context for a certificate that is known by its hash: that is looked at after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class WebSocket:
    """Frames over a WebSocket, in JSON or in binary."""

    def __init__(self, socket, binary):
        self.socket, self.binary, self.splitter, self.waiting = socket, binary, codec.Splitter(), []

    @classmethod
    async def open(cls, url, subprotocol, pin=None, **more):
        subprotocols = [subprotocol] if subprotocol else None
        # The server sends messages of up to 512 KiB; compression is not offered.
        more.setdefault("max_size", 512 * 1024)
        more.setdefault("ping_interval", None)
        tls = trusting(pin) if url.startswith("wss") else None
        socket = await websockets.connect(url, subprotocols=subprotocols, compression=None, ssl=tls, **more)
        if tls:
            certificate = socket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert hashlib.sha256(certificate).hexdigest() == pin, "another certificate"
        assert socket.subprotocol == subprotocol
        return cls(socket, subprotocol == "tern.v1")

    async def send(self, frame):
        await self.send_raw(codec.encode(frame) if self.binary else json.dumps(frame))

    async def send_raw(self, data):
        try:
            await self.socket.send(data)
        except websockets.ConnectionClosed:
            pass  # what came before the end is still to be read

    async def receive(self):
        while not self.waiting:
            try:
                message = await asyncio.wait_for(self.socket.recv(), PATIENCE)
            except websockets.ConnectionClosed as end:
                raise Ended(end.rcvd.code if end.rcvd else 1006, end.rcvd.reason if end.rcvd else "") from None
            if self.binary:
                assert isinstance(message, bytes)
                self.waiting += self.splitter.push(message)
                assert not self.splitter.waiting, "a message carries whole frames"
            else:
                assert isinstance(message, str)
                self.waiting.append(json.loads(message))
        return self.waiting.pop(0)

    async def end(self, code=None):
        await self.socket.close(code or 1000)


class Streams(QuicConnectionProtocol):
    """What native QUIC and WebTransport have in common: a control stream, streams of the server, datagrams."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.inbox, self.readers, self.lanes = asyncio.Queue(), {}, []
        self.stopped = {}

    def bytes_of(self, stream, data, fin, control):
        """Bytes of a stream of the session; `control`: the one on which the client speaks."""
        if stream not in self.readers:
            self.readers[stream] = [None if not control else (0, None), b"", codec.Splitter()]
        reader = self.readers[stream]
        if reader[0] is None:
            reader[1] += data
            need = 17 if reader[1][:1] == bytes([CONVERSATION]) else 1
            if len(reader[1]) < need:
                return
            kind, name = reader[1][0], codec.conversation_text(reader[1][1:17]) if need == 17 else None
            reader[0], data = (kind, name), reader[1][need:]
            self.lanes.append((kind, name))
        for frame in reader[2].push(data):
            self.inbox.put_nowait((frame, *reader[0]))

    def datagram(self, data):
        for frame in codec.Splitter().push(data):
            self.inbox.put_nowait((frame, "datagram", None))

    def over(self, code, reason):
        self.inbox.put_nowait(Ended(code, reason))


class Native(Streams):
    """QUIC itself."""

    control = None

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.bytes_of(event.stream_id, event.data, event.end_stream, event.stream_id == self.control)
        elif isinstance(event, DatagramFrameReceived):
            self.datagram(event.data)
        elif isinstance(event, StopSendingReceived):
            self.stopped[event.stream_id] = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.over(event.error_code, event.reason_phrase)

    def open_control(self):
        self.control = self._quic.get_next_available_stream_id()

    def write(self, data, end=False):
        self._quic.send_stream_data(self.control, data, end)
        self.transmit()

    def write_datagram(self, data):
        self._quic.send_datagram_frame(data)
        self.transmit()

    def another(self, data, unidirectional):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self._quic.send_stream_data(stream, data)
        self.transmit()
        return stream

    def stop(self, code):
        self._quic.close(error_code=code, frame_type=None, reason_phrase="")
        self.transmit()


class OverHttp3(Streams):
    """A WebTransport session."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.session, self.control, self.answer, self.capsules = None, None, asyncio.Queue(), b""

    def ask(self, url, headers):
        parts = urlsplit(url)
        self.session = self._quic.get_next_available_stream_id()
        self.http.send_headers(self.session, [
            (b":method", b"CONNECT"), (b":protocol", b"webtransport"), (b":scheme", b"https"),
            (b":authority", parts.netloc.encode()), (b":path", parts.path.encode()),
            (b"sec-webtransport-http3-draft02", b"1"), *headers])
        self.transmit()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            return self.over(event.error_code, event.reason_phrase)
        if isinstance(event, StopSendingReceived):
            self.stopped[event.stream_id] = event.error_code
        if isinstance(event, StreamDataReceived) and event.stream_id == self.control:
            # aioquic does not know that a stream of our own is one of the session.
            return self.bytes_of(event.stream_id, event.data, event.end_stream, True)
        for inner in self.http.handle_event(event):
            if isinstance(inner, HeadersReceived):
                self.answer.put_nowait(dict(inner.headers))
            elif isinstance(inner, WebTransportStreamDataReceived):
                self.bytes_of(inner.stream_id, inner.data, inner.stream_ended, inner.stream_id == self.control)
            elif isinstance(inner, DatagramReceived):
                self.datagram(inner.data)
            elif isinstance(inner, DataReceived) and inner.stream_id == self.session:
                self.capsules += inner.data
                self.look_for_the_end(inner.stream_ended)

    def look_for_the_end(self, ended):
        source = Quic62(self.capsules)
        while source.left():
            kind, body = source.number(), source.rest(source.number())
            if kind == CLOSE_CAPSULE:
                return self.over(int.from_bytes(body[:4], "big"), body[4:].decode())
        if ended:
            self.over(0, "the CONNECT stream ended")

    def open_control(self):
        self.control = self.http.create_webtransport_stream(self.session)

    def write(self, data, end=False):
        self._quic.send_stream_data(self.control, data, end)
        self.transmit()

    def write_datagram(self, data):
        self.http.send_datagram(self.session, data)
        self.transmit()

    def another(self, data, unidirectional):
        stream = self.http.create_webtransport_stream(self.session, is_unidirectional=unidirectional)
        self._quic.send_stream_data(stream, data)
        self.transmit()
        return stream

    def stop(self, code):
        body = code.to_bytes(4, "big")
        self.http.send_data(self.session, b"\x68\x43" + bytes([len(body)]) + body, True)
        self.transmit()


class Quic62:
    """Numbers as QUIC writes them: the top two bits of the first byte say how many bytes there are."""

    def __init__(self, data):
        self.data = data

    def left(self):
        return len(self.data)

    def number(self):
        count = 1 << (self.data[0] >> 6)
        return int.from_bytes(self.rest(count), "big") & (1 << 8 * count - 2) - 1

    def rest(self, count):
        taken, self.data = self.data[:count], self.data[count:]
        return taken


class Quic:
    """Frames over native QUIC or WebTransport."""

    binary = True

    def __init__(self, opened, protocol):
        self.opened, self.protocol, self.lane = opened, protocol, None

    @classmethod
    async def open(cls, host, port, pin, webtransport=None, headers=(), control=True):
        kind = OverHttp3 if webtransport else Native
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3" if webtransport else "tern/1"],
                                          verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536)
        opened = connect(host, port, configuration=configuration, create_protocol=kind)
        protocol = await opened.__aenter__()
        certificate = protocol._quic.tls._peer_certificate
        from cryptography.hazmat.primitives.serialization import Encoding
        assert hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest() == pin, "another certificate"
        link = cls(opened, protocol)
        if webtransport:
            protocol.ask(webtransport, headers)
            link.answer = await asyncio.wait_for(protocol.answer.get(), PATIENCE)
            if link.answer[b":status"] != b"200":
                return link
        if control:
            protocol.open_control()
        return link

    async def send(self, frame):
        self.protocol.write(codec.encode(frame))

    async def send_raw(self, data):
        self.protocol.write(data)

    async def receive(self):
        got = await asyncio.wait_for(self.protocol.inbox.get(), PATIENCE)
        if isinstance(got, Ended):
            self.protocol.inbox.put_nowait(got)
            raise got
        frame, kind, name = got
        self.lane = (kind, name)
        return frame

    async def end(self, code=0):
        self.protocol.stop(code or 0)
        self.opened = None if self.opened is None else await self.opened.__aexit__(None, None, None)
