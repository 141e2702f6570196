//! `tern config check` and `tern config docs`.

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::dangers::dangers;
use super::{Failure, Io, Outcome, preflight};
use crate::auth::{AuthConfig, Authenticator};
use crate::config::{Config, EXAMPLE, Senseless, senseless};
use crate::drain::DrainConfig;
use crate::node::config::{ListenConfig, TlsFiles};
use crate::ops::{LogConfig, OpsConfig};
use crate::transport::tls::Identity;
use crate::upkeep::RetentionConfig;

/// Look at a configuration
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration with all it refers to, and say what the server would do
    Check {
        /// TOML file; TERN__SECTION__KEY variables count as they do for the server
        file: PathBuf,
    },
    /// Print every key with its meaning and default, as a file to start from
    Docs,
}

impl ConfigArgs {
    /// Runs the command.
    pub fn run(self, io: Io<'_>, env: impl IntoIterator<Item = (String, String)>) -> Outcome {
        let file = match self.command {
            ConfigCommand::Check { file } => file,
            ConfigCommand::Docs => return Ok(io.out.write_all(EXAMPLE.as_bytes())?),
        };
        let config = Config::load(Some(&file), env).map_err(Failure::config)?;
        let mut report = Report { out: io.out, wrong: 0, not_ready: 0 };
        check(&config, &mut report)?;
        report.outcome()
    }
}

/// Every section in turn; all of them are checked, whatever the others come to.
fn check(config: &Config, report: &mut Report<'_>) -> std::io::Result<()> {
    check_node(config, report)?;
    check_listen(&config.listen, report)?;
    check_tls(&config.tls, report)?;
    check_auth(&config.auth, report)?;
    check_transport(config, report)?;
    check_ops(&config.ops, report)?;
    check_log(&config.log, report)?;
    check_drain(&config.drain, report)?;
    check_retention(&config.retention, report)?;
    for Senseless { key, problem } in senseless(config) {
        report.wrong(key.split('.').next().unwrap_or(key), format!("{key} {problem}"))?;
    }
    dangers(config).into_iter().try_for_each(|(key, what)| report.danger(key, what))
}

/// Writes a line per finding and counts what is not good.
pub struct Report<'a> {
    out: &'a mut dyn Write,
    wrong: usize,
    not_ready: usize,
}

impl Report<'_> {
    /// The section is good: what the server would do.
    pub fn good(&mut self, section: &str, what: impl Display) -> std::io::Result<()> {
        writeln!(self.out, "ok     {section:<12} {what}")
    }

    /// The section is wrong: exit code 1.
    pub fn wrong(&mut self, section: &str, why: impl Display) -> std::io::Result<()> {
        self.wrong += 1;
        writeln!(self.out, "WRONG  {section:<12} {why}")
    }

    /// The section is good, but this machine is not ready for it: exit code 2.
    pub fn not_ready(&mut self, section: &str, why: impl Display) -> std::io::Result<()> {
        self.not_ready += 1;
        writeln!(self.out, "BUSY   {section:<12} {why}")
    }

    /// It works, but the operator should mean it.
    fn danger(&mut self, key: &str, what: impl Display) -> std::io::Result<()> {
        writeln!(self.out, "WARN   {key}: {what}")
    }

    fn outcome(self) -> Outcome {
        match (self.wrong, self.not_ready) {
            (0, 0) => Ok(()),
            (0, count) => Err(Failure::Preflight(format!("not ready on this machine: {count}"))),
            (count, _) => Err(Failure::Config(format!("wrong in the configuration: {count}"))),
        }
    }
}

fn check_node(config: &Config, report: &mut Report<'_>) -> std::io::Result<()> {
    for (key, dir) in [("store.dir", config.store_config().dir), ("events.dir", config.events_config().dir)] {
        match preflight::writable_directory(&dir) {
            Ok(()) => report.good("node", format!("{key}: {}", dir.display()))?,
            Err(error) => report.not_ready("node", format!("{key} = {}: {error}", dir.display()))?,
        }
    }
    Ok(())
}

