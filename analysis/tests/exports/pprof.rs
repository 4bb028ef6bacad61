use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use chokepoint_analysis::export::{Format, Options};
use chokepoint_analysis::profile::Profile;
use chokepoint_proto::pprof;
use flate2::read::GzDecoder;
use prost::Message;

use crate::recording::{self, PERIOD_NS, START_UNIX_NS};
use crate::{check, export};

fn message(profile: &Profile) -> pprof::Profile {
    let mut bytes = Vec::new();
    let file = export(profile, Format::Pprof, &Options::default());
    GzDecoder::new(file.as_slice()).read_to_end(&mut bytes).expect("gzip");
    pprof::Profile::decode(bytes.as_slice()).expect("profile.proto")
}

/// Panics where the message refers to what it does not hold.
fn check_references(message: &pprof::Profile) {
    let strings = message.string_table.len();
    let string = |index: i64| assert!(usize::try_from(index).expect("not negative") < strings);
    let ids = |ids: Vec<u64>| {
        let distinct: HashSet<u64> = ids.iter().copied().collect();
        assert!(distinct.len() == ids.len() && !distinct.contains(&0), "{ids:?}");
        distinct
    };
    let mappings = ids(message.mapping.iter().map(|mapping| mapping.id).collect());
    let locations = ids(message.location.iter().map(|location| location.id).collect());
    let functions = ids(message.function.iter().map(|function| function.id).collect());

    assert_eq!(message.string_table[0], "");
    for mapping in &message.mapping {
        string(mapping.filename);
        string(mapping.build_id);
    }
    for location in &message.location {
        assert!(location.mapping_id == 0 || mappings.contains(&location.mapping_id));
        assert!(!location.line.is_empty(), "readers would look for symbols");
        assert!(location.line.iter().all(|line| functions.contains(&line.function_id)));
    }
    for function in &message.function {
        string(function.name);
        string(function.filename);
    }
    for sample in &message.sample {
        assert!(!sample.location_id.is_empty(), "readers would not show it");
        assert!(sample.location_id.iter().all(|id| locations.contains(id)));
        assert_eq!(sample.value.len(), message.sample_type.len());
        sample.label.iter().for_each(|label| string(label.key));
        sample.label.iter().for_each(|label| string(label.str));
    }
    message.comment.iter().copied().for_each(string);
    string(message.default_sample_type);
}

#[test]
fn messages_hold_every_sample_and_only_valid_references() {
    for profile in [recording::everything(), recording::interleaved(), recording::empty()] {
        let message = message(&profile);
        check_references(&message);
        let sum = |value: usize| message.sample.iter().map(|sample| sample.value[value]).sum::<i64>();
        assert_eq!(u64::try_from(sum(0)), Ok(profile.total_count()));
        assert_eq!(u64::try_from(sum(1)), Ok(profile.total_weight()));

        let text = |index: i64| message.string_table[usize::try_from(index).expect("checked")].as_str();
        let types: Vec<_> = message.sample_type.iter().map(|t| (text(t.r#type), text(t.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!(text(message.default_sample_type), "cpu");
        assert_eq!(message.period_type, Some(message.sample_type[1]));
        assert_eq!(u64::try_from(message.period), Ok(PERIOD_NS));
        assert_eq!(u64::try_from(message.time_nanos), Ok(START_UNIX_NS));
        assert_eq!(message.duration_nanos, 5_000_000_000);
    }
}

#[test]
fn go_reads_the_same_profile() {
    let Some(pprof) = GoPprof::start(&recording::everything()) else { return };
    // What stands above differs by Go's version.
    let body = |report: String, first: &str| report[report.find(first).expect("a body")..].to_owned();
    check("everything.pprof.top", &body(pprof.run(&["-top"]), "      flat"));
    check("everything.pprof.traces", &body(pprof.run(&["-traces"]), "-----------+"));

    let raw = pprof.run(&["-raw"]);
    for shown in [
        "PeriodType: cpu nanoseconds",
        "Period: 10101010",
        "Duration: 5s",
        "samples/count cpu/nanoseconds[dflt]",
        "ffffffff81000200 M=2 vfs_read",
        "/usr/bin/web ab0c0c [FN][FL][LN][IN]",
        "5 lost (ring buffer full 4, no scratch space 1)",
        "symbols of 1 binary were not found",
    ] {
        assert!(raw.contains(shown), "{shown}: {raw}");
    }
    let samples = pprof.run(&["-top", "-sample_index=samples"]);
    assert!(samples.contains("of 85 total"), "{samples}");
    for (focus, total) in
        [("-tagfocus=tid=11", "33"), ("-tagfocus=pid=20", "13"), ("-tagfocus=comm=web", "68")]
    {
        let focused = pprof.run(&["-top", "-sample_index=samples", focus]);
        assert!(focused.contains(&format!("accounting for {total}, ")), "{focus}: {focused}");
    }
    // What two binaries call the same stays apart where files are asked for.
    let java = pprof.run(&["-top", "-sample_index=samples", "-focus=bin/java"]);
    assert!(java.lines().any(|line| line.contains("     13 ") && line.ends_with(" main")), "{java}");
}

#[test]
fn go_reads_an_empty_profile() {
    let Some(pprof) = GoPprof::start(&recording::empty()) else { return };
    let top = pprof.run(&["-top"]);
    assert!(top.contains("CPU time: pid 42 <idle>") && top.contains("Total samples = 0"), "{top}");
}

/// `go tool pprof` on one profile. Go compiles the tool the first time, which takes most of a minute.
struct GoPprof {
    directory: tempfile::TempDir,
}

impl GoPprof {
    /// Nothing where the machine has no Go.
    fn start(profile: &Profile) -> Option<Self> {
        if Command::new("go").arg("version").output().is_err() {
            eprintln!("skipped: go is not installed, so nothing here reads pprof's format");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("cpu.pb.gz");
        std::fs::write(file, export(profile, Format::Pprof, &Options::default())).expect("write the profile");
        Some(Self { directory })
    }

    /// What it prints. It must have nothing to complain of, such as binaries that it looked for.
    fn run(&self, arguments: &[&str]) -> String {
        let directory: &Path = self.directory.path();
        let output = Command::new("go")
            .args(["tool", "pprof"])
            .args(arguments)
            .arg(directory.join("cpu.pb.gz"))
            .envs([("GOFLAGS", ""), ("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("TZ", "UTC")])
            .env("PPROF_BINARY_PATH", directory)
            .env("PPROF_TMPDIR", directory)
            .current_dir(directory)
            .output()
            .expect("go runs");
        let complaints: Vec<String> = String::from_utf8_lossy(&output.stderr)
            .lines()
            .filter(|line| !line.contains("Interpreted"))
            .map(str::to_owned)
            .collect();
        assert!(output.status.success() && complaints.is_empty(), "{arguments:?}: {complaints:?}");
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}
