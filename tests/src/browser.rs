//! A browser, to open what the agent writes.

use std::path::Path;
use std::process::{Command, Output};

use crate::workload;

/// Whether there is one.
#[must_use]
pub fn is_installed() -> bool {
    Command::new("chromium").arg("--version").output().is_ok()
}

/// Opens a file in a browser that has nobody's settings and speaks with nobody.
pub fn open(what: &[&str], file: &Path) -> Output {
    let settings = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = Command::new("timeout");
    command
        .args([
            "--kill-after=5",
            "60",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
        ])
        .args(["--disable-dev-shm-usage", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", settings.path().display()))
        .args(what)
        .arg(format!("file://{}", file.display()));
    workload::die_with_test(&mut command);
    let output = command.output().expect("chromium can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What scripts, policies and parsers complained of, in its standard error.
#[must_use]
pub fn complaints(stderr: &[u8]) -> Vec<String> {
    let log = String::from_utf8_lossy(stderr);
    let is_complaint = |line: &&str| line.contains("CONSOLE") || line.contains("Uncaught");
    log.lines().filter(is_complaint).map(str::to_owned).collect()
}
