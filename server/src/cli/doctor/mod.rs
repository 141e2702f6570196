//! `tern doctor`: is everything around the node as it should be, and what to do where it is not.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::dangers::dangers;
use super::{Failure, Io, Outcome};
use crate::auth::Authenticator;
use crate::config::{Config, senseless};

mod certificate;
mod disk;
mod handshake;
mod machine;
mod network;

/// Check configuration, certificate, network, clock, disk and limits, and say what to do
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The node's configuration; without it the defaults are checked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    /// It cannot be told from here.
    Unknown,
    Warn,
    /// The node will not work, or not as promised: exit code 1.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

/// Everything that was found, in order.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        check: &'static str,
        level: Level,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.0.push(Finding { check, level, message: message.into(), advice: advice.into() });
    }

    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Level::Ok, message, "");
    }

    fn warn(&mut self, check: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Level::Warn, message, advice);
    }

    fn fail(&mut self, check: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Level::Fail, message, advice);
    }

    fn failures(&self) -> usize {
        self.0.iter().filter(|finding| finding.level == Level::Fail).count()
    }
}

impl Doctor {
    pub(super) fn run(self, io: Io<'_>, env: impl IntoIterator<Item = (String, String)>) -> Outcome {
        let mut findings = Findings::default();
        match Config::load(self.config.as_deref(), env) {
            Ok(config) => examine(&config, self.config.is_some(), &mut findings)?,
            Err(error) => findings.fail("config", error.to_string(), "see: tern config docs"),
        }
        if self.json {
            let report = serde_json::json!({ "ok": findings.failures() == 0, "findings": findings.0 });
            writeln!(io.out, "{report}")?;
        } else {
            print(io.out, &findings)?;
        }
        match findings.failures() {
            0 => Ok(()),
            failures => Err(Failure::Config(format!("{failures} of {} checks failed", findings.0.len()))),
        }
    }
}

/// All checks, one after the other; none stops the others.
fn examine(config: &Config, from_file: bool, findings: &mut Findings) -> std::io::Result<()> {
    check_config(config, from_file, findings);
    certificate::check(&config.tls, from_file, findings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        check_issuers(config, findings).await;
        network::check(config, findings).await;
    });
    machine::check_clock(findings);
    disk::check(&config.node.data_dir, findings);
    machine::check_limits(findings);
    Ok(())
}

fn check_config(config: &Config, from_file: bool, findings: &mut Findings) {
    if !from_file {
        findings.add("config", Level::Unknown, "no --config: the defaults are checked", "give --config FILE");
    }
    let checks = [
        config.transport.check().map_err(|error| error.to_string()),
        config.drain.check().map_err(|error| error.to_string()),
        config.log.check().map_err(|error| error.to_string()),
        config.ops.check().map_err(|error| error.to_string()),
    ];
    let senseless = senseless(config).into_iter().map(|found| found.to_string());
    let bad: Vec<String> = checks.into_iter().filter_map(Result::err).chain(senseless).collect();
    for error in &bad {
        findings.fail("config", error, "see: tern config docs");
    }
    if bad.is_empty() {
        findings.ok("config", "every setting is in its range");
    }
    if from_file {
        for (key, what) in dangers(config) {
            findings.warn("config", format!("{key}: {what}"), "");
        }
    }
}

async fn check_issuers(config: &Config, findings: &mut Findings) {
    if config.auth == crate::auth::AuthConfig::default() {
        return findings.add(
            "auth",
            Level::Unknown,
            "no key for tokens",
            "add [[auth.keys]] or [[auth.jwks]]",
        );
    }
    let authenticator = match Authenticator::new(config.auth.clone()) {
        Ok(authenticator) => authenticator,
        Err(error) => return findings.fail("auth", error.to_string(), ""),
    };
    findings.ok("auth", format!("{} keys from files", config.auth.keys.len()));
    if config.auth.jwks.is_empty() {
        return;
    }
    match authenticator.fetch_keys().await {
        Ok(()) => {
            findings.ok("auth", format!("the keys of {} issuers can be fetched", config.auth.jwks.len()))
        }
        Err(error) => findings.warn(
            "auth",
            error,
            "the node starts, but refuses the tokens of this issuer until its keys can be fetched",
        ),
    }
}

fn print(out: &mut dyn Write, findings: &Findings) -> std::io::Result<()> {
    for Finding { check, level, message, advice } in &findings.0 {
        let level = match level {
            Level::Ok => "ok",
            Level::Unknown => "?",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        writeln!(out, "{level:<5} {check:<12} {message}")?;
        if !advice.is_empty() {
            writeln!(out, "{:<18} → {advice}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
