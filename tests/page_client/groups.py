"""Chapters "Groups", "Presence", "Typing" of the page."""

from client import fresh, pair
from rule import refused, rule


async def change(client, kind, **fields):
    return await client.ask({"type": kind, "temp_id": fresh(), **fields})


@rule("group-delivered-to-all", "group-roles", "own-first-seq")
async def changes_of_a_group_are_delivered_to_everybody(node, wire):
    a, b, c = [await node.client(wire, node.user(name)) for name in "abc"]
    g = await a.make_group("Lunch", b.user)
    created = (await a.entry(g, 1))["body"]
    assert created["kind"] == "created" and created["name"] == "Lunch"
    assert created["members"] == [a.user, b.user]
    await a.said(g, "before")
    refused(await change(b, "rename_group", conversation=g, name="x"), 4010, temporary=False, conversation=g)
    refused(await change(b, "set_role", conversation=g, user=b.user, role="owner"), 4010)
    refused(await change(c, "rename_group", conversation=g, name="x"), 4009)
    assert (await change(a, "set_role", conversation=g, user=b.user, role="admin"))["type"] == "send_ack"
    assert (await b.entry(g, 3))["body"] == {"kind": "role_changed", "user": b.user, "role": "admin"}
    ack = await change(b, "add_members", conversation=g, users=[c.user])
    assert ack["type"] == "send_ack" and ack["messages"] == 1, ack
    assert (await b.entry(g, 4))["body"] == {"kind": "added", "users": [c.user]}
    # Whoever was just added asks for what comes before: nothing, their log starts there.
    page = await c.ask({"type": "fetch", "conversation": g})
    assert page["first_seq"] == 4 and [entry["seq"] for entry in page["entries"]] == [4]
    summary, = (await c.ask({"type": "list_conversations"}))["conversations"]
    assert (summary["first_seq"], summary["unread"], summary["role"], summary["name"]) == (4, 0, "member", "Lunch")
    refused(await c.say(g, "answer", reply_to=2), 4006)
    members = (await c.ask({"type": "list_members", "conversation": g}))["members"]
    assert [(member["user"], member["role"]) for member in members] == [
        (a.user, "owner"), (b.user, "admin"), (c.user, "member")]


@rule("group-nothing-changes", "group-retry-order")
async def changes_that_change_nothing(node, wire):
    a = await node.client(wire, node.user("a"))
    b, c = node.user("b"), node.user("c")
    temp_id = fresh()
    made = await a.ask({"type": "create_group", "name": "g", "members": [b, c], "temp_id": temp_id})
    g = made["conversation"]
    refused(await change(a, "add_members", conversation=g, users=[b, c]), 4006)
    for kind, fields in (
        ("add_members", {"users": []}),
        ("rename_group", {"name": "g"}),
        ("set_role", {"user": b, "role": "member"}),
        ("set_role", {"user": "nobody", "role": "member"}),
        ("remove_members", {"users": ["nobody"]}),
        ("remove_members", {"users": [c, "nobody"]}),
        ("remove_members", {"users": [a.user]}),
    ):
        refused(await change(a, kind, conversation=g, **fields), 4006, temporary=False, conversation=g)
    assert (await change(a, "add_members", conversation=g, users=["n1", "n1", b]))["seq"] == 2
    assert (await a.entry(g, 2))["body"] == {"kind": "added", "users": ["n1"]}
    for other in ({"members": [c, b]}, {"name": "h"}, {"members": [b, c, b]}):
        again = {"type": "create_group", "name": "g", "members": [b, c], "temp_id": temp_id, **other}
        refused(await a.ask(again), 4012, conversation=g)
    made = await a.ask({"type": "create_group", "name": "g", "members": [b, c], "temp_id": temp_id})
    assert made["duplicate"] and made["seq"] == 1
    both = (await a.said(b, "hi"))["conversation"]
    for kind in ("leave_group", "rename_group", "add_members"):
        refused(await change(a, kind, conversation=both, name="x", users=[c]), 4006, conversation=both)


@rule("group-full", "group-name")
async def the_limits_of_a_group(node, wire):
    a = await node.client(wire, node.user("a"))
    refused(await change(a, "create_group", name="g", members=[f"m{at}" for at in range(100)]), 4011)
    g = (await change(a, "create_group", name="g", members=[f"m{at}" for at in range(99)]))["conversation"]
    refused(await change(a, "add_members", conversation=g, users=["one more"]), 4011, conversation=g)
    for name in ("", "x" * 129, "a\nb"):
        refused(await change(a, "rename_group", conversation=g, name=name), 4006, temporary=False, conversation=g)


