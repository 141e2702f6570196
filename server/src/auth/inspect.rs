//! Looking into a token without verifying it: for people who wonder why theirs is refused.

use std::time::{SystemTime, UNIX_EPOCH};

use tern_protocol::TOKEN_BYTES_MAX;

use super::AuthError;
use super::claims::{check_header, check_times, subject};
use super::jws::{Jws, JwsError, Object};

/// What a token says, true or not.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its header.
    pub header: Object,
    /// Its claims.
    pub claims: Object,
    /// Why any server would refuse it, whatever its keys; empty does not mean that it is accepted.
    pub problems: Vec<AuthError>,
}

/// Decodes a token. Verifies nothing.
pub fn inspect(token: &str, now: SystemTime) -> Result<Inspection, JwsError> {
    let jws = Jws::split(token)?;
    let (header, claims) = (jws.header()?, jws.claims()?);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let too_long = (token.len() > TOKEN_BYTES_MAX).then_some(AuthError::TooLong(token.len()));
    let checks = [check_header(&header).err(), check_times(&claims, now).err(), subject(&claims, "").err()];
    let problems = too_long.into_iter().chain(checks.into_iter().flatten()).collect();
    Ok(Inspection { header, claims, problems })
}
