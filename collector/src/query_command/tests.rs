//! What `query` prints of the fleet of [`fleet`](crate::store_in_memory::fleet), over a connection.

use clap::Parser;

use super::*;
use crate::api::tests::Live;
use crate::golden::check;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn asked(live: &Live, words: &[&str]) -> Result<Output, Failure> {
    let url = format!("http://{}", live.address);
    let time = ["--from", "1000000", "--until", "1000020"];
    let time = if words[0] == "agents" { &[] } else { time.as_slice() };
    let line = [&["query"], words, time, &["--url", &url]].concat();
    let line = Line::try_parse_from(line).map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(answer(&line.arguments))
}

#[test]
fn answers_are_tables() {
    let live = Live::fleet();
    for (name, words) in [
        ("flame", &["flame", "wall", "--by", "process"] as &[&str]),
        ("top", &["top", "wall", "-n", "4"]),
        ("series", &["series", "cpu", "--by", "host,service", "--step", "10s"]),
        ("decomposition", &["decomposition", "--by", "host"]),
        ("constraints", &["constraints", "{zone='z1'}"]),
        ("constraints-zone", &["constraints", "--by", "zone"]),
        ("signals", &["signals"]),
        ("labels", &["labels"]),
        ("values", &["labels", "--values", "process"]),
        ("agents", &["agents"]),
        ("diff", &["diff", "cpu{host='a'}", "--before", "cpu{host='b'}"]),
        ("nothing", &["top", "cpu{host='z'}"]),
    ] {
        let output = asked(&live, words).expect(name);
        let text = String::from_utf8(output.bytes).expect("text");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{name}");
        check(&format!("query-{name}.txt"), &text);
    }
}

#[test]
fn files_are_written_whole() {
    let live = Live::fleet();
    let folder = tempfile::tempdir().expect("a directory");
    for (name, begins) in [
        ("a.svg", "<?xml"),
        ("a.folded", "<img"),
        ("a.pb.gz", "\u{1f}"),
        ("a.json", "{"),
        ("a.speedscope.json", "{"),
    ] {
        let path = folder.path().join(name);
        let output = asked(&live, &["flame", "cpu", "-o", path.to_str().expect("text")]).expect(name);
        write_whole(&output.file.expect("a file"), &output.bytes).expect(name);
        assert!(std::fs::read(&path).expect("a file").starts_with(begins.as_bytes()), "{name}");
    }
    let bad = asked(&live, &["flame", "cpu", "-o", "a.png"]).expect_err("no such format");
    assert_eq!(bad.kind, Kind::Usage);
    let nowhere = write_whole(&folder.path().join("none/a.svg"), b"").expect_err("no such directory");
    assert_eq!(nowhere.kind, Kind::Output);
}

#[test]
fn failures_say_what_to_do() {
    let live = Live::fleet();
    let json = asked(&live, &["top", "cpu", "--json"]).expect("an answer");
    assert!(json.bytes.starts_with(b"{\"query\":\"cpu\""));
    let bad = asked(&live, &["top", "cpu{host}"]).expect_err("a bad query");
    assert_eq!(
        (bad.kind, bad.message.as_str()),
        (Kind::Usage, "bad query: at 9: expected =, !=, =~ or !~, found '}'")
    );
    let address = live.address;
    drop(live);
    let line =
        Line::try_parse_from(["query", "agents", "--url", &format!("http://{address}")]).expect("a line");
    let gone = run(&line.arguments).expect_err("nobody there");
    assert_eq!(gone.exit_code(), 5);
    assert!(gone.message.contains("start `chokepoint-collector serve`, or say --url"), "{gone}");
}
