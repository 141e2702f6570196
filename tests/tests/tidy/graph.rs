//! Which file uses which: paths are followed to the file that defines what they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::scan::{Scan, Words, scan};

/// The files of one crate by their module paths; the root is the empty path.
pub(crate) struct Graph {
    modules: BTreeMap<Words, Module>,
}

struct Module {
    file: PathBuf,
    scan: Scan,
}

/// What a path leads to.
enum Target {
    Module(Words),
    /// Something that this module defines, by its name.
    Item(Words, String),
}

impl Graph {
    /// Of a crate's files, given relative to its `src`. Files that exist for tests only are left out.
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Self {
        let mut modules: BTreeMap<Words, Module> = files
            .into_iter()
            .map(|(file, text)| (module_path(file), Module { file: file.to_owned(), scan: scan(text) }))
            .collect();
        let tests: Vec<Words> = modules
            .iter()
            .flat_map(|(path, module)| module.scan.test_modules.iter().map(|name| child(path, name)))
            .collect();
        modules.retain(|path, _| !tests.iter().any(|test| path.starts_with(test)));
        Self { modules }
    }

    /// Each file with the files it uses. A part may use the types and constants of the modules it is in:
    /// `mod.rs` holds the words that its parts share. To call its functions is a use: the module calls its
    /// parts, and so both would call each other.
    pub(crate) fn uses(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut found: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for (path, module) in &self.modules {
            for (target, name) in self.targets(path, &module.scan) {
                let used = &self.modules[&target];
                let word_of_its_module = path.starts_with(&target) && !used.scan.functions.contains(&name);
                if used.file != module.file && !word_of_its_module {
                    found.entry(&module.file).or_default().insert(&used.file);
                }
            }
        }
        found
    }

    /// What a file names: the modules that define it, and its name there.
    fn targets(&self, from: &Words, scan: &Scan) -> BTreeSet<(Words, String)> {
        let mut found = BTreeSet::new();
        for words in scan.used_imports.iter().chain(&scan.paths) {
            match self.resolve(from, words, &mut BTreeSet::new()) {
                Some(Target::Item(module, name)) => {
                    found.insert((module, name));
                }
                // The name of a module alone uses nothing of it.
                Some(Target::Module(_)) | None => {}
            }
        }
        found
    }

    fn resolve(
        &self,
        from: &Words,
        words: &[String],
        seen: &mut BTreeSet<(Words, String)>,
    ) -> Option<Target> {
        let mut at = from.clone();
        let mut words = words.iter();
        let mut first = true;
        loop {
            let Some(word) = words.next() else { return Some(Target::Module(at)) };
            match word.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => {
                    at.pop();
                }
                name => match self.lookup(&at, name, seen) {
                    Some(Target::Module(next)) => at = next,
                    Some(item) => return Some(item),
                    None if first => return None, // another crate, a local name
                    None => return Some(Target::Item(at, name.to_owned())),
                },
            }
            first = false;
        }
    }

    /// A name inside a module: its child, its item, what it imports, what a macro may have made.
    fn lookup(&self, module: &Words, name: &str, seen: &mut BTreeSet<(Words, String)>) -> Option<Target> {
        if !seen.insert((module.clone(), name.to_owned())) {
            return None;
        }
        let inner = child(module, name);
        if self.modules.contains_key(&inner) {
            return Some(Target::Module(inner));
        }
        let scan = &self.modules.get(module)?.scan;
        if scan.items.contains(name) {
            return Some(Target::Item(module.clone(), name.to_owned()));
        }
        if let Some(import) = scan.imports.get(name) {
            return self.resolve(module, import, seen);
        }
        for glob in &scan.globs {
            if let Some(Target::Module(from)) = self.resolve(module, glob, seen)
                && let Some(found) = self.lookup(&from, name, seen)
            {
                return Some(found);
            }
        }
        scan.made.contains(name).then(|| Target::Item(module.clone(), name.to_owned()))
    }
}

/// `store/embedded/mod.rs` and `store/embedded.rs` are `["store", "embedded"]`.
fn module_path(file: &Path) -> Words {
    let mut words: Words =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if words.len() == 1 && ["lib", "main"].contains(&words[0].as_str())
        || words.last().is_some_and(|w| w == "mod")
    {
        words.pop();
    }
    words
}

fn child(path: &[String], name: &str) -> Words {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// Sets of files each of which can be reached from each other by uses. A pair is a ring of two.
pub(crate) fn rings<'a>(uses: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> Vec<BTreeSet<&'a Path>> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        uses.keys().map(|file| (*file, reach(uses, file))).collect();
    let mut found: Vec<BTreeSet<&Path>> = Vec::new();
    for (file, others) in &reached {
        if !others.contains(file) || found.iter().any(|ring| ring.contains(file)) {
            continue;
        }
        let back = |other: &&&Path| reached.get(**other).is_some_and(|theirs| theirs.contains(file));
        found.push(others.iter().filter(back).copied().collect());
    }
    found
}

