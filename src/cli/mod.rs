//! The command line: one file per command (contract §1). Only here something is printed, by way of `output`.

mod admin_listener;
mod check;
mod demo;
mod descriptors;
mod healthcheck;
mod logs;
mod output;
mod run;
mod sessions;

use crate::cores;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Parser, Subcommand};
use output::{complain, print_last};
use std::path::PathBuf;
use std::process::ExitCode;

/// The program's exit codes.
const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "cloakroom",
    version,
    about = "A Backend-for-Frontend: OAuth tokens stay on the server, the browser holds an opaque cookie"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run {
        #[expect(clippy::doc_markdown, reason = "printed by --help as it stands")]
        /// The config file. Default: $CLOAKROOM_CONFIG, ./cloakroom.yaml, /etc/cloakroom/cloakroom.yaml.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print every mistake in the config, and with --online ask the provider, the store and the upstreams.
    Check {
        /// The config file. Default: as for run.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Also ask the provider (discovery, JWKS, a login that shows nothing), the store (PING, write, read, delete) and
        /// each upstream (connect).
        #[arg(long)]
        online: bool,
    },
    /// The whole thing on this machine, with nothing else installed.
    Demo {
        /// The port on localhost.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Print the config's JSON Schema.
    Schema,
    /// Session encryption keys.
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// List, show and end sessions, by way of a running cloakroom's admin listener.
    Sessions {
        #[command(subcommand)]
        command: sessions::Sessions,
    },
    /// Ask a running cloakroom whether it is well: for images without a shell.
    Healthcheck(healthcheck::Healthcheck),
}

#[derive(Debug, Subcommand)]
enum Keys {
    #[expect(clippy::doc_markdown, reason = "printed by --help as it stands")]
    /// Print a fresh key: 256 bits, base64url, one line.
    ///
    /// Keys rotate in three steps, and nobody is signed out:
    ///
    /// 1. Add the new key at the end of session.keys, on every replica: all can open what it will seal.
    ///
    /// 2. Move it to the front, on every replica: it seals what is written from now on.
    ///
    /// 3. When session.absolute_timeout has passed, take the old key out: nothing sealed with it lives any more.
    ///
    /// Where keys come from files, cloakroom reads them again within a second of a change; no restart is needed. After a
    /// leak leave out step 3's wait: take the old key out at once and restart, which signs everybody out.
    Generate,
}

/// Reads the command line, does what it says, and tells how it ended.
#[must_use]
pub fn main() -> ExitCode {
    // clap prints usage errors itself and ends with 2.
    match Arguments::parse().command {
        Command::Run { config } => run::run(config.as_deref()),
        Command::Check { config, online } => check::check(config.as_deref(), online),
        Command::Demo { port } => demo::demo(port),
        Command::Schema => print_last(&crate::config::schema()),
        Command::Keys {
            command: Keys::Generate,
        } => generate_key(),
        Command::Sessions { command } => sessions::sessions(&command),
        Command::Healthcheck(asked) => healthcheck::healthcheck(&asked),
    }
}

fn generate_key() -> ExitCode {
    let mut key = zeroize::Zeroizing::new([0_u8; 32]);
    if aws_lc_rs::rand::fill(key.as_mut()).is_err() {
        complain("cloakroom: the system gives no random bytes; no key was made");
        return ExitCode::from(FAILED);
    }
    print_last(&URL_SAFE_NO_PAD.encode(key.as_ref()))
}

/// Prints every mistake, a line each.
fn print_mistakes(mistakes: &[crate::config::Mistake]) {
    for mistake in mistakes {
        complain(&mistake.to_string());
    }
    let count = mistakes.len();
    let s = if count == 1 { "" } else { "s" };
    complain(&format!("cloakroom: {count} mistake{s} in the config"));
}

/// The runtime for commands that need one.
fn runtime() -> Result<tokio::runtime::Runtime, ExitCode> {
    cores::runtime().map_err(not_started)
}

/// The same for commands that serve: with the other cores beside it.
fn serving_runtime() -> Result<tokio::runtime::Runtime, ExitCode> {
    let runtime = runtime()?;
    {
        let _inside = runtime.enter();
        cores::start().map_err(not_started)?;
    }
    Ok(runtime)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_started(error: std::io::Error) -> ExitCode {
    complain(&format!("cloakroom: cannot start: {error}"));
    ExitCode::from(FAILED)
}
