//! The collector under test: the real one, run as a user runs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{target_dir, workload};

/// Port that the kernel chooses.
pub const ANY_PORT: &str = "127.0.0.1:0";

fn program() -> Command {
    // Cargo builds it beside its own tests; alone, these need it all the same.
    let path = target_dir().join("debug/chokepoint-collector");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--package", "chokepoint-collector"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "the collector does not build");
    }
    Command::new(path)
}

/// A collector that serves; killed when dropped.
pub struct Serving {
    child: Child,
    /// Where agents are listened to.
    pub grpc: SocketAddr,
    /// Where queries are.
    pub http: SocketAddr,
}

impl Serving {
    /// Begins, with its store in this directory.
    ///
    /// # Panics
    /// Where it does not begin to listen.
    #[must_use]
    pub fn start(store: &Path, grpc: &str, http: &str) -> Self {
        let mut command = program();
        command.arg("serve").arg("--store").arg(store).args(["--listen", grpc, "--http", http]);
        workload::die_with_test(&mut command);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the collector can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut address = |before: &str| {
            let line = lines.next().expect("it says where it listens").expect("text");
            let address = line.strip_prefix(before).unwrap_or_else(|| panic!("{before:?}: {line}"));
            address.parse().expect("an address")
        };
        let grpc = address("listening on ");
        let http = address("queries on http://");
        Self { child, grpc, http }
    }

    /// Kills it without a warning.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What `chokepoint-collector query ARGUMENTS --json` prints.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn query(&self, arguments: &[&str]) -> Value {
        let url = format!("http://{}", self.http);
        let mut command = program();
        command.arg("query").args(arguments).args(["--json", "--url", &url]);
        let output = command.output().expect("the collector can be run");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
