//! `/v1/blocks`: whom the caller keeps away.

use axum::Json;
use axum::extract::State;
use http::Uri;
use tern_protocol::{BlockChanged, BlockList, UserId};

use super::Problem;
use super::door::{Caller, NamedUser};
use super::query::{once, parameters};
use super::submit::{Desk, may_change, may_read};

/// Lists whom the caller blocks.
///
/// In the order of the bytes of the ids. At most 200 a page: go on while there is a `next`.
#[utoipa::path(
    get, path = "/v1/blocks", operation_id = "list_blocks", security(("bearer" = [])),
    params(("after" = Option<UserId>, Query, description = "`next` of the page before")),
    responses((status = 200, description = "A page", body = BlockList))
)]
pub(super) async fn list(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    uri: Uri,
) -> Result<Json<BlockList>, Problem> {
    let pairs = parameters(&uri, &["after"])?;
    let after = once(&pairs, "after")?.map(UserId::new).transpose();
    let after = after.map_err(|error| Problem::parameter(format!("after: {error}")))?;
    may_read(&desk, &claims.user)?;
    Ok(Json(desk.deciding(&claims).blocks(after.as_ref()).await?))
}

/// Blocks a user.
///
/// They are not told. Between the two no messages in their 1-on-1 conversation, nobody of the two puts the other
/// in a group, and neither sees whether the other is there. Groups that both are in stay. Once more is fine.
#[utoipa::path(
    put, path = "/v1/blocks/{user}", operation_id = "block", security(("bearer" = [])),
    params(("user" = UserId, Path, description = "whom")),
    responses(
        (status = 200, description = "They are blocked", body = BlockChanged),
        (status = 422, response = Problem),
    )
)]
pub(super) async fn block(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    NamedUser(user): NamedUser,
) -> Result<Json<BlockChanged>, Problem> {
    may_change(&desk, &claims.user)?;
    Ok(Json(desk.deciding(&claims).set_block(user, true).await?))
}

/// Takes a block back.
///
/// Once more is fine.
#[utoipa::path(
    delete, path = "/v1/blocks/{user}", operation_id = "unblock", security(("bearer" = [])),
    params(("user" = UserId, Path, description = "whose")),
    responses(
        (status = 200, description = "They are not blocked", body = BlockChanged),
        (status = 422, response = Problem),
    )
)]
pub(super) async fn unblock(
    State(desk): State<Desk>,
    Caller(claims): Caller,
    NamedUser(user): NamedUser,
) -> Result<Json<BlockChanged>, Problem> {
    may_change(&desk, &claims.user)?;
    Ok(Json(desk.deciding(&claims).set_block(user, false).await?))
}
