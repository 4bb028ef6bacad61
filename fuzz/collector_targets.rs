//! What the fuzzer calls with any bytes that a collector may be sent. The collector's tests call it with the corpus.

use std::sync::OnceLock;

use chokepoint_analysis::export::Format;
use chokepoint_collector::control::result::Finished;
use chokepoint_collector::ingest;
use chokepoint_collector::protocols::{Codec, otlp, pyroscope};
use chokepoint_collector::query::limits::Limits;
use chokepoint_collector::query::profile_type::ProfileType;
use chokepoint_collector::query::{selector, time};
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::dictionary::{Checker, Receiver, Sender};
use chokepoint_proto::stream::Window;
use chokepoint_symbols::Symbols;
use prost::Message;

/// What a query's parameters say: a selector, or a time.
pub fn query(content: &[u8]) {
    let text = String::from_utf8_lossy(content);
    match selector::parse(&text) {
        Ok(selector) => drop(ProfileType::of(&selector)),
        Err(error) => assert!(error.at >= 1 && error.at <= text.chars().count() + 1),
    }
    let _ = time::instant(&text, u64::MAX);
    if let Ok(duration_ns) = time::duration_ns(&text) {
        assert!(duration_ns > 0);
        let written = time::written(duration_ns);
        assert!(duration_ns < 1_000_000 || time::duration_ns(&written).is_ok(), "{written}");
    }
}

/// What a batch holds, uncompressed: the first window of a stream, and the same again. Who only checks and who keeps what is said agree,
/// and what both accept can be sent on.
pub fn window(content: &[u8]) {
    let Ok(window) = ingest::decode(content) else { return };
    let (mut checker, mut receiver) = (Checker::new(), Receiver::new());
    for _ in 0..2 {
        let (mut checked, mut kept) = (window.clone(), window.clone());
        let (new, reset) = (checker.take(&mut checked), receiver.take(&mut kept));
        assert_eq!(new.map(|new| new.reset), reset);
        assert_eq!(checked, kept);
        if reset.is_err() {
            return;
        }
    }
    let sent = Sender::new().next(&window).expect("it refers to nothing that it does not have");
    assert!(Receiver::new().take(&mut sent.clone()).is_ok());
}

/// Bytes that a recording may have here: a hundred times the usual one, so that what unfolds without end is met at once.
const MAX_RECORDING_BYTES: u64 = 1 << 20;

/// The recording that came of a profile on demand: as it comes, compressed, and what is in it. What is accepted can be read again and
/// written in every format.
pub fn recording(content: &[u8]) {
    let _ = Finished::new(content.to_vec(), MAX_RECORDING_BYTES);
    let compressed = zstd::bulk::compress(content, 1).expect("there is memory");
    let Ok(finished) = Finished::new(compressed, MAX_RECORDING_BYTES) else { return };
    assert_eq!(finished.json().expect("it was read before"), content);
    for profile_type in ["wall", "cpu", "lock"] {
        for format in [Format::Svg, Format::Folded, Format::Pprof, Format::Speedscope, Format::Json] {
            let _ = finished.export(profile_type, format);
        }
    }
}

/// Symbols of a build, as they come and what is in them. What is accepted is written again, is the same then, and names any address.
pub fn symbols(content: &[u8]) {
    let _ = Symbols::read(content);
    let compressed = zstd::bulk::compress(content, 1).expect("there is memory");
    let Ok(symbols) = Symbols::read(&compressed) else { return };
    let again = Symbols::read(&symbols.write().expect("it is as long as before")).expect("it was written");
    assert_eq!(again, symbols);
    let ends = symbols.iter().flat_map(|(range, _)| [range.start, range.end]).take(100);
    for address in ends.chain([0, u64::MAX]) {
        assert!(symbols.at(address).len() <= 65);
    }
    let _ = symbols.clone().adding_to(&symbols).write();
}

/// When what says no time was sent.
const NOW_UNIX_NS: u64 = 1_767_225_600_000_000_000;
/// The border of a form's parts, as the corpus has it.
const FORM: &str = "multipart/form-data; boundary=x";

/// An export of OpenTelemetry's profiles, by gRPC or HTTP.
pub fn otlp(content: &[u8]) {
    as_agents_send(otlp::read(content, NOW_UNIX_NS));
}

/// What Pyroscope's clients send: to `Push` in both of its forms, and to `/ingest` as a body, as a form, and by what the URL says.
pub fn push(content: &[u8]) {
    for codec in [Codec::Proto, Codec::Json] {
        as_agents_send(pyroscope::read_push(codec, content));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let text = String::from_utf8_lossy(content);
    for (query, content_type) in [("name=shop{a=b}&until=1767225600", ""), ("name=shop", FORM), (&*text, "")]
    {
        let windows = pyroscope::read_ingest(query, content_type, content.to_vec());
        as_agents_send(runtime.block_on(windows));
    }
}

/// Whatever is taken is what an agent could have sent.
fn as_agents_send(read: Result<Vec<Window>, String>) {
    match read {
        Ok(windows) => {
            for window in windows {
                // What is longer than agents' are, or of a time that none is of, is refused later.
                let Ok(mut window) = ingest::decode(&window.encode_to_vec()) else { continue };
                Checker::new().take(&mut window).expect("it refers to nothing that it does not have");
            }
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// What Grafana's data source asks, in both forms, of a store that has nothing.
pub fn connect(content: &[u8]) {
    static STORE: OnceLock<(tempfile::TempDir, Embedded)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path(), Options::default()).expect("a store");
        (directory, store)
    });
    let calls = ["ProfileTypes", "LabelNames", "LabelValues", "SelectSeries", "SelectMergeStacktraces"];
    for call in calls {
        for codec in [Codec::Proto, Codec::Json] {
            let answer = pyroscope::answer_call(store, &Limits::default(), call, codec, content.to_vec());
            answer.err().into_iter().for_each(|why| assert!(!why.is_empty()));
        }
    }
}
