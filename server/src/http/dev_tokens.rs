//! `POST /v1/dev/tokens`: a token for any user, on a development node, from this machine only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{FromRequestParts, State};
use http::StatusCode;
use http::request::Parts as Head;
use serde::{Deserialize, Serialize};
use tern_protocol::{Code, UserId};
use utoipa::ToSchema;

use super::body::JsonBody;
use super::bootstrap::{asked_at, is_loopback};
use super::door::peer;
use super::{Api, Problem};
use crate::auth::{Mint, SigningKey};
use crate::clock::unix_ms;
use crate::transport::origin;

/// What signs the tokens.
#[derive(Clone)]
pub struct DevTokens {
    /// The node's own key.
    pub key: Arc<SigningKey>,
    /// How long a token is good for.
    pub ttl: Duration,
}

/// Whose token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
pub(super) struct Wanted {
    /// The user.
    user: UserId,
    /// Their display name.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// What the token allows besides being a user, such as `messages:write`.
    #[serde(default)]
    scope: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Token {
    /// To be sent as `Authorization: Bearer …`, or in `hello`.
    token: String,
    /// The user.
    user: UserId,
    /// When it expires, Unix milliseconds.
    expires_ms: u64,
}

/// Somebody on this machine, whose browser was not led here by a name of somebody else.
pub(super) struct Local;

impl FromRequestParts<Api> for Local {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        let refuse = |detail: &str| Err(Problem::of(Code::FORBIDDEN, detail));
        if !peer(head).is_loopback() {
            return refuse("tokens are made for this machine only");
        }
        // A page of a foreign name that resolves to this machine would be of the same origin here.
        if !is_loopback(asked_at(head)?.host()) {
            return refuse("ask at localhost or 127.0.0.1: the Host header names something else");
        }
        if !origin::may_connect(&head.uri, &head.headers, &api.0.entrance.transport) {
            return refuse("pages from this origin may not ask for tokens");
        }
        Ok(Self)
    }
}

/// Makes a token for any user.
///
/// Only on a development node, from the machine it runs on.
#[utoipa::path(
    post, path = "/v1/dev/tokens", operation_id = "make_dev_token",
    request_body = Wanted,
    responses(
        (status = 200, description = "A token", body = Token),
        (status = 403, response = Problem),
    )
)]
pub(super) async fn mint(
    State(tokens): State<Option<DevTokens>>,
    _: Local,
    JsonBody(Wanted { user, name, scope }): JsonBody<Wanted>,
) -> Result<Json<Token>, Problem> {
    let Some(DevTokens { key, ttl }) = &tokens else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"));
    };
    if user.is_erased() {
        return Err(Problem::of(Code::INVALID_ARGUMENT, "user names an erased user"));
    }
    let expires_ms = (unix_ms() / 1000 + ttl.as_secs()) * 1000;
    let mint = Mint { name, scope, ..Mint::new(user.clone(), *ttl) };
    let token = mint
        .sign(key, SystemTime::now())
        .map_err(|error| Problem::of(Code::INVALID_ARGUMENT, error.to_string()))?;
    Ok(Json(Token { token, user, expires_ms }))
}
