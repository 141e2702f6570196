//! Reads raw IRC logs: who said what, and what else was in the file.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tern_protocol::{TEXT_BYTES_MAX, UserId};

/// What some channels put before a nick to show a rank.
const RANKS: [char; 6] = ['@', '+', '%', '&', '~', '!'];

/// One message of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Who wrote it: the nick.
    pub(crate) author: UserId,
    /// What they wrote: 1 byte to 16 KiB, spaces as they stand.
    pub(crate) text: String,
}

/// Why a line is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Skip {
    /// Nothing but spaces.
    Blank,
    /// Joins, parts, topics: a line that starts with `===`, `***`, `---` or `-!-`.
    Status,
    /// `* nick does something`.
    Action,
    /// No `[hh:mm]` or `[hh:mm:ss]`.
    NoTime,
    /// A time, but no `<nick>` after it.
    NoNick,
    /// The nick cannot be a user id.
    BadNick,
    /// The message has no text.
    Empty,
    /// The text is longer than the protocol allows.
    TooLong,
    /// The author is not among the most active ones.
    NotMember,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "blank lines",
            Self::Status => "status lines (joins, parts, topics)",
            Self::Action => "actions (* nick …)",
            Self::NoTime => "lines without [hh:mm]",
            Self::NoNick => "lines without <nick>",
            Self::BadNick => "nicks that cannot be user ids",
            Self::Empty => "messages without text",
            Self::TooLong => "texts over 16 KiB",
            Self::NotMember => "messages of less active authors",
        })
    }
}

/// A log that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// In the order of the file.
    pub(crate) messages: Vec<Message>,
    /// How many lines were skipped for each reason.
    pub(crate) skipped: BTreeMap<Skip, usize>,
    /// Lines that were not UTF-8.
    pub(crate) repaired_lines: usize,
    /// Bytes of them that were replaced by U+FFFD.
    pub(crate) repaired_bytes: usize,
    /// All lines.
    pub(crate) lines: usize,
}

/// Reads a whole log.
pub(crate) fn parse(bytes: &[u8]) -> Log {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut log = Log::default();
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return log;
    }
    for line in body.split(|byte| *byte == b'\n') {
        log.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let broken: usize = line.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
        log.repaired_bytes += broken;
        log.repaired_lines += usize::from(broken > 0);
        match parse_line(&String::from_utf8_lossy(line)) {
            Ok(message) => log.messages.push(message),
            Err(skip) => *log.skipped.entry(skip).or_default() += 1,
        }
    }
    log
}

fn parse_line(line: &str) -> Result<Message, Skip> {
    if line.trim().is_empty() {
        return Err(Skip::Blank);
    }
    if ["===", "***", "---", "-!-"].iter().any(|mark| line.starts_with(mark)) {
        return Err(Skip::Status);
    }
    let rest = after_time(line).ok_or(Skip::NoTime)?.trim_start();
    let Some(quoted) = rest.strip_prefix('<') else {
        let status = ["===", "***", "---", "-!-"].iter().any(|mark| rest.starts_with(mark));
        return Err(match rest.starts_with("* ") {
            true => Skip::Action,
            false if status => Skip::Status,
            false => Skip::NoNick,
        });
    };
    let (nick, text) = quoted.split_once('>').ok_or(Skip::NoNick)?;
    let nick = nick.trim();
    let nick = nick.strip_prefix(RANKS).unwrap_or(nick);
    let author = UserId::new(nick).map_err(|_| Skip::BadNick)?;
    // One space separates; further ones belong to the text.
    let text = text.strip_prefix(' ').unwrap_or(text);
    match text.len() {
        0 => Err(Skip::Empty),
        1..=TEXT_BYTES_MAX => Ok(Message { author, text: text.to_owned() }),
        _ => Err(Skip::TooLong),
    }
}

/// What follows the first `[hh:mm]` or `[hh:mm:ss]`. Before it may stand anything that is not
/// somebody's words, such as a channel, a date or a file name.
fn after_time(line: &str) -> Option<&str> {
    let words_start = line.find('<').unwrap_or(line.len());
    line[..words_start]
        .match_indices('[')
        .filter_map(|(start, _)| line[start + 1..].split_once(']'))
        .find(|(time, _)| is_time(time))
        .map(|(_, rest)| rest)
}

