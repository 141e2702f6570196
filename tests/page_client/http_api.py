"""Chapter "HTTP" of the page."""

import asyncio
import http.client
import json
import time

from client import fresh, pair
from rule import rule


async def ask(node, method, path, token=None, body=None, **headers):
    """Status, headers and JSON of an answer."""
    def blocking():
        connection = http.client.HTTPConnection(*node.http, timeout=30)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        connection.request(method, "/v1" + path, text, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, answer.headers, json.loads(raw) if raw else None
    return await asyncio.to_thread(blocking)


@rule("http-history", "http-cursor", "http-etag", "http-status", wires=("json",))
async def history_over_http(node, wire):
    a = await node.client(wire, node.user("a"))
    token = node.token(a.user)
    for at in range(1, 31):
        ack = await a.said("bob", str(at), data={"at": at})
    path = "/history/" + ack["conversation"]
    status, headers, page = await ask(node, "GET", path, token)
    assert status == 200 and [entry["seq"] for entry in page["entries"]] == list(range(30, 10, -1))
    assert (page["first_seq"], page["head"], page["newer"]) == (1, 30, None)
    assert page["entries"][0]["body"] == {"kind": "message", "text": "30", "data": {"at": 30}}
    assert headers["Cache-Control"] == "private, no-cache"
    status, _, _ = await ask(node, "GET", path, token, If_None_Match=headers["ETag"])
    assert status == 304
    _, headers, page = await ask(node, "GET", f"{path}?limit=5&cursor={page['older']}", token)
    assert [entry["seq"] for entry in page["entries"]] == list(range(10, 5, -1))
    assert headers["Cache-Control"] == "private, max-age=300"
    _, _, page = await ask(node, "GET", f"{path}?cursor={page['newer']}&limit=5", token)
    assert [entry["seq"] for entry in page["entries"]] == list(range(15, 10, -1))
    now = int(time.time() * 1000) + 60_000
    assert len(str(now)) == 13
    _, _, page = await ask(node, "GET", f"{path}?limit=1&cursor={now}", token)
    assert page["entries"][0]["seq"] == 30
    _, _, page = await ask(node, "GET", f"{path}?limit=1&cursor=1000000000000", token)
    assert page["entries"] == []
    for query in ("cursor=100000000000", "cursor=5", "cursor=zzz", "limit=0", "limit=201", "before=1&after=1", "page=1",
                  "before=-1", "token=x"):
        status, _, problem = await ask(node, "GET", f"{path}?{query}", token)
        assert status == 400 and problem["status"] == 400 and problem["detail"], query
    assert (await ask(node, "GET", path))[0] == 401
    assert (await ask(node, "GET", path, node.token(a.user, exp=1)))[2]["number"] == 4101
    for name in (pair("x", "y"), "c:zzz", "bob"):
        status, _, problem = await ask(node, "GET", "/history/" + name, token)
        assert status == 404 and problem["number"] == 4009


@rule("http-idempotency-key", wires=("json",))
async def the_key_of_a_request_is_its_temp_id(node, wire):
    user = node.user("a")
    token, key = node.token(user), fresh()
    message = {"to": "bob", "text": "hi"}
    answers = [await ask(node, "POST", "/messages", token, message, Idempotency_Key=value)
               for value in (key, f'"{key}"', key.upper())]
    assert [(status, answer["seq"], answer["temp_id"], answer["duplicate"]) for status, _, answer in answers] == [
        (200, 1, key, False), (200, 1, key, True), (200, 1, key, True)]
    status, _, answer = await ask(node, "POST", "/messages", token, {**message, "temp_id": key}, Idempotency_Key=key)
    assert status == 200 and answer["duplicate"]
    for body, value in ((message, "one"), (message, ""), ({**message, "temp_id": fresh()}, key)):
        status, _, problem = await ask(node, "POST", "/messages", token, body, Idempotency_Key=value)
        assert status == 422 and problem["number"] == 4006 and "Idempotency-Key" in problem["detail"], problem
    status, _, answer = await ask(node, "POST", "/messages", token, {**message, "text": "ho"}, Idempotency_Key=key)
    assert status == 409
    group = fresh()
    for status in (201, 200):
        got = await ask(node, "POST", "/conversations", token, {"name": "g", "members": ["bob"]}, Idempotency_Key=group)
        assert got[0] == status and got[2]["temp_id"] == group
    name = got[2]["conversation"]
    for method, path, body in (
        ("PATCH", f"/conversations/{name}", {"name": "h"}),
        ("POST", f"/conversations/{name}/members", {"users": ["carol"]}),
        ("PATCH", f"/conversations/{name}/members/bob", {"role": "admin"}),
        ("DELETE", f"/conversations/{name}/members/carol", None),
        ("POST", f"/conversations/{name}/leave", {}),
    ):
        change = fresh()
        for duplicate in (False, True):
            status, _, answer = await ask(node, method, path, token, body, Idempotency_Key=change)
            assert (status, answer["temp_id"], answer["duplicate"]) == (200, change, duplicate), answer


@rule("http-lenient", wires=("json",))
async def half_a_character_and_odd_ages_over_http(node, wire):
    user = node.user("a")
    body = '{"to":"bob","text":"cut \\ud83d","age_ms":-5,"temp_id":"%s"}' % fresh()
    status, _, ack = await ask(node, "POST", "/messages", node.token(user), body)
    assert status == 200
    _, _, page = await ask(node, "GET", "/history/" + ack["conversation"], node.token(user))
    assert page["entries"][0]["body"]["text"] == "cut \ufffd"
