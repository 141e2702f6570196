//! `GET /v1/presence`: who is there, by the same rule as for those who watch.

use axum::Json;
use axum::extract::State;
use http::Uri;
use tern_protocol::{Code, Presence, UserId, WATCH_USERS_MAX};

use super::Problem;
use super::door::Reader;
use super::query::parameters;
use super::submit::unavailable;
use crate::presence::{self, WatchError};

/// Tells who is there.
///
/// One answer for each user, in the order asked. Somebody is `unknown` who shares no conversation with the caller in
/// which they have shown themselves, and whoever of the two blocks the other.
#[utoipa::path(
    get, path = "/v1/presence", operation_id = "look_at_presence", security(("bearer" = [])),
    params(
        ("users" = Option<String>, Query, description = "user ids with commas between them, at most 200"),
        ("user" = Option<Vec<UserId>>, Query,
            description = "one user id, for one with a comma in it; may be repeated"),
    ),
    responses((status = 200, description = "Their presence", body = Presence))
)]
pub(super) async fn look(
    State(presence): State<presence::Presence>,
    Reader(me): Reader,
    uri: Uri,
) -> Result<Json<Presence>, Problem> {
    let users = presence.look(&me, users(&uri)?).await.map_err(|error| match error {
        WatchError::Store(error) => unavailable(error),
        WatchError::TooMany(_) => Problem::parameter(error.to_string()),
        WatchError::Full => Problem::of(Code::OVER_CAPACITY, error.to_string()),
    })?;
    Ok(Json(Presence { users }))
}

fn users(uri: &Uri) -> Result<Vec<UserId>, Problem> {
    let mut users = Vec::new();
    for (name, value) in parameters(uri, &["users", "user"])? {
        let ids = if name == "users" { value.split(',').collect() } else { vec![value.as_str()] };
        for id in ids {
            if users.len() == WATCH_USERS_MAX {
                return Err(Problem::parameter(format!("at most {WATCH_USERS_MAX} users at a time")));
            }
            users.push(UserId::new(id).map_err(|error| Problem::parameter(format!("{name}: {error}")))?);
        }
    }
    if users.is_empty() {
        return Err(Problem::parameter("name the users: ?users=alice,bob"));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(query: &str) -> Option<Vec<String>> {
        let uri = format!("/v1/presence?{query}").parse().unwrap();
        users(&uri).ok().map(|users| users.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn users_are_named_in_one_list_or_one_by_one() {
        assert_eq!(ids("users=a,b").unwrap(), ["a", "b"]);
        assert_eq!(ids("users=a%2Cb&user=c,d&user=%C3%A9").unwrap(), ["a", "b", "c,d", "é"]);
        let many = vec!["u"; 200].join(",");
        assert_eq!(ids(&format!("users={many}")).unwrap().len(), 200);
        for bad in ["", "users=", "users=a,,b", "users=a%00", "user=c:x", &format!("users={many},u"), "who=a"]
        {
            assert_eq!(ids(bad), None, "{bad}");
        }
    }
}
