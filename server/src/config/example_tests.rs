//! Writes `deploy/tern.toml` from the types of the configuration: their comments and their defaults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Set to write the file anew instead of comparing it.
const UPDATE: &str = "TERN_UPDATE_EXAMPLE";
/// Longest line of a comment.
const COMMENT_COLUMNS: usize = 100;
const HEAD: &str = "\
# Everything that Tern can be told, with what it does when it is not told.
#
# A line that begins with `#` and a key shows the default, or, where it says so, an example of a key
# that is absent by default. Take the `#` away and change what is to be different.
# Every key can be set by environment too, and that wins: TERN__NODE__NAME=tern-2,
# TERN__TRANSPORT__ALLOWED_ORIGINS='[\"https://chat.example\"]'. Unknown keys are errors.
# Check this file with: tern config check FILE
";

/// A field of a struct: name, type, comment.
struct Field {
    name: String,
    kind: String,
    comment: String,
}

/// Every `pub struct …Config` and the like in the sources, with its fields.
fn structs() -> BTreeMap<String, Vec<Field>> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|end| end == "rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    let mut found = BTreeMap::new();
    for path in paths {
        let text = fs::read_to_string(path).unwrap();
        for (at, start) in text.match_indices("\npub struct ") {
            let head = text[at + start.len()..].lines().next().unwrap();
            let read = text[..at].trim_end().rsplit("\n\n").next().unwrap().contains("Deserialize");
            if let (true, Some(name)) = (read, head.strip_suffix(" {")) {
                found.insert(name.to_owned(), fields(&text[at + start.len() + head.len()..]));
            }
        }
    }
    found
}

/// The fields up to the closing brace, as rustfmt writes them.
fn fields(body: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut comment = String::new();
    for line in body.lines().skip(1).take_while(|line| *line != "}").map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push_str(text);
        } else if let Some((name, kind)) =
            line.strip_prefix("pub ").and_then(|rest| rest.trim_end_matches(',').split_once(": "))
        {
            let comment = std::mem::take(&mut comment).trim().to_owned();
            fields.push(Field { name: name.into(), kind: kind.into(), comment });
        }
    }
    fields
}

fn inner<'a>(kind: &'a str, outer: &str) -> Option<&'a str> {
    kind.strip_prefix(outer)?.strip_prefix('<')?.strip_suffix('>')
}

/// The whole file.
fn example() -> String {
    let structs = structs();
    let defaults = Table::try_from(Config::default()).unwrap();
    let mut out = HEAD.to_owned();
    for section in &structs["Config"] {
        let defaults = defaults[&section.name].as_table().unwrap();
        out.push('\n');
        write_comment(&mut out, &section.comment);
        out.push_str(&format!("[{}]\n", section.name));
        let mut lists = Vec::new();
        for field in &structs[&section.kind] {
            match inner(&field.kind, "Vec").filter(|item| structs.contains_key(*item)) {
                Some(item) => lists.push((field, item)),
                None => write_key(&mut out, &section.name, field, defaults.get(&field.name)),
            }
        }
        for (field, item) in lists {
            out.push('\n');
            write_comment(&mut out, &field.comment);
            let name = format!("{}.{}", section.name, field.name);
            out.push_str(&format!("#[[{name}]]\n"));
            for field in &structs[item] {
                write_key(&mut out, &name, field, None);
            }
        }
    }
    out
}

/// A key with its default, or with the `Example: ` that its comment ends with.
fn write_key(out: &mut String, section: &str, field: &Field, default: Option<&Value>) {
    let key = format!("{section}.{}", field.name);
    assert!(!field.comment.is_empty(), "{key} has no comment");
    assert!(!field.comment.contains("[`"), "{key}: its comment is for operators and cannot link to Rust");
    let (comment, example) = match field.comment.split_once("Example: `") {
        None => (field.comment.as_str(), None),
        Some((comment, rest)) => (comment.trim_end(), rest.strip_suffix("`.")),
    };
    write_comment(out, comment);
    let value = match (default, example) {
        (Some(value), _) => value.to_string(),
        (None, Some(example)) => example.to_owned(),
        (None, None) => panic!("{key} has no default: end its comment with an \"Example: `…`.\""),
    };
    let note = if default.is_none() { "   # an example" } else { "" };
    out.push_str(&format!("#{} = {value}{note}\n", field.name));
}

fn write_comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COMMENT_COLUMNS {
            out.push_str(&format!("{line}\n"));
            line = "#".into();
        }
        line.push_str(&format!(" {word}"));
    }
    out.push_str(&format!("{line}\n"));
}

/// The file with all its keys in force.
fn in_force() -> Table {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<String> = EXAMPLE.lines().map(line).collect();
    text.join("\n").parse().unwrap()
}

#[test]
fn the_example_file_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tern.toml");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, example()).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == example(), "deploy/tern.toml is old: run this test with {UPDATE}=1 and look at it");
}

#[test]
fn the_example_file_changes_nothing_as_it_stands() {
    assert_eq!(toml::from_str::<Config>(EXAMPLE).unwrap(), Config::default());
}

#[test]
fn the_example_file_has_every_key_and_its_default() {
    let shown = in_force();
    for (section, defaults) in Table::try_from(Config::default()).unwrap() {
        for (key, default) in defaults.as_table().unwrap() {
            let found = shown[&section].get(key).unwrap_or_else(|| panic!("{section}.{key} is missing"));
            let list_of_tables = found.as_array().is_some_and(|list| list.iter().any(Value::is_table));
            assert!(
                list_of_tables || found == default,
                "{section}.{key}: {found}, but {default} is in force"
            );
        }
    }
    let _: Config = shown.try_into().unwrap();
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let mut variables = 0;
    for (section, keys) in in_force() {
        for (key, value) in keys.as_table().unwrap().clone() {
            let name = format!("{ENV_PREFIX}{section}__{key}").to_ascii_uppercase();
            let by_env = Config::load(None, [(name.clone(), value.to_string())]).unwrap();
            let table = Table::from_iter([(section.clone(), Value::Table(Table::from_iter([(key, value)])))]);
            assert_eq!(by_env, table.try_into().unwrap(), "{name}");
            variables += 1;
        }
    }
    assert!(variables > 50, "only {variables} keys were found");
}
