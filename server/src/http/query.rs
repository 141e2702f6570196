//! Parameters of a URL's query, decoded; unknown ones are errors.

use axum::extract::Query;
use http::Uri;

use super::Problem;

/// The parameters in order. `known` names those that may be there.
pub(super) fn parameters(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Problem::parameter("the query cannot be read"))?;
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(Problem::parameter(format!("unknown parameter {name:?}; known: {}", known.join(", "))))
        }
        None => Ok(pairs),
    }
}

/// A number of things asked for, from 1 to `max`.
pub(super) fn limit(value: &str, max: usize) -> Result<usize, Problem> {
    let limit = value.parse::<usize>().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| Problem::parameter(format!("limit must be a number from 1 to {max}")))
}

/// The value of a parameter that is given at most once.
pub(super) fn once<'a>(pairs: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Problem::parameter(format!("give {name} only once"))),
    }
}
