//! Checking a store without opening it: every file is read as salvage reads it, and what is wrong is told by
//! file. Nothing is written, so that it works on a full disk and on one that takes no writes.

use std::path::Path;

use super::Holes;
use super::source::Source;
use super::survey::survey;
use crate::store::embedded::directory::{Directory, OpenError, is_store};
use crate::store::embedded::failures::is_damage;
use crate::store::embedded::identity::Identity;
use crate::store::embedded::table;
use crate::store::embedded::tripwire::{CountFile, Counted};
use crate::store::embedded::verify::{Checker, Findings};
use crate::store::embedded::{constants, journals, manifests};

/// Checks the store in `dir`, which no process may hold, from end to end. Damage is told whole, and what it costs;
/// an error says that it could not be looked at.
pub fn verify_store(dir: &Path) -> Result<Findings, OpenError> {
    let io = |source| OpenError::Io { dir: dir.into(), source };
    if !is_store(dir) {
        return Err(OpenError::Missing { dir: dir.into() });
    }
    let _held = Directory::hold(dir)?;
    let mut wrong = Vec::new();
    let counted = counted(dir, &mut wrong).map_err(io)?;
    let identity = counted.map(|counted| counted.identity);
    let db = dir.join("db");
    if !constants::are_there(&db) {
        wrong.push("db/version is missing or damaged; a node writes it anew".into());
    }
    let mut source = Source::open(&db, identity.map(|identity| identity.salt)).map_err(io)?;
    check_journals(&db, identity, &mut source, &mut wrong).map_err(io)?;
    check_tables(&db, &source, &mut wrong).map_err(io)?;
    wrong.extend(source.damage.iter().map(ToString::to_string));

    let mut checker = Checker::default();
    for (key, value) in source.rows().map_err(io)? {
        checker.row(&key, &value);
    }
    if let (Some(identity), Some(found)) = (identity, checker.salt())
        && found != identity.salt
    {
        wrong.push("the tables in db/keyspaces are of another store".into());
    }
    let mut findings = checker.finish(None);
    if !source.damage.is_empty() {
        // What does not fit together follows from what is missing: that is told instead.
        findings.clear();
        let logs = survey(&source).map_err(io)?.logs;
        for holes in logs.iter().filter_map(|(id, log)| Holes::of(*id, log)) {
            findings.add(holes.to_string());
        }
    }
    if let Some(missing) =
        counted.map(|counted| counted.count.saturating_sub(findings.commits)).filter(|n| *n > 0)
    {
        wrong.push(format!("{missing} of the last commits are missing, after commit {}", findings.commits));
    }
    for what in wrong.into_iter().rev() {
        findings.add_first(what);
    }
    Ok(findings)
}

/// Whose store it is and how many commits were durable, where both places say the same.
fn counted(dir: &Path, wrong: &mut Vec<String>) -> std::io::Result<Option<Counted>> {
    if dir.join("unfinished").exists() {
        wrong.push("something was being made of it, and was cut short".into());
    }
    let told = Directory::identities_in(dir)[0];
    if told.is_none() {
        wrong.push("store.json is missing or damaged; a node writes it anew".into());
    }
    let counted = CountFile::read(&dir.join("commit-count"));
    let counted = match counted {
        Err(error) if is_damage(&error) => None,
        counted => counted?,
    };
    match (told, &counted) {
        (_, None) => wrong.push("commit-count is missing or damaged".into()),
        (Some(told), Some(counted)) if told != counted.identity => {
            wrong.push("store.json and commit-count are of two stores".into());
        }
        _ => {}
    }
    Ok(counted)
}

/// What the journals lack. A commit that the end of the process cut short is no damage: nobody was told of it.
fn check_journals(
    db: &Path,
    identity: Option<Identity>,
    source: &mut Source,
    wrong: &mut Vec<String>,
) -> std::io::Result<()> {
    let (Some(identity), list) = (identity, journals::list(db)?) else { return Ok(()) };
    let cut = match journals::scan(&list, identity.salt) {
        Err(error) if is_damage(&error) => {
            wrong.push(error.to_string());
            return Ok(());
        }
        findings => findings?.cut,
    };
    let Some(cut) = cut else { return Ok(()) };
    if cut.is_torn {
        let last = journals::paths(db)?.pop();
        source.damage.retain(|damage| Some(&damage.file) != last.as_ref());
    } else {
        wrong.push(cut.what);
    }
    Ok(())
}

/// What a node needs of the tables besides their rows: their indexes, and that the database's own keyspace names
/// ours.
fn check_tables(db: &Path, source: &Source, wrong: &mut Vec<String>) -> std::io::Result<()> {
    if !manifests::names_ours(db)? {
        wrong.push("db/keyspaces/0 is missing or damaged; a node writes it anew".into());
    }
    for path in source.files() {
        if let Some(what) = table::index_damage(path)? {
            wrong.push(format!("{}: {what}", path.display()));
        }
    }
    Ok(())
}
