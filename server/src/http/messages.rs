//! `POST /v1/messages`: a message of the caller, or of anybody by a back end.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tern_protocol::number::{age_or_none, whole_or_none};
use tern_protocol::{Code, Data, SendAck, Target, TempId, UserId};
use utoipa::ToSchema;

use super::Problem;
use super::body::JsonBody;
use super::door::Caller;
use super::idempotency::Key;
use super::submit::{Desk, admit, oneself, somebody, submit};
use crate::auth::Scope;
use crate::conversation::{Change, Wanted};

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessage {
    /// User or conversation.
    to: Target,
    /// 1 byte to 16 KiB of UTF-8; may be empty or left out beside `data`.
    #[serde(default)]
    #[schema(max_length = 16384)]
    text: String,
    /// What the application puts beside the text; at most 16 KiB together with it.
    #[serde(default)]
    data: Option<Data>,
    /// The earlier entry of the same conversation that this message answers.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 1, maximum = 9007199254740991_u64)]
    reply_to: Option<u64>,
    /// The same for every retry of the same message. Left out: the server makes one up, and then a retry is
    /// another message.
    #[serde(default)]
    temp_id: Option<TempId>,
    /// Milliseconds since the first attempt, at most 7 days; absent counts as 24 hours, below 0 as 0.
    #[serde(default, deserialize_with = "age_or_none")]
    #[schema(value_type = Option<f64>, maximum = 604_800_000)]
    age_ms: Option<u64>,
    /// In whose name; absent: the caller's. Somebody else's needs `messages:write` in the token's `scope`.
    #[serde(default)]
    from: Option<UserId>,
}

/// Sends a message.
///
/// Answered once the message is durable. It is delivered to every session of every member, the sender's
/// included. A retry with the same `temp_id` gets the first answer again, with `duplicate` set.
#[utoipa::path(
    post, path = "/v1/messages", operation_id = "send_message", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ")),
    request_body = NewMessage,
    responses(
        (status = 200, description = "The message is durable", body = SendAck),
        (status = 403, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem),
    )
)]
pub(super) async fn send(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    key: Key,
    JsonBody(message): JsonBody<NewMessage>,
) -> Result<Json<SendAck>, Problem> {
    let NewMessage { to, text, data, reply_to, temp_id, age_ms, from } = message;
    let from = from.filter(|from| *from != claims.user);
    if from.is_some() && !claims.may(Scope::SendAs) {
        return Err(Problem::no_scope(Scope::SendAs));
    }
    if from.as_ref().is_some_and(UserId::is_erased) {
        return Err(Problem::of(Code::INVALID_ARGUMENT, "from names an erased user"));
    }
    let user = from.as_ref().unwrap_or(&claims.user);
    let conversation = to.conversation(user);
    let peer = match to {
        Target::User(peer) => Some(peer),
        Target::Conversation(_) => None,
    };
    let change = Change::Message { text, data, reply_to };
    let wanted = Wanted { conversation, peer, temp_id: key.or(temp_id)?, age_ms, change };
    admit(&desk, &claims, &wanted)?;
    let sender = match from {
        Some(from) => somebody(&desk, from, &claims).await?,
        None => oneself(&desk, claims).await?,
    };
    submit(&desk, sender, wanted).await.map(Json)
}
