//! `tern token mint|inspect|verify|revoke`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use jiff::{SpanRelativeTo, Timestamp};
use serde_json::{Value, json};
use tern_protocol::{TOKEN_BYTES_MAX, UserId};

use super::store::Data;
use super::{Failure, Io, Outcome, sessions};
use crate::auth::{
    Algorithm, AuthConfig, AuthError, Authenticator, KeyConfig, Mint, Object, Scope, SigningKey, inspect,
};
use crate::config::Config;
use crate::ops::logs::escape;
use crate::upkeep::{Request, Revocation, Revoked};

/// Stands for standard input in place of a token.
const STDIN: &str = "-";
/// Claims that are times, in seconds since 1970.
const TIME_CLAIMS: [&str; 3] = ["iat", "nbf", "exp"];

/// Make, look into and verify tokens
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it
    Mint(MintArgs),
    /// Show what a token says, without verifying it
    Inspect(InspectArgs),
    /// Verify a token as the server would
    Verify(VerifyArgs),
    /// Refuse the tokens of a user that were issued before a moment, and close the sessions they opened
    Revoke(RevokeArgs),
}

/// Arguments of `tern token mint`.
#[derive(Debug, Args)]
struct MintArgs {
    /// User id: 1 to 128 bytes, what others send to
    #[arg(long)]
    user: UserId,
    /// Display name shown to others
    #[arg(long)]
    name: Option<String>,
    /// How long the token is good for, such as 30m, 24h or 7d
    #[arg(long, default_value = "24h", value_parser = duration)]
    ttl: Duration,
    /// File with the HS256 secret
    #[arg(long, value_name = "FILE", required_unless_present = "key_file", conflicts_with = "key_file")]
    secret_file: Option<PathBuf>,
    /// PEM file with a private key (PKCS#8)
    #[arg(long, value_name = "FILE", requires = "algorithm")]
    key_file: Option<PathBuf>,
    /// Algorithm of the private key: ES256, EdDSA or RS256
    #[arg(long, requires = "key_file", value_parser = key_pair_algorithm)]
    algorithm: Option<Algorithm>,
    /// Name of the key, as the server knows it
    #[arg(long)]
    kid: Option<String>,
    /// Issuer, where the server asks for one
    #[arg(long)]
    issuer: Option<String>,
    /// Audience, where the server asks for one
    #[arg(long)]
    audience: Option<String>,
    /// What the token allows besides being a user; messages:write lets a back end send as any
    /// user, admin lets an operator close sessions and revoke tokens
    #[arg(long, value_name = "WORDS")]
    scope: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `tern token inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// The token, or - to read it from standard input (where other users cannot see it)
    token: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `tern token verify`.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// The token, or - to read it from standard input (where other users cannot see it)
    token: String,
    /// Configuration of the server
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "secret_file",
        conflicts_with = "secret_file"
    )]
    config: Option<PathBuf>,
    /// File with the HS256 secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `tern token revoke`.
#[derive(Debug, Args)]
struct RevokeArgs {
    /// Whose tokens
    user: UserId,
    /// Those issued before this time, such as 2026-11-26T17:00:00Z; now if absent
    #[arg(long, value_name = "TIME", value_parser = unix_ms)]
    before: Option<u64>,
    /// Also if nobody of this id has ever been here
    #[arg(long)]
    even_unknown: bool,
    #[command(flatten)]
    data: Data,
}

impl TokenArgs {
    /// Runs the command. `env` is for the configuration that `verify` may load.
    pub fn run(
        self,
        io: Io<'_>,
        env: impl IntoIterator<Item = (String, String)>,
        now: SystemTime,
    ) -> Outcome {
        match self.command {
            TokenCommand::Mint(args) => args.run(io, now),
            TokenCommand::Inspect(args) => args.run(io, now),
            TokenCommand::Verify(args) => args.run(io, env, now),
            TokenCommand::Revoke(args) => args.run(io),
        }
    }
}

impl MintArgs {
    fn run(self, io: Io<'_>, now: SystemTime) -> Outcome {
        let key = match (&self.secret_file, &self.key_file, self.algorithm) {
            (Some(path), _, _) => SigningKey::from_secret_file(path),
            (None, Some(path), Some(algorithm)) => SigningKey::from_private_key_file(path, algorithm),
            _ => return Err(Failure::config("--secret-file, or --key-file with --algorithm, is needed")),
        };
        let key = key.map_err(Failure::config)?;
        let mint = Mint {
            user: self.user,
            name: self.name,
            ttl: self.ttl,
            kid: self.kid,
            issuer: self.issuer,
            audience: self.audience,
            scope: self.scope,
        };
        let token = mint.sign(&key, now).map_err(Failure::config)?;
        if self.json {
            let expires = now.checked_add(mint.ttl).map_or(0, seconds_since_1970);
            writeln!(
                io.out,
                "{}",
                json!({ "token": token, "user": mint.user, "expires_ms": expires * 1000 })
            )?;
        } else {
            writeln!(io.out, "{token}")?;
        }
        Ok(())
    }
}

impl InspectArgs {
    fn run(self, io: Io<'_>, now: SystemTime) -> Outcome {
        let token = read_token(&self.token, io.input)?;
        let seen = inspect(&token, now).map_err(AuthError::Malformed).map_err(Failure::config)?;
        if self.json {
            let problems: Vec<String> = seen.problems.iter().map(ToString::to_string).collect();
            let (header, claims) = (seen.header, seen.claims);
            let line = json!({ "verified": false, "header": header, "claims": claims, "problems": problems });
            writeln!(io.out, "{line}")?;
            return Ok(());
        }
        writeln!(io.out, "Decoded, NOT verified: anybody can write a token that says this.\n")?;
        print(io.out, "header", &seen.header, now)?;
        print(io.out, "claims", &seen.claims, now)?;
        for problem in &seen.problems {
            writeln!(io.out, "warning: {problem}")?;
        }
        if seen.claims.contains_key("aud") {
            writeln!(io.out, "note: a token with an aud is accepted only where auth.audience is set to it")?;
        }
        Ok(())
    }
}

impl VerifyArgs {
    fn run(self, io: Io<'_>, env: impl IntoIterator<Item = (String, String)>, now: SystemTime) -> Outcome {
        let token = read_token(&self.token, io.input)?;
        let auth = match self.secret_file {
            Some(path) => with_secret(path),
            None => Config::load(self.config.as_deref().map(Path::new), env).map_err(Failure::config)?.auth,
        };
        let authenticator = Authenticator::new(auth).map_err(Failure::config)?;
        if authenticator.fetches() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(authenticator.fetch_keys()).map_err(Failure::Preflight)?;
        }
        let claims = authenticator.verify(&token, now).map_err(Failure::config)?;
        if self.json {
            let line = json!({
                "user": claims.user, "name": claims.name, "expires_ms": claims.expires_ms,
                "scopes": claims.scopes,
            });
            writeln!(io.out, "{line}")?;
        } else {
            let name = claims.name.as_deref().map_or_else(String::new, |name| format!(" ({})", escape(name)));
            let expires = time(claims.expires_ms / 1000, now);
            let send_as = if claims.may(Scope::SendAs) { ", may send as any user" } else { "" };
            let admin = if claims.may(Scope::Admin) { ", may administer" } else { "" };
            let user = escape(claims.user.as_str());
            writeln!(io.out, "good: {user}{name}, expires {expires}{send_as}{admin}")?;
        }
        Ok(())
    }
}

impl RevokeArgs {
    fn run(self, io: Io<'_>) -> Outcome {
        let revocation = Revocation { before_ms: self.before, even_unknown: self.even_unknown };
        let done = self.data.done(Request::Revoke { user: self.user, revocation })?;
        let Revoked { user, refused_before_ms, closed } =
            serde_json::from_value(done).map_err(Failure::config)?;
        let (user, time) = (escape(user.as_str()), sessions::time(refused_before_ms));
        writeln!(io.out, "tokens of {user} issued before {time} are refused; {closed} sessions were closed")?;
        Ok(())
    }
}

/// A moment as people write it, in Unix milliseconds.
fn unix_ms(text: &str) -> Result<u64, String> {
    let time: Timestamp = text.parse().map_err(|_| "write it as 2026-11-26T17:00:00Z".to_owned())?;
    u64::try_from(time.as_millisecond()).map_err(|_| "must not be before 1970".into())
}

fn with_secret(path: PathBuf) -> AuthConfig {
    let key = KeyConfig {
        kid: None,
        algorithm: Algorithm::HS256,
        public_key_file: None,
        secret_file: Some(path),
        scopes: None,
    };
    AuthConfig { keys: vec![key], ..AuthConfig::default() }
}

/// The token of an argument. One from standard input is not in the list of processes.
fn read_token(argument: &str, input: &mut dyn Read) -> Result<String, Failure> {
    if argument != STDIN {
        return Ok(argument.into());
    }
    // What is much longer is no token; a little more lets the length be told.
    let mut token = String::new();
    input.take(4 * TOKEN_BYTES_MAX as u64).read_to_string(&mut token)?;
    Ok(token.trim().into())
}

fn print(out: &mut dyn std::io::Write, what: &str, object: &Object, now: SystemTime) -> std::io::Result<()> {
    writeln!(out, "{what}")?;
    for (name, value) in object {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (name, text) = (escape(name), escape(&text));
        let when = match value.as_u64() {
            Some(seconds) if TIME_CLAIMS.contains(&&*name) => format!("  {}", time(seconds, now)),
            _ => String::new(),
        };
        writeln!(out, "  {name:<8} {text}{when}")?;
    }
    writeln!(out)
}

/// A time for people: `2026-11-24T15:00:00Z (in 2h)`.
fn time(seconds: u64, now: SystemTime) -> String {
    let Some(time) = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok())
    else {
        return "(beyond the year 9999)".into();
    };
    let now = i64::try_from(seconds_since_1970(now)).unwrap_or(i64::MAX);
    let apart = now.abs_diff(time.as_second());
    let span = match (apart / 86_400, apart / 3600 % 24, apart / 60 % 60, apart % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    };
    if time.as_second() > now { format!("{time} (in {span})") } else { format!("{time} ({span} ago)") }
}

fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn key_pair_algorithm(text: &str) -> Result<Algorithm, String> {
    match Algorithm::from_name(text) {
        Some(Algorithm::HS256) => Err("HS256 has no private key; use --secret-file".into()),
        Some(algorithm) => Ok(algorithm),
        None => Err("must be ES256, EdDSA or RS256".into()),
    }
}

/// A duration such as `90s`, `24h`, `1h 30m` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "write it as 30m, 24h or 7d".to_owned())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "years and months have no fixed length; write days".to_owned())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be longer than zero".into()),
    }
}

#[cfg(test)]
mod tests;
