"""The binary codec, written by hand from the page: frames as Python dicts in the form that JSON has."""

import base64
import json
import uuid

# Types of fields by the names of the page; "?T" is "optional T", "[T" is "list of T".
FRAMES = {
    "hello": (1, [("token", "string"), ("device", "?string"), ("agent", "?string"), ("features", "u64")]),
    "welcome": (2, [("session", "u64"), ("user", "string"), ("name", "?string"), ("device", "string"),
                    ("store_id", "uuid"), ("server", "string"), ("features", "u64"), ("time_ms", "u64"),
                    ("token_expires_ms", "u64"), ("limits", "Limits")]),
    "reauth": (3, [("token", "string")]),
    "reauthed": (4, [("token_expires_ms", "u64")]),
    "token_expiring": (5, [("token_expires_ms", "u64")]),
    "ping": (6, [("nonce", "u64")]),
    "pong": (7, [("nonce", "u64")]),
    "go_away": (8, [("deadline_ms", "u32"), ("spread_ms", "u32"), ("target", "?string")]),
    "error": (9, [("code", "u16"), ("temporary", "bool"), ("retry_after_ms", "?u32"), ("detail", "string"),
                  ("temp_id", "?uuid"), ("conversation", "?conversation")]),
    "close": (10, [("code", "u16"), ("reason", "string"), ("retry_after_ms", "?u32"), ("target", "?string")]),
    "send": (16, [("to", "target"), ("text", "string"), ("temp_id", "uuid"), ("age_ms", "?u64"),
                  ("data", "?data"), ("reply_to", "?u64")]),
    "send_ack": (17, [("temp_id", "uuid"), ("conversation", "conversation"), ("seq", "u64"), ("id", "uuid"),
                      ("time_ms", "u64"), ("messages", "u64"), ("duplicate", "bool"),
                      ("recipient_unknown", "bool")]),
    "abandon": (18, [("to", "target"), ("temp_id", "uuid")]),
    "deliver": (19, [("conversation", "conversation"), ("entries", "[Entry")]),
    "ack": (20, [("positions", "[Position")]),
    "read": (21, [("conversation", "conversation"), ("seq", "u64")]),
    "lagged": (22, [("conversation", "conversation"), ("head", "u64")]),
    "have_read": (23, [("conversation", "conversation"), ("seq", "u64"), ("messages", "u64")]),
    "sync": (24, [("cursors", "[Position"), ("more", "bool")]),
    "sync_page": (25, [("conversations", "[ConversationSummary")]),
    "sync_end": (26, [("changed", "u32")]),
    "gap": (27, [("conversation", "conversation"), ("from", "u64"), ("to", "u64")]),
    "fetch": (28, [("conversation", "conversation"), ("before", "?u64"), ("after", "?u64"), ("around", "?u64"),
                   ("limit", "?u32")]),
    "page": (29, [("conversation", "conversation"), ("entries", "[Entry"), ("first_seq", "u64"), ("head", "u64")]),
    "erased": (30, [("conversation", "conversation"), ("seq", "u64")]),
    "create_group": (32, [("name", "string"), ("members", "[string"), ("temp_id", "uuid")]),
    "add_members": (33, [("conversation", "conversation"), ("users", "[string"), ("temp_id", "uuid")]),
    "remove_members": (34, [("conversation", "conversation"), ("users", "[string"), ("temp_id", "uuid")]),
    "leave_group": (35, [("conversation", "conversation"), ("temp_id", "uuid")]),
    "rename_group": (36, [("conversation", "conversation"), ("name", "string"), ("temp_id", "uuid")]),
    "set_role": (37, [("conversation", "conversation"), ("user", "string"), ("role", "Role"), ("temp_id", "uuid")]),
    "list_conversations": (38, [("cursor", "?string"), ("limit", "?u32")]),
    "conversation_page": (39, [("conversations", "[ConversationSummary"), ("next", "?string")]),
    "list_members": (40, [("conversation", "conversation")]),
    "member_list": (41, [("conversation", "conversation"), ("members", "[MemberInfo")]),
    "leave_groups": (42, [("conversations", "[conversation"), ("temp_id", "uuid")]),
    "groups_left": (43, [("groups", "[GroupLeft")]),
    "keep_group": (44, [("conversation", "conversation")]),
    "group_kept": (45, [("conversation", "conversation")]),
    "watch": (48, [("users", "[string")]),
    "presence": (49, [("users", "[UserPresence")]),
    "typing": (50, [("to", "target")]),
    "user_typing": (51, [("conversation", "conversation"), ("user", "string")]),
    "block": (56, [("user", "string")]),
    "unblock": (57, [("user", "string")]),
    "block_changed": (58, [("user", "string"), ("blocked", "bool")]),
    "list_blocks": (59, [("after", "?string")]),
    "block_list": (60, [("users", "[BlockedUser"), ("next", "?string")]),
}
NAMES = {number: name for name, (number, _) in FRAMES.items()}
NOT_CRITICAL = {"typing", "user_typing", "erased"}
STRUCTURES = {
    "Entry": [("seq", "u64"), ("id", "uuid"), ("time_ms", "u64"), ("sender", "string"), ("sender_name", "?string"),
              ("temp_id", "?uuid"), ("messages", "u64"), ("body", "EntryBody")],
    "Position": [("conversation", "conversation"), ("seq", "u64")],
    "ConversationSummary": [("conversation", "conversation"), ("kind", "ConversationKind"), ("name", "?string"),
                            ("peer", "?string"), ("head", "u64"), ("head_messages", "u64"), ("first_seq", "u64"),
                            ("read_seq", "u64"), ("read_messages", "u64"), ("unread", "u64"),
                            ("last_time_ms", "u64"), ("role", "?Role"), ("added_by", "?string")],
    "GroupLeft": [("conversation", "conversation"), ("code", "?u16")],
    "BlockedUser": [("user", "string"), ("since_ms", "u64")],
    "MemberInfo": [("user", "string"), ("name", "?string"), ("role", "Role")],
    "UserPresence": [("user", "string"), ("state", "PresenceState"), ("last_seen_ms", "?u64")],
    "Limits": [(name, "u32") for name in (
        "frame_bytes", "text_bytes", "name_bytes", "group_members", "page_entries", "watch_users",
        "sends_in_flight", "sync_cursors", "sync_cursors_total", "ack_positions", "gap_whole", "gap_tail", "dedupe_window_s",
        "sessions_per_user", "keepalive_s", "dead_after_s", "sends_per_second", "blocks", "leave_groups",
        "added_groups")],
}
ENUMERATIONS = {
    "Role": ["member", "admin", "owner"],
    "ConversationKind": ["pair", "group"],
    "PresenceState": ["unknown", "online", "offline"],
}
KINDS = [
    ("message", [("text", "string"), ("data", "?data"), ("reply_to", "?u64")]),
    ("created", [("name", "string"), ("members", "[string")]),
    ("added", [("users", "[string")]),
    ("removed", [("users", "[string")]),
    ("left", [("user", "string")]),
    ("renamed", [("name", "string")]),
    ("role_changed", [("user", "string"), ("role", "Role")]),
    ("erased", []),
]
# What a JSON client may leave out, with what it then means.
LEFT_OUT = {"features": 0, "nonce": 0, "more": False, "text": "", "code": 0, "reason": "", "cursors": [],
            "members": [], "positions": None}
