//! `/v1/conversations`: the caller's conversations, and making a group.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use tern_protocol::{
    ConversationId, ConversationSummary, Entry, MemberInfo, PAGE_BYTES_MAX, PAGE_ENTRIES_DEFAULT,
    PAGE_ENTRIES_MAX, SendAck, TempId, UserId,
};
use utoipa::ToSchema;

use super::Problem;
use super::body::JsonBody;
use super::cache::{self, Keep};
use super::door::{Caller, Named, Reader};
use super::idempotency::Key;
use super::query::{limit, once, parameters};
use super::submit::{Desk, admit, oneself, submit, unavailable};
use crate::conversation::history::{Described, History, ListCursor};
use crate::conversation::{Change, Wanted};

/// About how many bytes a conversation takes in a page besides its names and its last entry.
const CONVERSATION_BYTES: usize = 512;

/// A conversation as its member sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub(super) struct ConversationView {
    #[serde(flatten)]
    summary: ConversationSummary,
    /// What to show: the name of the group, or of the other user, or else their id, or that of the
    /// conversation.
    title: String,
    /// The newest entry this member may see.
    last_entry: Option<Entry>,
    /// The members in the order in which they joined; null for somebody who is gone.
    members: Option<Vec<MemberInfo>>,
}

/// A page of the caller's conversations.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConversationList {
    /// Most recently changed first.
    conversations: Vec<ConversationView>,
    /// Cursor of the next page; null: this was the last.
    next: Option<String>,
}

/// A group to be made of these users and the caller.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGroup {
    /// 1 to 128 bytes of UTF-8 without control characters.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Members besides the caller; at most 100 with the caller.
    #[serde(default)]
    #[schema(max_items = 100)]
    members: Vec<UserId>,
    /// The same for every retry; the group's id derives from it. Left out: the server makes one up, and then
    /// a retry makes another group.
    #[serde(default)]
    temp_id: Option<TempId>,
}

/// Lists the caller's conversations.
///
/// Most recently changed first, with the last entry, the members, the count of unread messages and the
/// read position. A page has at most `limit` conversations, fewer if they are large: go on while there is a
/// `next`.
#[utoipa::path(
    get, path = "/v1/conversations", operation_id = "list_conversations", security(("bearer" = [])),
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "absent: 20"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = ConversationList),
        (status = 304, description = "The page has the ETag that If-None-Match names"),
    )
)]
pub(super) async fn list(
    State(history): State<History>,
    Reader(user): Reader,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pairs = parameters(&uri, &["limit", "cursor"])?;
    let limit =
        once(&pairs, "limit")?.map_or(Ok(PAGE_ENTRIES_DEFAULT), |text| limit(text, PAGE_ENTRIES_MAX))?;
    let cursor = once(&pairs, "cursor")?.map(str::parse::<ListCursor>).transpose();
    let cursor = cursor.map_err(|()| Problem::parameter("cursor must be the `next` of an earlier page"))?;
    let mut page = history.list_described(&user, cursor.as_ref(), limit).await.map_err(unavailable)?;
    let described = std::mem::take(&mut page.conversations);
    let (whole, mut bytes) = (described.len(), 0);
    let mut conversations: Vec<ConversationView> = Vec::new();
    for described in described {
        if bytes > PAGE_BYTES_MAX {
            break;
        }
        let conversation = ConversationView::from(described);
        bytes += conversation.weight();
        conversations.push(conversation);
    }
    let last = conversations.last().filter(|_| conversations.len() < whole);
    let next = last.map(|last| page.next_after(&last.summary)).or(page.next);
    Ok(cache::json(&headers, &ConversationList { conversations, next }, Keep::Ask))
}

/// Shows one conversation.
///
/// Somebody who was a member sees it as it was when they went. Absent and forbidden look the same.
#[utoipa::path(
    get, path = "/v1/conversations/{id}", operation_id = "show_conversation", security(("bearer" = [])),
    params(("id" = ConversationId, Path, description = "which")),
    responses(
        (status = 200, description = "The conversation", body = ConversationView),
        (status = 304, description = "It has the ETag that If-None-Match names"),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn show(
    State(history): State<History>,
    Reader(user): Reader,
    Named(id): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let described = history.described(&user, id).await.map_err(unavailable)?;
    let described = described.ok_or_else(Problem::absent)?;
    Ok(cache::json(&headers, &ConversationView::from(described), Keep::Ask))
}

/// Makes a group.
///
/// Its id derives from the caller and `temp_id`, so that a retry cannot make a second one.
#[utoipa::path(
    post, path = "/v1/conversations", operation_id = "create_group", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<TempId>, Header, description = "the temp_id; the two must not differ")),
    request_body = NewGroup,
    responses(
        (status = 201, description = "The group is made; Location names it", body = SendAck),
        (status = 200, description = "It was made by an earlier attempt", body = SendAck),
        (status = 409, response = Problem),
    )
)]
pub(super) async fn create(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    key: Key,
    JsonBody(group): JsonBody<NewGroup>,
) -> Result<Response, Problem> {
    let NewGroup { name, members, temp_id } = group;
    let temp_id = key.or(temp_id)?;
    let id = ConversationId::group(&claims.user, &temp_id);
    let wanted = Wanted::group(id, temp_id, Change::Create { name, members });
    admit(&desk, &claims, &wanted)?;
    let sender = oneself(&desk, claims).await?;
    let ack = submit(&desk, sender, wanted).await?;
    if ack.duplicate {
        return Ok(Json(ack).into_response());
    }
    let mut response = (StatusCode::CREATED, Json(ack)).into_response();
    let location = HeaderValue::try_from(format!("/v1/conversations/{id}")).expect("an id is plain text");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

impl From<Described> for ConversationView {
    fn from(described: Described) -> Self {
        let Described { summary, members, last_entry } = described;
        let peer = summary.peer.as_ref().map(|peer| peer.as_str().to_owned());
        // Where the other user of a pair was erased there is neither.
        let title = summary.name.clone().or(peer).unwrap_or_else(|| summary.conversation.to_string());
        Self { summary, title, last_entry, members }
    }
}

impl ConversationView {
    /// About how many bytes it takes in a page.
    fn weight(&self) -> usize {
        let members = self.members.iter().flatten();
        let names = members
            .map(|member| 64 + member.user.as_str().len() + member.name.as_ref().map_or(0, String::len));
        let text = match self.last_entry.as_ref().map(|entry| &entry.body) {
            Some(tern_protocol::EntryBody::Message { text, data, .. }) => {
                text.len() + data.as_ref().map_or(0, |data| data.as_str().len())
            }
            _ => 0,
        };
        CONVERSATION_BYTES + text + names.sum::<usize>()
    }
}
