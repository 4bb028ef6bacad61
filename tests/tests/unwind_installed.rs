//! User stacks of programs as the distribution has them: they reach the thread's start.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chokepoint_tests::debian::DebianProgram;
use chokepoint_tests::unwinding::record;
use chokepoint_tests::workload::{eventually, on_path};
use chokepoint_tests::{Workload, in_vm, live, skip_if};
use tempfile::TempDir;

/// Records one process.
fn fault_of_process(name: &str, pid: u32) -> Option<String> {
    record(&["--pid", &pid.to_string()]).tell(name, None)
}

/// Records all processes of that name.
fn fault_of_all(name: &str) -> Option<String> {
    record(&["--comm", name]).tell(name, None)
}

const PYTHON: &str = "
import json, re
class Node:
    def __init__(self, value): self.value = value
    def __lt__(self, other): return self.value < other.value
def walk(depth):
    return walk(depth - 1) + 1 if depth else len(sorted(Node((i * 7919) % 101) for i in range(100)))
while True:
    walk(20)
    json.loads(json.dumps({str(i): [i, str(i)] for i in range(200)}))
    re.sub(r'(a+)(b*)', lambda match: match.group(2), 'aaabbb' * 100)
";
const PERL: &str = "
sub walk { my ($depth) = @_; return $depth ? walk($depth - 1) + 1 : scalar(sort { $a <=> $b } map { $_ * 7919 % 101 } 1..100) }
while (1) { walk(20); my $text = 'aaabbb' x 100; $text =~ s/(a+)(b*)/$2$1/g; my %hash = map { $_ => \"x$_\" } 1..100; }
";
const DASH: &str = "walk() { if [ $1 -gt 0 ]; then walk $(($1 - 1)); else i=0; fi; }
while :; do walk 12; case \"abcabcabc\" in *bcx) ;; esac; i=$((i + 1)); done";
const NODE: &str = "
class Node { constructor(value) { this.value = value; } }
function walk(depth) {
    if (depth) return walk(depth - 1) + 1;
    const nodes = [];
    for (let i = 0; i < 100; i++) nodes.push(new Node(i * 7919 % 101));
    return nodes.sort((a, b) => a.value - b.value).length;
}
for (;;) { walk(20); JSON.parse(JSON.stringify({ a: [1, 2, { b: 'x'.repeat(200) }] })); 'aaabbb'.repeat(50).replace(/(a+)(b*)/g, '$2$1'); }
";

#[test]
fn interpreters_as_installed() {
    skip_if!(in_vm(), "there are no interpreters");
    let _live = live();
    let programs: [(&str, &[&str]); 4] = [
        ("/usr/bin/python3", &["-c", PYTHON]),
        ("perl", &["-e", PERL]),
        ("dash", &["-c", DASH]),
        ("node", &["-e", NODE]),
    ];
    let mut faults = Vec::new();
    for (program, arguments) in programs {
        if !on_path(program) {
            eprintln!("left out: there is no {program}");
            continue;
        }
        let workload = Workload::start_program(Command::new(program).args(arguments));
        // Until what it compiles is compiled.
        thread::sleep(Duration::from_secs(1));
        faults.extend(fault_of_process(program, workload.pid()));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

const JAVA: &str = "
import java.util.*;
public class Load {
    static long walk(int depth, long x) {
        if (depth > 0) return walk(depth - 1, x + depth) + 1;
        Map<Long, String> map = new HashMap<>();
        for (long i = 0; i < 100; i++) map.put(i * x, \"v\" + i);
        return map.size();
    }
    public static void main(String[] arguments) {
        for (long x = 1; ; x++) walk(20, x);
    }
}
";

#[test]
fn java_that_keeps_frame_pointers() {
    skip_if!(in_vm(), "there is no Java");
    skip_if!(!on_path("javac"), "there is no Java compiler");
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Load.java"), JAVA).unwrap();
    let compiled = Command::new("javac").arg("Load.java").current_dir(directory.path()).status().unwrap();
    assert!(compiled.success());
    let workload = Workload::start_program(
        Command::new("java")
            .args(["-XX:+PreserveFramePointer", "-XX:+UseSerialGC", "Load"])
            .current_dir(directory.path()),
    );
    // Until the compilers are done.
    thread::sleep(Duration::from_secs(3));
    let fault = fault_of_process("java", workload.pid());
    assert!(fault.is_none(), "{}", fault.unwrap());
}

/// Runs something on a thread of its own until dropped.
struct Client {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Client {
    fn start(mut turn: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A directory that servers running as another user can reach.
fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

/// The newest version's programs of PostgreSQL, where Debian puts them.
fn postgres_programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|programs| ["initdb", "postgres", "pgbench"].iter().all(|name| programs.join(name).exists()))
        .collect();
    versions.sort();
    versions.pop()
}

const QUERY: &str = "
select count(distinct x % 97), sum(length(md5(x::text))), max(a.x + b.y)
  from generate_series(1, 3000) a(x) join generate_series(1, 3000, 3) b(y) on a.x = b.y where a.x::text like '%1%';
select jsonb_agg(jsonb_build_object('k', x)) from generate_series(1, 500) t(x);
";

#[test]
fn postgresql_as_installed() {
    skip_if!(in_vm(), "there is no PostgreSQL");
    let programs = postgres_programs();
    skip_if!(programs.is_none(), "there is no PostgreSQL");
    let programs = programs.unwrap();
    let _live = live();
    let directory = open_directory();
    // It refuses to run as root.
    let as_user = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(programs.join(program)).current_dir(directory.path());
        command.env("HOME", directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let made =
        as_user("initdb").args(["-D", "cluster", "-A", "trust", "-U", "postgres", "--no-sync"]).status();
    assert!(made.unwrap().success(), "initdb fails");
    let socket = directory.path().to_str().unwrap();
    let server = Workload::start_program(as_user("postgres").args([
        "-D",
        "cluster",
        "-k",
        socket,
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    ]));
    eventually("the server's socket", || {
        as_user("psql")
            .args(["-h", socket, "-U", "postgres", "-c", "select 1"])
            .status()
            .unwrap()
            .success()
            .then_some(())
    });
    fs::write(directory.path().join("query.sql"), QUERY).unwrap();
    let client = ["-h", socket, "-U", "postgres", "-n", "-T", "120", "-f", "query.sql", "postgres"];
    let bench = Workload::start_program(as_user("pgbench").args(client));
    thread::sleep(Duration::from_millis(300));
    let fault = fault_of_all("postgres");
    drop(bench);
    // SAFETY: the server has not been waited for, so the number is still its own.
    unsafe { libc::kill(server.pid() as i32, libc::SIGQUIT) };
    thread::sleep(Duration::from_millis(200));
    assert!(fault.is_none(), "{}", fault.unwrap());
}

/// The server, and the libraries it needs that few others do.
const REDIS: &[&str] = &["redis-server", "redis-tools", "libjemalloc2", "liblzf1"];

#[test]
fn redis_as_installed() {
    skip_if!(in_vm(), "there is no Redis");
    let redis = DebianProgram::find("redis-server", REDIS);
    skip_if!(redis.is_none(), "there is no redis-server, and its package cannot be had");
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let server = Workload::start_program(
        redis
            .unwrap()
            .command()
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory.path()),
    );
    let mut stream = eventually("the server's socket", || UnixStream::connect(&socket).ok());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut requests = String::new();
    for index in 0..200 {
        requests += &format!(
            "SET key:{index} {index}\r\nINCR counter\r\nLPUSH list:{} {index}\r\nLTRIM list:{} 0 99\r\nLRANGE list:{} 0 99\r\n\
             SORT list:{} ALPHA\r\nZADD set {index} member:{index}\r\nZRANGE set 0 20\r\n",
            index % 7,
            index % 7,
            index % 7,
            index % 7
        );
    }
    requests += "ECHO end-of-turn\r\n";
    let client = Client::start(move || {
        let mut said = Vec::new();
        let mut part = [0; 65536];
        if stream.write_all(requests.as_bytes()).is_err() {
            return;
        }
        while !said.ends_with(b"end-of-turn\r\n") {
            match stream.read(&mut part) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => said.extend(&part[..bytes]),
            }
            let keep = said.len().saturating_sub(64);
            said.drain(..keep);
        }
    });
    thread::sleep(Duration::from_millis(200));
    let fault = fault_of_process("redis-server", server.pid());
    drop(client);
    assert!(fault.is_none(), "{}", fault.unwrap());
}

#[test]
fn nginx_as_installed() {
    skip_if!(in_vm(), "there is no nginx");
    let nginx = DebianProgram::find("nginx", &["nginx"]);
    skip_if!(nginx.is_none(), "there is no nginx, and its package cannot be had");
    let _live = live();
    let directory = open_directory();
    let place = directory.path().to_str().unwrap();
    fs::write(directory.path().join("index.html"), "text ".repeat(8000)).unwrap();
    let configuration = format!(
        "user nobody nogroup; daemon off; worker_processes 1; pid {place}/pid; error_log {place}/errors;
         events {{ worker_connections 64; }}
         http {{ access_log {place}/log; gzip on; gzip_comp_level 5; gzip_types text/plain; default_type text/plain;
                client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
                uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi; keepalive_requests 1000000;
                server {{ listen 127.0.0.1:28317; root {place}; rewrite ^/(a+)$ /index.html; }} }}"
    );
    fs::write(directory.path().join("nginx.conf"), configuration).unwrap();
    let server = Workload::start_program(nginx.unwrap().command().args([
        "-e",
        "stderr",
        "-p",
        place,
        "-c",
        "nginx.conf",
    ]));
    let mut stream = eventually("the server", || TcpStream::connect("127.0.0.1:28317").ok());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let client = Client::start(move || {
        let request = "GET /aaa HTTP/1.1\r\nHost: here\r\nAccept-Encoding: gzip\r\n\r\n";
        let mut part = [0; 65536];
        let mut said: Vec<u8> = Vec::new();
        if stream.write_all(request.as_bytes()).is_err() {
            return;
        }
        while !said.ends_with(b"0\r\n\r\n") {
            match stream.read(&mut part) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => said.extend(&part[..bytes]),
            }
        }
    });
    thread::sleep(Duration::from_millis(200));
    let fault = fault_of_all("nginx");
    drop(client);
    // SAFETY: the server has not been waited for, so the number is still its own.
    unsafe { libc::kill(server.pid() as i32, libc::SIGTERM) };
    thread::sleep(Duration::from_millis(200));
    assert!(fault.is_none(), "{}", fault.unwrap());
}
