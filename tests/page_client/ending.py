"""Chapters "Moving and closing", "Keeping the connection", "Streams and datagrams" of the page."""

import asyncio
import json
import os
import signal

import codec
from client import Client
from rule import STREAMS, refused, rule


def webtransport_code(code):
    """A code of the table as WebTransport writes it for streams (draft 02, section 4.3)."""
    return 0x52E4A40FA8DB + code + code // 0x1E


async def ends_after(node, wire, misdeed):
    a = await node.client(wire, node.user("a"))
    misdeed(a.link.protocol)
    a.link.protocol.transmit()
    return await a.closed()


@rule("close-answered", "close-number")
async def a_close_is_answered(node, wire):
    a = await node.client(wire, node.user("a"))
    await a.send({"type": "close", "code": 4000, "reason": "enough"})
    close, code = await a.closed()
    assert close["code"] == 0 and code == (1000 if wire in ("json", "binary") else 0)


@rule("control-stream-end", wires=STREAMS)
async def a_control_stream_that_ends(node, wire):
    def stopped(protocol):
        protocol._quic.stop_stream(protocol.control, 77)
        protocol.write(codec.encode({"type": "ping"}))

    assert await ends_after(node, wire, lambda protocol: protocol.write(b"", end=True)) == (None, 0)
    assert await ends_after(node, wire, lambda protocol: protocol._quic.reset_stream(protocol.control, 77)) == (None, 0)
    assert await ends_after(node, wire, stopped) == (None, 0)
    close, code = await ends_after(node, wire, lambda protocol: protocol.write(b"\x05\x06", end=True))
    assert close["code"] == code == 4000
    client = Client(node, await node.link(wire, control=False), "mute")
    assert await client.closed() == (None, 4005)


@rule("wt-end", wires=("webtransport",))
async def a_webtransport_session_that_ends(node, wire):
    assert await ends_after(node, wire, lambda protocol: protocol.http.send_data(protocol.session, b"", True)) == (None, 0)
    assert await ends_after(node, wire, lambda protocol: protocol.stop(4000)) == (None, 0)


@rule("one-control-stream", wires=STREAMS)
async def other_streams_of_the_client(node, wire):
    a = await node.client(wire, node.user("a"))
    protocol = a.link.protocol
    for unidirectional in (True, False):
        stream = protocol.another(b"\x01", unidirectional)
        while stream not in protocol.stopped:
            await a.quiet()
        code = 4004 if wire == "quic" else webtransport_code(4004)
        assert protocol.stopped[stream] == code, protocol.stopped
    await a.quiet()


@rule("stream-kinds", "stream-stopped", wires=STREAMS)
async def entries_come_on_streams_of_their_own(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    where = (await a.said(b.user, "one"))["conversation"]
    await b.entry(where, 1)
    assert b.link.lane == (1, where)
    await b.sync()
    lanes = b.link.protocol.lanes
    assert (1, where) in lanes and (3, None) in lanes, lanes
    # A stream that the client stops: what follows comes on another.
    protocol = b.link.protocol
    stream = next(name for name, reader in protocol.readers.items() if reader[0] == (1, where))
    protocol._quic.stop_stream(stream, 0)
    protocol.transmit()
    await b.quiet()
    # What was written to it is dropped, and said so; then entries come on another.
    await a.said(b.user, "two")
    lagged = await b.take("lagged")
    assert (lagged["conversation"], lagged["head"]) == (where, 2)
    page = await b.ask({"type": "fetch", "conversation": where, "after": 1})
    b.log(where).entry(page["entries"][0])
    await a.said(b.user, "three")
    await b.entry(where, 3)
    assert b.link.lane == (1, where)


@rule("bad-datagrams", wires=STREAMS)
async def broken_datagrams(node, wire):
    a = await node.client(wire, node.user("a"))
    typing = codec.encode({"type": "typing", "to": "bob"})
    for data, code in ((b"", 4000), (typing[:-1], 4000), (typing + typing, 4000), (codec.raw(999, 1, None, b""), 4001),
                       (codec.encode({"type": "ping", "nonce": 1}), 4000), (codec.raw(50, 0, None, b"\0\0"), 4000)):
        a.link.protocol.write_datagram(data)
        refused(await a.take("error"), code)
    a.link.protocol.write_datagram(codec.raw(999, 0, None, b""))
    a.link.protocol.write_datagram(typing)
    assert not await a.quiet()


@rule("go-away", "go-away-both", "go-away-end", needs="leaving")
async def a_node_that_goes_away_says_so(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    os.kill(int(node.ready["pid"]), signal.SIGTERM)
    told = await a.take("go_away")
    assert told["spread_ms"] <= told["deadline_ms"] and told["target"] is None, told
    # Both count until then.
    ack = await a.said(b.user, "still here")
    await b.entry(ack["conversation"], 1)
    for client in (a, b):
        close, code = await client.closed()
        assert close["code"] == code and close["code"] in (4200, 4202), close


async def mute_websocket(node):
    """A WebSocket by hand, since every library answers pings: says hello and nothing more. What came then."""
    host, port = node.http
    reader, writer = await asyncio.open_connection(host, port)
    writer.write((f"GET /v1/connect HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
    await reader.readuntil(b"\r\n\r\n")
    hello = json.dumps({"type": "hello", "token": node.token(node.user("mute"))}).encode()
    writer.write(bytes([0x81, 0xFE]) + len(hello).to_bytes(2, "big") + bytes(4) + hello)
    came = []
    while True:
        head = await reader.readexactly(2)
        length = head[1] if head[1] < 126 else int.from_bytes(await reader.readexactly(2), "big")
        body = await reader.readexactly(length)
        kind = {1: "text", 8: "end", 9: "ping"}[head[0] & 15]
        came.append(json.loads(body) if kind == "text" else kind)
        if kind == "end":
            writer.close()
            return came, int.from_bytes(body[:2], "big")


@rule("silence", "silence-ping", needs="lively", wires=("json", "binary"))
async def who_says_nothing_is_closed_and_who_answers_is_not(node, wire):
    answering, pinging = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    limits = pinging.welcome["limits"]
    assert (limits["keepalive_s"], limits["dead_after_s"]) == (1, 7)
    mute = asyncio.create_task(mute_websocket(node))
    listening = asyncio.create_task(answering.take("deliver"))  # the library answers pings while it listens
    while not mute.done():
        await asyncio.sleep(limits["keepalive_s"] / 2)
        await pinging.quiet()
    came, code = await mute
    assert [frame if isinstance(frame, str) else frame["type"] for frame in came] == ["welcome", "ping", "close", "end"]
    assert came[2]["code"] == code == 4303
    await pinging.said(answering.user, "still there?")
    await listening


@rule("silence", needs="lively", wires=STREAMS)
async def a_session_without_a_word_ends_on_quic_too(node, wire):
    mute, pinging = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    end = asyncio.create_task(mute.closed())
    while not end.done():
        await asyncio.sleep(0.5)
        await pinging.quiet()
    close, _ = await end
    assert close is None or close["code"] == 4303  # or the connection has gone first