fn check_listen(listen: &ListenConfig, report: &mut Report<'_>) -> std::io::Result<()> {
    let ports =
        [("listen.client", "UDP", Some(listen.client)), ("listen.client", "TCP", Some(listen.client))];
    for (key, protocol, address) in ports.into_iter().chain([("listen.http", "TCP", listen.http)]) {
        let Some(address) = address else { continue };
        let free =
            if protocol == "UDP" { preflight::udp_port(address) } else { preflight::tcp_port(address) };
        match free {
            Ok(()) => report.good("listen", format!("listens on {address} ({protocol})"))?,
            Err(error) => report.not_ready("listen", format!("{key} = {address} ({protocol}): {error}"))?,
        }
    }
    Ok(())
}

fn check_tls(tls: &TlsFiles, report: &mut Report<'_>) -> std::io::Result<()> {
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
        return report.wrong("tls", "set tls.cert_file and tls.key_file: every transport is encrypted");
    };
    let identity = Identity::from_pem_files(cert, key);
    match identity.and_then(|identity| identity.valid_at(SystemTime::now())) {
        Ok(_) => report.good("tls", format!("presents {}", cert.display())),
        Err(error) => report.wrong("tls", error),
    }
}

fn check_transport(config: &Config, report: &mut Report<'_>) -> std::io::Result<()> {
    match config.transport.check() {
        Ok(()) => report.good("transport", format!("keepalive {} s", config.transport.keepalive_s)),
        Err(error) => report.wrong("transport", error),
    }
}

fn check_auth(auth: &AuthConfig, report: &mut Report<'_>) -> std::io::Result<()> {
    if let Err(error) = Authenticator::new(auth.clone()) {
        return report.wrong("auth", error);
    }
    for key in &auth.keys {
        let file = key.public_key_file.as_ref().or(key.secret_file.as_ref()).map(|path| path.display());
        let (kid, file) = (key.kid.as_deref().unwrap_or("(any)"), file.into_iter().next());
        let file = file.map(|file| file.to_string()).unwrap_or_default();
        report.good("auth", format!("accepts {} tokens, kid {kid}, by {file}", key.algorithm))?;
    }
    for jwks in &auth.jwks {
        let names: Vec<&str> = jwks.algorithms.iter().map(|algorithm| algorithm.name()).collect();
        report.good(
            "auth",
            format!("accepts {} tokens of {} by {}", names.join(", "), jwks.issuer, jwks.url),
        )?;
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not looked at".into());
    report.good("auth", format!("issuer: {}", text(&auth.issuer)))?;
    let audience = auth.audience.clone().unwrap_or_else(|| "none; tokens with an aud are refused".into());
    report.good("auth", format!("audience: {audience}"))
}

fn check_ops(ops: &OpsConfig, report: &mut Report<'_>) -> std::io::Result<()> {
    if let Err(error) = ops.check() {
        return report.wrong("ops", error);
    }
    match preflight::tcp_port(ops.listen) {
        Ok(()) => report.good("ops", format!("listens on {} (TCP)", ops.listen)),
        Err(error) => report.not_ready("ops", format!("ops.listen = {}: {error}", ops.listen)),
    }
}

fn check_log(log: &LogConfig, report: &mut Report<'_>) -> std::io::Result<()> {
    match log.check() {
        Ok(()) => report.good("log", format!("{} from level {}", log.format, log.level)),
        Err(error) => report.wrong("log", error),
    }
}

fn check_drain(drain: &DrainConfig, report: &mut Report<'_>) -> std::io::Result<()> {
    match drain.check() {
        Ok(()) => report.good("drain", format!("takes at most {} ms", drain.deadline_ms)),
        Err(error) => report.wrong("drain", error),
    }
}

fn check_retention(retention: &RetentionConfig, report: &mut Report<'_>) -> std::io::Result<()> {
    match (retention.check(), retention.days) {
        (Err(error), _) => report.wrong("retention", error),
        (Ok(()), Some(days)) => report.good("retention", format!("entries go after {days} days")),
        (Ok(()), None) => report.good("retention", "entries are kept for ever"),
    }
}

#[cfg(test)]
mod tests;
