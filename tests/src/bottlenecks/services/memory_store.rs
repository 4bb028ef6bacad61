//! Redis, loaded by `redis-benchmark`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::super::{Case, Missing, Names, Stage, Target};
use super::program;
use crate::debian::DebianProgram;
use crate::workload::eventually;

pub(in super::super) const CASES: &[Case] = &[
    Case {
        name: "redis-busy",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names { processes: &["redis-server"], ..Names::NONE },
        relief: "half of the clients ask a second server",
        least_gain: 1.4,
        because: "a command takes a tenth of a millisecond in the server and a few microseconds in its client, so that two CPUs serve two",
        play: |stage| {
            let servers = stage.of(1, 2);
            let servers: Vec<Server> =
                (0..servers).map(|index| Server::start(stage, index)).collect::<Result<_, _>>()?;
            for server in &servers {
                let clients = 16 / servers.len();
                server.fill("RPUSH numbers", 1_000);
                server.load(stage, clients, &["SORT", "numbers", "BY", "nosort:*", "LIMIT", "0", "1"]);
            }
            stage.ask_about(Target::Pids(servers.iter().map(|server| server.pid).collect()));
            stage.count_by(move || servers.iter().map(|server| server.calls("sort")).sum());
            Ok(())
        },
    },
    Case {
        name: "redis-slow-command",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names { processes: &["redis-server"], functions: &["keysCommand"], ..Names::NONE },
        relief: "nobody asks for all keys",
        least_gain: 5.0,
        because: "all keys take tens of milliseconds, in which thousands of other commands could be answered",
        play: |stage| {
            let server = Server::start(stage, 0)?;
            server.fill("MSET", 200_000);
            if stage.is_constrained() {
                server.load(stage, 1, &["KEYS", "*nothing*"]);
            }
            server.load(stage, 8, &["GET", "1"]);
            stage.ask_about(Target::Pids(vec![server.pid]));
            stage.count_by(move || server.calls("get"));
            Ok(())
        },
    },
];

/// A server on a socket of its own.
struct Server {
    program: DebianProgram,
    socket: PathBuf,
    pid: u32,
}

impl Server {
    fn start(stage: &mut Stage, index: usize) -> Result<Self, Missing> {
        let program = program("redis-server", &["redis-server", "redis-tools", "libjemalloc2", "liblzf1"])?;
        let socket = PathBuf::from(stage.path(&format!("socket-{index}")));
        let mut command = program.command();
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).stderr(Stdio::null());
        command.current_dir(stage.directory());
        let pid = stage.serve(&[], command, libc::SIGTERM);
        eventually("the server's socket", || UnixStream::connect(&socket).ok());
        Ok(Self { program, socket, pid })
    }

    /// Has this many clients ask it the same without end.
    fn load(&self, stage: &mut Stage, clients: usize, command: &[&str]) {
        let mut benchmark = self.program.beside("redis-benchmark");
        benchmark.arg("-s").arg(&self.socket).args(["-c", &clients.to_string(), "-n", "1000000000", "-q"]);
        benchmark.args(command).stderr(Stdio::null());
        stage.serve(&[], benchmark, libc::SIGTERM);
    }

    /// Gives it so many values: `RPUSH list` numbers at the end of a list, `MSET` a key for each.
    fn fill(&self, command: &str, values: usize) {
        for first in (0..values).step_by(1_000) {
            let numbers = first..values.min(first + 1_000);
            let arguments: Vec<String> = match command {
                "MSET" => numbers.map(|number| format!("{number} {number}")).collect(),
                _ => numbers.map(|number| number.to_string()).collect(),
            };
            let _ = ask(&self.socket, &format!("{command} {}", arguments.join(" ")));
        }
    }

    /// How often a command was called so far.
    fn calls(&self, command: &str) -> f64 {
        let told = ask(&self.socket, "INFO commandstats");
        let before = format!("cmdstat_{command}:calls=");
        let calls = told.lines().find_map(|line| line.strip_prefix(&before)?.split(',').next());
        // A command that was not called yet is not listed.
        calls.map_or(0.0, |calls| calls.parse().expect("a number"))
    }
}

/// What a server answers to a line.
fn ask(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit can be set");
    stream.write_all(format!("{line}\r\nECHO that-was-all\r\n").as_bytes()).expect("it can be asked");
    let (mut said, mut part) = (Vec::new(), [0; 65536]);
    while !said.ends_with(b"that-was-all\r\n") {
        let bytes = stream.read(&mut part).expect("it answers");
        assert!(bytes > 0, "it ends the connection");
        said.extend(&part[..bytes]);
    }
    String::from_utf8_lossy(&said).into_owned()
}
