//! Logs: text for people or JSON for machines, on standard error, one line per event.
//!
//! Bodies of messages and tokens are never logged, whatever filter an operator sets: libraries that handle
//! bytes of clients log them at their finest levels, so their levels end here (see [`may_be_told`]). What
//! clients choose (ids, agents) may be logged, so control characters in it are escaped and cannot forge
//! lines or drive a terminal.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use metrics::Counter;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

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
    /// The environment variable `RUST_LOG` wins over it; `tern log set` changes it until the next start.
    /// Libraries that handle the bytes of clients are never logged finer than `info`, a few others than
    /// `debug`: messages and tokens are in no log.
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
    /// Nothing was started that could be changed.
    #[error("this process does not log by a filter of its own")]
    NotStarted,
    /// Something else logs already.
    #[error("logging was started before in this process")]
    Started,
}

/// A word alone that is no level would be taken for a part of the program, of which then everything is logged,
/// and nothing of all others.
fn misspelt(filter: &str) -> Option<String> {
    let alone = filter.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':']));
    let mut words = alone.filter(|word| word.parse::<LevelFilter>().is_err());
    words.next().map(|word| format!("{word:?} is no level; to name a part of the program write {word}=debug"))
}

fn parse(origin: &'static str, filter: &str) -> Result<EnvFilter, LogError> {
    if let Some(detail) = misspelt(filter) {
        return Err(LogError::Filter { origin, filter: filter.into(), detail });
    }
    EnvFilter::builder().parse(filter).map_err(|error| LogError::Filter {
        origin,
        filter: filter.into(),
        detail: error.to_string(),
    })
}

/// What the process logs. There is one log, so there is one filter.
static FILTER: OnceLock<Filter> = OnceLock::new();

struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    words: Mutex<Words>,
}

/// The filter in words: what is configured, and what was put over it at run time.
#[derive(Clone, Debug)]
struct Words {
    configured: String,
    /// `RUST_LOG` stands for what is configured, and a reload does not change it.
    by_variable: bool,
    over: String,
}

impl Words {
    fn whole(&self) -> String {
        if self.over.is_empty() {
            self.configured.clone()
        } else {
            format!("{},{}", self.configured, self.over)
        }
    }
}

impl Filter {
    fn change(&self, origin: &'static str, change: impl FnOnce(&mut Words)) -> Result<String, LogError> {
        let mut words = self.words.lock();
        let mut changed = words.clone();
        change(&mut changed);
        let whole = changed.whole();
        self.handle.reload(parse(origin, &whole)?).map_err(|_| LogError::NotStarted)?;
        *words = changed;
        Ok(whole)
    }
}

/// Starts logging for the process.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let variable = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let by_variable = variable.is_some();
    let (origin, configured) = match variable {
        Some(filter) => (FILTER_VARIABLE, filter),
        None => ("log.level", config.level.clone()),
    };
    let (filter, handle) = reload::Layer::new(parse(origin, &configured)?);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(OneLine(io::stderr));
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let registry = Registry::default().with(filter).with(filter_fn(may_be_told));
    registry.with(lines).try_init().map_err(|_| LogError::Started)?;
    let words = Mutex::new(Words { configured, by_variable, over: String::new() });
    // Only who has set the subscriber of the process gets here.
    let _ = FILTER.set(Filter { handle, words });
    Ok(())
}

/// Our own crates, which log neither bodies nor tokens at any level.
const OWN: [&str; 3] = ["tern", "tern_client", "tern_certs"];
/// Libraries that at `debug` tell of connections and files, and never what is in them.
const TOLD_AT_DEBUG: [&str; 6] = ["quinn", "quinn_proto", "quinn_udp", "rustls", "fjall", "lsm_tree"];

/// Whether an event may be in the log at all, after any filter: of our own crates everything, of a few
/// libraries `debug`, of all others `info`. WebSocket, HTTP and QUIC libraries write whole frames, headers
/// and packets at finer levels, which is where tokens and texts are.
pub(super) fn may_be_told(event: &Metadata<'_>) -> bool {
    let library = event.target().split("::").next().unwrap_or_default();
    let finest = match library {
        own if OWN.contains(&own) => Level::TRACE,
        told if TOLD_AT_DEBUG.contains(&told) => Level::DEBUG,
        _ => Level::INFO,
    };
    *event.level() <= finest
}

fn filter() -> Result<&'static Filter, LogError> {
    FILTER.get().ok_or(LogError::NotStarted)
}

/// The filter in force, in words.
pub fn filter_in_force() -> Result<String, LogError> {
    Ok(filter()?.words.lock().whole())
}

/// Takes a new `log.level` from the configuration; what was put over it stays. `RUST_LOG` wins still.
pub fn configure(level: &str) -> Result<String, LogError> {
    filter()?.change("log.level", |words| {
        if !words.by_variable {
            level.clone_into(&mut words.configured);
        }
    })
}

/// Puts a filter such as `tern::session=debug` over the configured one, in place of an earlier one;
/// an empty one goes back to what is configured. Gives the filter in force.
pub fn put_over(over: &str) -> Result<String, LogError> {
    filter()?.change("the filter", |words| over.trim().clone_into(&mut words.over))
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
