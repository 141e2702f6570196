//! Logs: text for people or JSON for machines, on standard error, one line per event.
//!
//! Bodies of messages and tokens are never logged; what clients choose (ids, agents) may be, so control
//! characters in it are escaped and cannot forge lines or drive a terminal.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use metrics::Counter;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Environment variable whose filter wins over `log.level`.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// For people.
    Text,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `json` or `text`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tern::session=debug`.
    /// The environment variable `RUST_LOG` wins over it.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info,fjall=warn,lsm_tree=warn".into() }
    }
}

impl LogConfig {
    /// Checks the filter.
    pub fn check(&self) -> Result<(), LogError> {
        parse("log.level", &self.level).map(drop)
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("{origin} = {filter:?} is not a level or filter: {detail}")]
    Filter {
        /// The key or variable it stands in.
        origin: &'static str,
        /// The filter.
        filter: String,
        /// What is wrong.
        detail: String,
    },
    /// Something else logs already.
    #[error("logging was started before in this process")]
    Started,
}

fn parse(origin: &'static str, filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|error| LogError::Filter {
        origin,
        filter: filter.into(),
        detail: error.to_string(),
    })
}

/// Starts logging for the process.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(filter) if !filter.is_empty() => parse(FILTER_VARIABLE, &filter)?,
        _ => parse("log.level", &config.level)?,
    };
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(OneLine(io::stderr));
    match config.format {
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(true).try_init(),
        LogFormat::Text => subscriber.try_init(),
    }
    .map_err(|_| LogError::Started)
}

/// Logs each panic with its place and thread, and counts it. What the panic says is left out: it may
/// quote a message or a token.
pub fn install_panic_hook(panics: Counter) {
    std::panic::set_hook(Box::new(move |panic| {
        panics.increment(1);
        let place = panic.location().map_or_else(|| "unknown".into(), ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(place, thread, "panic");
    }));
}

/// Writers whose every write is one event: one line, control characters within it escaped.
pub(super) struct OneLine<M>(pub(super) M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLineWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }
}

/// Escapes and passes on.
pub(super) struct OneLineWriter<W>(W);

impl<W: Write> Write for OneLineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        match escape(line) {
            Cow::Borrowed(_) => self.0.write_all(event)?,
            Cow::Owned(escaped) => self.0.write_all((escaped + "\n").as_bytes())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The text with what could forge a line or drive a terminal written as `\u001b`, which is also how
/// JSON writes it.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(needs_escape) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if needs_escape(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    out.into()
}

/// Control characters, and those that turn the direction of the text after them. All are below
/// U+10000.
pub(super) fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
