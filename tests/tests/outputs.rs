//! Every format, read back by what reads it: pprof, a browser, and what each viewer's importer asks for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use chokepoint_analysis::profile::Profile;
use chokepoint_tests::agent::Finished;
use chokepoint_tests::stacks::share_with;
use chokepoint_tests::{Agent, Workload, browser, in_vm, live, share_tolerance, skip_if};
use serde_json::Value;

/// Frequency and time of a recording with a thousand samples; under emulation far less runs.
fn plenty() -> [&'static str; 4] {
    if in_vm() { ["-F", "199", "-d", "4"] } else { ["-F", "997", "-d", "1500ms"] }
}

/// Records a process into this file.
fn record(workload: &Workload, output: &str, further: &[&str]) -> Finished {
    let pid = workload.pid().to_string();
    let fixed = ["record", "--pid", &pid, "-o", output];
    Agent::new(fixed.iter().chain(&plenty()).chain(further)).run().succeeded()
}

/// How many samples the closing summary tells of.
fn samples_told(finished: &Finished) -> u64 {
    let first = finished.stderr.lines().next().expect("a summary");
    let words: Vec<&str> = first.split_whitespace().collect();
    let after = words.iter().position(|word| *word == "samples").expect("a number of samples");
    words[after - 1].parse().unwrap_or_else(|error| panic!("{first}: {error}"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap_or_else(|| panic!("{value} is no list"));
    list.iter().map(|number| number.as_f64().unwrap_or_else(|| panic!("{number} is no number"))).collect()
}

/// Two recordings of one steady workload differ by what each may differ from the truth.
fn shares_agree(what: &str, (one, one_samples): (f64, u64), (other, other_samples): (f64, u64)) {
    let tolerance = share_tolerance(other, one_samples) + share_tolerance(other, other_samples);
    assert!((one - other).abs() < tolerance, "{what}: {one:.4} and {other:.4}, tolerance {tolerance:.4}");
}

/// A folded line: the elements, the root first, and their count.
fn folded_line(line: &str) -> (Vec<&str>, u64) {
    let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no count in {line:?}"));
    let elements: Vec<&str> = stack.split(';').collect();
    assert!(elements.len() >= 2, "a process and a frame: {line:?}");
    assert!(elements.iter().all(|element| !element.is_empty()), "{line:?}");
    (elements, count.parse().unwrap_or_else(|_| panic!("no count in {line:?}")))
}

#[test]
fn folded_stacks_add_up_and_mark_the_kernel() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let workload = Workload::start("syscalls_c", &[]);
    let finished = record(&workload, "out.folded", &[]);
    let text = fs::read_to_string(finished.file("out.folded")).unwrap();
    let lines: Vec<_> = text.lines().map(folded_line).collect();
    assert_eq!(lines.iter().map(|(_, count)| count).sum::<u64>(), samples_told(&finished));

    let mut in_kernel = 0;
    for (elements, count) in &lines {
        assert_eq!(elements[0], "syscalls_c");
        let frames = &elements[1..];
        let marked = |frame: &&str| frame.ends_with("_[k]");
        // The kernel lies above its caller, never between two of its frames.
        let user = frames.iter().take_while(|frame| !marked(frame)).count();
        assert!(frames[user..].iter().all(marked), "{elements:?}");
        let caller = frames[..user].contains(&"read_zeros");
        let zeros =
            frames[user..].iter().any(|frame| *frame == "read_zero_[k]" || frame.contains("clear_user"));
        in_kernel += if caller && zeros { *count } else { 0 };
        assert!(!frames[..user].iter().any(|frame| frame.contains("clear_user")), "{elements:?}");
    }
    assert!(
        in_kernel as f64 > 0.3 * samples_told(&finished) as f64,
        "{in_kernel} samples in the kernel for read_zeros"
    );
}

#[test]
fn standard_output_carries_the_profile_and_nothing_else() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let folded = record(&workload, "-", &[]);
    let counts = folded.stdout.lines().map(|line| folded_line(line).1);
    assert_eq!(counts.sum::<u64>(), samples_told(&folded), "stacks are folded where no format is asked for");
    assert!(!folded.stderr.contains("wrote"), "{}", folded.stderr);
    assert_eq!(folded.left_behind(), Vec::<String>::new());

    let speedscope = record(&workload, "-", &["--format", "speedscope.json"]);
    let file: Value = serde_json::from_str(&speedscope.stdout).expect("JSON and nothing else");
    assert_eq!(file["exporter"], "chokepoint");
}

