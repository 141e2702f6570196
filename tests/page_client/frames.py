"""Chapters "Frames in JSON", "Frames in binary", "Types" and "Golden vectors" of the page."""

import base64
import json
import pathlib

import codec
from client import conversation_id, fresh, group, pair
from rule import BINARY, refused, rule

ROOT = pathlib.Path(__file__).parents[2]


def vectors(name):
    return json.loads((ROOT / "protocol" / "vectors" / f"{name}.json").read_text())


def decoded(text):
    source = codec.Bytes(bytes.fromhex(text))
    length = source.varint(5, 32)
    if length > codec.LARGEST_FRAME:
        raise codec.Broken("too long a frame", fatal=True)
    return codec.decode(source.take(length))


@rule("vectors", wires=("json",))
async def the_golden_vectors(node, wire):
    for vector in vectors("frames"):
        frame = json.loads(vector["json"])
        named = 4_294_967_295  # kinds that the Rust crate has only the name of
        if any(entry["body"].get("kind") == "reacted" for entry in frame.get("entries", ())):
            assert decoded(vector["hex"])["entries"][0]["body"]["number"] == named
            continue
        assert decoded(vector["hex"]) == frame, vector["name"]
        written = codec.encode(frame)
        if frame.get("data") is None and not any("data" in entry["body"] for entry in frame.get("entries", ())):
            assert written.hex() == vector["hex"], vector["name"]
        assert decoded(written.hex()) == frame, vector["name"]
    for vector in vectors("binary_accepted"):
        frame = decoded(vector["hex"])
        if "known by name" not in vector["name"]:
            assert frame == json.loads(vector["json"]), vector["name"]
    for vector in vectors("binary_refused"):
        if "user id" in vector["name"]:
            continue  # this codec takes any text for a user
        try:
            raise AssertionError((vector["name"], decoded(vector["hex"])))
        except codec.Broken:
            pass
    for vector in vectors("conversation_ids"):
        one, two = vector["parts"]
        assert (pair if vector["kind"] == "pair" else group)(one, two) == vector["text"], vector["name"]


@rule("vectors", wires=("json", "binary"))
async def the_server_refuses_what_the_vectors_say(node, wire):
    """Each on a session of its own, so that none is the twentieth."""
    form = "json" if wire == "json" else "hex"
    listed = [vector for vector in vectors("json_refused" if wire == "json" else "binary_refused")
              if not vector["fatal"] and "a send of" not in vector["name"]]
    client = None
    for place, vector in enumerate(listed):
        if place % 19 == 0:
            client = await node.client(wire, node.user("vectors"))
        await client.link.send_raw(vector[form] if wire == "json" else bytes.fromhex(vector[form]))
        answer = await client.take("error", "close")
        to = vector.get("to")
        refused(answer, vector["code"], temporary=False, temp_id=vector.get("temp_id"),
                conversation=to and (to if to.startswith("c:") else pair(client.user, to)))
        assert answer.get("request_id") == vector.get("request_id"), (vector, answer)


