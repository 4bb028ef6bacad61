//! Reports say what their recordings do, whatever these are named, and stay of a size that can be sent.

mod hostile;
mod recording;

use std::path::Path;

use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::report::document::Document;
use chokepoint_analysis::report::{Format, Recorded, audit, diagnosis, write};

fn text(document: &Document<'_>, format: Format) -> String {
    let mut out = Vec::new();
    write(document, format, &mut out).expect("memory takes it");
    String::from_utf8(out).expect("UTF-8")
}

fn diagnosed(profile: &Profile, format: Format) -> String {
    text(&diagnosis(&Recorded::of(profile)), format)
}

fn audited(before: &Profile, after: Option<&Profile>, format: Format) -> String {
    let after = after.map(Recorded::of);
    text(&audit(&Recorded::of(before), after.as_ref()), format)
}

/// Compares with `tests/data/NAME`; `BLESS=1` writes it instead.
fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == golden, "{name}; BLESS=1 accepts what is new:\n{actual}");
}

#[test]
fn a_diagnosis_as_markdown() {
    check("diagnosis.md", &diagnosed(&recording::convoy("shop", 8), Format::Markdown));
}

#[test]
fn an_audit_of_two_recordings_as_markdown() {
    let (before, after) = (recording::convoy("shop", 8), recording::convoy("shop", 1));
    check("audit.md", &audited(&before, Some(&after), Format::Markdown));
}

#[test]
fn both_formats_say_the_same() {
    let (before, after) = (recording::convoy("shop", 8), recording::convoy("shop", 1));
    for document in
        [diagnosis(&Recorded::of(&before)), audit(&Recorded::of(&before), Some(&Recorded::of(&after)))]
    {
        let [markdown, html] = Format::ALL.map(|format| text(&document, format));
        for section in &document.sections {
            assert!(markdown.contains(&format!("\n## {}\n", section.title)), "{}", section.title);
            assert!(html.contains(&format!(">{}</h2>", section.title)), "{}", section.title);
        }
        // A number of each kind: of the evidence, a class, a signal, a percentile's neighbour.
        for number in ["lock.mutex", "80.0 %", "96.0 %", "critical", "holds"] {
            assert!(markdown.contains(number) && html.contains(number), "{number}");
        }
    }
}

#[test]
fn equal_recordings_give_equal_bytes() {
    for format in Format::ALL {
        let [first, second] = [(), ()].map(|()| audited(&recording::convoy("shop", 8), None, format));
        assert!(first == second, "{format} differs from one run to the next");
    }
}

#[test]
fn an_audit_claims_nothing_that_was_not_tried() {
    let before = recording::convoy("shop", 8);
    for after in [None, Some(recording::convoy("shop", 1))] {
        let audit = audited(&before, after.as_ref(), Format::Markdown);
        let hypotheses = audit.split("\n## Hypotheses\n").nth(1).expect("the section");
        let hypotheses = hypotheses.split("\n## ").next().expect("its end");
        let rows: Vec<&str> = hypotheses.lines().filter(|line| line.starts_with("| `")).collect();
        assert!(!rows.is_empty(), "{hypotheses}");
        assert!(rows.iter().all(|row| row.contains("| not tested |")), "{hypotheses}");
        assert_eq!(audit.contains("\n## Before and after\n"), after.is_some());
        assert_eq!(audit.contains("significance is not judged"), after.is_some());
    }
}

#[test]
fn what_two_recordings_differ_in_is_told() {
    let before = recording::convoy("shop", 8);
    let mut after = recording::convoy("shop", 8);
    after.header.host = "other".to_owned();
    after.header.kernel = "6.12.0".to_owned();
    after.header.duration_ns /= 2;
    after.header.start_unix_ns += 60_000_000_000;
    let audit = audited(&before, Some(&after), Format::Markdown);
    for difference in [
        "- Another host: shop before, other after.",
        "- Another kernel: 6.1.0 before, 6.12.0 after.",
        "- Windows of different length: 10.0 s before, 5.0 s after.",
    ] {
        assert!(audit.contains(difference), "{difference}: {audit}");
    }
    assert!(!audit.contains("was not begun after"), "{audit}");
}

#[test]
fn a_recording_without_sources_says_so() {
    let mut profile = recording::convoy("shop", 8);
    (profile.signals, profile.block, profile.memory, profile.run_queue) = (None, None, None, None);
    profile.header.kernel = String::new();
    let audit = audited(&profile, None, Format::Markdown);
    for statement in [
        "- **kernel**: not known",
        "signals were not read",
        "block devices were not watched",
        "faults and reclaims were not watched",
        "queueing for CPUs was not watched",
    ] {
        assert!(audit.contains(statement), "{statement}: {audit}");
    }
}

#[test]
fn pages_stay_small_and_say_what_was_cut() {
    const MAX_BYTES: usize = 4 << 20;
    // Each is wide enough to be drawn, and a picture of all has two megabytes.
    let page = diagnosed(&recording::stacks(1_000, 8), Format::Html);
    assert!(page.len() < MAX_BYTES, "{} bytes", page.len());
    assert!(!page.contains("Frames below 0.05 %") && page.contains("Frames below 0.15 %"));
    // Deeper than any program: a file may claim that.
    for format in Format::ALL {
        let text = diagnosed(&recording::stacks(1, 10_000), format);
        assert!(text.len() < MAX_BYTES, "{format}: {} bytes", text.len());
    }
}

#[test]
fn hot_paths_are_told_until_the_page_is_full() {
    // The process and its function, then fifty functions, each with the class of its time.
    let text = diagnosed(&recording::stacks(50, 1), Format::Markdown);
    let paths = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the paths");
    let lines: Vec<&str> = paths.lines().collect();
    assert_eq!(lines.len(), 60);
    assert_eq!(lines[..2], ["100.0 %  p", "100.0 %  p"]);
    assert_eq!(lines[2..4], ["  2.0 %    function_0_0", "  2.0 %    [cpu.user]"]);
    assert!(text.contains("\n42 more frames of 1 % and above are left out"), "{text}");
}

#[test]
fn a_recording_of_nothing_is_reported() {
    let mut profile = recording::stacks(1, 1);
    profile.samples.clear();
    profile.thread_times.clear();
    for format in Format::ALL {
        assert!(diagnosed(&profile, format).contains("no time"), "{format}");
        audited(&profile, Some(&profile), format);
    }
}
