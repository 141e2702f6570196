//! Rules of the code base that would otherwise be said in review, each with its reason.

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/scan.rs"]
mod scan;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that needs more is probably two rooms.
const FILE_LINES_MAX: usize = 500;
/// A function that needs more hides its own steps.
const FUNCTION_LINES_MAX: usize = 70;
/// `main` is a table of contents.
const MAIN_LINES_MAX: usize = 60;

/// The layers of the server, top first: a module uses modules of lower layers, and of its own only
/// where the two stand together here. One line is one layer.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["node"],
    &["http", "session"],
    &["upkeep"],
    &["router"],
    &["conversation", "presence", "push"],
    &["delivery"],
    &["transport", "auth"],
    &["registry", "store", "events"],
    &["roster"],
    &["cluster"],
    &["config", "drain", "clock", "ops"],
    &["budget", "descriptors"],
];

/// Uses inside a layer or against the order that have a reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("http", "session", "the WebSocket endpoint hands its link to the gateway"),
    ("config", "*", "config.rs only nests the Config of each module"),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "manager", "types", "misc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of the project that people maintain, relative to the root.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "node_modules"].contains(&name.as_str()) {
                    walk(&path, out);
                }
            } else if name.ends_with(".rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root(), &mut paths);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_owned(), text)
    };
    let files: Vec<_> = paths.into_iter().map(read).collect();
    assert!(files.len() > 50, "the walk found only {} files", files.len());
    files
}

fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "fuzz")
        || text.ends_with("tests.rs")
        || text.ends_with("contract.rs")
        || text.starts_with("protocol/vectors")
}

/// The code of a file without its `#[cfg(test)] mod tests { … }` at the end.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap()
}

