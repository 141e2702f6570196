"""A client as the page describes one: it numbers requests, keeps logs by the place rule, mints its own tokens."""

import base64
import hashlib
import hmac
import itertools
import json
import time
import unicodedata
import uuid
from urllib.parse import urlsplit

from wires import Ended, Quic, WebSocket

WIRES = ("json", "binary", "quic", "webtransport")


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def conversation_id(*parts):
    """A conversation's id from its parts, as the page says."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return "c:" + base64.b32encode(digest.digest()[:16]).decode().rstrip("=").lower()


def user_bytes(user):
    """A user as ids are derived from it: in its composed form."""
    return unicodedata.normalize("NFC", user).encode()


def pair(one, other):
    return conversation_id(b"pair", *sorted([user_bytes(one), user_bytes(other)]))


def group(creator, temp_id):
    return conversation_id(b"group", user_bytes(creator), uuid.UUID(temp_id).bytes)


def fresh():
    return str(uuid.uuid4())


class Node:
    """Where a node is, and the secret for its tokens."""

    def __init__(self, ready):
        self.ready = ready
        self.secret = open(ready["jwt_secret_file"], "rb").read().rstrip(b"\r\n")
        self.pin = ready["cert_sha256"]
        host, port = ready["quic_addr"].rsplit(":", 1)
        self.address = (host, int(port))
        self.names = itertools.count(1)
        self.run = uuid.uuid4().hex[:8]

    def user(self, name):
        """A user that no other rule has met."""
        return f"{name}-{self.run}-{next(self.names)}"

    def token(self, user, **claims):
        now = int(time.time())
        claims = {"sub": user, "iat": now, "exp": now + 3600, **claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.signed(claims)

    def signed(self, claims):
        head = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return head + "." + base64url(hmac.new(self.secret, head.encode(), hashlib.sha256).digest())

    async def link(self, wire, **more):
        if wire == "json":
            return await WebSocket.open(self.ready["websocket_url"], "tern.v1.json", **more)
        if wire == "binary":
            return await WebSocket.open(self.ready["wss_url"], "tern.v1", self.pin, **more)
        url = self.ready["webtransport_url"] if wire == "webtransport" else None
        headers = [(b"wt-available-protocols", b'"tern.v1"')] if url else ()
        return await Quic.open(*self.address, self.pin, url, headers, **more)

    async def client(self, wire, user, device=None, token=None, **claims):
        """A session after its welcome."""
        client = Client(self, await self.link(wire), user)
        hello = {"type": "hello", "token": token or self.token(user, **claims)}
        await client.send({**hello, "device": device} if device else hello)
        client.welcome = await client.take("welcome")
        return client

    @property
    def http(self):
        parts = urlsplit(self.ready["http_url"])
        return parts.hostname, parts.port


class Log:
    """What a client has of one conversation, by the place rule."""

    def __init__(self, applied=0):
        self.applied, self.entries, self.aside, self.left_out, self.dropped = applied, {}, {}, [], 0

    def entry(self, entry):
        if entry["seq"] <= self.applied:
            self.dropped += 1
            return
        self.aside[entry["seq"]] = entry
        while self.applied + 1 in self.aside:
            self.applied += 1
            self.entries[self.applied] = self.aside.pop(self.applied)

    def gap(self, first, last):
        if first <= self.applied + 1 and last > self.applied:
            self.left_out.append((self.applied + 1, last))
            self.applied = last
        self.aside = {seq: entry for seq, entry in self.aside.items() if seq > self.applied}
        while self.applied + 1 in self.aside:
            self.applied += 1
            self.entries[self.applied] = self.aside.pop(self.applied)

    def seqs(self):
        return sorted(self.entries)


class Client:
    """A session; frames that nobody asked for yet are kept."""

    def __init__(self, node, link, user):
        self.node, self.link, self.user = node, link, user
        self.kept, self.logs, self.requests = [], {}, itertools.count(1)

    async def send(self, frame):
        await self.link.send(frame)

    async def next(self):
        """The next frame that comes."""
        frame = await self.link.receive()
        kind = frame["type"]
        if kind == "deliver":
            for entry in frame["entries"]:
                self.log(frame["conversation"]).entry(entry)
        elif kind == "gap":
            self.log(frame["conversation"]).gap(frame["from"], frame["to"])
        elif kind == "ping":
            await self.send({"type": "pong", "nonce": frame["nonce"]})
        return frame

    def log(self, conversation):
        return self.logs.setdefault(conversation, Log())

    async def until(self, wanted):
        """The first frame that fits, of those kept or of those to come."""
        for place, frame in enumerate(self.kept):
            if wanted(frame):
                return self.kept.pop(place)
        while True:
            try:
                frame = await self.next()
            except TimeoutError:
                raise AssertionError(f"{self.user} waits in vain; came: {self.kept}") from None
            except Ended as end:
                raise AssertionError(f"{self.user}: {end}; came: {self.kept}") from None
            if wanted(frame):
                return frame
            self.kept.append(frame)

    async def take(self, *kinds):
        return await self.until(lambda frame: frame["type"] in kinds)

    async def ask(self, frame):
        """The answer to a request, be it an error."""
        number = next(self.requests)
        await self.send({**frame, "request_id": number})
        return await self.until(lambda answer: answer.get("request_id") == number)

    async def say(self, to, text, **more):
        """Sends a message; the ack or the error."""
        message = {"type": "send", "to": to, "text": text, "temp_id": fresh(), "age_ms": 0, **more}
        answer = await self.ask({name: value for name, value in message.items() if value is not None})
        if answer["type"] == "send_ack":
            # It stands for the entry.
            own = {"seq": answer["seq"], "id": answer["id"], "messages": answer["messages"], "sender": self.user}
            self.log(answer["conversation"]).entry(own)
        return answer

    async def said(self, to, text, **more):
        answer = await self.say(to, text, **more)
        assert answer["type"] == "send_ack", answer
        return answer

    async def make_group(self, name, *members):
        answer = await self.ask({"type": "create_group", "name": name, "members": list(members), "temp_id": fresh()})
        assert answer["type"] == "send_ack", answer
        return answer["conversation"]

    async def entry(self, conversation, seq):
        """An entry that is delivered."""
        while seq not in self.log(conversation).entries:
            self.kept.append(await self.next())
        return self.log(conversation).entries[seq]

    async def sync(self, cursors=None, **more):
        """All frames of a sync's answer."""
        number = next(self.requests)
        positions = [{"conversation": name, "seq": seq} for name, seq in (cursors or {}).items()]
        await self.send({"type": "sync", "request_id": number, "cursors": positions, **more})
        frames = []
        while True:
            frames.append(await self.until(lambda frame: frame.get("request_id") == number))
            if frames[-1]["type"] == "sync_end":
                return frames

    async def quiet(self):
        """Whatever comes before the answers to a ping and to a read, which comes behind everything live."""
        for frame, kind in (({"type": "ping", "nonce": 7}, "pong"), ({"type": "list_blocks"}, "block_list")):
            answer = await self.ask(frame)
            assert answer["type"] == kind, answer
        return self.kept

    async def closed(self):
        """The close frame, and the code with which the transport ended."""
        frame = None
        while True:
            try:
                frame = await self.next()
            except Ended as end:
                return frame if frame and frame["type"] == "close" else None, end.code
            self.kept.append(frame)

    async def end(self):
        await self.link.end()
