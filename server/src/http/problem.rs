//! Errors of the HTTP API as problem details (RFC 9457): the one place where codes become statuses.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tern_protocol::Code;
use utoipa::{ToResponse, ToSchema};

use crate::auth::{AuthError, Scope};
use crate::session::{Refused, whole_ms};

/// Media type of problem details.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// Longest detail in bytes: it may quote what a client sent.
const DETAIL_BYTES_MAX: usize = 512;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, ToResponse)]
#[response(description = "The request was refused", content_type = "application/problem+json")]
pub struct Problem {
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Stable name of the problem, for programs: that of the protocol's table of codes in lower case, or
    /// one that only HTTP has.
    #[schema(value_type = String, examples("not_found"))]
    code: &'static str,
    /// Number in the protocol's table of codes, if it is in there.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u16>,
    /// Words of the status.
    #[schema(value_type = String, examples("Not Found"))]
    title: &'static str,
    /// What to do about it, for people.
    detail: String,
    /// Wait at least so many milliseconds before trying again. `Retry-After` has it in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
    #[serde(skip)]
    challenge: Option<&'static str>,
}

impl Problem {
    /// A problem that only HTTP has, with a stable code and words for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let detail = clip(detail.into());
        Self {
            status: status.as_u16(),
            code,
            number: None,
            title,
            detail,
            retry_after_ms: None,
            challenge: None,
        }
    }

    /// A problem of the protocol's table.
    pub fn of(code: Code, detail: impl Into<String>) -> Self {
        Self { number: Some(code.0), ..Self::new(status(code), name(code), detail) }
    }

    /// A parameter of the URL has a value that is not allowed.
    pub fn parameter(detail: impl Into<String>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        let code = Code::INVALID_ARGUMENT;
        Self { number: Some(code.0), ..Self::new(status, name(code), detail) }
    }

    /// No such conversation, or not for this user: the same answer.
    pub fn absent() -> Self {
        Refused::not_found().into()
    }

    /// There is no token to look at.
    pub fn no_token(detail: &str) -> Self {
        Self { challenge: Some("Bearer"), ..Self::of(Code::TOKEN_INVALID, detail) }
    }

    /// The token is not good, or not now.
    pub fn bad_token(code: Code, detail: impl Into<String>) -> Self {
        let problem = Self::of(code, detail);
        let challenge = (problem.status == 401).then_some(r#"Bearer error="invalid_token""#);
        Self { challenge, ..problem }
    }

    /// The token does not allow it.
    pub fn no_scope(scope: Scope) -> Self {
        let (what, challenge) = match scope {
            Scope::SendAs => {
                ("to send as another user", r#"Bearer error="insufficient_scope", scope="messages:write""#)
            }
            Scope::Admin => ("to administer", r#"Bearer error="insufficient_scope", scope="admin""#),
        };
        let word = scope.word();
        let detail = format!(
            "{what}, the token's scope must contain {word}, and auth must let its key or issuer give that"
        );
        Self { challenge: Some(challenge), ..Self::of(Code::FORBIDDEN, detail) }
    }

    /// Asked too often.
    pub fn too_often(retry_after: Duration, what: &str) -> Self {
        Refused::rate_limited(retry_after, what).into()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let retry_after_ms = refused.retry_after.map(whole_ms);
        Self { retry_after_ms, ..Self::of(refused.code, refused.detail) }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let retry_after_ms = error.retry_after().map(whole_ms);
        Self { retry_after_ms, ..Self::bad_token(error.code(), error.to_string()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (number, retry_after_ms, challenge) = (self.number, self.retry_after_ms, self.challenge);
        let mut response = (status, Json(self)).into_response();
        if let Some(number) = number {
            response.extensions_mut().insert(Code(number));
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after_ms) = retry_after_ms {
            headers.insert(header::RETRY_AFTER, after_ms.div_ceil(1000).into());
        }
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::MALFORMED => StatusCode::BAD_REQUEST,
        Code::NOT_FOUND => StatusCode::NOT_FOUND,
        Code::FORBIDDEN | Code::BLOCKED | Code::UNREACHABLE => StatusCode::FORBIDDEN,
        Code::CONFLICT | Code::GROUP_FULL | Code::OUT_OF_ORDER | Code::CURSOR_AHEAD => StatusCode::CONFLICT,
        Code::RATE_LIMITED => StatusCode::TOO_MANY_REQUESTS,
        _ => match code.class() {
            tern_protocol::Class::Fix => StatusCode::UNPROCESSABLE_ENTITY,
            tern_protocol::Class::Authenticate => StatusCode::UNAUTHORIZED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

/// The names of the table, as they are written in JSON.
fn name(code: Code) -> &'static str {
    match code {
        Code::MALFORMED => "malformed",
        Code::INVALID_ARGUMENT => "invalid_argument",
        Code::TEXT_TOO_LONG => "text_too_long",
        Code::TEXT_EMPTY => "text_empty",
        Code::NOT_FOUND => "not_found",
        Code::FORBIDDEN => "forbidden",
        Code::BLOCKED => "blocked",
        Code::UNREACHABLE => "unreachable",
        Code::GROUP_FULL => "group_full",
        Code::CONFLICT => "conflict",
        Code::TOO_OLD => "too_old",
        Code::LIMIT_EXCEEDED => "limit_exceeded",
        Code::TOKEN_INVALID => "token_invalid",
        Code::TOKEN_EXPIRED => "token_expired",
        Code::TOKEN_REVOKED => "token_revoked",
        Code::RATE_LIMITED => "rate_limited",
        Code::OVER_CAPACITY => "over_capacity",
        Code::OUT_OF_ORDER => "out_of_order",
        Code::CURSOR_AHEAD => "cursor_ahead",
        _ => "unavailable",
    }
}

fn clip(mut text: String) -> String {
    if text.len() > DETAIL_BYTES_MAX {
        let mut end = DETAIL_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_name_and_number_of_the_protocols_table() {
        for (code, table_name, _) in Code::TABLE {
            let problem = Problem::of(*code, "why");
            if problem.code != "unavailable" {
                assert_eq!(problem.code, table_name.to_lowercase());
            }
            assert_eq!(problem.number, Some(code.0));
            assert!(problem.status >= 400, "{code}");
            let again =
                [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            if code.temporary() {
                assert!(again.iter().any(|status| status.as_u16() == problem.status), "{code}");
            }
        }
    }

    #[test]
    fn a_detail_is_cut_between_characters() {
        let problem = Problem::parameter("é".repeat(DETAIL_BYTES_MAX));
        assert!(problem.detail.len() <= DETAIL_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn waiting_is_told_in_whole_seconds_rounded_up() {
        let response = Problem::too_often(Duration::from_millis(1001), "questions").into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
