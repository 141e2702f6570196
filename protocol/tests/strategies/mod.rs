//! Any frame that a side may write, for property tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;
use tern_protocol::*;

/// Lists are kept short: their length prefix does not care, and a case stays readable.
const LIST_LEN_MAX: usize = 6;

fn text() -> impl Strategy<Value = String> {
    // Any characters, control characters and those outside the first plane among them.
    vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn id_text(chars_max: usize) -> impl Strategy<Value = String> {
    let allowed = any::<char>().prop_filter("ids have no control characters", |c| !c.is_control());
    // At most 4 bytes a character.
    vec(allowed, 1..=chars_max).prop_map(String::from_iter)
}

fn user() -> impl Strategy<Value = UserId> {
    id_text(USER_ID_BYTES_MAX / 4)
        .prop_filter_map("a user id does not start with c:", |text| UserId::new(&text).ok())
}

fn users() -> impl Strategy<Value = Vec<UserId>> {
    vec(user(), 0..LIST_LEN_MAX)
}

fn device() -> impl Strategy<Value = DeviceId> {
    id_text(DEVICE_ID_BYTES_MAX / 4).prop_map(|text| DeviceId::new(&text).expect("short enough"))
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<[u8; 16]>().prop_map(ConversationId::from_bytes)
}

fn temp_id() -> impl Strategy<Value = TempId> {
    any::<[u8; 16]>().prop_map(TempId::from_bytes)
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    any::<[u8; 16]>().prop_map(EntryId::from_bytes)
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![user().prop_map(Target::from), conversation().prop_map(Target::from)]
}

fn token() -> impl Strategy<Value = Token> {
    text().prop_map(Token)
}

/// Small numbers and those around the borders of a varint are as likely as all others together.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..300, any::<u64>(), (0u32..64).prop_map(|bit| 1 << bit), Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|number| number as u32)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Member), Just(Role::Admin), Just(Role::Owner)]
}

/// JSON of a few levels.
fn data() -> impl Strategy<Value = Data> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON has no infinities", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        text().prop_map(|text| serde_json::to_string(&text).expect("a text")),
    ];
    let value = leaf.prop_recursive(3, 20, 4, |inner| {
        let field = (text(), inner.clone())
            .prop_map(|(name, value)| format!("{}:{value}", serde_json::to_string(&name).expect("a text")));
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            vec(field, 0..4).prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ]
    });
    value.prop_map(|text| Data::new(&text).expect("JSON"))
}