fn is_time(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let in_range = |(part, max): (&&str, u8)| {
        part.len() == 2
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u8>().is_ok_and(|number| number <= max)
    };
    // A leap second is written 60.
    (2..=3).contains(&parts.len()) && parts.iter().zip([23, 59, 60]).all(in_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<(String, String), Skip> {
        parse_line(line).map(|message| (message.author.to_string(), message.text))
    }

    fn said(author: &str, text: &str) -> Result<(String, String), Skip> {
        Ok((author.to_owned(), text.to_owned()))
    }

    #[test]
    fn messages_are_read_with_short_and_long_times_and_any_prefix() {
        for line in [
            "[09:03] <ann> hello",
            "[23:59:60] <ann> hello",
            "#rust [09:03] <ann> hello",
            "#rust 2024-02-29 [09:03:07] <ann> hello",
            "logs/rust-2024.txt:12:[09:03] <ann> hello",
            "#x[1] [99:99] [09:03]  <ann> hello",
            "[09:03] <@ann> hello",
            "[09:03] < ann> hello",
        ] {
            assert_eq!(one(line), said("ann", "hello"), "{line}");
        }
    }

    #[test]
    fn the_text_is_kept_as_it_stands() {
        assert_eq!(one("[09:03] <ann>  two spaces "), said("ann", " two spaces "));
        assert_eq!(one("[09:03] <ann>  "), said("ann", " "));
        assert_eq!(one("[09:03] <ann>none"), said("ann", "none"));
        assert_eq!(one("[09:03] <ann> <bob> said [10:11] <x>"), said("ann", "<bob> said [10:11] <x>"));
        assert_eq!(one("[09:03] <a[n]`^{|}_-\\> \u{3}04red\u{2}"), said("a[n]`^{|}_-\\", "\u{3}04red\u{2}"));
    }

    #[test]
    fn other_lines_are_skipped_each_for_its_reason() {
        for (line, skip) in [
            ("", Skip::Blank),
            (" \t", Skip::Blank),
            ("=== ann [n=x@example] has joined #rust", Skip::Status),
            ("*** topic is x", Skip::Status),
            ("[09:03] -!- ann has quit", Skip::Status),
            ("[09:03] * ann waves", Skip::Action),
            ("<ann> no time", Skip::NoTime),
            ("[9:03] <ann> hello", Skip::NoTime),
            ("[24:00] <ann> hello", Skip::NoTime),
            ("[09:60] <ann> hello", Skip::NoTime),
            ("[09:03:61] <ann> hello", Skip::NoTime),
            ("[+9:03] <ann> hello", Skip::NoTime),
            ("<ann> it was [09:03] <bob> hello", Skip::NoTime),
            ("[09:03] ann: hello", Skip::NoNick),
            ("[09:03] <ann hello", Skip::NoNick),
            ("[09:03] <> hello", Skip::BadNick),
            ("[09:03] <c:ann> hello", Skip::BadNick),
            ("[09:03] <a\u{7}n> hello", Skip::BadNick),
            ("[09:03] <ann>", Skip::Empty),
            ("[09:03] <ann> ", Skip::Empty),
        ] {
            assert_eq!(one(line), Err(skip), "{line:?}");
        }
        assert_eq!(one(&format!("[09:03] <{}> hello", "n".repeat(129))), Err(Skip::BadNick));
    }

    #[test]
    fn a_text_may_have_16_kib_and_not_a_byte_more() {
        let line = |bytes: usize| format!("[09:03] <ann> {}", "x".repeat(bytes));
        assert!(one(&line(TEXT_BYTES_MAX)).is_ok());
        assert_eq!(one(&line(TEXT_BYTES_MAX + 1)), Err(Skip::TooLong));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_repaired_and_counted() {
        let log = parse(b"[09:03] <ann> caf\xe9 \xff\xfe!\n[09:04] <b\xf6b> hi\n[09:05] <ann> fine\n");
        assert_eq!((log.repaired_lines, log.repaired_bytes, log.lines), (2, 4, 3));
        assert_eq!(log.messages[0].text, "caf\u{fffd} \u{fffd}\u{fffd}!");
        assert_eq!(log.messages[1].author.as_str(), "b\u{fffd}b");
    }

    #[test]
    fn a_repaired_text_is_measured_as_it_will_be_sent() {
        let mut line = b"[09:03] <ann> ".to_vec();
        line.extend(vec![0xff; TEXT_BYTES_MAX / 3 + 1]);
        assert_eq!(parse(&line).skipped, BTreeMap::from([(Skip::TooLong, 1)]));
    }

    #[test]
    fn line_ends_a_byte_order_mark_and_a_missing_last_newline_do_not_matter() {
        let log = parse("\u{feff}[09:03] <ann> one\r\n[09:04] <ann> two".as_bytes());
        let texts: Vec<_> = log.messages.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(texts, ["one", "two"]);
        assert_eq!(parse(b""), Log::default());
        assert_eq!(parse(b"\n").lines, 1);
    }
}