#[test]
fn a_format_that_is_asked_for_overrides_the_files_name() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let finished = record(&workload, "flame.svg", &["--format", "folded"]);
    let text = fs::read_to_string(finished.file("flame.svg")).unwrap();
    assert_eq!(text.lines().map(|line| folded_line(line).1).sum::<u64>(), samples_told(&finished));
    assert!(finished.stderr.contains("flame.svg (folded)"), "{}", finished.stderr);
}

#[test]
fn json_holds_what_the_summary_tells() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let finished = record(&workload, "out.json", &[]);
    let profile = finished.profile("out.json");
    assert_eq!(profile.total_count(), samples_told(&finished));
    assert_eq!(profile.total_count(), profile.coverage.captured);
    assert_eq!(profile.total_weight(), profile.total_count() * profile.header.period);
    assert_eq!(profile.header.target, format!("pid {}", workload.pid()));
}

/// The JSON profile of the same workload, to compare with.
fn reference(workload: &Workload) -> Profile {
    record(workload, "out.json", &[]).profile("out.json")
}

#[test]
fn pprof_reads_the_same_shares_and_stacks() {
    skip_if!(in_vm(), "there is no Go");
    skip_if!(Command::new("go").arg("version").output().is_err(), "there is no Go");
    let _live = live();
    let workload = Workload::start("shares_c", &[]);
    let reference = reference(&workload);
    let finished = record(&workload, "out.pb.gz", &[]);
    let profile = finished.file("out.pb.gz");
    let told = samples_told(&finished);

    let top = pprof(&["-top", "-nodefraction=0"], &profile);
    assert!(top.contains("Type: cpu"), "{top}");
    // flat flat% sum% cum cum% name, the one with the largest share of its own first
    let table = top.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1);
    let rows: Vec<Vec<&str>> = table.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.first().map(|row| row[5]), Some("churn"), "all three spin in the inlined churn: {top}");
    for function in ["churn", "spin_seventy", "spin_twenty", "spin_ten"] {
        let row =
            rows.iter().find(|row| row[5] == function).unwrap_or_else(|| panic!("no {function} in {top}"));
        let share = row[4].trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
        shares_agree(function, (share, told), (share_with(&reference, function), reference.total_count()));
    }

    // `  count  nanoseconds: location location ...`, then the locations with their lines.
    let raw = pprof(&["-raw"], &profile);
    let (samples, locations) = raw.split_once("\nLocations\n").unwrap_or_else(|| panic!("{raw}"));
    let counts = samples.lines().filter_map(|line| {
        let (values, _locations) = line.split_once(": ")?;
        let values: Vec<u64> =
            values.split_whitespace().map(|value| value.parse().ok()).collect::<Option<_>>()?;
        (values.len() == 2).then_some(values)
    });
    let (count, weight) =
        counts.fold((0, 0), |(count, weight), values| (count + values[0], weight + values[1]));
    assert_eq!((count, weight), (told, told * reference.header.period), "{raw}");
    let located =
        locations.lines().find(|line| line.contains("spin_seventy")).unwrap_or_else(|| panic!("{raw}"));
    assert!(located.contains("shares.c:"), "{located}");
}

