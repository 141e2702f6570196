//! Reads what a Rust file declares, imports and names: enough of the language to see who uses whom.

use std::collections::{BTreeMap, BTreeSet};

/// A path as it is written: `crate::store::Log` is `["crate", "store", "Log"]`.
pub(crate) type Words = Vec<String>;

/// What one file says about other modules. Code that is compiled for tests only is left out.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Items that it defines at its top.
    pub(crate) items: BTreeSet<String>,
    /// Those of them that are functions.
    pub(crate) functions: BTreeSet<String>,
    /// Words given to macros at its top: maybe items that these make.
    pub(crate) made: BTreeSet<String>,
    /// Names that it imports or exports again, with what they stand for.
    pub(crate) imports: BTreeMap<String, Words>,
    /// What it imports with a star.
    pub(crate) globs: Vec<Words>,
    /// Imports that are uses even if no word of the code names them: all that are not exports.
    pub(crate) used_imports: Vec<Words>,
    /// Paths in the code.
    pub(crate) paths: Vec<Words>,
    /// Modules that exist for tests only.
    pub(crate) test_modules: BTreeSet<String>,
}

const ITEM_WORDS: [&str; 8] = ["struct", "enum", "union", "trait", "type", "fn", "const", "static"];

/// Scans the text of a file.
pub(crate) fn scan(text: &str) -> Scan {
    let mut found = Scan::default();
    let tokens = tokens(text);
    let mut at = 0;
    let mut depth = 0_usize;
    let mut macro_depth = None;
    let mut exported = false;
    while at < tokens.len() {
        let word = tokens[at].as_str();
        if let Some(after) = test_only(&tokens, at, &mut found) {
            at = after;
            continue;
        }
        let before = if at == 0 { "" } else { tokens[at - 1].as_str() };
        match word {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if macro_depth.is_some_and(|start| depth <= start) {
                    macro_depth = None;
                }
            }
            "pub" => exported = true,
            ";" => exported = false,
            "use" if before != "::" => {
                at = import(&tokens, at + 1, exported && depth == 0, &mut found);
                exported = false;
                continue;
            }
            "!" if depth == 0 && is_word(before) => macro_depth = Some(depth),
            _ if is_word(word) => {
                let next = tokens.get(at + 1).map_or("", String::as_str);
                let in_rules = macro_depth.is_some();
                if ITEM_WORDS.contains(&word) && (depth == 0 || in_rules) && is_word(next) {
                    if depth == 0 || !["fn", "const", "type"].contains(&word) {
                        found.items.insert(next.to_owned());
                        if word == "fn" {
                            found.functions.insert(next.to_owned());
                        }
                    }
                } else if in_rules && depth > 0 {
                    found.made.insert(word.to_owned());
                }
                if !["::", ".", "mod", "fn", "struct", "enum", "trait"].contains(&before) {
                    let path = path(&tokens, at);
                    at += 2 * path.len() - 1;
                    found.paths.push(path);
                    exported &= depth > 0 || word == "pub";
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// A path that starts here, up to its last word.
fn path(tokens: &[String], start: usize) -> Words {
    let mut words = vec![tokens[start].clone()];
    let mut at = start + 1;
    while tokens.get(at).is_some_and(|sep| sep == "::")
        && tokens.get(at + 1).is_some_and(|word| is_word(word))
    {
        words.push(tokens[at + 1].clone());
        at += 2;
    }
    words
}

/// If an item for tests only starts here, where it ends.
fn test_only(tokens: &[String], at: usize, found: &mut Scan) -> Option<usize> {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    if !tokens[at..].iter().map(String::as_str).take(attribute.len()).eq(attribute) {
        return None;
    }
    let mut depth = 0_usize;
    let is_use = tokens[at + attribute.len()..].iter().take(5).any(|word| word == "use");
    for (here, token) in tokens.iter().enumerate().skip(at + attribute.len()) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token == "}" && !is_use {
                    return Some(here + 1);
                }
            }
            ";" if depth == 0 => {
                if tokens[here - 2] == "mod" {
                    found.test_modules.insert(tokens[here - 1].clone());
                }
                return Some(here + 1);
            }
            _ => {}
        }
    }
    Some(tokens.len())
}

/// Reads the tree of a `use` and says where it ends.
fn import(tokens: &[String], start: usize, exported: bool, found: &mut Scan) -> usize {
    let mut stack: Vec<Words> = vec![Vec::new()];
    let mut words: Words = Vec::new();
    let mut alias = None;
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => stack.push(std::mem::take(&mut words)),
            "}" | "," | ";" => {
                if !words.is_empty() {
                    let full: Words = stack.iter().flatten().chain(&words).cloned().collect();
                    bind(full, alias.take(), exported, found);
                    words.clear();
                }
                if tokens[at] == "}" {
                    stack.pop();
                } else if tokens[at] == ";" {
                    return at + 1;
                }
            }
            "as" => {
                alias = tokens.get(at + 1).cloned();
                at += 1;
            }
            "::" => {}
            word => words.push(word.to_owned()),
        }
        at += 1;
    }
    at
}

