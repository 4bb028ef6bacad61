//! Names of code for agents that send addresses alone: each build is asked of one agent, better symbols take the place of worse, and what came
//! before them has names, too. No bytes do harm.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chokepoint_analysis::profile::Function;
use chokepoint_collector::ingest::{Count, Limits};
use chokepoint_collector::query_command::client::{Address, Credentials};
use chokepoint_collector::store::{Selection, SumQuery};
use chokepoint_collector::symbols::{self, FleetSymbols};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{
    SymbolsOffer, SymbolsOffered, SymbolsPart, SymbolsWanted, Window, from_agent, from_collector,
};
use chokepoint_symbols::{Builder, Quality, Symbols};

use common::in_process::Collector;
use common::stream::{PATIENCE, Stream};
use common::*;

/// A collector with symbols beside its store.
struct Naming(Collector);

impl Naming {
    async fn start(directory: &Path) -> Self {
        Self::start_asking(directory, Vec::new()).await
    }

    /// The same, which asks servers of debug information.
    async fn start_asking(directory: &Path, debuginfod: Vec<Arc<Address>>) -> Self {
        let options = symbols::Options {
            directory: directory.join("symbols"),
            max_bytes: 1 << 30,
            keep: Duration::from_secs(3_600),
            debuginfod,
        };
        let symbols = FleetSymbols::open(options).expect("symbols");
        Self(Collector::with_symbols(directory, Limits::default(), Some(symbols)).await)
    }

    /// A stream of an agent that has offered the build.
    async fn offering(&self, agent: u8, quality: Quality) -> Stream {
        let (stream, welcome) = Stream::begin(self.0.address, hello(agent)).await.expect("welcome");
        assert!(welcome.takes_symbols);
        offer(&stream, quality).await;
        stream
    }

    /// Names of all frames that are stored.
    fn names(&self) -> BTreeSet<String> {
        let selection =
            Selection { from_unix_ns: START, until_unix_ns: START + HOUR, ..Selection::default() };
        let query = SumQuery {
            selection,
            kind: "wall".to_owned(),
            by_stack: true,
            max_sums: 1_000,
            ..SumQuery::default()
        };
        let sums = self.0.store.sums(&query).expect("sums").sums;
        let stacks: Vec<_> = sums.into_iter().filter_map(|sum| sum.stack).collect();
        let frames = self.0.store.frames(&stacks).expect("frames");
        let lines = frames.locations.iter().flat_map(|place| &place.lines);
        let name = |(function, line): &(usize, u32)| {
            let Function { name, file } = &frames.functions[*function];
            match (file.rsplit('/').next().unwrap_or_default(), line) {
                ("", _) => name.clone(),
                (file, line) => format!("{name} {file}:{line}"),
            }
        };
        lines.map(name).collect()
    }

