//! `/v1/admin/…`: what operators do about a user's sessions and tokens. Every route wants the scope `admin`.

use axum::Json;
use axum::extract::{RawPathParams, State};
use serde::{Deserialize, Serialize};
use tern_protocol::{Code, UserId};
use utoipa::ToSchema;

use super::Problem;
use super::body::JsonBody;
use super::door::{Administrator, NamedUser};
use super::submit::unavailable;
use crate::roster::SessionInfo;
use crate::upkeep::{AccountError, Accounts, Closed, Operator, Revocation, Revoked, Sessions};

/// A session that is open now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionView {
    /// Names it for as long as it lasts.
    id: String,
    /// The device that it said it is.
    device: String,
    /// `quic`, `webtransport`, `websocket_binary` or `websocket_json`.
    transport: String,
    /// Address of the client when it began.
    address: String,
    /// When it began, in Unix milliseconds.
    since_ms: u64,
    /// When something was last heard from it, in Unix milliseconds.
    heard_ms: u64,
    /// When its token was issued, in Unix milliseconds; 0 if that does not say.
    token_issued_ms: u64,
}

/// A user's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionList {
    /// Whose.
    user: UserId,
    /// Tokens issued before this time are refused, in Unix milliseconds; 0: none were revoked.
    refused_before_ms: u64,
    /// The oldest first; at most `sessions_per_user`.
    sessions: Vec<SessionView>,
}

/// What closing came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClosedSessions {
    /// Whose.
    user: UserId,
    /// How many were told to end.
    closed: usize,
}

/// What is to be revoked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokedTokens {
    /// Tokens issued before this time, in Unix milliseconds, not in the future; absent: before now.
    #[serde(default)]
    #[schema(maximum = 9007199254740991_u64)]
    before_ms: Option<u64>,
    /// Also if nobody of this id has ever been here.
    #[serde(default)]
    even_unknown: bool,
}

/// What a revocation came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevocationDone {
    /// Whose.
    user: UserId,
    /// Tokens issued before this time are refused, in Unix milliseconds: what was asked for, or a later time
    /// of an earlier revocation.
    refused_before_ms: u64,
    /// Sessions that were opened with one and were told to end.
    closed: usize,
}

/// Lists a user's sessions.
///
/// Those that are open on this node. Needs `admin` in the token's `scope`.
#[utoipa::path(
    get, path = "/v1/admin/users/{user}/sessions", operation_id = "list_sessions",
    security(("bearer" = [])),
    params(("user" = UserId, Path, description = "whose")),
    responses(
        (status = 200, description = "The sessions", body = SessionList),
        (status = 403, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn sessions(
    State(accounts): State<Accounts>,
    Administrator(claims): Administrator,
    NamedUser(user): NamedUser,
) -> Result<Json<SessionList>, Problem> {
    let listed = accounts.sessions(&Operator::Bearer(claims.user), &user).await.map_err(refused)?;
    Ok(Json(listed.into()))
}

/// Closes all sessions of a user.
///
/// Their clients are told to authenticate anew (4105). Who has a good token may come back: revoke it first.
/// Needs `admin` in the token's `scope`.
#[utoipa::path(
    delete, path = "/v1/admin/users/{user}/sessions", operation_id = "close_sessions",
    security(("bearer" = [])),
    params(("user" = UserId, Path, description = "whose")),
    responses(
        (status = 200, description = "They were told to end", body = ClosedSessions),
        (status = 403, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn close_all(
    State(accounts): State<Accounts>,
    Administrator(claims): Administrator,
    NamedUser(user): NamedUser,
) -> Result<Json<ClosedSessions>, Problem> {
    let Closed { user, closed } =
        accounts.close(&Operator::Bearer(claims.user), &user, None).await.map_err(refused)?;
    Ok(Json(ClosedSessions { user, closed }))
}

/// Closes one session of a user.
///
/// Its client is told to authenticate anew (4105). Needs `admin` in the token's `scope`.
#[utoipa::path(
    delete, path = "/v1/admin/users/{user}/sessions/{session}", operation_id = "close_session",
    security(("bearer" = [])),
    params(
        ("user" = UserId, Path, description = "whose"),
        ("session" = String, Path, description = "its `id` in the list"),
    ),
    responses(
        (status = 200, description = "It was told to end", body = ClosedSessions),
        (status = 403, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn close_one(
    State(accounts): State<Accounts>,
    Administrator(claims): Administrator,
    NamedUser(user): NamedUser,
    parameters: RawPathParams,
) -> Result<Json<ClosedSessions>, Problem> {
    let session = parameters.iter().nth(1).map(|(_, value)| value);
    let Closed { user, closed } =
        accounts.close(&Operator::Bearer(claims.user), &user, session).await.map_err(refused)?;
    Ok(Json(ClosedSessions { user, closed }))
}

/// Revokes a user's tokens.
///
/// Those issued before a moment are refused everywhere, from now on and after every restart; sessions that
/// were opened with one are closed (4104), and what such a token asked for and is still on its way is not
/// written. A token without `iat` counts as issued before. Needs `admin` in the token's `scope`.
#[utoipa::path(
    post, path = "/v1/admin/users/{user}/revoke", operation_id = "revoke_tokens", security(("bearer" = [])),
    params(("user" = UserId, Path, description = "whose")),
    request_body = RevokedTokens,
    responses(
        (status = 200, description = "They are refused", body = RevocationDone),
        (status = 403, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn revoke(
    State(accounts): State<Accounts>,
    Administrator(claims): Administrator,
    NamedUser(user): NamedUser,
    JsonBody(RevokedTokens { before_ms, even_unknown }): JsonBody<RevokedTokens>,
) -> Result<Json<RevocationDone>, Problem> {
    let revocation = Revocation { before_ms, even_unknown };
    let done = accounts.revoke(&Operator::Bearer(claims.user), &user, revocation).await.map_err(refused)?;
    let Revoked { user, refused_before_ms, closed } = done;
    Ok(Json(RevocationDone { user, refused_before_ms, closed }))
}

fn refused(error: AccountError) -> Problem {
    let words = error.to_string();
    match error {
        AccountError::Store(error) => unavailable(error),
        AccountError::UnknownUser(_) | AccountError::UnknownSession(_) => Problem::of(Code::NOT_FOUND, words),
        AccountError::Future(_) | AccountError::Erased(_) => Problem::of(Code::INVALID_ARGUMENT, words),
    }
}

impl From<Sessions> for SessionList {
    fn from(listed: Sessions) -> Self {
        let Sessions { user, refused_before_ms, sessions } = listed;
        Self { user, refused_before_ms, sessions: sessions.into_iter().map(SessionView::from).collect() }
    }
}

impl From<SessionInfo> for SessionView {
    fn from(info: SessionInfo) -> Self {
        let SessionInfo { id, device, transport, address, since_ms, heard_ms, token_issued_ms } = info;
        let (device, address) = (device.as_str().to_owned(), address.to_string());
        Self { id, device, transport, address, since_ms, heard_ms, token_issued_ms }
    }
}
