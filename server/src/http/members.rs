//! `/v1/conversations/{id}/…`: who is in a group, what they may do, and what it is called.

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Deserialize;
use tern_protocol::{
    Code, ConversationId, GroupKept, GroupsLeft, LeaveGroups, MemberList, Role, SendAck, TempId, UserId,
};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::Problem;
use super::body::JsonBody;
use super::door::{Caller, Named, NamedMember, Reader};
use super::idempotency::Key;
use super::query::{once, parameters};
use super::submit::{Desk, Sender, admit, may_change, may_make, oneself, submit, unavailable};
use crate::auth::Claims;
use crate::conversation::history::History;
use crate::conversation::{Change, Wanted};
use crate::session::people::{self, Leaving, checked};

/// Users to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewMembers)]
pub(super) struct Users {
    /// Who joins; members already there are left as they are, but somebody must be new.
    #[schema(min_items = 1, max_items = 100)]
    users: Vec<UserId>,
    /// The same for every retry. Left out: the server makes one up.
    #[serde(default)]
    temp_id: Option<TempId>,
}

/// A new name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewName {
    /// 1 to 128 bytes of UTF-8 without control characters.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// The same for every retry. Left out: the server makes one up.
    #[serde(default)]
    temp_id: Option<TempId>,
}

/// A new role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRole {
    /// What the member may do.
    role: Role,
    /// The same for every retry. Left out: the server makes one up.
    #[serde(default)]
    temp_id: Option<TempId>,
}

/// Groups to leave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Groups {
    /// Which, each once.
    #[schema(min_items = 1, max_items = 100)]
    conversations: Vec<ConversationId>,
    /// The same for every retry. Left out: the server makes one up.
    #[serde(default)]
    temp_id: Option<TempId>,
}

/// Which attempt this is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempt {
    /// The same for every retry. Left out: the server makes one up.
    #[serde(default)]
    temp_id: Option<TempId>,
}

/// Lists the members.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/members", operation_id = "list_members", security(("bearer" = [])),
    params(("id" = ConversationId, Path, description = "which")),
    responses(
        (status = 200, description = "The members, in the order in which they joined", body = MemberList),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn list(
    State(history): State<History>,
    Reader(user): Reader,
    Named(conversation): Named,
) -> Result<Json<MemberList>, Problem> {
    let members = history.members(&user, conversation).await.map_err(unavailable)?;
    let members = members.ok_or_else(Problem::absent)?;
    Ok(Json(MemberList { conversation, members }))
}

/// Adds members.
///
/// For admins and owners.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/members", operation_id = "add_members", security(("bearer" = [])),
    params(
        ("id" = ConversationId, Path, description = "which"),
        ("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ"),
    ),
    request_body = Users,
    responses(
        (status = 200, description = "They are members", body = SendAck),
        (status = 403, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem),
    )
)]
pub(super) async fn add(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    Named(id): Named,
    key: Key,
    JsonBody(Users { users, temp_id }): JsonBody<Users>,
) -> Result<Json<SendAck>, Problem> {
    ask(&desk, claims, Wanted::group(id, key.or(temp_id)?, Change::Add { users })).await
}

/// Removes a member.
///
/// Admins remove members, owners anyone. To go yourself, leave.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/members/{user}", operation_id = "remove_member", security(("bearer" = [])),
    params(
        ("id" = ConversationId, Path, description = "which"),
        ("user" = UserId, Path, description = "who goes"),
        ("temp_id" = Option<TempId>, Query, description = "the same for every retry"),
        ("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ"),
    ),
    responses(
        (status = 200, description = "They are no member any more", body = SendAck),
        (status = 403, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem), (status = 422, response = Problem),
    )
)]
pub(super) async fn remove(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    NamedMember(id, user): NamedMember,
    key: Key,
    uri: Uri,
) -> Result<Json<SendAck>, Problem> {
    let pairs = parameters(&uri, &["temp_id"])?;
    let temp_id = once(&pairs, "temp_id")?.map(str::parse::<TempId>).transpose();
    let temp_id = temp_id.map_err(|error| Problem::parameter(error.to_string()))?;
    ask(&desk, claims, Wanted::group(id, key.or(temp_id)?, Change::Remove { users: vec![user] })).await
}

