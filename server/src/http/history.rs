//! `GET /v1/history/{conv_id}`: pages of a conversation for infinite scroll.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tern_protocol::{ConversationId, Entry, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX, UserId};

use super::Problem;
use crate::auth::Authenticator;
use crate::conversation::history::{Anchor, History, HistoryPage};
use crate::store::StoreError;

/// A whole number of this many digits or more is a time in Unix milliseconds, not a cursor of ours.
const UNIX_MS_DIGITS: usize = 12;

/// What the endpoint works with.
#[derive(Clone)]
pub struct HistoryApi {
    /// Checks bearer tokens.
    pub auth: Arc<Authenticator>,
    /// Reads logs.
    pub history: History,
}

/// A page of history.
#[derive(Debug, Serialize)]
struct Body {
    conversation: ConversationId,
    /// Newest first.
    entries: Vec<Entry>,
    first_seq: u64,
    head: u64,
    /// Cursor of the page with older entries; null: there are none.
    older: Option<String>,
    /// Cursor of the page with newer entries; null: there are none now.
    newer: Option<String>,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    limit: usize,
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    At(Anchor),
    /// Entries at or before this time.
    Time(u64),
}

/// Handles the request.
pub(super) async fn history(
    State(api): State<HistoryApi>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = parse(query.as_deref().unwrap_or_default())?;
    let user = bearer(&api.auth, &headers).await?;
    let id: ConversationId = id.parse().map_err(|_| absent())?;
    let anchor = match query.place {
        Place::At(anchor) => anchor,
        Place::Time(time_ms) => {
            let access = api.history.access(&user, id).await.map_err(unavailable)?.ok_or_else(absent)?;
            let seq = api.history.seq_at(id, access, time_ms).await.map_err(unavailable)?;
            Anchor::Before(seq + 1)
        }
    };
    let page =
        api.history.page(&user, id, anchor, query.limit).await.map_err(unavailable)?.ok_or_else(absent)?;
    let (first_seq, head) = (page.access.first_seq, page.access.last_seq);
    let (older, newer) = neighbours(&page, anchor);
    let body = Body { conversation: id, older, newer, entries: page.entries, first_seq, head };
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Ok(response)
}

/// Cursors to both sides of a page. An empty page lies at its anchor.
fn neighbours(page: &HistoryPage, anchor: Anchor) -> (Option<String>, Option<String>) {
    let (first_seq, head) = (page.access.first_seq, page.access.last_seq);
    let (lowest, highest) = match (page.entries.last(), page.entries.first(), anchor) {
        (Some(lowest), Some(highest), _) => (lowest.seq, highest.seq),
        (_, _, Anchor::Before(seq)) => (first_seq, seq.max(first_seq) - 1),
        (_, _, Anchor::After(seq)) => (seq.saturating_add(1), head),
        (_, _, Anchor::Latest | Anchor::Around(_)) => (first_seq, head),
    };
    let older = (lowest > first_seq && first_seq <= head).then(|| cursor('b', lowest));
    let newer = (highest < head).then(|| cursor('a', highest));
    (older, newer)
}

async fn bearer(auth: &Authenticator, headers: &HeaderMap) -> Result<UserId, Problem> {
    let value = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Problem::unauthorized("send the token as `Authorization: Bearer …`"))?;
    let token = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| Problem::unauthorized("the Authorization header is not `Bearer …`"))?;
    let claims =
        auth.authenticate(token, SystemTime::now()).await.map_err(|error| match error.retry_after() {
            Some(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()),
            None => Problem::unauthorized(error.to_string()),
        })?;
    Ok(claims.user)
}

/// Absent and forbidden are the same answer.
fn absent() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "no such conversation for this user")
}

fn unavailable(error: StoreError) -> Problem {
    tracing::warn!(%error, "a read failed");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "the message store does not answer; try again",
    )
}

fn cursor(direction: char, seq: u64) -> String {
    BASE64URL_NOPAD.encode(format!("{direction}{seq}").as_bytes())
}

