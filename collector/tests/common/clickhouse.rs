//! Servers of the distributed home, started by the test without privileges, on loopback, in a directory of their own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chokepoint_collector::store::clickhouse::{ClickHouse, Options, Servers};
use chokepoint_tls::testing::Issued;

/// Where Debian's package has it, and where the project's own has.
const PROGRAMS: [&str; 2] = ["/usr/sbin/clickhouse-server", "/usr/bin/clickhouse-server"];
/// Nobody: a server that root starts is to have no privileges.
const NOBODY: u32 = 65_534;
/// How long a server may take to begin; it takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| Path::new(program).exists())
}

/// A server, which ends with this.
pub struct Server {
    directory: tempfile::TempDir,
    http: SocketAddr,
    https: Option<SocketAddr>,
    child: Option<Child>,
}

impl Server {
    /// `None`, with a word, where none is installed.
    pub fn start() -> Option<Self> {
        Self::start_with("", None)
    }

    /// One that speaks TLS too, with this certificate, and has this user beside its own.
    pub fn start_encrypted(issued: &Issued, user: &str, password: &str) -> Option<Self> {
        let user = format!(
            "<{user}><password>{password}</password><networks><ip>127.0.0.1</ip></networks>\
             <profile>default</profile><quota>default</quota></{user}>"
        );
        Self::start_with(&user, Some(issued))
    }

    fn start_with(more_users: &str, issued: Option<&Issued>) -> Option<Self> {
        if program().is_none() {
            eprintln!("skipped: there is no {} (cargo xtask setup --clickhouse)", PROGRAMS[0]);
            return None;
        }
        let directory = super::directory();
        let [http, tcp, https] = free_ports();
        let https = issued.map(|_| https);
        let path = directory.path().display().to_string();
        let encrypted = issued.zip(https).map_or_else(String::new, |(issued, https)| {
            // In its own directory, for it has no privileges.
            for (from, to) in [(&issued.cert, "cert.pem"), (&issued.key, "key.pem")] {
                fs::copy(from, directory.path().join(to)).expect("a copy");
            }
            format!(
                "<https_port>{}</https_port><openSSL><server><certificateFile>{path}/cert.pem</certificateFile>\
                 <privateKeyFile>{path}/key.pem</privateKeyFile><verificationMode>none</verificationMode>\
                 <loadDefaultCAFile>false</loadDefaultCAFile></server></openSSL>",
                https.port()
            )
        });
        let config = format!(
            "<yandex><logger><level>warning</level><log>{path}/log</log><errorlog>{path}/errors</errorlog></logger>\
             <http_port>{}</http_port><tcp_port>{}</tcp_port><listen_host>127.0.0.1</listen_host>\
             <path>{path}/data/</path><tmp_path>{path}/tmp/</tmp_path><users_config>users.xml</users_config>\
             <default_profile>default</default_profile><default_database>default</default_database>\
             <mark_cache_size>67108864</mark_cache_size>{encrypted}</yandex>",
            http.port(),
            tcp.port(),
        );
        let users = format!(
            "<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default><password/>\
             <networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>\
             </default>{more_users}</users></yandex>"
        );
        fs::write(directory.path().join("config.xml"), config).expect("a configuration");
        fs::write(directory.path().join("users.xml"), users).expect("users");
        for folder in ["data", "tmp"] {
            fs::create_dir(directory.path().join(folder)).expect("a directory");
        }
        if is_root() {
            let of_tls = issued.map_or(&[][..], |_| &["cert.pem", "key.pem"]);
            for own in ["", "data", "tmp", "config.xml", "users.xml"].iter().chain(of_tls) {
                chown(directory.path().join(own), Some(NOBODY), Some(NOBODY))
                    .expect("a directory of nobody's");
            }
        }
        let mut server = Self { directory, http, https, child: None };
        server.begin();
        Some(server)
    }

    /// A current ClickHouse, embedded in Python, where `CHOKEPOINT_CHDB_PYTHON` is a Python that has `chdb` and `lz4`. `None`, with a word,
    /// where nobody said so. It cannot be started again.
    pub fn current() -> Option<Self> {
        let Some(python) = std::env::var_os("CHOKEPOINT_CHDB_PYTHON") else {
            eprintln!("skipped: CHOKEPOINT_CHDB_PYTHON names no Python with chdb (docs/clickhouse.md)");
            return None;
        };
        let directory = super::directory();
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/homes/modern.py")).arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        end_with_test(&mut command);
        let mut child = command.spawn().expect("Python");
        let mut port = String::new();
        let told = BufReader::new(child.stdout.take().expect("its output")).read_line(&mut port);
        let http = format!("127.0.0.1:{}", port.trim()).parse();
        // From here on it ends with this.
        let server = Self {
            directory,
            http: http.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            https: None,
            child: Some(child),
        };
        assert!(told.is_ok() && server.http.port() > 0, "{port:?} is no port: has that Python chdb and lz4?");
        Some(server)
    }

    /// Starts it again after [`Self::kill`], at the same address with the same data, and waits until it answers.
    pub fn begin(&mut self) {
        let mut command = Command::new(program().expect("it was there"));
        command.arg("--config-file=config.xml").current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        end_with_test(&mut command);
        self.child = Some(command.spawn().expect("a server"));
        let until = Instant::now() + PATIENCE;
        while self.ask("SELECT 1").is_none_or(|answer| answer.trim() != "1") {
            assert!(Instant::now() < until, "the server does not begin: {}", self.errors());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it at once, as the loss of its host would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, and then says why in its log.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.directory.path().join("errors")).unwrap_or_default()
    }

    /// Host and port of HTTP.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// Host and port of HTTPS.
    pub fn encrypted_address(&self) -> SocketAddr {
        self.https.expect("it speaks TLS")
    }

    /// Asks it something by itself; `None` where it does not answer.
    pub fn ask(&self, sql: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.http).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!("POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", sql.len());
        connection.write_all((head + sql).as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.contains(" 200 "), "{sql}: {body}");
        Some(body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A store on servers, in this database.
pub fn servers(servers: &[&Server], database: &str) -> Servers {
    let addresses: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    format!("clickhouse://{}/{database}", addresses.join(",")).parse().expect("an address")
}

/// What tests do not wait long with.
pub fn options() -> Options {
    Options { linger: Duration::from_millis(2), keep: None, ..Options::default() }
}

/// A number that a server answers.
pub fn number(server: &Server, sql: &str) -> u64 {
    let answer = server.ask(sql).expect("an answer");
    answer.trim().parse().unwrap_or_else(|_| panic!("{sql}: {answer:?}"))
}

/// Opens a store.
pub fn open(at: &Servers) -> ClickHouse {
    ClickHouse::open(at, &options()).expect("a store")
}

/// Has a program end with the test, however that ends.
fn end_with_test(command: &mut Command) {
    // SAFETY: it is one system call, and the last of the child's before it becomes the program.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Ports that nobody had a moment ago.
fn free_ports() -> [SocketAddr; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

fn is_root() -> bool {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