/// Gives a member a role.
///
/// For owners. The last owner cannot step down.
#[utoipa::path(
    patch, path = "/v1/conversations/{id}/members/{user}", operation_id = "set_role", security(("bearer" = [])),
    params(
        ("id" = ConversationId, Path, description = "which"),
        ("user" = UserId, Path, description = "whose"),
        ("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ"),
    ),
    request_body = NewRole,
    responses(
        (status = 200, description = "They have it", body = SendAck),
        (status = 403, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem),
    )
)]
pub(super) async fn set_role(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    NamedMember(id, user): NamedMember,
    key: Key,
    JsonBody(NewRole { role, temp_id }): JsonBody<NewRole>,
) -> Result<Json<SendAck>, Problem> {
    ask(&desk, claims, Wanted::group(id, key.or(temp_id)?, Change::SetRole { user, role })).await
}

/// Renames a group.
///
/// For admins and owners.
#[utoipa::path(
    patch, path = "/v1/conversations/{id}", operation_id = "rename_group", security(("bearer" = [])),
    params(
        ("id" = ConversationId, Path, description = "which"),
        ("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ"),
    ),
    request_body = NewName,
    responses(
        (status = 200, description = "It has the name", body = SendAck),
        (status = 403, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem),
    )
)]
pub(super) async fn rename(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    Named(id): Named,
    key: Key,
    JsonBody(NewName { name, temp_id }): JsonBody<NewName>,
) -> Result<Json<SendAck>, Problem> {
    ask(&desk, claims, Wanted::group(id, key.or(temp_id)?, Change::Rename { name })).await
}

/// Leaves a group.
///
/// If nobody is left who owns it, the oldest admin does, else the oldest member.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/leave", operation_id = "leave_group", security(("bearer" = [])),
    params(
        ("id" = ConversationId, Path, description = "which"),
        ("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ"),
    ),
    request_body = Attempt,
    responses(
        (status = 200, description = "The caller is no member any more", body = SendAck),
        (status = 404, response = Problem), (status = 409, response = Problem),
    )
)]
pub(super) async fn leave(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    Named(id): Named,
    key: Key,
    JsonBody(Attempt { temp_id }): JsonBody<Attempt>,
) -> Result<Json<SendAck>, Problem> {
    ask(&desk, claims, Wanted::group(id, key.or(temp_id)?, Change::Leave)).await
}

/// Leaves many groups.
///
/// Each by itself: the answer says of each whether it is left, and if not why, by the code of the protocol's table.
#[utoipa::path(
    post, path = "/v1/conversations/leave", operation_id = "leave_groups", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ")),
    request_body = Groups,
    responses((status = 200, description = "What became of each, in their order", body = GroupsLeft))
)]
pub(super) async fn leave_many(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    key: Key,
    JsonBody(Groups { conversations, temp_id }): JsonBody<Groups>,
) -> Result<Json<GroupsLeft>, Problem> {
    let groups = checked(LeaveGroups { conversations, temp_id: key.or(temp_id)? })?;
    may_make(&desk, &claims.user, groups.conversations.len())?;
    let Sender { user: sender, name: sender_name, right } = oneself(&desk, claims).await?;
    let leaving = Leaving { sender, sender_name, asker: None, right };
    let (answer, answered) = oneshot::channel();
    people::leave(&desk.router, leaving, groups, move |groups| drop(answer.send(groups)));
    let groups = answered.await.map_err(|_| Problem::of(Code::UNAVAILABLE, "the outcome is not known"))?;
    Ok(Json(GroupsLeft { groups }))
}

/// Keeps a group.
///
/// Somebody else has put the caller in it: it counts no more towards how many that may be. Once more is fine.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/keep", operation_id = "keep_group", security(("bearer" = [])),
    params(("id" = ConversationId, Path, description = "which")),
    responses(
        (status = 200, description = "The caller has accepted it", body = GroupKept),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn keep(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    Named(id): Named,
) -> Result<Json<GroupKept>, Problem> {
    may_change(&desk, &claims.user)?;
    Ok(Json(desk.deciding(&claims).keep(id).await?))
}

async fn ask(desk: &Desk, claims: Claims, wanted: Wanted) -> Result<Json<SendAck>, Problem> {
    admit(desk, &claims, &wanted)?;
    let sender = oneself(desk, claims).await?;
    submit(desk, sender, wanted).await.map(Json)
}
