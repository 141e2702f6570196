//! `GET /v1/history/{conv_id}`: pages of a conversation for infinite scroll.

use axum::extract::State;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, Uri};
use serde::Serialize;
use tern_protocol::{ConversationId, Entry, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX};
use utoipa::ToSchema;

use super::Problem;
use super::cache::{self, Keep};
use super::door::{Named, Reader};
use super::query::{limit, parameters};
use super::submit::unavailable;
use crate::conversation::history::{Anchor, History, HistoryPage};

/// Parameters of the query.
const KNOWN: [&str; 5] = ["limit", "cursor", "before", "after", "around"];
/// A whole number of this many digits or more is a time in Unix milliseconds (since 2001), no cursor of ours.
const UNIX_MS_DIGITS: usize = 13;

/// Seqs stay below 2^53, so that they are exact in JavaScript.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// A page of history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryPage)]
pub(super) struct HistoryBody {
    /// Which log.
    conversation: ConversationId,
    /// Consecutive, newest first.
    entries: Vec<Entry>,
    /// First entry the caller may see.
    first_seq: u64,
    /// Newest entry the caller may see, when the page was made.
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
    anchor: Anchor,
}

/// Pages through a conversation.
///
/// Newest first, in both directions. At most one of `cursor`, `before`, `after` and `around`; none: the
/// newest. Somebody who was a member sees it up to the entry that says that they are gone.
#[utoipa::path(
    get, path = "/v1/history/{conv_id}", operation_id = "history", security(("bearer" = [])),
    params(
        ("conv_id" = ConversationId, Path, description = "which"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "absent: 20"),
        ("cursor" = Option<String>, Query,
            description = "`older` or `newer` of a page, or a time in Unix milliseconds"),
        ("before" = Option<u64>, Query, maximum = 9007199254740991_u64, description = "entries below this seq"),
        ("after" = Option<u64>, Query, maximum = 9007199254740991_u64, description = "entries above this seq"),
        ("around" = Option<u64>, Query, maximum = 9007199254740991_u64,
            description = "entries on both sides of this seq, itself included"),
    ),
    responses(
        (status = 200, description = "A page", body = HistoryBody),
        (status = 304, description = "The page has the ETag that If-None-Match names"),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn history(
    State(history): State<History>,
    Reader(user): Reader,
    uri: Uri,
    Named(id): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = parse(&uri)?;
    let page = history.page(&user, id, query.anchor, query.limit).await.map_err(unavailable)?;
    let page = page.ok_or_else(Problem::absent)?;
    let (first_seq, head) = (page.access.first_seq, page.access.last_seq);
    let (older, newer) = neighbours(&page);
    // With something newer beside it, nothing can be added to what was asked for.
    let sealed = newer.is_some() && !page.entries.is_empty();
    let body = HistoryBody { conversation: id, older, newer, entries: page.entries, first_seq, head };
    Ok(cache::json(&headers, &body, if sealed { Keep::Sealed } else { Keep::Ask }))
}

/// Cursors to both sides of a page. An empty page lies at its anchor.
fn neighbours(page: &HistoryPage) -> (Option<String>, Option<String>) {
    let (first_seq, head) = (page.access.first_seq, page.access.last_seq);
    let (lowest, highest) = match (page.entries.last(), page.entries.first(), page.anchor) {
        (Some(lowest), Some(highest), _) => (lowest.seq, highest.seq),
        (_, _, Anchor::Before(seq)) => (first_seq, seq.max(first_seq) - 1),
        (_, _, Anchor::After(seq)) => (seq.saturating_add(1), head),
        (_, _, Anchor::Latest | Anchor::Around(_) | Anchor::Until(_)) => (first_seq, head),
    };
    let older = (lowest > first_seq && first_seq <= head).then(|| cursor('b', lowest));
    let newer = (highest < head).then(|| cursor('a', highest));
    (older, newer)
}

fn cursor(direction: char, seq: u64) -> String {
    BASE64URL_NOPAD.encode(format!("{direction}{seq}").as_bytes())
}

fn parse(uri: &Uri) -> Result<Query, Problem> {
    let mut asked = None;
    let mut anchor = None;
    for (key, value) in parameters(uri, &KNOWN)? {
        let here = match key.as_str() {
            "limit" => {
                if asked.replace(limit(&value, PAGE_ENTRIES_MAX)?).is_some() {
                    return Err(Problem::parameter("give limit only once"));
                }
                continue;
            }
            "before" => Anchor::Before(parse_seq(&key, &value)?),
            "after" => Anchor::After(parse_seq(&key, &value)?),
            "around" => Anchor::Around(parse_seq(&key, &value)?),
            _ => parse_cursor(&value)?,
        };
        if anchor.replace(here).is_some() {
            return Err(Problem::parameter("give at most one of cursor, before, after and around"));
        }
    }
    let limit = asked.unwrap_or(PAGE_ENTRIES_DEFAULT);
    Ok(Query { limit, anchor: anchor.unwrap_or(Anchor::Latest) })
}

fn parse_seq(key: &str, value: &str) -> Result<u64, Problem> {
    let seq = value.parse().ok().filter(|seq| *seq <= SEQ_MAX);
    seq.ok_or_else(|| Problem::parameter(format!("{key} must be a seq: a whole number from 0 to {SEQ_MAX}")))
}

fn parse_cursor(value: &str) -> Result<Anchor, Problem> {
    let bad = || Problem::parameter("cursor must be the `older` or `newer` of a page, or Unix milliseconds");
    if value.len() >= UNIX_MS_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse().map(Anchor::Until).map_err(|_| bad());
    }
    let bytes = BASE64URL_NOPAD.decode(value.as_bytes()).map_err(|_| bad())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
    let seq = |text: &str| text.parse::<u64>().map_err(|_| bad());
    match text.split_at_checked(1) {
        Some(("b", rest)) => Ok(Anchor::Before(seq(rest)?)),
        Some(("a", rest)) => Ok(Anchor::After(seq(rest)?)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::history::Access;

    fn parse(query: &str) -> Result<Query, Problem> {
        super::parse(&format!("/v1/history/x?{query}").parse().unwrap())
    }

    #[test]
    fn a_query_names_one_place_and_a_limit_in_bounds() {
        let at = |anchor| Query { limit: 20, anchor };
        assert_eq!(parse("").unwrap(), at(Anchor::Latest));
        assert_eq!(parse("before=7").unwrap(), at(Anchor::Before(7)));
        assert_eq!(parse("after=0").unwrap(), at(Anchor::After(0)));
        assert_eq!(parse("limit=200&around=9").unwrap(), Query { limit: 200, anchor: Anchor::Around(9) });
        assert_eq!(parse("cursor=1764000000000").unwrap(), at(Anchor::Until(1_764_000_000_000)));
        for seq in [1, 7, 123_456_789, u64::MAX] {
            let older = parse(&format!("cursor={}", cursor('b', seq))).unwrap();
            assert_eq!(older, at(Anchor::Before(seq)));
            let newer = parse(&format!("cursor={}", cursor('a', seq))).unwrap();
            assert_eq!(newer, at(Anchor::After(seq)));
        }
    }

    #[test]
    fn an_empty_page_still_leads_to_the_entries_beside_it() {
        let access = Access { first_seq: 5, last_seq: 9, last_messages: 9, aged_messages: 0, role: None };
        let empty = |anchor| HistoryPage { entries: Vec::new(), access, anchor };
        assert_eq!(neighbours(&empty(Anchor::Before(1))), (None, Some(cursor('a', 4))));
        assert_eq!(neighbours(&empty(Anchor::After(9))), (Some(cursor('b', 10)), None));
        let nothing = HistoryPage { access: Access { last_seq: 4, ..access }, ..empty(Anchor::Latest) };
        assert_eq!(neighbours(&nothing), (None, None));
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
            "cursor=176400000000",
            "cursor=zzz",
            "cursor=",
            "page=3",
            "limit=1&limit=2",
            "before=18446744073709551616",
            "before=9007199254740992",
        ];
        for query in bad {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}