fn parse(query: &str) -> Result<Query, Problem> {
    let mut limit = PAGE_ENTRIES_DEFAULT;
    let mut place = None;
    for (key, value) in form(query) {
        let here = match key {
            "token" | "access_token" | "jwt" => {
                let detail = "a token in a URL ends up in logs: send it as `Authorization: Bearer …`";
                return Err(Problem::invalid(detail));
            }
            "limit" => {
                limit = parse_limit(value)?;
                continue;
            }
            "cursor" => parse_cursor(value)?,
            "before" => Place::At(Anchor::Before(parse_seq(key, value)?)),
            "after" => Place::At(Anchor::After(parse_seq(key, value)?)),
            "around" => Place::At(Anchor::Around(parse_seq(key, value)?)),
            other => {
                let known = "limit, cursor, before, after, around";
                return Err(Problem::invalid(format!("unknown parameter {other:?}; known: {known}")));
            }
        };
        if place.replace(here).is_some() {
            return Err(Problem::invalid("give at most one of cursor, before, after and around"));
        }
    }
    Ok(Query { limit, place: place.unwrap_or(Place::At(Anchor::Latest)) })
}

fn form(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn parse_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse::<usize>().ok().filter(|limit| (1..=PAGE_ENTRIES_MAX).contains(limit));
    limit.ok_or_else(|| Problem::invalid(format!("limit must be a number from 1 to {PAGE_ENTRIES_MAX}")))
}

fn parse_seq(key: &str, value: &str) -> Result<u64, Problem> {
    value.parse().map_err(|_| Problem::invalid(format!("{key} must be a seq: a whole number from 0")))
}

fn parse_cursor(value: &str) -> Result<Place, Problem> {
    let bad = || Problem::invalid("cursor must be the `older` or `newer` of a page, or Unix milliseconds");
    if value.len() >= UNIX_MS_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse().map(Place::Time).map_err(|_| bad());
    }
    let bytes = BASE64URL_NOPAD.decode(value.as_bytes()).map_err(|_| bad())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
    let seq = |text: &str| text.parse::<u64>().map_err(|_| bad());
    match text.split_at_checked(1) {
        Some(("b", rest)) => Ok(Place::At(Anchor::Before(seq(rest)?))),
        Some(("a", rest)) => Ok(Place::At(Anchor::After(seq(rest)?))),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::history::Access;

    #[test]
    fn a_query_names_one_place_and_a_limit_in_bounds() {
        let at = |place| Query { limit: 20, place };
        assert_eq!(parse("").unwrap(), at(Place::At(Anchor::Latest)));
        assert_eq!(parse("before=7").unwrap(), at(Place::At(Anchor::Before(7))));
        assert_eq!(parse("after=0").unwrap(), at(Place::At(Anchor::After(0))));
        assert_eq!(
            parse("limit=200&around=9").unwrap(),
            Query { limit: 200, place: Place::At(Anchor::Around(9)) }
        );
        assert_eq!(parse("cursor=1764000000000").unwrap(), at(Place::Time(1_764_000_000_000)));
        for seq in [1, 7, 123_456_789, u64::MAX] {
            let older = parse(&format!("cursor={}", cursor('b', seq))).unwrap();
            assert_eq!(older, at(Place::At(Anchor::Before(seq))));
            let newer = parse(&format!("cursor={}", cursor('a', seq))).unwrap();
            assert_eq!(newer, at(Place::At(Anchor::After(seq))));
        }
    }

    #[test]
    fn an_empty_page_still_leads_to_the_entries_beside_it() {
        let access = Access { first_seq: 5, last_seq: 9, role: None };
        let empty = HistoryPage { entries: Vec::new(), access };
        assert_eq!(neighbours(&empty, Anchor::Before(1)), (None, Some(cursor('a', 4))));
        assert_eq!(neighbours(&empty, Anchor::After(9)), (Some(cursor('b', 10)), None));
        let nothing = HistoryPage { entries: Vec::new(), access: Access { last_seq: 4, ..access } };
        assert_eq!(neighbours(&nothing, Anchor::Latest), (None, None));
    }

    #[test]
    fn bad_queries_are_refused() {
        let bad = [
            "limit=0",
            "limit=201",
            "limit=2147483648",
            "limit=-1",
            "limit=x",
            "before=-1",
            "after=1.5",
            "around=",
            "before=1&after=2",
            "cursor=1&cursor=2",
            "cursor=zzz",
            "cursor=",
            "page=3",
            "token=abc",
            "before=18446744073709551616",
        ];
        for query in bad {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}
