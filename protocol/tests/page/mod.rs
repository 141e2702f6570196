//! Reads `docs/protocol.md` as data: its frames, structures, enumerations, tables and transcripts.

use std::collections::BTreeMap;

/// The page.
pub(crate) const TEXT: &str = include_str!("../../../docs/protocol.md");

/// A field as the page describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// Its type, in the words of the page.
    pub(crate) kind: String,
    pub(crate) text: String,
}

/// A frame as the page describes it.
#[derive(Debug)]
pub(crate) struct FrameSection {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) side: String,
    pub(crate) fields: Vec<Field>,
}

/// What a named type is.
#[derive(Debug)]
pub(crate) enum Structure {
    /// Fields one after the other.
    Record(Vec<Field>),
    /// Variants by number.
    Enumeration(Vec<String>),
    /// Kinds by number, with their fields and their length in front.
    Kinds(Vec<(String, Vec<Field>)>),
}

/// The text of a `## ` chapter.
pub(crate) fn chapter(title: &str) -> &'static str {
    let heading = format!("\n## {title}\n");
    let start = TEXT.find(&heading).unwrap_or_else(|| panic!("no chapter {title:?}")) + heading.len();
    let rest = &TEXT[start..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// The cells of every table row below `heading` in `text`, without the head of the table.
pub(crate) fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        })
        .filter(|cells| !cells[0].starts_with("---"))
        .collect()
}

/// A cell without its code marks.
pub(crate) fn plain(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

fn fields(text: &str) -> Vec<Field> {
    rows(text)
        .into_iter()
        .filter(|cells| cells[0].starts_with('`'))
        .map(|cells| Field {
            name: plain(&cells[0]),
            kind: plain(&cells[1]),
            text: cells.get(2).cloned().unwrap_or_default(),
        })
        .collect()
}

/// All frames, in the order of the page.
pub(crate) fn frames() -> Vec<FrameSection> {
    chapter("Frame reference").split("\n#### ").skip(1).map(frame).collect()
}

fn frame(section: &str) -> FrameSection {
    let (heading, body) = section.split_once('\n').expect("a heading and a body");
    let body = body.split("\n### ").next().unwrap_or(body);
    let (number, rest) = heading.split_once(" `").expect("a number and a name");
    let (name, side) = rest.split_once("` (").expect("a name and a direction");
    FrameSection {
        number: number.parse().expect("a number"),
        name: name.to_owned(),
        side: side.trim_end_matches(')').to_owned(),
        fields: fields(body),
    }
}

/// All named types.
pub(crate) fn structures() -> BTreeMap<String, Structure> {
    chapter("Structures").split("\n### ").skip(1).map(structure).collect()
}

fn structure(section: &str) -> (String, Structure) {
    let (name, body) = section.split_once('\n').expect("a name and a body");
    let table = rows(body);
    let structure = if table[0][0] == "field" {
        Structure::Record(fields(body))
    } else {
        for (index, cells) in table[1..].iter().enumerate() {
            assert_eq!(cells[0], index.to_string(), "{name}: variants are numbered from 0");
        }
        let names = table[1..].iter().map(|cells| plain(&cells[1]));
        if table[0][1] == "kind" {
            let fields = table[1..].iter().map(|cells| inline_fields(&cells[2]));
            Structure::Kinds(names.zip(fields).collect())
        } else {
            Structure::Enumeration(names.collect())
        }
    };
    (name.to_owned(), structure)
}

/// Fields written as `` `name: type`, `name: type` ``.
fn inline_fields(cell: &str) -> Vec<Field> {
    cell.split('`')
        .filter_map(|part| part.split_once(": "))
        .map(|(name, kind)| Field { name: name.to_owned(), kind: kind.to_owned(), text: String::new() })
        .collect()
}

/// The contents of fenced blocks whose info string starts with `language`, with the rest of it.
pub(crate) fn blocks(language: &str) -> Vec<(&'static str, &'static str)> {
    TEXT.split("\n```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.split_once('\n'))
        .filter_map(|(info, body)| Some((info.strip_prefix(language)?.trim(), body)))
        .collect()
}