fn entry_body() -> impl Strategy<Value = EntryBody> {
    let later = EntryBody::KINDS.len() as u32..KIND_NAMED;
    prop_oneof![
        (text(), option::of(data()), option::of(number()))
            .prop_map(|(text, data, reply_to)| EntryBody::Message { text, data, reply_to }),
        Just(EntryBody::Erased),
        (later, vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| EntryBody::Opaque { kind, bytes }),
        (text(), users()).prop_map(|(name, members)| EntryBody::Created { name, members }),
        users().prop_map(|users| EntryBody::Added { users }),
        users().prop_map(|users| EntryBody::Removed { users }),
        user().prop_map(|user| EntryBody::Left { user }),
        text().prop_map(|name| EntryBody::Renamed { name }),
        (user(), role()).prop_map(|(user, role)| EntryBody::RoleChanged { user, role }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        number(),
        entry_id(),
        number(),
        user(),
        option::of(text()),
        option::of(temp_id()),
        number(),
        entry_body(),
    )
        .prop_map(|(seq, id, time_ms, sender, sender_name, temp_id, messages, body)| Entry {
            seq,
            id,
            time_ms,
            sender,
            sender_name,
            temp_id,
            messages,
            body,
        })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    vec(entry(), 0..LIST_LEN_MAX)
}

fn positions() -> impl Strategy<Value = Vec<Position>> {
    let position = (conversation(), number()).prop_map(|(conversation, seq)| Position { conversation, seq });
    vec(position, 0..LIST_LEN_MAX)
}

fn summaries() -> impl Strategy<Value = Vec<ConversationSummary>> {
    let kind = prop_oneof![Just(ConversationKind::Pair), Just(ConversationKind::Group)];
    let numbers = (number(), number(), number(), number(), number(), number(), number());
    let mine = (option::of(role()), option::of(user()));
    let summary = (conversation(), kind, option::of(text()), option::of(user()), numbers, mine).prop_map(
        |(conversation, kind, name, peer, numbers, (role, added_by))| {
            let (head, head_messages, first_seq, read_seq, read_messages, unread, last_time_ms) = numbers;
            ConversationSummary {
                conversation,
                kind,
                name,
                peer,
                head,
                head_messages,
                first_seq,
                read_seq,
                read_messages,
                unread,
                last_time_ms,
                role,
                added_by,
            }
        },
    );
    vec(summary, 0..LIST_LEN_MAX)
}

fn limits() -> impl Strategy<Value = Limits> {
    proptest::array::uniform20(small()).prop_map(|n| Limits {
        frame_bytes: n[0],
        text_bytes: n[1],
        name_bytes: n[2],
        group_members: n[3],
        page_entries: n[4],
        watch_users: n[5],
        sends_in_flight: n[6],
        sync_cursors: n[7],
        sync_cursors_total: n[16],
        ack_positions: n[8],
        gap_whole: n[9],
        gap_tail: n[10],
        dedupe_window_s: n[11],
        sessions_per_user: n[12],
        keepalive_s: n[13],
        dead_after_s: n[14],
        sends_per_second: n[15],
        blocks: n[17],
        leave_groups: n[18],
        added_groups: n[19],
    })
}

type Bodies = Vec<BoxedStrategy<Frame>>;

fn session() -> Bodies {
    let welcome = (
        (number(), user(), option::of(text()), device(), any::<[u8; 16]>()),
        (text(), number(), number(), number(), limits()),
    )
        .prop_map(
            |((session, user, name, device, store), (server, features, time_ms, expires, limits))| {
                Welcome {
                    session,
                    user,
                    name,
                    device,
                    store_id: StoreId::from_bytes(store),
                    server,
                    features,
                    time_ms,
                    token_expires_ms: expires,
                    limits,
                }
                .into()
            },
        );
    vec![
        (token(), option::of(device()), option::of(text()), number())
            .prop_map(|(token, device, agent, features)| Hello { token, device, agent, features }.into())
            .boxed(),
        welcome.boxed(),
        token().prop_map(|token| Reauth { token }.into()).boxed(),
        number().prop_map(|token_expires_ms| Reauthed { token_expires_ms }.into()).boxed(),
        number().prop_map(|token_expires_ms| TokenExpiring { token_expires_ms }.into()).boxed(),
        number().prop_map(|nonce| Ping { nonce }.into()).boxed(),
        number().prop_map(|nonce| Pong { nonce }.into()).boxed(),
        (small(), small(), option::of(text()))
            .prop_map(|(deadline_ms, spread_ms, target)| GoAway { deadline_ms, spread_ms, target }.into())
            .boxed(),
        (
            any::<u16>(),
            any::<bool>(),
            option::of(small()),
            text(),
            option::of(temp_id()),
            option::of(conversation()),
        )
            .prop_map(|(code, temporary, retry_after_ms, detail, temp_id, conversation)| {
                Error { code: Code(code), temporary, retry_after_ms, detail, temp_id, conversation }.into()
            })
            .boxed(),
        (any::<u16>(), text(), option::of(small()), option::of(text()))
            .prop_map(|(code, reason, retry_after_ms, target)| {
                Close { code: Code(code), reason, retry_after_ms, target }.into()
            })
            .boxed(),
    ]
}

fn messages() -> Bodies {
    vec![
        (target(), text(), temp_id(), option::of(number()), option::of(data()), option::of(number()))
            .prop_map(|(to, text, temp_id, age_ms, data, reply_to)| {
                Send { to, text, temp_id, age_ms, data, reply_to }.into()
            })
            .boxed(),
        (temp_id(), conversation(), number(), entry_id(), number(), number(), any::<bool>(), any::<bool>())
            .prop_map(|(temp_id, conversation, seq, id, time_ms, messages, duplicate, recipient_unknown)| {
                SendAck { temp_id, conversation, seq, id, time_ms, messages, duplicate, recipient_unknown }
                    .into()
            })
            .boxed(),
        (target(), temp_id()).prop_map(|(to, temp_id)| Abandon { to, temp_id }.into()).boxed(),
        (conversation(), entries())
            .prop_map(|(conversation, entries)| Deliver { conversation, entries }.into())
            .boxed(),
        positions().prop_map(|positions| Ack { positions }.into()).boxed(),
        (conversation(), number()).prop_map(|(conversation, seq)| Read { conversation, seq }.into()).boxed(),
        (conversation(), number())
            .prop_map(|(conversation, head)| Lagged { conversation, head }.into())
            .boxed(),
        (conversation(), number(), number())
            .prop_map(|(conversation, seq, messages)| HaveRead { conversation, seq, messages }.into())
            .boxed(),
    ]
}

fn catching_up() -> Bodies {
    let fetch = (
        conversation(),
        option::of(number()),
        option::of(number()),
        option::of(number()),
        option::of(small()),
    );
    vec![
        (positions(), any::<bool>()).prop_map(|(cursors, more)| Sync { cursors, more }.into()).boxed(),
        summaries().prop_map(|conversations| SyncPage { conversations }.into()).boxed(),
        small().prop_map(|changed| SyncEnd { changed }.into()).boxed(),
        (conversation(), number(), number())
            .prop_map(|(conversation, from, to)| Gap { conversation, from, to }.into())
            .boxed(),
        fetch
            .prop_map(|(conversation, before, after, around, limit)| {
                Fetch { conversation, before, after, around, limit }.into()
            })
            .boxed(),
        (conversation(), entries(), number(), number())
            .prop_map(|(conversation, entries, first_seq, head)| {
                Page { conversation, entries, first_seq, head }.into()
            })
            .boxed(),
        (conversation(), number())
            .prop_map(|(conversation, seq)| Erased { conversation, seq }.into())
            .boxed(),
    ]
}

fn groups() -> Bodies {
    let member =
        (user(), option::of(text()), role()).prop_map(|(user, name, role)| MemberInfo { user, name, role });
    let left = (conversation(), option::of(any::<u16>()))
        .prop_map(|(conversation, code)| GroupLeft { conversation, code: code.map(Code) });
    vec![
        (text(), users(), temp_id())
            .prop_map(|(name, members, temp_id)| CreateGroup { name, members, temp_id }.into())
            .boxed(),
        (conversation(), users(), temp_id())
            .prop_map(|(conversation, users, temp_id)| AddMembers { conversation, users, temp_id }.into())
            .boxed(),
        (conversation(), users(), temp_id())
            .prop_map(|(conversation, users, temp_id)| RemoveMembers { conversation, users, temp_id }.into())
            .boxed(),
        (conversation(), temp_id())
            .prop_map(|(conversation, temp_id)| LeaveGroup { conversation, temp_id }.into())
            .boxed(),
        (conversation(), text(), temp_id())
            .prop_map(|(conversation, name, temp_id)| RenameGroup { conversation, name, temp_id }.into())
            .boxed(),
        (conversation(), user(), role(), temp_id())
            .prop_map(|(conversation, user, role, temp_id)| {
                SetRole { conversation, user, role, temp_id }.into()
            })
            .boxed(),
        (option::of(text()), option::of(small()))
            .prop_map(|(cursor, limit)| ListConversations { cursor, limit }.into())
            .boxed(),
        (summaries(), option::of(text()))
            .prop_map(|(conversations, next)| ConversationPage { conversations, next }.into())
            .boxed(),
        conversation().prop_map(|conversation| ListMembers { conversation }.into()).boxed(),
        (conversation(), vec(member, 0..LIST_LEN_MAX))
            .prop_map(|(conversation, members)| MemberList { conversation, members }.into())
            .boxed(),
        (vec(conversation(), 0..LIST_LEN_MAX), temp_id())
            .prop_map(|(conversations, temp_id)| LeaveGroups { conversations, temp_id }.into())
            .boxed(),
        vec(left, 0..LIST_LEN_MAX).prop_map(|groups| GroupsLeft { groups }.into()).boxed(),
        conversation().prop_map(|conversation| KeepGroup { conversation }.into()).boxed(),
        conversation().prop_map(|conversation| GroupKept { conversation }.into()).boxed(),
    ]
}

fn people() -> Bodies {
    let state =
        prop_oneof![Just(PresenceState::Unknown), Just(PresenceState::Online), Just(PresenceState::Offline)];
    let presence = (user(), state, option::of(number()))
        .prop_map(|(user, state, last_seen_ms)| UserPresence { user, state, last_seen_ms });
    let blocked = (user(), number()).prop_map(|(user, since_ms)| BlockedUser { user, since_ms });
    vec![
        users().prop_map(|users| Watch { users }.into()).boxed(),
        vec(presence, 0..LIST_LEN_MAX).prop_map(|users| Presence { users }.into()).boxed(),
        target().prop_map(|to| Typing { to }.into()).boxed(),
        (conversation(), user())
            .prop_map(|(conversation, user)| UserTyping { conversation, user }.into())
            .boxed(),
        user().prop_map(|user| Block { user }.into()).boxed(),
        user().prop_map(|user| Unblock { user }.into()).boxed(),
        (user(), any::<bool>()).prop_map(|(user, blocked)| BlockChanged { user, blocked }.into()).boxed(),
        option::of(user()).prop_map(|after| ListBlocks { after }.into()).boxed(),
        (vec(blocked, 0..LIST_LEN_MAX), option::of(user()))
            .prop_map(|(users, next)| BlockList { users, next }.into())
            .boxed(),
    ]
}

/// A strategy for each row of the frame table, in its order.
pub(crate) fn bodies() -> Bodies {
    [session(), messages(), catching_up(), groups(), people()].concat()
}

/// Any frame, with or without a request id.
pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    (option::of(number()), Union::new(bodies())).prop_map(|(request, frame)| Envelope { request, frame })
}
