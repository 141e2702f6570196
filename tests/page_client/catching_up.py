"""Chapters "Receiving", "Catching up" and `fetch` of the page."""

from client import fresh, pair
from rule import refused, rule


def of_kind(frames, kind):
    return [frame for frame in frames if frame["type"] == kind]


@rule("deliver-ascending", "place-rule")
async def everything_arrives_once_and_in_order(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    for at in range(120):
        ack = await a.said(b.user, str(at))
    where = ack["conversation"]
    await b.entry(where, 120)
    assert [entry["body"]["text"] for _, entry in sorted(b.log(where).entries.items())] == [str(at) for at in range(120)]
    for frame in of_kind(b.kept, "deliver"):
        seqs = [entry["seq"] for entry in frame["entries"]]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    counted = [entry["messages"] for _, entry in sorted(b.log(where).entries.items())]
    assert counted == list(range(1, 121))


@rule("sync-answer", "sync-order", "sync-end")
async def a_sync_tells_what_is_missing(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    where = [(await a.said(peer, "one"))["conversation"] for peer in (b.user, node.user("c"), node.user("d"))]
    await b.said(a.user, "two")
    await b.said(a.user, "three")
    late = await node.client(wire, a.user)
    frames = await late.sync({where[0]: 1, where[1]: 1})
    kinds = [frame["type"] for frame in frames]
    assert kinds == sorted(kinds, key=["sync_page", "deliver", "sync_end"].index), kinds
    summaries = [summary for page in of_kind(frames, "sync_page") for summary in page["conversations"]]
    assert [summary["conversation"] for summary in summaries] == [where[0], where[2]], "the latest change first"
    assert (summaries[0]["head"], summaries[0]["peer"], summaries[0]["kind"]) == (3, b.user, "pair")
    got = {frame["conversation"]: [entry["seq"] for entry in frame["entries"]] for frame in of_kind(frames, "deliver")}
    assert got == {where[0]: [2, 3], where[2]: [1]}
    assert frames[-1]["changed"] == 2
    assert (await late.sync({name: head for name, head in zip(where, (3, 1, 1))}))[0] == frames[-1] | {
        "request_id": 2, "changed": 0}


@rule("sync-more")
async def cursors_in_several_frames(node, wire):
    a = await node.client(wire, node.user("a"))
    names = [(await a.said(f"peer{at}", "x"))["conversation"] for at in range(3)]
    for number, name in zip((900, 901), names):
        await a.send({"type": "sync", "request_id": number, "more": True, "cursors": [{"conversation": name, "seq": 1}]})
    await a.send({"type": "sync", "request_id": 902, "cursors": [{"conversation": names[2], "seq": 1}]})
    end = await a.take("sync_end")
    assert (end["request_id"], end["changed"]) == (902, 0)
    assert not of_kind(a.kept, "sync_page") and not of_kind(a.kept, "deliver")


@rule("cursor-ahead", "cursor-foreign", "cursor-twice")
async def cursors_that_do_not_fit(node, wire):
    a = await node.client(wire, node.user("a"))
    one, two = [(await a.said(node.user("peer"), "x"))["conversation"] for _ in range(2)]
    foreign = pair("x", "y")
    cursors = [{"conversation": one, "seq": 2}, {"conversation": foreign, "seq": 5},
               {"conversation": two, "seq": 0}, {"conversation": two, "seq": 1}]
    await a.send({"type": "sync", "request_id": 800, "cursors": cursors})
    await a.take("sync_end")
    errors = of_kind(a.kept, "error")
    assert {(error["code"], error["conversation"]) for error in errors} == {(4400, one), (4400, foreign)}, errors
    assert all(error["request_id"] == 800 for error in errors)
    # Of two cursors of one conversation the last counts.
    assert two not in {summary["conversation"] for page in of_kind(a.kept, "sync_page")
                       for summary in page["conversations"]}
    a.kept.clear()
    afresh = await a.sync({two: 1})
    assert [entry["seq"] for entry in of_kind(afresh, "deliver")[0]["entries"]] == [1]


@rule("sync-limits")
async def too_many_cursors(node, wire):
    a = await node.client(wire, node.user("a"))
    foreign = {"conversation": pair("x", "y"), "seq": 0}
    error = refused(await a.ask({"type": "sync", "cursors": [foreign] * 513}), 4014, temporary=False)
    assert "512" in error["detail"]


@rule("sync-replaced", wires=("json",))
async def a_new_sync_takes_the_place_of_the_old(node, wire):
    a = await node.client(wire, node.user("a"))
    for at in range(40):
        await a.said(f"p{at}", "x" * 2000)
    for number in range(700, 720):
        await a.send({"type": "sync", "request_id": number})
    while (end := await a.take("sync_end"))["request_id"] != 719:
        pass
    frames = [frame["request_id"] for frame in a.kept if frame.get("request_id")]
    assert frames == sorted(frames), "nothing of an older one after a newer"
    assert end["changed"] == 40


@rule("gap")
async def a_large_gap_is_named_and_not_sent(node, wire):
    a = await node.client(wire, node.user("a"))
    where = None
    for at in range(501):
        await a.send({"type": "send", "to": "bob", "text": str(at), "temp_id": fresh(), "age_ms": 0})
        if at % 100 == 99 or at == 500:
            while (where := await a.take("send_ack"))["seq"] <= at:
                pass
    where = where["conversation"]
    late = await node.client(wire, a.user)
    frames = await late.sync({where: 1})
    assert not of_kind(frames, "gap")
    assert sum(len(frame["entries"]) for frame in of_kind(frames, "deliver")) == 500
    late = await node.client(wire, a.user)
    frames = await late.sync()
    gap, = of_kind(frames, "gap")
    assert (gap["conversation"], gap["from"], gap["to"]) == (where, 1, 451)
    log = late.log(where)
    assert log.seqs() == list(range(452, 502)) and log.left_out == [(1, 451)] and log.applied == 501


@rule("fetch", "fetch-around", "fetch-edges", "fetch-limit")
async def pages_of_history(node, wire):
    a = await node.client(wire, node.user("a"))
    for at in range(1, 31):
        where = (await a.said("bob", str(at)))["conversation"]

    async def seqs(**asked):
        page = await a.ask({"type": "fetch", "conversation": where, **asked})
        assert page["type"] == "page" and (page["first_seq"], page["head"]) == (1, 30), page
        return [entry["seq"] for entry in page["entries"]]

    def down(high, low):
        return list(range(high, low - 1, -1))

    assert await seqs() == down(30, 11), "newest first, 20"
    assert await seqs(limit=200) == down(30, 1)
    assert await seqs(before=11, limit=5) == down(10, 6)
    assert await seqs(after=11, limit=5) == down(16, 12)
    assert await seqs(before=1) == [] and await seqs(before=0) == [] and await seqs(after=30) == []
    assert await seqs(before=31, limit=2) == [30, 29] and await seqs(before=2**53, limit=2) == [30, 29]
    assert await seqs(after=0, limit=2) == [2, 1] and await seqs(after=2**53) == []
    assert await seqs(around=15, limit=5) == down(17, 13)
    assert await seqs(around=15, limit=4) == down(17, 14)
    assert await seqs(around=15, limit=1) == [15]
    # A half that ends early: the older side makes up for the newer one, not the other way round.
    assert await seqs(around=1, limit=5) == [3, 2, 1] and await seqs(around=0, limit=5) == [2, 1]
    assert await seqs(around=30, limit=5) == down(30, 26)
    assert await seqs(around=31, limit=5) == await seqs(around=2**53, limit=5) == down(30, 26)
    for asked in ({"limit": 0}, {"limit": 201}, {"before": 1, "after": 1}, {"before": 1, "around": 1}):
        refused(await a.ask({"type": "fetch", "conversation": where, **asked}), 4006, temporary=False)
    refused(await a.ask({"type": "fetch", "conversation": pair("x", "y")}), 4009, conversation=pair("x", "y"))


@rule("page-bytes", wires=("json", "quic"))
async def a_page_is_cut_by_bytes(node, wire):
    a = await node.client(wire, node.user("a"))
    for _ in range(10):
        where = (await a.said("bob", "x" * 16_000))["conversation"]
    page = await a.ask({"type": "fetch", "conversation": where, "limit": 10})
    assert [entry["seq"] for entry in page["entries"]] == [10, 9, 8]
    page = await a.ask({"type": "fetch", "conversation": where, "limit": 10, "after": 0})
    assert [entry["seq"] for entry in page["entries"]] == [3, 2, 1]


@rule("list-pages", "list-limit")
async def the_list_of_conversations(node, wire):
    a = await node.client(wire, node.user("a"))
    names = [(await a.said(f"peer{at}", "x"))["conversation"] for at in range(5)]
    listed, cursor = [], None
    while True:
        page = await a.ask({"type": "list_conversations", "cursor": cursor, "limit": 2})
        listed += [(summary["last_time_ms"], summary["conversation"]) for summary in page["conversations"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert {name for _, name in listed} == set(names)
    assert [time for time, _ in listed] == sorted((time for time, _ in listed), reverse=True)
    for asked in ({"limit": 0}, {"limit": 201}, {"cursor": "zzz"}):
        refused(await a.ask({"type": "list_conversations", **asked}), 4006)
