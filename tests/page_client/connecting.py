"""Chapters "Connecting", "Opening", "Tokens" of the page."""

import time

import websockets

from client import Client
from rule import refused, rule
from wires import Quic, WebSocket


async def handshake(node, url=None, **more):
    """The status of a WebSocket handshake."""
    try:
        socket = await websockets.connect(url or node.ready["websocket_url"], compression=None, **more)
    except websockets.InvalidStatus as refusal:
        return refusal.response.status_code
    await socket.close()
    return 101


@rule("connect-subprotocol", wires=("json",))
async def websocket_subprotocols(node, wire):
    assert await handshake(node, subprotocols=["tern.v1.json"]) == 101
    assert await handshake(node, subprotocols=["tern.v2", "tern.v1"]) == 101
    assert await handshake(node) == 101
    assert await handshake(node, subprotocols=["tern.v2"]) == 400
    # No subprotocol means JSON.
    client = Client(node, await WebSocket.open(node.ready["websocket_url"], None), node.user("plain"))
    await client.send({"type": "hello", "token": node.token(client.user)})
    assert (await client.take("welcome"))["user"] == client.user


@rule("connect-subprotocol", "wt-protocols", wires=("webtransport",))
async def webtransport_subprotocols(node, wire):
    url = node.ready["webtransport_url"]
    for offered, status, spoken in (
        (None, b"200", None),
        (b'"tern.v1"', b"200", b'"tern.v1"'),
        (b'"tern.v2", "tern.v1";q=1', b"200", b'"tern.v1"'),
        (b'"tern.v2"', b"400", None),
        (b'"tern.v1.json"', b"400", None),
    ):
        headers = [(b"wt-available-protocols", offered)] if offered else []
        link = await Quic.open(*node.address, node.pin, url, headers)
        assert link.answer[b":status"] == status, (offered, link.answer)
        assert link.answer.get(b"wt-protocol") == spoken, (offered, link.answer)


@rule("connect-token-url", wires=("json",))
async def a_token_in_the_url_is_refused(node, wire):
    for name in ("token", "access_token", "jwt"):
        assert await handshake(node, node.ready["websocket_url"] + f"?{name}=x") == 400


@rule("connect-origin", wires=("json",))
async def a_foreign_origin_is_refused(node, wire):
    assert await handshake(node, origin="https://elsewhere.example") == 403


@rule("hello-first")
async def anything_before_hello_closes(node, wire):
    client = Client(node, await node.link(wire), "early")
    await client.send({"type": "ping", "nonce": 1})
    close, code = await client.closed()
    assert close["code"] == 4004 and code == 4004


@rule("hello-in-time", wires=("json", "quic"))
async def who_says_nothing_is_closed(node, wire):
    client = Client(node, await node.link(wire), "silent")
    if wire == "quic":
        await client.link.send_raw(b"\x05")  # a stream is there for the peer once it has bytes
    close, code = await client.closed()
    assert close["code"] == 4005 and code == 4005


@rule("hello-twice")
async def a_second_hello_is_refused(node, wire):
    client = await node.client(wire, node.user("twice"))
    answer = await client.ask({"type": "hello", "token": node.token(client.user)})
    refused(answer, 4004, temporary=False)


@rule("welcome", "store-id")
async def welcome_says_who_and_how_much(node, wire):
    user = node.user("new")
    one = await node.client(wire, user, name="Zoë", device="phone")
    two = await node.client(wire, user)
    assert one.welcome["user"] == user and one.welcome["name"] == "Zoë" and one.welcome["device"] == "phone"
    assert one.welcome["store_id"] == two.welcome["store_id"] == node.ready["store_id"]
    assert two.welcome["device"] and two.welcome["device"] != "phone"
    limits = one.welcome["limits"]
    assert limits["frame_bytes"] == 65_536 and limits["text_bytes"] == 16_384
    assert limits["dead_after_s"] == 2 * limits["keepalive_s"] + 5


async def turned_away(node, token):
    client = Client(node, await node.link("json"), "nobody")
    await client.send({"type": "hello", "token": token})
    close, code = await client.closed()
    assert close["code"] == code
    return code


@rule("token-claims", "token-sub", wires=("json",))
async def what_a_token_needs(node, wire):
    now = int(time.time())
    user = node.user("holder")
    for claims in ({"exp": now - 31}, {"exp": now - 3600}):
        assert await turned_away(node, node.token(user, **claims)) == 4101, claims
    for claims in ({"exp": None}, {"sub": None}, {"nbf": now + 3600}, {"exp": "soon"}):
        assert await turned_away(node, node.token(user, **claims)) == 4100, claims
    for sub in ("", "c:bob", "C:bob", "erased:bob", "a\nb", "x" * 129, 7):
        assert await turned_away(node, node.token(sub)) == 4100, sub
    good = node.token(user)
    for token in ("", "x", good[:-4], good + "x", "x" * 4097):
        assert await turned_away(node, token) == 4100, token
    # 30 s of difference between clocks.
    for claims in ({"exp": now - 15}, {"nbf": now + 15}, {"exp": time.time() + 60.5}, {"iat": None}):
        client = await node.client(wire, user, **claims)
        await client.end()


@rule("token-name", wires=("json",))
async def names_are_cut_and_not_refused(node, wire):
    for name, told in (("Zo\u00eb", "Zo\u00eb"), ("a\nb", "a b"), ("x" * 200, "x" * 128), (None, None), (7, None), ("", None)):
        client = await node.client(wire, node.user("named"), name=name)
        assert client.welcome["name"] == told, (name, client.welcome["name"])


@rule("token-expiring", "reauth")
async def a_token_is_renewed_on_the_session(node, wire):
    client = await node.client(wire, node.user("renewer"), exp=int(time.time()) + 8)
    soon = await client.take("token_expiring")
    assert soon["token_expires_ms"] == client.welcome["token_expires_ms"]
    assert "request_id" not in soon
    answer = await client.ask({"type": "reauth", "token": node.token(node.user("other"))})
    refused(answer, 4102)
    refused(await client.ask({"type": "reauth", "token": "no"}), 4100)
    expires = int(time.time()) + 3600
    answer = await client.ask({"type": "reauth", "token": node.token(client.user, exp=expires)})
    assert answer["type"] == "reauthed" and answer["token_expires_ms"] == expires * 1000, answer


@rule("token-ends", wires=("binary", "quic"))
async def a_token_that_is_not_renewed_ends_the_session(node, wire):
    # With the 30 s that clocks may differ.
    client = await node.client(wire, node.user("forgetful"), exp=int(time.time()) - 27)
    close, code = await client.closed()
    assert close["code"] == code == 4101


@rule("sessions-per-user", wires=("json",), needs="default")
async def one_session_too_many_closes_another(node, wire):
    user = node.user("many")
    sessions = [await node.client(wire, user, device=f"d{at}") for at in range(20)]
    again = await node.client(wire, user, device="d7")
    close, code = await sessions[7].closed()
    assert close["code"] == code == 4103
    for session in [again] + sessions[:7] + sessions[8:]:
        await session.quiet()