#[test]
fn files_and_functions_are_small() {
    let mut faults = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let code = without_tests(text);
        let lines = code.lines().count();
        let limit = if path.ends_with("main.rs") { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        if lines > limit {
            faults.push(format!("{}: {lines} lines, at most {limit}", path.display()));
        }
        for (name, length) in functions(code) {
            if length > FUNCTION_LINES_MAX {
                faults.push(format!("{}: {name} has {length} lines", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Functions with their lengths, by indentation: rustfmt closes a function at its own column.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let head = trimmed.split("fn ").next().unwrap_or_default();
        let is_head = head
            .split_whitespace()
            .all(|word| ["pub", "pub(super)", "pub(crate)", "async", "const", "extern"].contains(&word));
        if !trimmed.contains("fn ") || !is_head || trimmed.ends_with(';') || trimmed.ends_with('}') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(line.len() - trimmed.len()));
        if let Some(length) = lines[start..].iter().position(|line| *line == close) {
            let name = trimmed.split("fn ").nth(1).unwrap_or_default();
            found.push((name.split(['(', '<']).next().unwrap_or_default().to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !is_test(path) && !text.starts_with("//! "))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no header in:\n{}", silent.join("\n"));
}

#[test]
fn modules_depend_downwards_only() {
    let layer = |module: &str| LAYERS.iter().position(|names| names.contains(&module));
    let mut faults = Vec::new();
    let mut uses: BTreeMap<(String, String), PathBuf> = BTreeMap::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let Ok(inside) = path.strip_prefix("server/src") else { continue };
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        if layer(&module).is_none() {
            faults.push(format!("{module} has no layer in tests/tests/tidy.rs"));
        }
        for used in crate_uses(without_tests(text)) {
            uses.entry((module.clone(), used)).or_insert_with(|| path.clone());
        }
    }
    assert!(uses.len() > 10, "only {} uses were found", uses.len());
    for ((from, to), path) in &uses {
        let allowed = |rule: &&(&str, &str, &str)| rule.0 == from && (rule.1 == to || rule.1 == "*");
        if from == to || ALLOWED.iter().any(|rule| allowed(&rule)) {
            continue;
        }
        match (layer(from), layer(to)) {
            (Some(above), Some(below)) if above < below => {}
            (Some(_), Some(_)) => faults.push(format!("{from} uses {to} ({})", path.display())),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Where crates have their files.
const CRATES: &[&str] =
    &["protocol/src", "certs/src", "client-sdk/rust/src", "server/src", "loadtest/src", "tests/src"];

/// Two files that use each other are one room with two doors: neither can be read, tested or replaced
/// alone. The same is true of a longer ring.
#[test]
fn files_do_not_use_each_other() {
    let sources = sources();
    let mut faults = Vec::new();
    for dir in CRATES {
        let inside =
            sources.iter().filter_map(|(path, text)| Some((path.strip_prefix(dir).ok()?, text.as_str())));
        let graph = graph::Graph::new(inside.filter(|(path, _)| !is_test(path)));
        let uses = graph.uses();
        for ring in graph::rings(&uses) {
            faults.push(format!("in {dir}, {} files use each other:", ring.len()));
            for file in &ring {
                let others: Vec<_> =
                    uses[file].intersection(&ring).map(|path| path.display().to_string()).collect();
                faults.push(format!("    {} uses {}", file.display(), others.join(", ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The names of concrete backends. Whoever opens one decides what a node runs on: that is assembly.
const BACKENDS: &[&str] = &["EmbeddedStore", "MemoryStore", "FileEvents", "MemoryRegistry"];

/// Where they may be named: in their own modules, and in the one file that opens them.
const BACKEND_PLACES: &[&str] = &[
    "store/embedded",
    "store/memory",
    "store/memory.rs",
    "events/file.rs",
    "registry/memory.rs",
    "node/backends.rs",
];

#[test]
fn one_file_names_concrete_backends() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let Ok(inside) = path.strip_prefix("server/src") else { continue };
        if is_test(&path) || BACKEND_PLACES.iter().any(|place| inside.starts_with(place)) {
            continue;
        }
        let found = scan::scan(&text);
        for name in BACKENDS {
            let mut words = found.paths.iter().chain(found.imports.values()).flatten();
            if words.any(|word| word == name) {
                faults.push(format!("{} names {name}; node/backends.rs opens it", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Words that once were the names of several things. Each names at most one type.
const ONE_MEANING: &[&str] = &[
    "Session",
    "Seat",
    "Lane",
    "Verdict",
    "Asked",
    "Answer",
    "Parts",
    "Page",
    "Entry",
    "Origin",
    "Hub",
    "Conversation",
    "Life",
    "Refused",
];

#[test]
fn a_word_names_one_thing() {
    let mut named: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, text) in sources() {
        if !CRATES.iter().any(|dir| path.strip_prefix(dir).is_ok_and(|inside| !is_test(inside))) {
            continue;
        }
        let found = scan::scan(&text);
        for word in ONE_MEANING.iter().filter(|word| found.items.contains(**word)) {
            named.entry(word).or_default().push(path.display().to_string());
        }
    }
    named.retain(|_, files| files.len() > 1);
    assert!(named.is_empty(), "types of one name: {named:#?}");
}

/// The modules named after `crate::`.
fn crate_uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        let names: Vec<&str> = match part.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![part],
        };
        for name in names {
            let word: String =
                name.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                found.push(word);
            }
        }
    }
    found
}

#[test]
fn pure_modules_stay_pure() {
    let pure = [
        "server/src/auth/claims.rs",
        "server/src/conversation/state.rs",
        "server/src/conversation/plan.rs",
        "server/src/conversation/rules.rs",
        "server/src/conversation/settle.rs",
        "server/src/conversation/recent.rs",
        "server/src/presence/state.rs",
        "server/src/conversation/history/list_cursor.rs",
        "server/src/push/rule.rs",
        "server/src/drain/leaving.rs",
        "server/src/roster/limit.rs",
        "server/src/roster/outbox/told.rs",
        "server/src/session/deadline.rs",
        "server/src/session/lane.rs",
        "server/src/session/strikes.rs",
        "server/src/session/quota.rs",
        "client-sdk/rust/src/session",
        "protocol/src",
    ];
    let banned = ["tokio", "async fn", "SystemTime::now", "Instant::now", "rand::", "dyn Store"];
    let mut seen = 0;
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let name = path.to_string_lossy();
        if !pure.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        seen += 1;
        let code: String =
            without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for word in banned {
            assert!(!code.contains(word), "{name} is pure and must not use {word}");
        }
    }
    assert!(seen >= pure.len(), "a pure module has moved: {seen} files were checked");
}

#[test]
fn nothing_is_unbounded_and_no_name_is_empty() {
    let channels = ["unbounded_channel", "UnboundedSender", "unbounded()"];
    for (path, text) in sources().iter().filter(|(path, _)| !path.ends_with("tidy.rs")) {
        for word in channels {
            assert!(!text.contains(word), "{}: {word}: every queue has a limit", path.display());
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let dir = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        for name in [Some(stem), dir].into_iter().flatten() {
            assert!(!EMPTY_NAMES.contains(&name.as_str()), "{}: {name} says nothing", path.display());
        }
    }
}

/// A bug that can no longer be planted guards nothing.
#[test]
fn every_planted_bug_fits_the_tree() {
    let output = std::process::Command::new(root().join("tests/planted")).arg("--fit").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn there_is_one_crypto_provider() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for banned in ["openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{banned}\"")), "{banned} is in the tree");
    }
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "normal,build", "--invert", "ring", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&tree.stdout);
    assert!(!text.contains("ring v"), "ring is compiled:\n{text}");
}