@rule("last-owner", "left-role", "left-fetch", "left-dedupe")
async def who_leaves_keeps_what_they_had(node, wire):
    a, b = [await node.client(wire, node.user(name)) for name in "ab"]
    g = await a.make_group("g", b.user)
    refused(await change(a, "set_role", conversation=g, user=a.user, role="member"), 4010)
    temp_id = fresh()
    said = await a.said(g, "bye", temp_id=temp_id)
    left = await change(a, "leave_group", conversation=g)
    assert left["seq"] == 3, left
    assert (await b.entry(g, 3))["body"] == {"kind": "left", "user": a.user}
    assert (await b.entry(g, 4))["body"] == {"kind": "role_changed", "user": b.user, "role": "owner"}
    await b.said(g, "gone?")
    page = await a.ask({"type": "fetch", "conversation": g})
    assert page["head"] == 3 and page["entries"][0]["seq"] == 3
    retry = await a.said(g, "bye", temp_id=temp_id, age_ms=5)
    assert retry["duplicate"] and retry["seq"] == said["seq"]
    refused(await a.say(g, "more"), 4009, temporary=False, conversation=g)
    refused(await a.ask({"type": "list_members", "conversation": g}), 4009)
    # On the lists and in a sync of a new device it is like any other.
    again = await node.client(wire, a.user)
    frames = await again.sync()
    assert [frame["type"] for frame in frames] == ["sync_page", "deliver", "sync_end"]
    summary, = frames[0]["conversations"]
    assert (summary["conversation"], summary["role"], summary["head"]) == (g, None, 3)
    assert again.log(g).seqs() == [1, 2, 3]
    listed, = (await a.ask({"type": "list_conversations"}))["conversations"]
    assert (listed["conversation"], listed["role"], listed["head"]) == (g, None, 3)
    assert [frame["type"] for frame in await again.sync({g: 3})] == ["sync_end"]
    # Who is added again sees the log from there on.
    ack = await change(b, "add_members", conversation=g, users=[a.user])
    frames = await again.sync({g: 3})
    gap, = [frame for frame in frames if frame["type"] == "gap"]
    assert (gap["from"], gap["to"]) == (4, ack["seq"] - 1)
    assert again.log(g).seqs()[-1] == again.log(g).applied == ack["seq"]


@rule("block", "block-two-sided", "block-list")
async def a_blocked_user(node, wire):
    a, b = [await node.client(wire, node.user(name)) for name in "ab"]
    other = await node.client(wire, a.user)
    ack = await a.said(b.user, "hi")
    await b.said(a.user, "hi")
    assert (await a.ask({"type": "block", "user": b.user}))["blocked"]
    told = await other.take("block_changed")
    assert told["user"] == b.user and told["blocked"] and "request_id" not in told
    refused(await a.say(b.user, "no"), 4016, temporary=False)
    refused(await b.say(a.user, "no"), 4017, temporary=False)
    refused(await b.say(ack["conversation"], "no"), 4017)
    refused(await change(b, "create_group", name="g", members=[a.user]), 4017)
    for one, two in ((a, b), (b, a)):
        assert (await one.ask({"type": "watch", "users": [two.user]}))["users"][0]["state"] == "unknown"
    listed = await a.ask({"type": "list_blocks"})
    assert [user["user"] for user in listed["users"]] == [b.user] and listed["next"] is None
    assert not [frame for frame in await b.quiet() if frame["type"] == "block_changed"]
    assert not (await a.ask({"type": "unblock", "user": b.user}))["blocked"]
    await b.said(a.user, "again")


@rule("groups-left", "group-kept")
async def many_groups_are_left_and_one_is_kept(node, wire):
    a, b = [await node.client(wire, node.user(name)) for name in "ab"]
    groups = [await b.make_group(str(at), a.user) for at in range(3)]
    for summary in (await a.ask({"type": "list_conversations"}))["conversations"]:
        assert summary["added_by"] == b.user
    assert (await a.ask({"type": "keep_group", "conversation": groups[0]}))["type"] == "group_kept"
    await a.said(groups[1], "hi")
    accepted = {summary["conversation"]: summary["added_by"]
                for summary in (await a.ask({"type": "list_conversations"}))["conversations"]}
    assert accepted == {groups[0]: None, groups[1]: None, groups[2]: b.user}
    foreign = pair("x", "y")
    answer = await change(a, "leave_groups", conversations=[groups[2], foreign])
    assert answer["groups"] == [{"conversation": groups[2], "code": None}, {"conversation": foreign, "code": 4009}]


@rule("watch", "presence-unknown", "presence-online")
async def presence(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    stranger = node.user("stranger")
    await a.said(b.user, "hi")
    await b.said(a.user, "hi")
    answer = await a.ask({"type": "watch", "users": [b.user, stranger]})
    states = {user["user"]: user["state"] for user in answer["users"]}
    assert states == {b.user: "online", stranger: "unknown"}, answer
    answer = await a.ask({"type": "watch", "users": []})
    assert answer["type"] == "presence" and answer["users"] == []
    refused(await a.ask({"type": "watch", "users": [f"u{at}" for at in range(201)]}), 4014)


@rule("presence-offline", wires=("json", "quic"))
async def who_goes_is_offline_after_a_while(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    await a.said(b.user, "hi")
    await b.said(a.user, "hi")
    await a.ask({"type": "watch", "users": [b.user]})
    await b.send({"type": "close", "code": 0, "reason": ""})
    told = await a.take("presence")
    state, = told["users"]
    assert "request_id" not in told and state["state"] == "offline" and state["last_seen_ms"] > 0, told


@rule("typing")
async def typing(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    where = (await a.said(b.user, "hi"))["conversation"]
    await b.entry(where, 1)
    if wire in ("quic", "webtransport"):
        import codec
        a.link.protocol.write_datagram(codec.encode({"type": "typing", "to": b.user}))
    else:
        await a.send({"type": "typing", "to": b.user})
    told = await b.take("user_typing")
    assert told["conversation"] == where and told["user"] == a.user and "request_id" not in told
