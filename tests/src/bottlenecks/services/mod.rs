//! Services that many run, as Debian packages them, under load of the field's own generators.
//!
//! They are installed or unpacked beside the tests; a case whose package cannot be had is skipped.

pub(super) mod database;
pub(super) mod memory_store;
pub(super) mod web;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Missing;
use crate::debian::DebianProgram;
use crate::workload::eventually;

/// A user without privileges, as whom some servers insist to run.
const NOBODY: &str = "65534";

/// The program of a package, or what is missing.
fn program(name: &str, packages: &[&str]) -> Result<DebianProgram, Missing> {
    DebianProgram::find(name, packages)
        .ok_or_else(|| Missing(format!("{name}, and its Debian package cannot be had")))
}

/// `wrk` with this many connections for a URL, until it is interrupted.
fn requests(connections: u32, url: &str) -> Result<Command, Missing> {
    let wrk = program("wrk", &["wrk", "libluajit-5.1-2", "libluajit-5.1-common"])?;
    let mut command = wrk.command();
    // Longer than any case; a request may wait for all others.
    command.args(["--threads", "1", "--duration", "1h", "--timeout", "60s"]);
    command.args(["--connections", &connections.to_string(), url]);
    Ok(command)
}

/// A command that is run as nobody, in this directory.
fn as_nobody(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    command.arg(program).current_dir(directory).env("HOME", directory).stderr(Stdio::null());
    command
}

/// Waits until somebody listens there.
fn wait_for_port(port: &str) {
    let address = format!("127.0.0.1:{port}");
    eventually(&format!("somebody to listen on {address}"), || TcpStream::connect(&address).ok());
}
