//! The real program with certificates and tokens, and those who ask it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use chokepoint_proto::stream::Hello;
use chokepoint_tls::testing::{Authority, Issued};
use chokepoint_tls::{Client, ClientFiles, HTTP_2};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Endpoint;
use tower::service_fn;

use super::directory;
use super::stream::{PATIENCE, Stream};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_chokepoint-collector");

/// A place for a collector's files: its authority, its certificate, its tokens and its store.
pub struct Place {
    pub directory: TempDir,
    pub authority: Authority,
    pub host: Issued,
}

impl Place {
    pub fn new() -> Self {
        let directory = directory();
        let authority = Authority::new(directory.path(), "ours");
        let host = authority.issue(&["localhost"]);
        Self { directory, authority, host }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn tokens(&self) -> PathBuf {
        self.path("tokens.toml")
    }

    /// Makes a token with the program itself, and has the collector know it when it next reads the file. Returns the token's file.
    pub fn token(&self, name: &str, role: &str, binding: &str) -> PathBuf {
        let token = self.path(&format!("{name}.token"));
        let stanza = run(Command::new(PROGRAM)
            .args(["token", "new", "--role", role, "--name", name, "-o"])
            .arg(&token));
        assert!(stanza.status.success(), "{}", text(&stanza.stderr));
        let mut file =
            File::options().create(true).append(true).open(self.tokens()).expect("the file of tokens");
        file.write_all(&stanza.stdout).expect("it can be written");
        file.write_all(binding.as_bytes()).expect("it can be written");
        token
    }

    pub fn tls(&self) -> Vec<String> {
        let [cert, key] = [&self.host.cert, &self.host.key].map(|path| path.display().to_string());
        vec!["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key]
    }

    pub fn with(&self, mut arguments: Vec<String>, more: &[(&str, &Path)]) -> Vec<String> {
        for (option, path) in more {
            arguments.extend([(*option).to_owned(), path.display().to_string()]);
        }
        arguments
    }
}

/// The real program, until it is dropped.
pub struct Collector {
    pub child: Child,
    pub agents: SocketAddr,
    /// As it prints it.
    pub queries: String,
    pub log: PathBuf,
}

impl Collector {
    pub fn start(place: &Place, arguments: &[String]) -> Self {
        let log = place.path("log");
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"])
            .arg(place.path("store"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("its output");
        let mut collector =
            Self { child, agents: SocketAddr::from(([127, 0, 0, 1], 0)), queries: String::new(), log };
        let mut lines = BufReader::new(stdout).lines();
        let mut told = |before: &str| {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            line.strip_prefix(before).map(str::to_owned).unwrap_or_else(|| panic!("{line:?} is not {before}"))
        };
        collector.agents = told("listening on ").parse().expect("an address");
        collector.queries = told("queries on ");
        collector
    }

    /// Where queries are, by the name in the certificate.
    pub fn url(&self) -> String {
        self.queries.replace("127.0.0.1", "localhost")
    }

    pub fn queries_address(&self) -> SocketAddr {
        let (_, address) = self.queries.split_once("://").expect("a URL");
        address.parse().expect("an address")
    }

    pub fn reload(&self) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: it takes two numbers; the child was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGHUP) }, 0);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    /// Waits until the collector has counted so many.
    pub fn wait_for(&self, curl: &[&str], count: &str, least: u64) -> u64 {
        let begin = Instant::now();
        loop {
            let page = self.curl(curl, "/metrics").body;
            let name = format!("chokepoint_collector_{count}_total ");
            let line = page.lines().find_map(|line| line.strip_prefix(&name));
            let counted: u64 =
                line.unwrap_or_else(|| panic!("no {count} in {page}")).parse().expect("a number");
            if counted >= least {
                return counted;
            }
            assert!(begin.elapsed() < PATIENCE, "{count} is {counted} and not {least}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn curl(&self, arguments: &[&str], path: &str) -> Answer {
        curl(arguments, &format!("{}{path}", self.url()))
    }

    /// A stream of an agent, or why there is none.
    pub async fn stream(
        &self,
        tls: Option<&ClientFiles>,
        token: Option<&Path>,
        hello: Hello,
    ) -> Result<Stream, Status> {
        let client = tls.map(|files| Client::new(files, HTTP_2).expect("a client"));
        let address = self.agents;
        let connector = service_fn(move |_| {
            let client = client.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let stream: Box<dyn chokepoint_tls::Stream> = match client {
                    None => Box::new(stream),
                    Some(client) => Box::new(client.connect(stream, "localhost").await?),
                };
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://localhost")).expect("an address");
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let token = token.map(|path| fs::read_to_string(path).expect("a token").trim().to_owned());
        Ok(Stream::over(channel, token.as_deref()).await?.greet(hello).await?.0)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Answer {
    pub exit: i32,
    pub status: u16,
    pub body: String,
}

pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it can be run")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn curl(arguments: &[&str], url: &str) -> Answer {
    let output = run(Command::new("curl")
        .args(["-sS", "--max-time", "30", "-w", "\n%{http_code}"])
        .args(arguments)
        .arg(url));
    let out = text(&output.stdout);
    let (body, status) = out.rsplit_once('\n').unwrap_or(("", "0"));
    Answer {
        exit: output.status.code().unwrap_or(-1),
        status: status.parse().unwrap_or(0),
        body: body.to_owned(),
    }
}

pub fn bearer(token: &Path) -> String {
    format!("Authorization: Bearer {}", fs::read_to_string(token).expect("a token").trim())
}

/// `chokepoint-collector query agents`: its exit code, and what it says on either output.
pub fn query(url: &str, more: &[(&str, &Path)]) -> (i32, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["query", "agents", "--json", "--collector", url]).env("CHOKEPOINT_LOG", "off");
    for (option, path) in more {
        command.arg(option).arg(path);
    }
    let output = run(&mut command);
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}