@rule("json-bare-send", "json-made-up-temp-id", "json-unknown-fields", wires=("json",))
async def the_shortest_send(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    await a.send({"to": b.user, "text": "hi", "colour": {"deep": [1]}})
    ack = await a.take("send_ack")
    await a.send({"to": b.user, "text": "hi"})
    again = await a.take("send_ack")
    assert (ack["seq"], again["seq"]) == (1, 2) and ack["temp_id"] != again["temp_id"]
    assert (await b.entry(ack["conversation"], 1))["temp_id"] == ack["temp_id"]


@rule("json-unknown-type", wires=("json",))
async def an_unknown_type_is_refused(node, wire):
    client = await node.client(wire, node.user("future"))
    refused(await client.ask({"type": "shout"}), 4001, temporary=False)


@rule("json-null", "json-numbers", wires=("json",))
async def nothing_and_numbers_in_json(node, wire):
    a = await node.client(wire, node.user("a"))
    ack = await a.said(node.user("b"), "hi", data=None, reply_to=None)
    where = ack["conversation"]
    await a.link.send_raw('{"type":"fetch","request_id":18446744073709551615,"conversation":"%s","before":2.0,'
                          '"after":null,"limit":1e1}' % where)
    page = await a.take("page")
    assert page["request_id"] == 18_446_744_073_709_551_615 and len(page["entries"]) == 1
    for field in ('"before":-1', '"before":1.5', '"before":"1"', '"before":18446744073709551616'):
        await a.link.send_raw('{"type":"fetch","request_id":77,"conversation":"%s",%s}' % (where, field))
        error = refused(await a.take("error"), 4000, conversation=where)
        assert error["request_id"] == 77


@rule("json-surrogates", "age", wires=("json",))
async def half_a_character_and_odd_ages(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    for seq, text in enumerate((r'"text":"cut \ud83d"', r'"text":"\udc4d","data":{"\ud800":"\ud83d\udc4d"}',
                                '"text":"x","age_ms":-5', '"text":"x","age_ms":12.0', '"text":"x","age_ms":0.25'), 1):
        await a.link.send_raw('{"to":"%s",%s}' % (b.user, text))
        assert (await a.take("send_ack", "error"))["seq"] == seq, text
    where = pair(a.user, b.user)
    assert (await b.entry(where, 1))["body"]["text"] == "cut \ufffd"
    assert (await b.entry(where, 2))["body"] == {"kind": "message", "text": "\ufffd", "data": {"\ufffd": "👍"}}


@rule("bad-frame-names", wires=("json", "binary", "quic"))
async def the_error_about_a_broken_frame_names_it(node, wire):
    a = await node.client(wire, node.user("a"))
    temp_id = fresh()
    if wire == "json":
        await a.link.send_raw(json.dumps({"to": "bob", "text": 5, "temp_id": temp_id, "request_id": 9}))
    else:
        body = codec.write("target", "bob") + b"\x02\xff\xff" + codec.write("uuid", temp_id) + b"\0\0\0"
        await a.link.send_raw(codec.raw(16, 3, 9, body))
    error = refused(await a.take("error"), 4000, temporary=False, temp_id=temp_id, conversation=pair(a.user, "bob"))
    assert error["request_id"] == 9


@rule("bad-frames", "close-number")
async def the_twentieth_bad_frame_closes(node, wire):
    a = await node.client(wire, node.user("a"))
    for at in range(19):
        if at % 2:
            await a.send({"type": "pong", "nonce": 1, "request_id": at})  # is fine
            await a.send({"type": "welcome", **a.welcome})
        elif wire == "json":
            await a.link.send_raw("{")
        else:
            await a.link.send_raw(codec.raw(6, 5, None, b"\0"))  # a reserved flag
        refused(await a.take("error"), 4004 if at % 2 else 4000)
    await a.quiet()
    await a.link.send_raw("{" if wire == "json" else codec.raw(6, 1, None, b"\0\0"))
    close, code = await a.closed()
    assert close["code"] == code == 4015


@rule("ws-kind", wires=("json", "binary"))
async def the_wrong_kind_of_message_closes(node, wire):
    a = await node.client(wire, node.user("a"))
    await a.link.send_raw(b"\x02\x06\x01" if wire == "json" else "{}")
    close, code = await a.closed()
    assert close["code"] == 4000 and code == 1003


@rule("bin-frame-length", "close-number", wires=BINARY)
async def the_longest_frame(node, wire):
    a = await node.client(wire, node.user("a"))
    # Of a type that nobody knows, and not critical: skipped, however long.
    longest = codec.raw(999, 0, None, bytes(65_536 - 3))
    assert codec.Bytes(longest).varint() == 65_536
    await a.link.send_raw(longest)
    await a.quiet()
    await a.link.send_raw(codec.varint(65_537))
    close, code = await a.closed()
    assert close["code"] == code == 4002


@rule("json-message-length", "text-bytes", "close-number", wires=("json",))
async def the_longest_message_in_json(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    text = "\x01" * 16_384  # six bytes each in JSON
    ack = await a.said(b.user, text)
    assert (await b.entry(ack["conversation"], 1))["body"]["text"] == text
    await a.link.send_raw(" " * 131_073)
    close, code = await a.closed()
    assert close["code"] == code == 4002


@rule("bin-critical", wires=BINARY)
async def unknown_types(node, wire):
    a = await node.client(wire, node.user("a"))
    await a.link.send_raw(codec.raw(999, 2, 5, b"abc"))
    await a.link.send_raw(codec.raw(999, 3, 6, b"abc"))
    error = refused(await a.take("error"), 4001, temporary=False)
    assert error["request_id"] == 6
    assert not await a.quiet()


@rule("bin-varint", "bin-whole-body", wires=BINARY)
async def padded_numbers_and_bytes_left_over(node, wire):
    a = await node.client(wire, node.user("a"))
    await a.link.send_raw(b"\x84\x00\x06\x01\x81\x00")
    assert (await a.take("pong"))["nonce"] == 1
    await a.link.send_raw(codec.raw(6, 3, 5, b"\1\0"))
    assert refused(await a.take("error"), 4000)["request_id"] == 5


@rule("id-user", "id-conversation", "id-target")
async def identifiers(node, wire):
    a = await node.client(wire, node.user("a"))
    for user in ("", "a\x07b", "x" * 129, " bob", "bob\u200b", "\u202ebob"):
        refused(await a.say(user, "hi"), 4000, temporary=False)
    if wire == "json":  # the binary codec writes what begins with c: as a conversation
        for user in ("c:bob", "c:aaaqeayeaudaocajbifqydiobb"):
            refused(await a.say(user, "hi"), 4000)
    refused(await a.say("C:bob", "hi"), 4000)
    refused(await a.say("erased:bob", "hi"), 4017)
    ack = await a.said("x" * 128, "hi")
    assert ack["conversation"] == pair(a.user, "x" * 128)
    capitals = ack["conversation"].upper()
    assert (await a.ask({"type": "list_members", "conversation": capitals}))["conversation"] == ack["conversation"]


@rule("id-composed")
async def letters_that_are_put_together(node, wire):
    a = await node.client(wire, node.user("a"))
    ack = await a.said("jose\u0301", "hi")
    assert ack["conversation"] == pair(a.user, "jos\u00e9")
    answer = await a.ask({"type": "watch", "users": ["jose\u0301"]})
    assert answer["users"][0]["user"] == "jos\u00e9"


@rule("id-derived", "pair-of-one")
async def derived_ids(node, wire):
    a = await node.client(wire, node.user("zoë"))
    b = node.user("世界")
    assert (await a.said(b, "hi"))["conversation"] == pair(b, a.user)
    assert (await a.said(a.user, "note"))["conversation"] == conversation_id(b"pair", *[a.user.encode()] * 2)
    temp_id = fresh()
    made = await a.ask({"type": "create_group", "name": "g", "members": [b], "temp_id": temp_id})
    assert made["conversation"] == group(a.user, temp_id)


@rule("data")
async def data_comes_out_as_it_went_in(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    text = '{"z":[1.50,-0,1E2],"a":"\\u00e9","n":12345678901234567890123}'
    if wire == "json":
        await a.link.send_raw('{"to":"%s","data": %s }' % (b.user, text.replace(",", " ,\n")))
    else:
        await a.send({"to": b.user, "text": "", "temp_id": fresh(), "data": codec.Json(text)})
    await a.take("send_ack")
    entry = await b.entry(pair(a.user, b.user), 1)
    assert json.dumps(entry["body"]["data"]) == json.dumps(json.loads(text))
    refused(await a.say(b.user, "", data=None), 4008, temporary=False)
    refused(await a.say(b.user, "x" * 16_380, data={"a": 1}), 4007)
    deep = "[" * 128 + "]" * 128
    if wire == "json":
        await a.link.send_raw('{"to":"%s","data":%s}' % (b.user, deep))
    else:
        await a.send({"to": b.user, "text": "", "temp_id": fresh(), "data": codec.Json(deep)})
    refused(await a.take("error"), 4000)


def opaque(number, raw):
    return {"kind": "opaque", "number": number, "bytes": base64.urlsafe_b64encode(raw).decode().rstrip("=")}


@rule("body-unknown", "body-later-fields", wires=("json",))
async def bodies_of_later_versions_are_read(node, wire):
    """What only a later server sends: the client's own reading."""
    entry = {"seq": 3, "id": fresh(), "time_ms": 1, "sender": "a", "sender_name": None, "temp_id": None,
             "messages": 2, "body": opaque(200, b"\x02hi")}
    frame = {"type": "deliver", "conversation": pair("a", "b"), "entries": [entry, {**entry, "seq": 4}]}
    assert decoded(codec.encode(frame).hex()) == frame
    later = codec.encode({**frame, "entries": [{**entry, "body": opaque(0, b"\x02hi\0\0\xff\xfe")}]})
    assert decoded(later.hex())["entries"][0]["body"] == {"kind": "message", "text": "hi"}
