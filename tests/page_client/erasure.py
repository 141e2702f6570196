"""Chapter "Erasure" of the page. Needs the node's binary and directory, to ask for one."""

import asyncio
import subprocess

from rule import rule


@rule("erased", "erased-in-sync", "erased-tombstones", "erased-sessions", needs="alone", wires=("json", "quic"))
async def an_erased_user(node, wire):
    a, b = await node.client(wire, node.user("a")), await node.client(wire, node.user("b"))
    g = await a.make_group("g", b.user)
    await b.said(g, "secret")
    await a.said(g, "answer")
    away = a.log(g)
    away.applied = 3
    command = [node.ready["tern"], "store", "erase", "--yes", "--data-dir", node.ready["data_dir"], b.user]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    close, code = await b.closed()
    assert close["code"] == code == 4100
    told = await a.take("erased")
    assert (told["conversation"], told["seq"]) == (g, 4) and "request_id" not in told
    left = (await a.entry(g, 4))["body"]
    assert left["kind"] == "left" and left["user"].startswith("erased:")
    page = await a.ask({"type": "fetch", "conversation": g})
    entry = page["entries"][2]
    assert (entry["seq"], entry["sender"], entry["temp_id"], entry["sender_name"]) == (2, left["user"], None, None)
    assert entry["body"] == {"kind": "erased"} and entry["messages"] == 1
    late = await node.client(wire, a.user)
    frames = await late.sync({g: 3})
    kinds = [frame["type"] for frame in frames]
    assert kinds == ["sync_page", "erased", "deliver", "sync_end"], kinds
    # Of one who was erased nothing is reached, and a newer token begins anew.
    assert (await a.say(left["user"], "hi"))["code"] == 4017
