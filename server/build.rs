//! Tells the compiler what `tern version` says of a build. Needs no git program: it reads what git left.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TERN_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // An archive of the sources has no history; whoever builds it can say where it is from.
    let given = env::var("TERN_COMMIT").ok().filter(|commit| !commit.is_empty());
    tell("TERN_BUILD_COMMIT", given.or_else(commit));
    tell("TERN_BUILD_RUSTC", rustc());
    tell("TERN_BUILD_TARGET", env::var("TARGET").ok());
    tell("TERN_BUILD_PROFILE", env::var("PROFILE").ok());
    // Only this makes a date part of the build, so that two builds of one commit are the same.
    tell("TERN_BUILD_EPOCH_S", Some(env::var("SOURCE_DATE_EPOCH").unwrap_or_default()));
    tell("TERN_BUILD_FEATURES", Some(features()));
}

fn tell(name: &str, value: Option<String>) {
    println!("cargo::rustc-env={name}={}", value.unwrap_or_else(|| "unknown".into()));
}

fn rustc() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Features that were chosen, with commas.
fn features() -> String {
    let mut names: Vec<String> = env::vars()
        .filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_ascii_lowercase))
        .filter(|name| name != "default")
        .collect();
    names.sort_unstable();
    names.join(",")
}

/// The commit that is checked out: HEAD is a commit, or names a reference that is a file of its own
/// or a line of `packed-refs`.
fn commit() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).parent()?.to_owned();
    let dot_git = root.join(".git");
    let git = match fs::read_to_string(&dot_git) {
        // A worktree: a file that says where its data is.
        Ok(text) => root.join(text.strip_prefix("gitdir:")?.trim()),
        Err(_) => dot_git,
    };
    let shared = match watched(&git.join("commondir")) {
        Some(text) => git.join(text.trim()),
        None => git.clone(),
    };
    let head = watched(&git.join("HEAD"))?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    let loose = watched(&shared.join(reference)).map(|text| text.trim().to_owned());
    loose.or_else(|| {
        let packed = watched(&shared.join("packed-refs"))?;
        packed.lines().find_map(|line| line.strip_suffix(reference)).map(|commit| commit.trim().to_owned())
    })
}

/// Reads a file; the build is repeated when it changes.
fn watched(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text)
}
