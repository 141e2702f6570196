//! One example and the edge values of every frame: the source of the golden vectors.

use tern_protocol::*;

fn user(text: &str) -> UserId {
    UserId::new(text).expect("a valid user id")
}

fn temp_id() -> TempId {
    "0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05".parse().expect("a UUID")
}

fn entry_id() -> EntryId {
    "0190c7a2-6000-7abc-8def-000000000001".parse().expect("a UUID")
}

fn store_id() -> StoreId {
    "2f1c0f0e-9d55-4b60-8d0a-5f3c1b2a4d6e".parse().expect("a UUID")
}

fn pair() -> ConversationId {
    ConversationId::pair(&user("alice"), &user("bob"))
}

fn group() -> ConversationId {
    ConversationId::group(&user("alice"), &temp_id())
}

/// Bytes that show when an id is reversed, cut or read as text.
const COUNTING: ConversationId =
    ConversationId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);

fn entry(seq: u64, body: EntryBody) -> Entry {
    Entry {
        seq,
        id: entry_id(),
        time_ms: 1_767_225_600_000,
        sender: user("alice"),
        sender_name: Some("Alice".into()),
        temp_id: Some(temp_id()),
        messages: seq,
        body,
    }
}

/// All sorts of values, the order of fields and the digits as they were written.
fn data() -> Data {
    Data::new(r#"{"z":[1.50,-2,1e3,true,null],"a":{"\u00e9":"é\n"},"n":9007199254740993}"#).expect("JSON")
}

/// What a version to come may write.
fn later() -> EntryBody {
    EntryBody::Opaque { kind: 200, bytes: b"\x02hi\xff\x00".to_vec() }
}

/// Every entry body, each role among them.
pub(crate) fn bodies() -> Vec<(&'static str, EntryBody)> {
    let role = |role| EntryBody::RoleChanged { user: user("bob"), role };
    vec![
        ("message", EntryBody::text("hi")),
        (
            "message with all",
            EntryBody::Message { text: "hi".into(), data: Some(data()), reply_to: Some(300) },
        ),
        ("message of data", EntryBody::Message { text: String::new(), data: Some(data()), reply_to: None }),
        ("created", EntryBody::Created { name: "Team".into(), members: vec![user("alice"), user("bob")] }),
        ("added", EntryBody::Added { users: vec![user("carol")] }),
        ("removed", EntryBody::Removed { users: vec![user("bob"), user("carol")] }),
        ("left", EntryBody::Left { user: user("alice") }),
        ("renamed", EntryBody::Renamed { name: "Tëam".into() }),
        ("role_member", role(Role::Member)),
        ("role_admin", role(Role::Admin)),
        ("role_owner", role(Role::Owner)),
        ("erased", EntryBody::Erased),
        ("a later kind", later()),
        ("a later kind of no bytes", EntryBody::Opaque { kind: 8, bytes: Vec::new() }),
        ("a later kind of a large number", EntryBody::Opaque { kind: u32::MAX - 1, bytes: vec![0; 200] }),
        (
            "a kind known by its name",
            EntryBody::Opaque {
                kind: KIND_NAMED,
                bytes: br#"{"kind":"reacted","to":1,"with":["\ud83d\udc4d",1.50]}"#.to_vec(),
            },
        ),
    ]
}

fn limits() -> Limits {
    Limits {
        frame_bytes: FRAME_BYTES_MAX as u32,
        text_bytes: TEXT_BYTES_MAX as u32,
        name_bytes: NAME_BYTES_MAX as u32,
        group_members: GROUP_MEMBERS_MAX as u32,
        page_entries: PAGE_ENTRIES_MAX as u32,
        watch_users: WATCH_USERS_MAX as u32,
        sends_in_flight: SENDS_IN_FLIGHT_MAX as u32,
        sync_cursors: SYNC_CURSORS_MAX as u32,
        sync_cursors_total: SYNC_CURSORS_TOTAL_MAX as u32,
        ack_positions: ACK_POSITIONS_MAX as u32,
        gap_whole: GAP_WHOLE_MAX as u32,
        gap_tail: GAP_TAIL as u32,
        dedupe_window_s: DEDUPE_WINDOW_S,
        sessions_per_user: 20,
        keepalive_s: 20,
        dead_after_s: 45,
        sends_per_second: 50,
        blocks: BLOCKS_MAX as u32,
        leave_groups: LEAVE_GROUPS_MAX as u32,
        added_groups: 500,
    }
}

fn summary() -> ConversationSummary {
    ConversationSummary {
        conversation: group(),
        kind: ConversationKind::Group,
        name: Some("Team".into()),
        peer: None,
        head: 42,
        head_messages: 39,
        first_seq: 1,
        read_seq: 40,
        read_messages: 37,
        unread: 2,
        last_time_ms: 1_767_225_600_000,
        role: Some(Role::Owner),
        added_by: Some(user("bob")),
    }
}

/// One ordinary example of every frame.
pub(crate) fn ordinary() -> Vec<Frame> {
    let mut frames = session();
    frames.extend(messages());
    frames.extend(catching_up());
    frames.extend(groups());
    frames.extend(people());
    frames
}

fn session() -> Vec<Frame> {
    vec![
        Hello {
            token: Token("header.payload.signature".into()),
            device: Some(DeviceId::new("phone").expect("a valid device id")),
            agent: Some("example/1.0".into()),
            features: 0,
        }
        .into(),
        Welcome {
            session: 7,
            user: user("alice"),
            name: Some("Alice".into()),
            device: DeviceId::new("phone").expect("a valid device id"),
            store_id: store_id(),
            server: "tern/0.1.0".into(),
            features: 0,
            time_ms: 1_767_225_600_000,
            token_expires_ms: 1_767_229_200_000,
            limits: limits(),
        }
        .into(),
        Reauth { token: Token("header.payload.signature".into()) }.into(),
        Reauthed { token_expires_ms: 1_767_232_800_000 }.into(),
        TokenExpiring { token_expires_ms: 1_767_229_200_000 }.into(),
        Ping { nonce: 300 }.into(),
        Pong { nonce: 300 }.into(),
        GoAway { deadline_ms: 30_000, spread_ms: 10_000, target: Some("chat2.example.org:4433".into()) }
            .into(),
        Error {
            code: Code::RATE_LIMITED,
            temporary: true,
            retry_after_ms: Some(250),
            detail: "too many sends".into(),
            temp_id: Some(temp_id()),
            conversation: Some(pair()),
        }
        .into(),
        Close {
            code: Code::DRAINING,
            reason: "this node is draining".into(),
            retry_after_ms: Some(1_000),
            target: Some("chat2.example.org:4433".into()),
        }
        .into(),
    ]
}

fn messages() -> Vec<Frame> {
    vec![
        Send {
            to: user("bob").into(),
            text: "hi".into(),
            temp_id: temp_id(),
            age_ms: Some(0),
            data: Some(data()),
            reply_to: Some(1),
        }
        .into(),
        SendAck {
            temp_id: temp_id(),
            conversation: pair(),
            seq: 1,
            id: entry_id(),
            time_ms: 1_767_225_600_000,
            messages: 1,
            duplicate: false,
            recipient_unknown: true,
        }
        .into(),
        Abandon { to: user("bob").into(), temp_id: temp_id() }.into(),
        Deliver { conversation: pair(), entries: vec![entry(1, EntryBody::text("hi"))] }.into(),
        Ack {
            positions: vec![
                Position { conversation: pair(), seq: 1 },
                Position { conversation: group(), seq: 300 },
            ],
        }
        .into(),
        Read { conversation: pair(), seq: 1 }.into(),
        Lagged { conversation: pair(), head: 900 }.into(),
        HaveRead { conversation: pair(), seq: 300, messages: 299 }.into(),
    ]
}

fn catching_up() -> Vec<Frame> {
    vec![
        Sync { cursors: vec![Position { conversation: pair(), seq: 1 }], more: true }.into(),
        SyncPage { conversations: vec![summary()] }.into(),
        SyncEnd { changed: 1 }.into(),
        Gap { conversation: pair(), from: 2, to: 451 }.into(),
        Fetch { conversation: pair(), before: Some(51), after: None, around: None, limit: Some(20) }.into(),
        Page {
            conversation: group(),
            entries: vec![
                entry(2, EntryBody::text("hi")),
                entry(1, EntryBody::Created { name: "Team".into(), members: vec![user("alice")] }),
            ],
            first_seq: 1,
            head: 2,
        }
        .into(),
        Erased { conversation: pair(), seq: 300 }.into(),
    ]
}

fn groups() -> Vec<Frame> {
    vec![
        CreateGroup { name: "Team".into(), members: vec![user("bob"), user("carol")], temp_id: temp_id() }
            .into(),
        AddMembers { conversation: group(), users: vec![user("dave")], temp_id: temp_id() }.into(),
        RemoveMembers { conversation: group(), users: vec![user("dave")], temp_id: temp_id() }.into(),
        LeaveGroup { conversation: group(), temp_id: temp_id() }.into(),
        RenameGroup { conversation: group(), name: "Team 2".into(), temp_id: temp_id() }.into(),
        SetRole { conversation: group(), user: user("bob"), role: Role::Admin, temp_id: temp_id() }.into(),
        ListConversations { cursor: Some("abc".into()), limit: Some(50) }.into(),
        ConversationPage { conversations: vec![summary()], next: Some("def".into()) }.into(),
        ListMembers { conversation: group() }.into(),
        MemberList {
            conversation: group(),
            members: vec![
                MemberInfo { user: user("alice"), name: Some("Alice".into()), role: Role::Owner },
                MemberInfo { user: user("bob"), name: None, role: Role::Member },
            ],
        }
        .into(),
        LeaveGroups { conversations: vec![group(), pair()], temp_id: temp_id() }.into(),
        GroupsLeft {
            groups: vec![
                GroupLeft { conversation: group(), code: None },
                GroupLeft { conversation: pair(), code: Some(Code::INVALID_ARGUMENT) },
            ],
        }
        .into(),
        KeepGroup { conversation: group() }.into(),
        GroupKept { conversation: group() }.into(),
    ]
}

fn people() -> Vec<Frame> {
    vec![
        Watch { users: vec![user("bob"), user("carol")] }.into(),
        Presence {
            users: vec![
                UserPresence { user: user("bob"), state: PresenceState::Online, last_seen_ms: None },
                UserPresence {
                    user: user("carol"),
                    state: PresenceState::Offline,
                    last_seen_ms: Some(1_767_225_600_000),
                },
                UserPresence { user: user("dave"), state: PresenceState::Unknown, last_seen_ms: None },
            ],
        }
        .into(),
        Typing { to: group().into() }.into(),
        UserTyping { conversation: group(), user: user("alice") }.into(),
        Block { user: user("bob") }.into(),
        Unblock { user: user("bob") }.into(),
        BlockChanged { user: user("bob"), blocked: true }.into(),
        ListBlocks { after: Some(user("bob")) }.into(),
        BlockList {
            users: vec![BlockedUser { user: user("carol"), since_ms: 1_767_225_600_000 }],
            next: Some(user("carol")),
        }
        .into(),
    ]
}

/// Edge values: the largest numbers, empty lists, absent options, text of many bytes.
pub(crate) fn edges() -> Vec<(String, Frame)> {
    let mut edges: Vec<(String, Frame)> = bodies()
        .into_iter()
        .map(|(name, body)| {
            let entries = vec![entry(1, body)];
            (format!("deliver: {name}"), Deliver { conversation: group(), entries }.into())
        })
        .collect();
    edges.extend(edge_values().into_iter().map(|(name, frame)| (name.to_owned(), frame)));
    edges
}

fn edge_values() -> Vec<(&'static str, Frame)> {
    let max = Position { conversation: COUNTING, seq: u64::MAX };
    let bare_entry = Entry {
        seq: u64::MAX,
        id: EntryId::from_bytes([255; 16]),
        time_ms: u64::MAX,
        sender: user("b"),
        sender_name: None,
        temp_id: None,
        messages: u64::MAX,
        body: EntryBody::text("x"),
    };
    let bare_summary = ConversationSummary {
        kind: ConversationKind::Pair,
        name: None,
        peer: Some(user("bob")),
        role: None,
        added_by: None,
        unread: u64::MAX,
        ..summary()
    };
    let send = |text: &str| Send {
        to: pair().into(),
        text: text.into(),
        temp_id: temp_id(),
        age_ms: None,
        data: None,
        reply_to: None,
    };
    vec![
        (
            "hello: all absent",
            Hello { token: Token(String::new()), device: None, agent: None, features: u64::MAX }.into(),
        ),
        ("ping: largest number", Ping { nonce: u64::MAX }.into()),
        ("ping: 127", Ping { nonce: 127 }.into()),
        ("ping: 128", Ping { nonce: 128 }.into()),
        (
            "error: unknown code",
            Error {
                code: Code(65_535),
                temporary: false,
                retry_after_ms: None,
                detail: String::new(),
                temp_id: None,
                conversation: None,
            }
            .into(),
        ),
        (
            "close: ordinary",
            Close { code: Code::NORMAL, reason: String::new(), retry_after_ms: None, target: None }.into(),
        ),
        ("go_away: longest", GoAway { deadline_ms: u32::MAX, spread_ms: 0, target: None }.into()),
        ("send: to a conversation", send("hi").into()),
        ("send: text of many bytes", send("Grüße, 世界 👋🏽 \u{202e}\u{0}\"\\").into()),
        ("send: length of two bytes", send(&"a".repeat(200)).into()),
        ("send: of data only", Send { data: Some(data()), ..send("") }.into()),
        ("send: an answer", Send { reply_to: Some(u64::MAX), ..send("hi") }.into()),
        ("send: longest age", Send { age_ms: Some(u64::MAX), ..send("hi") }.into()),
        ("deliver: no entries", Deliver { conversation: COUNTING, entries: vec![] }.into()),
        ("deliver: bare entry", Deliver { conversation: COUNTING, entries: vec![bare_entry] }.into()),
        ("ack: no positions", Ack { positions: vec![] }.into()),
        ("ack: largest seq", Ack { positions: vec![max] }.into()),
        ("sync: from nothing", Sync { cursors: vec![], more: false }.into()),
        ("sync_page: a pair", SyncPage { conversations: vec![bare_summary] }.into()),
        (
            "fetch: the newest",
            Fetch { conversation: pair(), before: None, after: None, around: None, limit: None }.into(),
        ),
        (
            "fetch: after",
            Fetch { conversation: pair(), before: None, after: Some(0), around: None, limit: None }.into(),
        ),
        (
            "fetch: around, largest limit",
            Fetch { conversation: pair(), before: None, after: None, around: Some(7), limit: Some(u32::MAX) }
                .into(),
        ),
        ("create_group: alone", CreateGroup { name: "Ö".into(), members: vec![], temp_id: temp_id() }.into()),
        (
            "page: later kinds among others",
            Page {
                conversation: pair(),
                entries: vec![
                    entry(3, later()),
                    entry(2, EntryBody::Erased),
                    entry(1, EntryBody::text("hi")),
                ],
                first_seq: 1,
                head: 3,
            }
            .into(),
        ),
        ("list_conversations: from the start", ListConversations { cursor: None, limit: None }.into()),
        ("conversation_page: the last", ConversationPage { conversations: vec![], next: None }.into()),
        ("watch: nobody", Watch { users: vec![] }.into()),
        ("typing: to a user", Typing { to: user("bøb").into() }.into()),
    ]
}