    /// Waits until something was counted so often.
    async fn counted(&self, count: Count, times: u64) {
        let reached = async {
            while self.0.counts.get(count) < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{count:?} {times} times"));
    }
}

async fn offer(stream: &Stream, quality: Quality) {
    let build = SymbolsOffered { build_id: BUILD_ID.to_vec(), quality: quality as i32 };
    stream.say(from_agent::Message::SymbolsOffer(SymbolsOffer { builds: vec![build] })).await;
}

/// The lease that a stream is given.
async fn lease(stream: &mut Stream) -> u64 {
    match stream.hear().await.expect("it holds") {
        Some(from_collector::Message::SymbolsWanted(SymbolsWanted { lease, build_id })) => {
            assert_eq!(build_id, BUILD_ID);
            lease
        }
        other => panic!("{other:?} instead of a lease"),
    }
}

/// Sends bytes as what a lease is for, in two parts.
async fn upload(stream: &Stream, lease: u64, bytes: &[u8]) {
    let (one, other) = bytes.split_at(bytes.len() / 2);
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    for (part, is_last) in [(one, false), (other, true)] {
        let checksum = if is_last { crc.sum() } else { 0 };
        let part = SymbolsPart { lease, bytes: part.to_vec(), is_last, checksum, ..SymbolsPart::default() };
        stream.say(from_agent::Message::SymbolsPart(part)).await;
    }
}

/// Symbols that name these functions, with something before their names.
fn written(before: &str, functions: &[&str], quality: Quality) -> Vec<u8> {
    let mut builder = Builder::new(BUILD_ID.to_vec());
    let function = |name: &&str| {
        let address = address_of(name);
        let name = format!("{before}{name}");
        chokepoint_symbols::Function { range: address..address + 1, name }
    };
    builder.fill(functions.iter().map(function).collect(), quality);
    let symbols: Symbols = builder.finish();
    symbols.write().expect("it is small")
}

/// A window with one stack, without names.
fn unnamed(stack: &[&str]) -> Window {
    let row = Row {
        kind: "wall",
        process: "web".to_owned(),
        pod: String::new(),
        class: "cpu.user",
        stack: stack.iter().map(|name| (*name).to_owned()).collect(),
        count: 1,
        weight: 5,
    };
    let mut whole = window(START, 10 * SECOND, &[row], "cpu", 1.0);
    let dictionary = whole.dictionary.as_mut().expect("a dictionary");
    dictionary.locations.iter_mut().for_each(|place| place.lines.clear());
    whole
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_is_asked_and_better_symbols_are_added() {
    let directory = directory();
    let collector = Naming::start(directory.path()).await;
    let stack = ["main", "work", "leaf"];
    let whole = unnamed(&stack);

    // What comes has no names; one of two agents that could tell them is asked, and goes before it does.
    let first = collector.offering(1, Quality::Exported).await;
    first.say(from_agent::Message::Batch(batch(1, &mut Sender::new(), &whole))).await;
    let mut first = first;
    lease(&mut first).await;
    first.answer().await.expect("it is stored");
    assert_eq!(collector.names(), set(&[]));
    let mut second = collector.offering(2, Quality::Exported).await;
    let silent = tokio::time::timeout(Duration::from_millis(300), second.hear()).await;
    assert!(silent.is_err(), "the build is asked of another already: {silent:?}");
    drop(first);
    let given = lease(&mut second).await;
    // What is not that build's, or damaged, is refused; and the same agent is not asked again, unless it offers again.
    upload(&second, given, b"no symbols").await;
    collector.counted(Count::SymbolsRefused, 1).await;
    offer(&second, Quality::Exported).await;
    let given = lease(&mut second).await;
    upload(&second, given, &written("", &["main"], Quality::Exported)).await;
    collector.counted(Count::SymbolsKept, 1).await;
    assert_eq!(collector.names(), set(&["main"]));

    // Nobody is asked for what is known; who knows more is, and what was told stays.
    let mut third = collector.offering(3, Quality::Exported).await;
    offer(&third, Quality::Functions).await;
    let given = lease(&mut third).await;
    upload(&third, given, &written("3:", &stack, Quality::Functions)).await;
    collector.counted(Count::SymbolsKept, 2).await;
    assert_eq!(collector.names(), set(&["main", "3:work", "3:leaf"]));
    let leases = [Count::SymbolLeases, Count::SymbolsKept, Count::SymbolsRefused];
    assert_eq!(leases.map(|count| collector.0.counts.get(count)), [4, 2, 1]);
    drop((second, third));
    collector.0.stop().await;

    // A collector that begins anew knows them, and an operator may have them told anew.
    let collector = Naming::start(directory.path()).await;
    assert_eq!(collector.names(), set(&["main", "3:work", "3:leaf"]));
    let kept: Vec<_> = fs::read_dir(directory.path().join("symbols")).expect("a directory").collect();
    assert_eq!(kept.len(), 1);
    fs::remove_file(kept[0].as_ref().expect("a file").path()).expect("it goes");
    assert_eq!(collector.names(), set(&[]));
    let mut fourth = collector.offering(4, Quality::Functions).await;
    let given = lease(&mut fourth).await;
    upload(&fourth, given, &written("4:", &stack, Quality::Functions)).await;
    collector.counted(Count::SymbolsKept, 1).await;
    assert_eq!(collector.names(), set(&["4:main", "4:work", "4:leaf"]));
    drop(fourth);
    collector.0.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_is_passed_over_and_too_much_ends_the_lease() {
    let directory = directory();
    let collector = Naming::start(directory.path()).await;
    let mut one = collector.offering(1, Quality::Functions).await;
    let given = lease(&mut one).await;
    let (two, _) = Stream::begin(collector.0.address, hello(2)).await.expect("welcome");
    let good = written("", &["main"], Quality::Functions);
    // Of another's lease, of none, and in more bytes than there may be.
    upload(&two, given, &good).await;
    upload(&one, given + 1, &good).await;
    let part = SymbolsPart { lease: given, bytes: vec![0; 1 << 19], ..SymbolsPart::default() };
    for _ in 0..40 {
        one.say(from_agent::Message::SymbolsPart(part.clone())).await;
    }
    collector.counted(Count::SymbolsRefused, 1).await;
    assert_eq!(collector.0.counts.get(Count::SymbolsKept), 0);
    // The same bytes, one of them another.
    offer(&one, Quality::Functions).await;
    let given = lease(&mut one).await;
    let wrong = SymbolsPart { lease: given, bytes: good, is_last: true, ..SymbolsPart::default() };
    one.say(from_agent::Message::SymbolsPart(wrong)).await;
    collector.counted(Count::SymbolsRefused, 2).await;
    let kept = fs::read_dir(directory.path().join("symbols")).expect("a directory").count();
    assert_eq!(kept, 0);
    // Offers of what no build is, and of what is not known here, are passed over.
    let build = |build_id: &[u8], quality| SymbolsOffered { build_id: build_id.to_vec(), quality };
    let builds = vec![build(b"", 2), build(&[1; 65], 2), build(b"x", 0), build(b"x", 99), build(b"x", -1)];
    one.say(from_agent::Message::SymbolsOffer(SymbolsOffer { builds })).await;
    offer(&one, Quality::Functions).await;
    lease(&mut one).await;
    assert_eq!(collector.0.counts.get(Count::SymbolLeases), 3);
    drop((one, two));
    collector.0.stop().await;
}

/// A program with a function that is inlined into another.
const PROGRAM: &str = "static volatile int sink;
static inline __attribute__((always_inline)) void inner(int by) { sink += by; }
__attribute__((noinline)) void outer(int by) { inner(by); }
int main(void) { for (;;) outer(3); }
";

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What serves files of debug information: Debian's own server where there is one (`CHOKEPOINT_TEST_DEBUGINFOD`, or in the path), else one of this
/// test, which serves one file.
struct Server {
    address: String,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// An address at which nobody listens.
    fn nobody() -> String {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", free.local_addr().expect("an address"))
    }

    fn start(directory: &Path, build_id: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        let address = format!("http://127.0.0.1:{port}");
        let program = std::env::var_os("CHOKEPOINT_TEST_DEBUGINFOD").unwrap_or_else(|| "debuginfod".into());
        if Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
            drop(free);
            let mut command = Command::new(program);
            command.args(["-F", "-d", ":memory:", "-p", &port.to_string()]).arg(directory);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            return Self { address, child: Some(command.spawn().expect("it starts")) };
        }
        eprintln!("there is no debuginfod here: a server of this test serves the file");
        let file = fs::read(directory.join("program.debug")).expect("the file");
        let path = format!("GET /buildid/{build_id}/debuginfo ");
        std::thread::spawn(move || {
            for stream in free.incoming() {
                let mut stream = stream.expect("a connection");
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    head.push(byte[0].into());
                }
                let (status, body) =
                    if head.starts_with(&path) { ("200 OK", &*file) } else { ("404 Not Found", &b""[..]) };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("it is read");
            }
        });
        Self { address, child: None }
    }

    /// Waits until it has the file.
    fn wait(&self, build_id: &str) {
        let begin = Instant::now();
        loop {
            let request = format!("GET /buildid/{build_id}/debuginfo HTTP/1.0\r\n\r\n");
            let answer =
                TcpStream::connect(self.address.trim_start_matches("http://")).and_then(|mut stream| {
                    stream.write_all(request.as_bytes())?;
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).map(|_| answer)
                });
            if answer.is_ok_and(|answer| answer.get(9..12) == Some(b"200")) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the server does not have the file");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_debug_information_names_what_no_agent_does() {
    let directory = directory();
    let files = directory.path().join("files");
    fs::create_dir(&files).expect("a directory");
    fs::write(files.join("program.c"), PROGRAM).expect("a source");
    run("cc", &["-O1", "-g", "-Wl,--build-id", "-o", "program", "program.c"], &files);
    let symbols = run("nm", &["program"], &files);
    let outer = symbols.lines().find_map(|line| line.strip_suffix(" T outer")).expect("it has the function");
    let outer = u64::from_str_radix(outer, 16).expect("an address");
    let notes = run("readelf", &["-n", "program"], &files);
    let build_id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).expect("a build id");
    run("objcopy", &["--only-keep-debug", "program", "program.debug"], &files);
    fs::remove_file(files.join("program")).expect("it goes");
    let server = Server::start(&files, build_id);
    server.wait(build_id);

    // One does not answer; the next one is asked.
    let nothing = Server::nobody();
    let addresses = [&nothing, &server.address]
        .map(|url| Arc::new(Address::new(url, &Credentials::default()).expect("an address")));
    let collector = Naming::start_asking(directory.path(), addresses.to_vec()).await;
    let mut whole = unnamed(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let dictionary = whole.dictionary.as_mut().expect("a dictionary");
    let bytes = |at: usize| u8::from_str_radix(&build_id[at..at + 2], 16).expect("digits");
    dictionary.modules[0].build_id = (0..build_id.len()).step_by(2).map(bytes).collect();
    for (at, place) in dictionary.locations.iter_mut().enumerate() {
        place.address = outer + at as u64;
    }
    let (mut stream, _) = Stream::begin(collector.0.address, hello(1)).await.expect("welcome");
    stream.say(from_agent::Message::Batch(batch(1, &mut Sender::new(), &whole))).await;
    stream.answer().await.expect("it is stored");
    // The question shows that there are no names.
    assert_eq!(collector.names(), set(&[]));
    collector.counted(Count::SymbolsFetched, 1).await;
    let names = collector.names();
    assert!(names.contains("inner program.c:2") && names.contains("outer program.c:3"), "{names:?}");
    assert_eq!(collector.0.counts.get(Count::SymbolFetchFailures), 1);
    drop(stream);
    collector.0.stop().await;
}
