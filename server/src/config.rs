//! The configuration: nests the sections that modules own, and loads them. A later layer wins:
//! defaults, the TOML file, then environment variables named `TERN__SECTION__KEY`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

mod sense;

pub use sense::{Senseless, senseless};

use crate::auth::AuthConfig;
use crate::budget::MemoryConfig;
use crate::conversation::ConversationConfig;
use crate::drain::DrainConfig;
use crate::events::file::FileEventsConfig;
use crate::http::PageConfig;
use crate::node::config::{ListenConfig, NodeConfig, TlsFiles};
use crate::ops::{LogConfig, OpsConfig};
use crate::presence::PresenceConfig;
use crate::push::PushConfig;
use crate::roster::OutboxConfig;
use crate::session::SessionConfig;
use crate::session::quota::QuotaConfig;
use crate::store::PeopleConfig;
use crate::store::embedded::EmbeddedConfig;
use crate::transport::TransportConfig;
use crate::upkeep::RetentionConfig;

/// What every environment variable of the configuration starts with.
pub const ENV_PREFIX: &str = "TERN__";
/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Every key with its meaning and default, as a file to start from. Written by the test
/// `the_example_file_is_what_the_types_say` from the types' own comments and defaults.
pub const EXAMPLE: &str = include_str!("../../deploy/tern.toml");

/// What `tern dev` sets differently: everything is on this machine.
const DEV: &str = r#"
[transport]
allow_loopback_origins = true
[quota]
loopback_exempt = true
[log]
format = "text"
[drain]
deadline_ms = 500
spread_ms = 0
[page]
enabled = true
"#;

/// The whole configuration, one field per section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which node this is.
    pub node: NodeConfig,
    /// How much memory it may take.
    pub memory: MemoryConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// Its certificate.
    pub tls: TlsFiles,
    /// Who may come in.
    pub auth: AuthConfig,
    /// The links of clients.
    pub transport: TransportConfig,
    /// How sessions are treated.
    pub session: SessionConfig,
    /// What may wait to be sent to one session.
    pub outbox: OutboxConfig,
    /// How often something may be done.
    pub quota: QuotaConfig,
    /// How conversations work.
    pub conversation: ConversationConfig,
    /// Who reaches whom.
    pub people: PeopleConfig,
    /// Who sees whom.
    pub presence: PresenceConfig,
    /// When push events leave.
    pub push: PushConfig,
    /// The message store.
    pub store: EmbeddedConfig,
    /// What is removed because of its age.
    pub retention: RetentionConfig,
    /// Where events go.
    pub events: FileEventsConfig,
    /// The port for operators.
    pub ops: OpsConfig,
    /// What is logged.
    pub log: LogConfig,
    /// How the node goes away.
    pub drain: DrainConfig,
    /// The chat page.
    pub page: PageConfig,
}

/// Why there is no configuration. The text says where, what was expected and what may be meant.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key or a wrong value.
    #[error("{path}: {detail}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Line, key and what is wrong, on several lines.
        detail: String,
    },
    /// A variable names an unknown key or has a wrong value.
    #[error("{variable}: {detail}")]
    Variable {
        /// Which variable.
        variable: String,
        /// What is wrong.
        detail: String,
    },
}

impl Config {
    /// The settings of the message store; a relative directory is in the data directory.
    pub fn store_config(&self) -> EmbeddedConfig {
        let mut store = self.store.clone();
        store.dir = self.node.data_dir.join(&store.dir);
        store.people = self.people.clone();
        store
    }

    /// The settings of the event files; a relative directory is in the data directory.
    pub fn events_config(&self) -> FileEventsConfig {
        let mut events = self.events.clone();
        events.dir = self.node.data_dir.join(&events.dir);
        events
    }

    /// Loads a file (or only the defaults) under the variables of `env`; those that do not start with
    /// [`ENV_PREFIX`] are not looked at.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let table = file.map(read).transpose()?.unwrap_or_default();
        overlay(table, env)
    }

    /// The configuration of `tern dev` under the variables of `env`.
    pub fn dev(env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        overlay(DEV.parse().expect("the built-in text is TOML"), env)
    }
}

/// Reads a file and makes sure that it is good by itself, so that its errors can name a line.
fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = read_text(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let bad = |error: toml::de::Error| ConfigError::File { path: path.into(), detail: explain(&error) };
    toml::from_str::<Config>(&text).map_err(bad)?;
    text.parse().map_err(bad)
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("{bytes} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(path)
}

/// Puts the variables over a good table, one at a time, so that an error can name the variable.
fn overlay(mut table: Table, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let mut config: Config = table.clone().try_into().expect("the table was checked by whoever made it");
    let mut variables: Vec<(String, String)> =
        env.into_iter().filter(|(variable, _)| variable.starts_with(ENV_PREFIX)).collect();
    variables.sort_unstable();
    for (variable, text) in variables {
        let path = variable[ENV_PREFIX.len()..].to_ascii_lowercase();
        let placed = place(&mut table, &path, value(&text))
            .map_err(|part| format!("{part:?} is a key, not a section"));
        config = placed
            .and_then(|()| table.clone().try_into().map_err(|error| explain(&error)))
            .map_err(|detail| ConfigError::Variable { variable, detail })?;
    }
    Ok(config)
}

/// Sets the key at `section__key`; an error is the part of the path that has no keys below it.
fn place<'a>(table: &mut Table, path: &'a str, value: Value) -> Result<(), &'a str> {
    let Some((section, rest)) = path.split_once("__") else {
        table.insert(path.into(), value);
        return Ok(());
    };
    match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => place(inner, rest, value),
        _ => Err(section),
    }
}

/// A variable holds a TOML value (`true`, `8`, `["a", "b"]`, `"8"`), or else plain text. Plain text
/// is also what merely looks like a date.
fn value(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(Value::Datetime(_)) | Err(_) => Value::String(text.into()),
        Ok(value) => value,
    }
}

/// The error as TOML tells it, and the known key that is closest to an unknown one.
fn explain(error: &toml::de::Error) -> String {
    let text = error.to_string();
    match suggestion(error.message()) {
        Some(known) => format!("{}\nhelp: did you mean `{known}`?", text.trim_end()),
        None => text.trim_end().into(),
    }
}

/// Serde says "unknown field `x`, expected `a` or `b`" (or "unknown variant"): of the quoted names,
/// the one nearest to the first.
fn suggestion(message: &str) -> Option<&str> {
    let message = message.strip_prefix("unknown ")?;
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let near = |known: &&str| distance(unknown, known) <= unknown.len() / 3 + 1;
    names.filter(near).min_by_key(|known| distance(unknown, known))
}

/// Letters to insert, delete or replace to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;
