//! `tern sessions list|close`: who of a user is connected to the node on this machine, and an end to that.

use std::io::Write;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use tern_protocol::UserId;

use super::store::Data;
use super::{Failure, Io, Outcome};
use crate::ops::logs::escape;
use crate::upkeep::{Closed, Request, Sessions};

/// See and close sessions of a user.
#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the open sessions of a user
    List {
        /// Whose
        user: UserId,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Close a session of a user; who has a good token may come back, so revoke it first: tern token revoke
    Close {
        /// Whose
        user: UserId,
        /// Which: its id in the list
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        session: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        data: Data,
    },
}

impl SessionsArgs {
    pub(super) fn run(self, io: Io<'_>) -> Outcome {
        match self.command {
            Command::List { user, json, data } => list(io, user, json, &data),
            Command::Close { user, session, data, .. } => {
                let done = data.done(Request::CloseSessions { user, session })?;
                let Closed { user, closed } = serde_json::from_value(done).map_err(Failure::config)?;
                writeln!(io.out, "{closed} sessions of {} were told to end", escape(user.as_str()))?;
                Ok(())
            }
        }
    }
}

fn list(io: Io<'_>, user: UserId, json: bool, data: &Data) -> Outcome {
    let done = data.done(Request::Sessions { user })?;
    if json {
        writeln!(io.out, "{done}")?;
        return Ok(());
    }
    let Sessions { user, refused_before_ms, sessions } =
        serde_json::from_value(done).map_err(Failure::config)?;
    let out: &mut dyn Write = io.out;
    for session in &sessions {
        let (since, heard) = (time(session.since_ms), time(session.heard_ms));
        let device = escape(session.device.as_str());
        let (id, transport, address) = (&session.id, &session.transport, session.address);
        writeln!(
            out,
            "{id}  {transport} from {address}, device {device}, since {since}, last heard {heard}"
        )?;
    }
    let count = sessions.len();
    let name = escape(user.as_str());
    writeln!(out, "{count} sessions of {name}")?;
    if refused_before_ms > 0 {
        writeln!(out, "tokens issued before {} are refused", time(refused_before_ms))?;
    }
    Ok(())
}

/// A time in Unix milliseconds for people.
pub(super) fn time(time_ms: u64) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|time| Timestamp::from_millisecond(time).ok());
    time.map_or_else(|| time_ms.to_string(), |time| time.to_string())
}