LARGEST_FRAME = 65_536
VARINT_BYTES = {"u16": 3, "u32": 5, "u64": 10}


class Broken(Exception):
    """Bytes that are no frame; `fatal` where the stream cannot be read any further."""

    def __init__(self, why, fatal=False):
        super().__init__(why)
        self.fatal = fatal


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Bytes:
    """Reads from the front of some bytes."""

    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        if count > self.left():
            raise Broken("it ends too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self, most=10, bits=64):
        number = 0
        for place in range(most):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if number >> bits:
                    raise Broken("a number is too large")
                return number
        raise Broken("a varint is too long")


def conversation_text(raw):
    return "c:" + base64.b32encode(raw).decode().rstrip("=").lower()


def conversation_bytes(text):
    return base64.b32decode(text[2:].upper() + "======")


def write(kind, value):
    if kind[0] == "?":
        return b"\0" if value is None else b"\1" + write(kind[1:], value)
    if kind[0] == "[":
        return varint(len(value)) + b"".join(write(kind[1:], element) for element in value)
    if kind in VARINT_BYTES:
        return varint(value)
    if kind == "string":
        return varint(len(value.encode())) + value.encode()
    if kind == "bool":
        return b"\1" if value else b"\0"
    if kind == "uuid":
        return uuid.UUID(value).bytes
    if kind == "conversation":
        return conversation_bytes(value)
    if kind == "data":
        return write("string", value if isinstance(value, Json) else json.dumps(value, separators=(",", ":")))
    if kind == "target":
        return b"\1" + write("conversation", value) if value.startswith("c:") else b"\0" + write("string", value)
    if kind in ENUMERATIONS:
        return varint(ENUMERATIONS[kind].index(value))
    if kind == "EntryBody":
        return write_body(value)
    return b"".join(write(inner, value.get(name)) for name, inner in STRUCTURES[kind])


def write_body(value):
    if value["kind"] == "opaque":
        number, fields = value["number"], base64.urlsafe_b64decode(value["bytes"] + "==")
    else:
        number = [name for name, _ in KINDS].index(value["kind"])
        fields = b"".join(write(inner, value.get(name)) for name, inner in KINDS[number][1])
    return varint(number) + varint(len(fields)) + fields


class Json(str):
    """A JSON text that stays as it was written."""


def read(kind, source):
    if kind[0] == "?":
        given = source.take(1)[0]
        if given > 1:
            raise Broken("an optional is 0 or 1")
        return read(kind[1:], source) if given else None
    if kind[0] == "[":
        count = source.varint()
        if count > source.left():
            raise Broken("a list is longer than the frame")
        return [read(kind[1:], source) for _ in range(count)]
    if kind in VARINT_BYTES:
        return source.varint(VARINT_BYTES[kind], int(kind[1:]))
    if kind == "string":
        try:
            return source.take(source.varint()).decode()
        except UnicodeDecodeError as error:
            raise Broken("not UTF-8") from error
    if kind == "bool":
        value = source.take(1)[0]
        if value > 1:
            raise Broken("a bool is 0 or 1")
        return bool(value)
    if kind == "uuid":
        return str(uuid.UUID(bytes=source.take(16)))
    if kind == "conversation":
        return conversation_text(source.take(16))
    if kind == "data":
        try:
            value = json.loads(read("string", source))
        except ValueError as error:
            raise Broken("data is not JSON") from error
        if value is None:
            raise Broken("data is not null")
        return value
    if kind == "target":
        variant = source.varint(5, 32)
        if variant > 1:
            raise Broken("an unknown variant")
        return read(("string", "conversation")[variant], source)
    if kind in ENUMERATIONS:
        number = source.varint(5, 32)
        if number >= len(ENUMERATIONS[kind]):
            raise Broken("an unknown variant")
        return ENUMERATIONS[kind][number]
    if kind == "EntryBody":
        return read_body(source)
    return {name: read(inner, source) for name, inner in STRUCTURES[kind]}


def read_body(source):
    number = source.varint(5, 32)
    raw = source.take(source.varint(5, 32))
    if number >= len(KINDS):
        return {"kind": "opaque", "number": number, "bytes": base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    name, fields = KINDS[number]
    inside = Bytes(raw)  # what is left over are fields of a later version
    values = {field: read(inner, inside) for field, inner in fields}
    return {"kind": name, **{field: value for field, value in values.items() if value is not None}}


def body_of(name, frame):
    """The fields of a frame, one after the other."""
    out = b""
    for field, kind in FRAMES[name][1]:
        value = frame.get(field)
        if value is None and kind[0] != "?":
            value = LEFT_OUT[field]
        out += write(kind, value)
    return out


def encode(frame):
    """A frame, its length included."""
    frame = {"type": "send", **frame}
    name, request = frame["type"], frame.get("request_id")
    flags = (0 if name in NOT_CRITICAL else 1) | (0 if request is None else 2)
    return raw(FRAMES[name][0], flags, request, body_of(name, frame))


def raw(number, flags, request, body):
    """A frame of any type."""
    rest = varint(number) + bytes([flags]) + (b"" if request is None else varint(request)) + body
    return varint(len(rest)) + rest


def decode(rest):
    """The frame that these bytes after a length are; None: one that may be skipped."""
    source = Bytes(rest)
    number, flags = source.varint(5, 32), source.take(1)[0]
    if flags & ~3:
        raise Broken("a reserved flag is set")
    request = source.varint() if flags & 2 else None
    if number not in NAMES:
        if flags & 1:
            raise Broken(f"type {number} is critical and not known")
        return None
    name = NAMES[number]
    frame = {"type": name}
    if request is not None:
        frame["request_id"] = request
    for field, kind in FRAMES[name][1]:
        frame[field] = read(kind, source)
    if source.left():
        raise Broken("bytes are left over")
    return frame


class Splitter:
    """Cuts a stream of bytes into frames."""

    def __init__(self):
        self.waiting = b""

    def push(self, data):
        self.waiting += data
        frames = []
        while True:
            source = Bytes(self.waiting)
            try:
                length = source.varint(5, 32)
            except Broken:
                if source.left() or len(self.waiting) >= 5:
                    raise Broken("a broken length", fatal=True) from None
                return frames
            if length > LARGEST_FRAME:
                raise Broken("too long a frame", fatal=True)
            if source.left() < length:
                return frames
            frame = decode(source.take(length))
            self.waiting = self.waiting[source.at:]
            if frame is not None:
                frames.append(frame)
