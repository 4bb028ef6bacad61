//! The collector under test: the real one, run as a user runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{target_dir, workload};

/// Port that the kernel chooses.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// `chokepoint-collector token new`: makes a token in a file, and has a file of tokens know it.
///
/// # Panics
/// Where it fails.
pub fn new_token(tokens: &Path, token: &Path, name: &str, role: &str) {
    let mut command = program();
    let output = command.args(["token", "new", "--name", name, "--role", role, "-o"]).arg(token).output();
    let output = output.expect("the collector can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut known = std::fs::read(tokens).unwrap_or_default();
    known.extend(output.stdout);
    std::fs::write(tokens, known).expect("it can be written");
}

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
    /// What `query` is given: where, and with what to be let in.
    asking: Vec<String>,
}

impl Serving {
    /// Begins, with its store in this directory.
    ///
    /// # Panics
    /// Where it does not begin to listen.
    #[must_use]
    pub fn start(store: &Path, grpc: &str, http: &str) -> Self {
        Self::begin(store, grpc, http, "http", &[], Vec::new())
    }

    /// Begins with these arguments, and is asked with those.
    ///
    /// # Panics
    /// As for [`Serving::start`].
    #[must_use]
    pub fn start_with(store: &Path, arguments: &[&str], asking: &[&str]) -> Self {
        let asking = asking.iter().map(|argument| (*argument).to_owned()).collect();
        Self::begin(store, ANY_PORT, ANY_PORT, "http", arguments, asking)
    }

    /// Begins with TLS for `localhost`, with these arguments, and is asked with those.
    ///
    /// # Panics
    /// As for [`Serving::start`].
    #[must_use]
    pub fn start_secured(store: &Path, arguments: &[&str], asking: &[&str]) -> Self {
        let asking = asking.iter().map(|argument| (*argument).to_owned()).collect();
        Self::begin(store, ANY_PORT, ANY_PORT, "https", arguments, asking)
    }

    fn begin(
        store: &Path,
        grpc: &str,
        http: &str,
        scheme: &str,
        arguments: &[&str],
        mut asking: Vec<String>,
    ) -> Self {
        let mut command = program();
        command
            .arg("serve")
            .arg("--store")
            .arg(store)
            .args(["--listen", grpc, "--http", http])
            .args(arguments);
        workload::die_with_test(&mut command);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the collector can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut address = |before: &str| -> SocketAddr {
            let line = lines.next().expect("it says where it listens").expect("text");
            let address = line.strip_prefix(before).unwrap_or_else(|| panic!("{before:?}: {line}"));
            address.parse().expect("an address")
        };
        let grpc = address("listening on ");
        let http = address(&format!("queries on {scheme}://"));
        let host = if scheme == "https" { format!("localhost:{}", http.port()) } else { http.to_string() };
        asking.extend(["--url".to_owned(), format!("{scheme}://{host}")]);
        Self { child, grpc, http, asking }
    }

    /// `chokepoint-collector profile ARGUMENTS`, asked of it.
    #[must_use]
    pub fn profile(&self, arguments: &[&str]) -> Command {
        let url = format!("http://{}", self.http);
        let mut command = program();
        command.arg("profile").args(arguments).args(["--url", &url]);
        workload::die_with_test(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What it answers to a request: status and body.
    ///
    /// # Panics
    /// Where it does not answer.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, json: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).expect("it listens");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.http);
        let body = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}", json.len());
        stream.write_all((head + &body).as_bytes()).expect("it can be asked");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// One of its own counters: `chokepoint_collector_NAME_total`.
    ///
    /// # Panics
    /// Where it has no such counter.
    #[must_use]
    pub fn counted(&self, name: &str) -> u64 {
        let (status, page) = self.ask("GET", "/metrics", "");
        assert_eq!(status, 200, "{page}");
        let before = format!("chokepoint_collector_{name}_total ");
        let value = page.lines().find_map(|line| line.strip_prefix(&before)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
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
        let mut command = program();
        command.arg("query").args(arguments).arg("--json").args(&self.asking);
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