fn bind(mut full: Words, alias: Option<String>, exported: bool, found: &mut Scan) {
    if full.last().is_some_and(|last| last == "*") {
        full.pop();
        found.globs.push(full);
        return;
    }
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    if !exported {
        found.used_imports.push(full.clone());
    }
    if let Some(name) = alias.or_else(|| full.last().cloned()) {
        found.imports.insert(name, full);
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single signs, without comments, texts and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        match chars[at] {
            '/' if next == '/' => at = end_of(&chars, at, |rest| rest[0] == '\n'),
            '/' if next == '*' => at = end_of_comment(&chars, at),
            '"' => at = end_of_text(&chars, at + 1),
            '\'' => at = end_of_quote(&chars, at),
            c if c.is_alphabetic() || c == '_' => {
                let end = end_of(&chars, at, |rest| !rest[0].is_alphanumeric() && rest[0] != '_');
                let word: String = chars[at..end].iter().collect();
                at = match (word.as_str(), chars.get(end)) {
                    ("r" | "br" | "cr", Some('"' | '#')) => match end_of_raw_text(&chars, end) {
                        Some(end) => end,
                        None => end + 1, // r#word
                    },
                    ("b" | "c", Some('"')) => end_of_text(&chars, end + 1),
                    ("b", Some('\'')) => end_of_quote(&chars, end),
                    _ => {
                        found.push(word);
                        end
                    }
                };
            }
            c if c.is_ascii_digit() => {
                at = end_of(&chars, at, |rest| !rest[0].is_alphanumeric() && rest[0] != '_');
            }
            c if c.is_whitespace() => at += 1,
            ':' if next == ':' => {
                found.push("::".to_owned());
                at += 2;
            }
            c => {
                found.push(c.to_string());
                at += 1;
            }
        }
    }
    found
}

fn end_of(chars: &[char], start: usize, ends: impl Fn(&[char]) -> bool) -> usize {
    (start..chars.len()).find(|&at| ends(&chars[at..])).unwrap_or(chars.len())
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_text(chars: &[char], start: usize) -> usize {
    let mut at = start;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of `r"…"` or `r##"…"##`; `None` if it is a raw word.
fn end_of_raw_text(chars: &[char], start: usize) -> Option<usize> {
    let quote = end_of(chars, start, |rest| rest[0] != '#');
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(chars[start..quote].iter().copied()).collect();
    Some(end_of(chars, quote + 1, |rest| rest.starts_with(&close)) + close.len())
}

/// The end of a character or of a lifetime.
fn end_of_quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => end_of(chars, start + 3, |rest| rest[0] == '\'') + 1,
        (Some(_), Some('\'')) => start + 3,
        _ => end_of(chars, start + 1, |rest| !rest[0].is_alphanumeric() && rest[0] != '_'),
    }
}

#[test]
fn a_file_is_read_as_the_compiler_would() {
    let found = scan(
        r##"
        //! use crate::comment::No;
        use std::sync::Arc;
        use super::{lane::{self, Lane as Order}, run};
        pub(super) use parts::Part;
        use crate::all::*;
        const TEXT: &str = "use crate::text::No; \" {";
        const RAW: &str = r#"crate::raw::No" "#;
        const QUOTE: char = '"';
        make! { 1 Made; }
        struct Own<'a>(&'a str);
        impl<'a> Own<'a> {
            fn call(&self) -> char { crate::far::away::<u8>(); self.crate_.b; '\'' }
        }
        #[cfg(test)]
        mod fakes;
        #[cfg(test)]
        fn only() { crate::test::no() }
        fn after() { child::go() }
        "##,
    );
    let words = |text: &str| -> Words { text.split("::").map(str::to_owned).collect() };
    assert_eq!(found.imports["Order"], words("super::lane::Lane"));
    assert_eq!(found.imports["lane"], words("super::lane"));
    assert_eq!(found.imports["Part"], words("parts::Part"));
    assert_eq!(found.globs, [words("crate::all")]);
    assert!(!found.used_imports.contains(&words("parts::Part")), "an export is not a use");
    assert!(found.used_imports.contains(&words("super::run")));
    assert!(found.paths.contains(&words("crate::far::away")));
    assert!(found.paths.contains(&words("child::go")));
    assert!(!format!("{found:?}").contains("No"), "{found:?}");
    assert!(!format!("{found:?}").contains("\"no\""), "{found:?}");
    assert!(found.made.contains("Made"));
    assert!(["TEXT", "RAW", "QUOTE", "Own", "after"].iter().all(|name| found.items.contains(*name)));
    assert!(!found.items.contains("call"), "a method is no item of the module");
    assert!(found.test_modules.contains("fakes"));
}