fn reach<'a>(uses: &BTreeMap<&'a Path, BTreeSet<&'a Path>>, start: &'a Path) -> BTreeSet<&'a Path> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(file) = open.pop() {
        for next in uses.get(file).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The uses of a crate of small files, as `a.rs>b.rs` in order.
    fn uses(files: &[(&str, &str)]) -> String {
        let graph = Graph::new(files.iter().map(|(file, text)| (Path::new(*file), *text)));
        let mut lines = Vec::new();
        for (file, used) in graph.uses() {
            lines.extend(used.iter().map(|used| format!("{}>{}", file.display(), used.display())));
        }
        lines.join(" ")
    }

    fn rings_of(files: &[(&str, &str)]) -> Vec<usize> {
        let graph = Graph::new(files.iter().map(|(file, text)| (Path::new(*file), *text)));
        rings(&graph.uses()).iter().map(BTreeSet::len).collect()
    }

    #[test]
    fn a_path_leads_to_the_file_that_defines_the_name() {
        let lib = ("lib.rs", "mod a; mod store; pub use store::Log;");
        let store = ("store/mod.rs", "mod model; mod disk; pub use model::{Log, Entry as Line};");
        let model = ("store/model.rs", "pub struct Log; pub struct Entry;");
        let disk = ("store/disk.rs", "use super::{Line, model}; fn f() -> model::Log { crate::store::Log }");
        for a in [
            "use crate::Log;",
            "use crate::store::{self, Line}; fn f(_: store::Log) {}",
            "fn f() { crate::store::Line::new() }",
        ] {
            let found = uses(&[lib, ("a.rs", a), store, model, disk]);
            assert_eq!(found, "a.rs>store/model.rs store/disk.rs>store/model.rs", "{a}");
        }
    }

    #[test]
    fn exports_declarations_and_other_crates_are_no_uses() {
        let lib = ("lib.rs", "mod a; mod b; pub use a::A; pub(crate) use b::*;");
        let a = ("a.rs", "use std::b::B; pub struct A { b: u8 } fn f(b: u8) { b.b(); b::<u8>() }");
        let b = ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }");
        assert_eq!(uses(&[lib, a, b]), "");
        assert_eq!(uses(&[("lib.rs", "mod b; fn f() { b::run() }"), b]), "lib.rs>b.rs");
        assert_eq!(uses(&[lib, ("a.rs", "fn f() -> crate::B { todo() }"), b]), "a.rs>b.rs");
    }

    #[test]
    fn names_come_through_stars_and_macros() {
        let lib = ("lib.rs", "mod a; mod b; mod c; pub use b::*;");
        let b = (
            "b.rs",
            "id! { Name, 7 } macro_rules! id { ($n:ident, $m:literal) => { struct $n; enum Kind {} }; }",
        );
        assert_eq!(uses(&[lib, ("a.rs", "use crate::{Name, Kind};"), b, ("c.rs", "")]), "a.rs>b.rs");
        assert_eq!(
            uses(&[lib, ("a.rs", "use super::b::*; fn f() -> Name { g() }"), b, ("c.rs", "")]),
            "a.rs>b.rs"
        );
        assert_eq!(uses(&[lib, ("a.rs", "use crate::c::*; pub struct Name;"), b, ("c.rs", "")]), "");
    }

    #[test]
    fn pairs_and_longer_rings_are_found() {
        let lib = ("lib.rs", "mod a; mod b; mod c;");
        let b = ("b.rs", "pub fn go() { crate::a::go() }");
        assert_eq!(rings_of(&[lib, ("a.rs", "use super::b; pub fn go() { b::go() }"), b]), [2]);
        let c = ("c.rs", "use crate::b::go as on; pub fn go() { on() }");
        assert_eq!(rings_of(&[lib, ("a.rs", "use crate::c; pub fn go() { c::go() }"), b, c]), [3]);
        assert_eq!(rings_of(&[lib, ("a.rs", "pub fn go() {}"), b, c]), [] as [usize; 0]);
    }

    #[test]
    fn a_part_may_use_the_words_of_its_module_and_the_module_its_parts() {
        let lib = ("lib.rs", "mod link; pub struct Word;");
        let link = ("link/mod.rs", "mod quic; mod tls; pub struct Link(quic::Quic); pub use tls::Tls;");
        let quic = ("link/quic.rs", "use super::{Link, Tls}; use crate::Word; pub struct Quic;");
        let tls = ("link/tls.rs", "pub struct Tls;");
        assert_eq!(uses(&[lib, link, quic, tls]), "link/mod.rs>link/quic.rs link/quic.rs>link/tls.rs");
        let turned = ("link/tls.rs", "use super::quic::Quic; pub struct Tls;");
        assert_eq!(rings_of(&[lib, link, quic, turned]), [2]);
        let link = (
            "link/mod.rs",
            "mod quic; mod tls; pub use tls::Tls; pub struct Link(quic::Quic); pub(self) fn go() {}",
        );
        let caller = ("link/quic.rs", "use super::Link; pub struct Quic; fn f() { super::go() }");
        assert_eq!(rings_of(&[lib, link, caller, tls]), [2], "to call the module is a way back up");
    }
}