/// What `go tool pprof` prints of a profile; the first run compiles the tool.
fn pprof(arguments: &[&str], profile: &Path) -> String {
    let mut command = Command::new("go");
    command.args(["tool", "pprof", "-symbolize=none"]).args(arguments).arg(profile);
    command.env("GOTOOLCHAIN", "local").env("PPROF_TMPDIR", profile.parent().unwrap());
    let Output { status, stdout, stderr } = command.output().expect("go can be run");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn speedscope_finds_its_frames_and_weights() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let workload = Workload::start("shares_c", &[]);
    let reference = reference(&workload);
    let finished = record(&workload, "out.speedscope.json", &[]);
    let file = json(&finished.file("out.speedscope.json"));
    assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");

    let frames = file["shared"]["frames"].as_array().expect("frames");
    let [profile] = &file["profiles"].as_array().expect("profiles")[..] else {
        panic!("one process, one profile")
    };
    assert_eq!(file["activeProfileIndex"], 0);
    assert_eq!(profile["type"], "sampled");
    assert_eq!(profile["unit"], "nanoseconds");
    assert_eq!(profile["name"], format!("shares_c ({})", workload.pid()));
    let weights = numbers(&profile["weights"]);
    let samples = profile["samples"].as_array().expect("samples");
    assert_eq!(samples.len(), weights.len());
    let total: f64 = weights.iter().sum();
    assert_eq!(profile["startValue"], 0);
    assert_eq!(profile["endValue"].as_f64(), Some(total));
    assert_eq!(total as u64, samples_told(&finished) * reference.header.period);

    let mut in_seventy = 0.0;
    for (sample, weight) in samples.iter().zip(weights) {
        let names =
            numbers(sample).into_iter().map(|frame| frames[frame as usize]["name"].as_str().expect("a name"));
        in_seventy += if names.into_iter().any(|name| name == "spin_seventy") { weight } else { 0.0 };
    }
    let expected = share_with(&reference, "spin_seventy");
    shares_agree(
        "spin_seventy",
        (in_seventy / total, samples_told(&finished)),
        (expected, reference.total_count()),
    );
}

#[test]
fn the_firefox_profiler_finds_samples_in_the_order_of_time() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let workload = Workload::start("threads_c", &[]);
    let finished = record(&workload, "out.firefox.json", &[]);
    let file = json(&finished.file("out.firefox.json"));
    assert!(file["meta"]["preprocessedProfileVersion"].is_u64(), "{}", file["meta"]);
    assert!(file["meta"]["interval"].as_f64().unwrap() > 0.0);
    let threads = file["threads"].as_array().expect("threads");
    let name = |thread: &Value| thread["name"].as_str().expect("a name").to_owned();
    for expected in ["alpha", "beta"] {
        assert!(
            threads.iter().any(|thread| name(thread) == expected),
            "{:?}",
            threads.iter().map(name).collect::<Vec<_>>()
        );
    }

    let window_ms = if in_vm() { 4000.0 } else { 1500.0 };
    let mut told = 0.0;
    for thread in threads {
        assert_eq!(thread["processName"], "threads_c");
        let samples = &thread["samples"];
        // Deltas, of which the first counts from the start of the window.
        let deltas = numbers(&samples["timeDeltas"]);
        assert!(deltas.iter().all(|delta| *delta >= 0.0), "time goes back: {deltas:?}");
        let last: f64 = deltas.iter().sum();
        // A timer may end the window late; a tick or a second of a stopped machine is no matter here.
        assert!((0.0..window_ms + 2000.0).contains(&last), "{last} ms in a window of {window_ms} ms");
        let stacks = samples["stack"].as_array().expect("stacks");
        assert_eq!(samples["length"], stacks.len());
        assert_eq!(deltas.len(), stacks.len());
        told += numbers(&samples["weight"]).iter().sum::<f64>();

        let burner = format!("burn_{}", name(thread));
        let functions: Vec<Vec<String>> =
            stacks.iter().map(|stack| firefox_functions(thread, stack)).collect();
        let burning = functions.iter().filter(|names| names.contains(&burner)).count();
        assert!(
            burning as f64 > 0.9 * functions.len() as f64,
            "{burning} of {} samples are in {burner}",
            functions.len()
        );
    }
    assert_eq!(told as u64, samples_told(&finished));
}

/// The names along a stack of the Firefox Profiler's tables, the leaf first.
fn firefox_functions(thread: &Value, stack: &Value) -> Vec<String> {
    let at = |table: &str, column: &str, index: usize| -> &Value { &thread[table][column][index] };
    let index = |value: &Value| value.as_u64().expect("an index") as usize;
    let mut next = stack.as_u64();
    let mut names = Vec::new();
    while let Some(stack) = next {
        let frame = index(at("stackTable", "frame", stack as usize));
        let function = index(at("frameTable", "func", frame));
        let name = index(at("funcTable", "name", function));
        names.push(thread["stringArray"][name].as_str().expect("a name").to_owned());
        next = at("stackTable", "prefix", stack as usize).as_u64();
    }
    names
}

