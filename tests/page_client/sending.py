"""Chapters "Requests", "Sending", "Reading" of the page."""

import asyncio
import re

from client import fresh, pair
from rule import refused, rule


@rule("request-id")
async def answers_carry_the_number_and_nothing_else_does(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    ack = await a.said(b.user, "hi")
    where = ack["conversation"]
    live = await b.take("deliver")
    assert "request_id" not in live
    for frame, kind in (
        ({"type": "fetch", "conversation": where}, "page"),
        ({"type": "list_conversations"}, "conversation_page"),
        ({"type": "list_members", "conversation": where}, "member_list"),
        ({"type": "watch", "users": [b.user]}, "presence"),
        ({"type": "ping", "nonce": 3}, "pong"),
        ({"type": "leave_group", "conversation": where, "temp_id": fresh()}, "error"),
        ({"type": "read", "conversation": where, "seq": 9}, "error"),
        ({"type": "ack", "positions": [{"conversation": where, "seq": 9}]}, "error"),
    ):
        assert (await a.ask(frame))["type"] == kind
    # The same number may be used again.
    for _ in range(2):
        await a.send({"type": "ping", "request_id": 1, "nonce": 1})
        assert (await a.take("pong"))["request_id"] == 1
    # These have no answer if they are right.
    for frame in ({"type": "ack", "positions": [{"conversation": where, "seq": 1}]}, {"type": "pong", "nonce": 1},
                  {"type": "read", "conversation": where, "seq": 1}, {"type": "abandon", "to": where,
                                                                       "temp_id": fresh()},
                  {"type": "typing", "to": where}, {"type": "typing", "to": "c:" + "a" * 26}):
        await a.send({**frame, "request_id": 99})
    assert not [frame for frame in await a.quiet() if frame.get("request_id") == 99]


@rule("reads-in-order", "reads-waiting")
async def reads_are_answered_in_order_and_few_wait(node, wire):
    a = await node.client(wire, node.user("a"))
    ack = await a.said(node.user("b"), "hi")
    where = ack["conversation"]
    many = 200
    for number in range(1000, 1000 + many):
        if number % 3:
            await a.send({"type": "fetch", "conversation": where, "request_id": number})
        else:
            await a.send({"type": "list_members", "conversation": where, "request_id": number})
    answers = [await a.until(lambda frame: frame.get("request_id", 0) >= 1000) for _ in range(many)]
    assert {answer["request_id"] for answer in answers} == set(range(1000, 1000 + many))
    pages = [answer["request_id"] for answer in answers if answer["type"] != "error"]
    assert pages == sorted(pages) and len(pages) >= 32
    for answer in answers:
        if answer["type"] == "error":
            refused(answer, 4300, temporary=True, conversation=where)
            assert answer["retry_after_ms"] > 0


@rule("send-ack", "ack-is-entry", "deliver-others")
async def an_ack_stands_for_the_entry(node, wire):
    alice = node.user("alice")
    a, other = await node.client(wire, alice, name="Alice"), await node.client(wire, alice)
    b = await node.client(wire, node.user("b"))
    ack = await a.said(b.user, "hi")
    where = ack["conversation"]
    for session in (b, other):
        entry = await session.entry(where, 1)
        assert entry["id"] == ack["id"] and entry["time_ms"] == ack["time_ms"] and entry["temp_id"] == ack["temp_id"]
        assert (entry["sender"], entry["sender_name"], entry["messages"]) == (alice, "Alice", 1)
        assert ack["messages"] == 1 and entry["body"] == {"kind": "message", "text": "hi"}
    assert not [frame for frame in await a.quiet() if frame["type"] == "deliver"]


@rule("dedupe", "dedupe-conflict", "dedupe-redelivered", "recipient-unknown")
async def a_retry_is_the_same_message(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    temp_id = fresh()
    ack = await a.said(b.user, "once", temp_id=temp_id)
    await b.entry(ack["conversation"], 1)
    again = await node.client(wire, a.user)
    retry = await again.said(b.user, "once", temp_id=temp_id, age_ms=1000)
    assert retry["duplicate"] and not ack["duplicate"]
    assert {**retry, "duplicate": False, "request_id": 0} == {**ack, "request_id": 0}
    while not b.log(ack["conversation"]).dropped:
        b.kept.append(await b.next())
    error = refused(await a.say(b.user, "twice", temp_id=temp_id), 4012, temporary=False, temp_id=temp_id,
                    conversation=ack["conversation"])
    assert re.search(r"\b1\b", error["detail"])
    # In another conversation it is another message.
    other = await a.said(node.user("stranger"), "once", temp_id=temp_id)
    assert not other["duplicate"] and other["recipient_unknown"] and not ack["recipient_unknown"]


@rule("age", "dedupe-too-old")
async def a_message_of_last_week_is_not_sent_again(node, wire):
    a = await node.client(wire, node.user("a"))
    week = 7 * 24 * 3600 * 1000
    refused(await a.say("bob", "old", age_ms=week + 1), 4013, temporary=False)
    await a.said("bob", "not so old", age_ms=week)
    await a.said("bob", "unsaid", age_ms=None)


@rule("reply-to", "text-bytes")
async def replies_and_the_length_of_texts(node, wire):
    a = await node.client(wire, node.user("a"))
    b = node.user("b")
    await a.said(b, "one")
    ack = await a.said(b, "two", reply_to=1)
    for seq in (0, 3, 2**53):
        refused(await a.say(b, "three", reply_to=seq), 4006, temporary=False, conversation=ack["conversation"])
    await a.said(b, "é" * 8192)
    refused(await a.say(b, "é" * 8193), 4007, temporary=False)
    refused(await a.say(b, ""), 4008, temporary=False)


@rule("order", "go-back-n", needs="default")
async def sends_are_committed_in_their_order(node, wire):
    """More than the quota of a burst: some are refused for now, and those after them too."""
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    unresolved = [(at, fresh()) for at in range(240)]
    refusals, rounds = set(), 0
    while unresolved:
        rounds += 1
        for at, temp_id in unresolved:
            await a.send({"type": "send", "to": b.user, "text": str(at), "temp_id": temp_id, "age_ms": 0})
        waits, left, first_refused = [], [], False
        answers = {}
        for _ in unresolved:
            answer = await a.take("send_ack", "error")
            answers[answer["temp_id"]] = answer
        for at, temp_id in unresolved:
            answer = answers[temp_id]
            if answer["type"] == "send_ack":
                assert not first_refused, "one overtook an unresolved one"
                continue
            first_refused = True
            assert answer["temporary"] and answer["code"] in (4300, 4305), answer
            refusals.add(answer["code"])
            waits.append(answer["retry_after_ms"] or 0)
            left.append((at, temp_id))
        unresolved = left
        await asyncio.sleep(max(waits, default=0) / 1000)
    assert refusals == {4300, 4305}, (refusals, rounds)
    where = pair(a.user, b.user)
    await b.entry(where, 240)
    assert [b.log(where).entries[seq]["body"]["text"] for seq in range(1, 241)] == [str(at) for at in range(240)]


@rule("abandon", needs="default")
async def a_send_that_is_given_up_lets_the_next_pass(node, wire):
    a, b = await node.client(wire, node.user("a")), node.user("b")
    temp_ids = [fresh() for _ in range(230)]
    for temp_id in temp_ids:
        await a.send({"type": "send", "to": b, "text": "x", "temp_id": temp_id, "age_ms": 0})
    answers = [await a.take("send_ack", "error") for _ in temp_ids]
    kept = [answer["temp_id"] for answer in answers if answer["type"] == "error"]
    assert kept
    later = fresh()
    refused(await a.say(b, "later", temp_id=later), 4305, temporary=True)
    for temp_id in kept:
        await a.send({"type": "abandon", "to": b, "temp_id": temp_id})
    # Nothing before it is unresolved now: only the quota may still put it off.
    while (answer := await a.say(b, "later", temp_id=later))["type"] == "error":
        refused(answer, 4300, temporary=True)
        await asyncio.sleep(answer["retry_after_ms"] / 1000)


@rule("sends-in-flight", needs="default")
async def too_many_unresolved_sends_close(node, wire):
    a, b = await node.client(wire, node.user("a")), node.user("b")
    for _ in range(600):
        await a.send({"type": "send", "to": b, "text": "x", "temp_id": fresh(), "age_ms": 0})
    close, code = await a.closed()
    assert close["code"] == code == 4014


@rule("read-private", "read-forward", "read-own-message", "unread")
async def read_positions(node, wire):
    alice = node.user("alice")
    a, other = await node.client(wire, alice), await node.client(wire, alice)
    b = await node.client(wire, node.user("b"))
    for text in ("one", "two", "three"):
        ack = await b.said(alice, text)
    where = ack["conversation"]
    await a.entry(where, 3)
    await a.send({"type": "read", "conversation": where, "seq": 2})
    told = await other.take("have_read")
    assert (told["conversation"], told["seq"], told["messages"]) == (where, 2, 2)
    await a.send({"type": "read", "conversation": where, "seq": 1})
    summary, = (await a.ask({"type": "list_conversations"}))["conversations"]
    assert (summary["read_seq"], summary["read_messages"], summary["unread"], summary["head_messages"]) == (2, 2, 1, 3)
    refused(await a.ask({"type": "read", "conversation": where, "seq": 4}), 4400, conversation=where)
    refused(await a.ask({"type": "read", "conversation": pair("x", "y"), "seq": 1}), 4009)
    await a.said(b.user, "four")
    summary, = (await a.ask({"type": "list_conversations"}))["conversations"]
    assert (summary["read_seq"], summary["unread"]) == (4, 0)
    await other.entry(where, 4)
    kept = [frame for frame in await other.quiet() + await a.quiet() + await b.quiet() if frame["type"] == "have_read"]
    assert not kept, kept


@rule("ack-position")
async def acks(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    where = (await b.said(a.user, "one"))["conversation"]
    await a.entry(where, 1)
    here = {"conversation": where, "seq": 1}
    for positions in ([], [here], [here, here], [{**here, "seq": 0}, here]):
        await a.send({"type": "ack", "positions": positions, "request_id": 50})
    assert not [frame for frame in await a.quiet() if frame.get("request_id") == 50]
    refused(await a.ask({"type": "ack", "positions": [{**here, "seq": 2}]}), 4400, conversation=where)
    foreign = pair("x", "y")
    refused(await a.ask({"type": "ack", "positions": [{"conversation": foreign, "seq": 1}]}), 4009, conversation=foreign)
    refused(await a.ask({"type": "ack", "positions": [here] * 101}), 4014)