#[test]
fn a_browser_shows_the_flame_graph() {
    skip_if!(in_vm(), "there is no browser");
    skip_if!(!browser::is_installed(), "there is no Chromium");
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let finished = record(&workload, "flame.svg", &[]);
    drop(workload);
    let picture = finished.file("flame.svg");

    let dom = browser::open(&["--dump-dom"], &picture);
    let page = String::from_utf8(dom.stdout).unwrap();
    // The browser's parser is strict: it stops at what is not well-formed, and says so in an element of this name.
    assert!(!page.contains("parsererror"), "{page}");
    for function in ["nest_c", "main", "outer", "middle", "inner"] {
        // Its title, and the text that the script has fitted into its box.
        assert!(page.contains(&format!("<title>{function} (")), "no box of {function} in {page}");
        assert!(page.contains(&format!(">{function} </text>")), "{function} is not written into its box");
    }
    assert_eq!(browser::complaints(&dom.stderr), Vec::<String>::new());

    let screenshot = finished.file("flame.png");
    let size = "--window-size=1200,400";
    let shot = browser::open(&[size, &format!("--screenshot={}", screenshot.display())], &picture);
    let image = fs::read(&screenshot).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&shot.stderr)));
    // The same picture without anything in it, to compare with: text and five boxes compress worse than one colour.
    let blank = finished.file("blank.svg");
    fs::write(&blank, r#"<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="400"/>"#).unwrap();
    let blank_screenshot = finished.file("blank.png");
    browser::open(&[size, &format!("--screenshot={}", blank_screenshot.display())], &blank);
    let blank = fs::read(blank_screenshot).unwrap().len();
    assert!(image.len() > 2 * blank, "{} bytes of picture, {blank} of an empty one", image.len());
}

#[test]
fn a_file_is_replaced_as_a_whole_with_the_usual_permissions() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    for (umask, expected) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        for before in ["", "echo old > out.folded; "] {
            let script = format!("umask {umask}; {before}exec \"$0\" record -d 200ms -o out.folded");
            let finished = Agent::through(&["sh", "-c", &script], Vec::<&str>::new()).run().succeeded();
            let mode = fs::metadata(finished.file("out.folded")).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{mode:o} under umask {umask}, {before}");
            assert_ne!(fs::read_to_string(finished.file("out.folded")).unwrap(), "old\n");
            assert_eq!(finished.left_behind(), ["out.folded"]);
        }
    }
}

#[test]
fn a_reader_of_the_old_file_keeps_it() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    // The shell has the old file open; a file written in place would change under it.
    let script = "echo old > out.folded; exec 3< out.folded; \"$0\" record -d 200ms -o out.folded && cat <&3";
    let finished = Agent::through(&["sh", "-c", script], Vec::<&str>::new()).run().succeeded();
    assert_eq!(finished.stdout, "old\n");
}

#[test]
fn a_file_that_cannot_be_replaced_stays_as_it_was() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    // Room for the file that is tried at the start, and not for the profile.
    let script = "mkdir disk && mount -t tmpfs -o size=8k tmpfs disk && echo old > disk/flame.svg && \
                  head -c 4096 /dev/zero > disk/filler; \"$0\" record -d 300ms -o disk/flame.svg; code=$?; \
                  cat disk/flame.svg; ls -A disk; umount disk; rmdir disk; exit $code";
    let finished = Agent::through(&["unshare", "--mount", "sh", "-c", script], Vec::<&str>::new()).run();
    assert_eq!(finished.code, Some(6), "{}", finished.stderr);
    assert_eq!(finished.stdout, "old\nfiller\nflame.svg\n");
    assert_eq!(finished.left_behind(), Vec::<String>::new());
}

#[test]
fn a_link_is_followed_and_permissions_stay() {
    skip_if!(in_vm(), "files are written alike on every kernel");
    let _live = live();
    let agent = Agent::new(["record", "-d", "300ms", "-o", "link.svg"]);
    let (file, link) = (agent.directory().join("secret.svg"), agent.directory().join("link.svg"));
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("secret.svg", &link).unwrap();
    let finished = agent.run().succeeded();
    assert!(fs::symlink_metadata(finished.file("link.svg")).unwrap().is_symlink());
    let facts = fs::metadata(finished.file("secret.svg")).unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(finished.file("secret.svg")).unwrap().starts_with("<?xml"));
}
