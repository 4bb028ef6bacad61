//! Names: of code whose file has gone or hides, of code that has no file, of inlined code, in every language; and of
//! processes that live shorter than the window.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chokepoint_analysis::profile::{ModuleKind, Profile};
use chokepoint_tests::stacks::{functions, process_names, share_with, weight_where};
use chokepoint_tests::workload::{eventually, on_path, path};
use chokepoint_tests::{Agent, Workload, agent, in_vm, live, share_tolerance, skip_if};
use tempfile::TempDir;

/// Some hundred samples; under emulation far less runs.
fn window() -> [&'static str; 4] {
    if in_vm() { ["-F", "199", "-d", "4"] } else { ["-F", "499", "-d", "1"] }
}

fn record(workload: &Workload, further: &[&str]) -> Profile {
    let pid = workload.pid().to_string();
    agent::record(&[&["--pid", &pid], &window()[..], further].concat())
}

/// Where nest.c burns.
const NEST: [&str; 4] = ["main", "outer", "middle", "inner"];

/// Almost all samples have these functions next to each other. A caller is missing from samples in a function's first or
/// last instructions, where the frame is not set up; the rest is the kernel's.
fn mostly(profile: &Profile, chain: &[&str]) {
    let total = profile.total_weight();
    let with = weight_where(profile, |names| names.windows(chain.len()).any(|names| names == chain));
    assert!(profile.total_count() > 20, "{} samples are too few to judge", profile.total_count());
    assert!(
        with as f64 > 0.95 * total as f64,
        "{with} of {total} ns show {chain:?}, others are {:?}",
        stacks(profile)
    );
}

/// Some stacks, for messages.
fn stacks(profile: &Profile) -> Vec<Vec<&str>> {
    profile.samples.iter().take(8).map(|sample| functions(profile, sample)).collect()
}

/// A directory with a copy of a workload.
fn copy(name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(name);
    fs::copy(path(name), &program).unwrap();
    (directory, program)
}

/// Starts a program, and waits until it is that program.
fn start(program: &Path) -> Workload {
    let workload = Workload::start_program(&mut Command::new(program));
    running_as(workload, program)
}

fn running_as(workload: Workload, program: &Path) -> Workload {
    let link = format!("/proc/{}/exe", workload.pid());
    eventually("the exec", || fs::read_link(&link).is_ok_and(|target| target == program).then_some(()));
    workload
}

#[test]
fn a_binary_that_was_deleted() {
    let _live = live();
    let (_directory, program) = copy("nest_c");
    let workload = start(&program);
    fs::remove_file(&program).unwrap();
    mostly(&record(&workload, &[]), &NEST);
}

#[test]
fn a_binary_that_was_replaced_at_its_path() {
    let _live = live();
    let (directory, program) = copy("nest_c");
    let workload = start(&program);
    let other = directory.path().join("other");
    fs::copy(path("shares_c"), &other).unwrap();
    fs::rename(&other, &program).unwrap();
    let profile = record(&workload, &[]);
    mostly(&profile, &NEST);
    // By how they begin: the kernel has functions like `_raw_spin_lock`.
    let new = weight_where(&profile, |names| names.iter().any(|name| name.starts_with("spin_")));
    assert_eq!(new, 0, "the new file's names: {:?}", stacks(&profile));
}

/// A script that copies a program to where only its own mount namespace has it, and becomes it.
fn hidden(directory: &Path, program: &str, arguments: &str) -> (PathBuf, Command) {
    let hidden = directory.join("hidden");
    let mut command = Command::new("unshare");
    let (place, original) = (directory.display(), path(program));
    let script = format!(
        "mount -t tmpfs tmpfs {place} && cp {} {place}/hidden && exec {place}/hidden {arguments}",
        original.display()
    );
    command.args(["--mount", "sh", "-c", &script]);
    (hidden, command)
}

fn words(command: &Command) -> Vec<&str> {
    [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_str().unwrap()).collect()
}

#[test]
fn a_binary_in_a_mount_namespace_of_its_own() {
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let (program, mut command) = hidden(directory.path(), "nest_c", "");
    let workload = running_as(Workload::start_program(&mut command), &program);
    assert!(!program.exists(), "it is not in this namespace");
    mostly(&record(&workload, &[]), &NEST);

    skip_if!(in_vm(), "busybox's setpriv cannot take capabilities from root");
    // Without the capability that /proc/PID/map_files asks for, the file is found below /proc/PID/root.
    let drop = "-sys_admin,-checkpoint_restore";
    let (bounding, inheritable) = (format!("--bounding-set={drop}"), format!("--inh-caps={drop}"));
    let pid = workload.pid().to_string();
    let arguments = [&["record", "-o", "profile.json", "--pid", &pid], &window()[..]].concat();
    let finished = Agent::through(&["setpriv", &bounding, &inheritable], arguments).run().succeeded();
    mostly(&finished.profile("profile.json"), &NEST);
}

#[test]
fn a_binary_whose_namespace_has_ended_with_its_process() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let milliseconds = if in_vm() { "3000" } else { "400" };
    let (_, command) = hidden(directory.path(), "burst_c", milliseconds);
    let profile = record_command(&words(&command));
    in_process(&profile, "hidden", 0.9, "burn_burst");
}

/// Records a command to its end.
fn record_command(command: &[&str]) -> Profile {
    let frequency = if in_vm() { "199" } else { "997" };
    let fixed = ["record", "-o", "profile.json", "-F", frequency, "--"];
    Agent::new(fixed.iter().chain(command)).run().succeeded().profile("profile.json")
}

/// Share of a process's weight that shows a function.
fn in_process(profile: &Profile, process: &str, at_least: f64, function: &str) {
    let of_process =
        || profile.samples.iter().filter(|sample| profile.thread(sample.thread).process_name == process);
    let total: u64 = of_process().map(|sample| sample.weight).sum();
    let with: u64 = of_process()
        .filter(|sample| functions(profile, sample).contains(&function))
        .map(|sample| sample.weight)
        .sum();
    assert!(total > 0, "no sample of {process} among {:?}", process_names(profile));
    let rest: Vec<_> = of_process()
        .map(|sample| functions(profile, sample))
        .filter(|names| !names.contains(&function))
        .take(8)
        .collect();
    assert!(
        with as f64 >= at_least * total as f64,
        "{with} of {total} ns of {process} are in {function}; others: {rest:?}, {:?}",
        profile.coverage
    );
}

#[test]
fn processes_that_live_for_some_milliseconds() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    let _live = live();
    let burst = path("burst_c");
    // Emulation makes the start of a process tens of times slower, also against its own work.
    let (processes, milliseconds) = if in_vm() { (5, 1000) } else { (20, 30) };
    let script = format!("{} {milliseconds};", burst.display()).repeat(processes);
    let profile = record_command(&["sh", "-c", &script]);
    // Of 30 ms, the exec, the dynamic linker and the exit take 1 to 2; a tenth leaves room for a slower machine. Each process
    // whose mappings came too late would cost a twentieth of the whole.
    in_process(&profile, "burst_c", 0.9, "burn_burst");
    let pids = profile
        .samples
        .iter()
        .map(|sample| profile.thread(sample.thread))
        .filter(|thread| thread.process_name == "burst_c");
    let pids: BTreeSet<u32> = pids.map(|thread| thread.pid).collect();
    assert_eq!(pids.len(), processes, "each of them was sampled");
}

#[test]
fn a_process_that_becomes_another_program() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    let _live = live();
    // CPU time: milliseconds of the first program, and the seconds of both after which the kernel ends the second.
    let (first_ms, both_s) = if in_vm() { (2000, 4) } else { (300, 1) };
    // Without random addresses both are at the same ones, so that one's functions could be taken for the other's.
    let script = format!(
        "ulimit -c 0; ulimit -t {both_s}; exec setarch {} -R {} {first_ms} {}",
        std::env::consts::ARCH,
        path("burst_c").display(),
        path("nest_c").display()
    );
    let profile = record_command(&["sh", "-c", &script]);
    in_process(&profile, "burst_c", 0.9, "burn_burst");
    in_process(&profile, "nest_c", 0.9, "inner");
    let pids: BTreeSet<u32> = profile.threads.iter().map(|thread| thread.pid).collect();
    assert_eq!(pids.len(), 1, "one process, several programs: {:?}", profile.threads);
}

/// jit.c spins three quarters of its time in one of two compiled functions.
fn compiled_functions_are_named(profile: &Profile) {
    mostly_compiled(profile);
    let samples = profile.total_count();
    for (function, expected) in [("compiled first", 0.75), ("compiled_second", 0.25)] {
        let measured = share_with(profile, function);
        // And the kernel's share, which is in neither.
        let tolerance = share_tolerance(expected, samples) + 0.02;
        assert!(
            (measured - expected).abs() < tolerance,
            "{function}: {measured:.3}, not {expected}: {:?}",
            stacks(profile)
        );
    }
}

fn mostly_compiled(profile: &Profile) {
    let total = profile.total_weight();
    let called = weight_where(profile, |names| {
        names
            .windows(3)
            .any(|names| names[..2] == ["main", "call_compiled"] && names[2].starts_with("compiled"))
    });
    assert!(called as f64 > 0.9 * total as f64, "{called} of {total} ns: {:?}", stacks(profile));
    let jit = profile.locations.iter().map(|location| (profile.module(location.module).kind, location));
    for (_, location) in jit.filter(|(kind, _)| *kind == ModuleKind::Jit) {
        assert_eq!(location.lines.len(), 1, "code without a file has the name of its map: {location:?}");
    }
}

/// Removes a perf map that a workload has left.
struct PerfMap(PathBuf);

impl PerfMap {
    fn of(pid: u32) -> Self {
        Self(format!("/tmp/perf-{pid}.map").into())
    }
}

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn code_that_a_process_compiles() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    skip_if!(cfg!(not(target_arch = "x86_64")), "jit.c has machine code of x86-64");
    let _live = live();
    let workload = Workload::start("jit_c", &[]);
    let map = PerfMap::of(workload.pid());
    eventually("the perf map", || {
        fs::read(&map.0).is_ok_and(|text| text.ends_with(b"second\n")).then_some(())
    });
    compiled_functions_are_named(&record(&workload, &[]));
}

#[test]
fn code_that_a_process_dumps() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    skip_if!(cfg!(not(target_arch = "x86_64")), "jitdump.c has machine code of x86-64");
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let workload = Workload::start("jitdump_c", &[directory.path().to_str().unwrap()]);
    functions_of_a_dump_are_named(&workload);
}

#[test]
fn code_that_a_process_dumps_where_only_it_can_see() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    skip_if!(cfg!(not(target_arch = "x86_64")), "jitdump.c has machine code of x86-64");
    let _live = live();
    let script = "exec 3< \"$0\" && mount -t tmpfs tmpfs /tmp && exec /proc/self/fd/3 /tmp";
    let workload = Workload::start_program(
        Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(path("jitdump_c")),
    );
    functions_of_a_dump_are_named(&workload);
    let name = format!("jit-{}.dump", workload.pid());
    assert!(!Path::new("/tmp").join(name).exists(), "the dump is not in the host's /tmp");
}

fn functions_of_a_dump_are_named(workload: &Workload) {
    eventually("the mapped dump", || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", workload.pid())).ok()?;
        maps.contains(".dump").then_some(())
    });
    let profile = record(workload, &[]);
    compiled_functions_are_named(&profile);
    let lines = profile.locations.iter().flat_map(|location| &location.lines);
    let with_file: BTreeSet<_> = lines
        .map(|line| (profile.function(line.function), line.line))
        .filter(|(function, _)| function.name == "compiled first")
        .map(|(function, line)| (function.file.as_str(), line))
        .collect();
    // It spends its time in the loop, which is in the second line.
    assert!(with_file.contains(&("made up.lang", 12)), "{with_file:?}");
    assert!(with_file.iter().all(|(file, line)| *file == "made up.lang" && [11, 12].contains(line)));
}

#[test]
fn functions_of_a_script_that_node_dumps() {
    skip_if!(in_vm(), "there is no Node.js");
    skip_if!(!on_path("node"), "there is no Node.js");
    let _live = live();
    // It writes into its working directory, four kilobytes at a time: what it compiles last is not there before more is compiled.
    let script = "let count = 0;
        function spinInScript(n) { let s = 1; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s; }
        function compileMore() {
            const other = new Function('x', `let s = ${count++}; for (let i = 0; i < 100; i++) s = (s * 31 + x) | 0; return s;`);
            for (let i = 0; i < 500; i++) other(i);
        }
        function run() { for (let i = 0; i < 20; i++) spinInScript(1e6); compileMore(); }
        for (;;) run();";
    let directory = tempfile::tempdir().unwrap();
    let command = ["--perf-prof", "-e", script];
    let workload = Workload::start_program(Command::new("node").args(command).current_dir(directory.path()));
    let dump = directory.path().join(format!("jit-{}.dump", workload.pid()));
    eventually("the dump", || {
        let content = fs::read(&dump).ok()?;
        content.windows(13).any(|bytes| bytes == b"*spinInScript").then_some(())
    });
    let profile = record(&workload, &[]);
    let share = share_with(&profile, "spinInScript");
    // The rest is the runtime's, which compiles.
    assert!(share > 0.6, "{share}: {:?}", stacks(&profile));
}

/// Options of unshare with which a program gets a `/tmp` of its own, and a number of its own too.
fn namespaces() -> &'static [&'static [&'static str]] {
    let all: &[&[&str]] = &[&["--mount"], &["--mount", "--pid", "--fork", "--kill-child"]];
    // busybox's unshare leaves the child alive when it dies.
    if in_vm() { &all[..1] } else { all }
}

/// Runs a command with a `/tmp` of its own in new namespaces until its perf map has this text; and the id of its process.
fn in_namespaces(unshare: &[&str], command: &[&str], text: &str) -> (Workload, u32) {
    let script = "exec 3< \"$0\" && mount -t tmpfs tmpfs /tmp && cd /tmp && exec /proc/self/fd/3 \"$@\"";
    let workload = Workload::start_program(
        Command::new("unshare").args(unshare).args(["sh", "-c", script]).args(command),
    );
    let pid = eventually("the perf map", || {
        // With a PID namespace it is unshare's child, the first of its namespace.
        let children = format!("/proc/{0}/task/{0}/children", workload.pid());
        let child = fs::read_to_string(children).ok()?.trim().parse().ok();
        let (pid, own_number) = child.map_or((workload.pid(), workload.pid()), |child| (child, 1));
        let map = fs::read(format!("/proc/{pid}/root/tmp/perf-{own_number}.map")).ok()?;
        String::from_utf8_lossy(&map).contains(text).then_some(pid)
    });
    assert!(!Path::new(&format!("/tmp/perf-{pid}.map")).exists(), "the map is not in the host's /tmp");
    (workload, pid)
}

#[test]
fn code_that_a_process_compiles_in_namespaces_of_its_own() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    skip_if!(cfg!(not(target_arch = "x86_64")), "jit.c has machine code of x86-64");
    let _live = live();
    for unshare in namespaces() {
        let (_workload, pid) = in_namespaces(unshare, &[path("jit_c").to_str().unwrap()], "compiled_second");
        compiled_functions_are_named(&agent::record(&[&["--pid", &pid.to_string()], &window()[..]].concat()));
    }
}

const SPINNING_SCRIPT: &str = "function spinInScript(n) { let s = 1; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s; } \
                               for (;;) spinInScript(1e6);";

#[test]
fn functions_of_a_script_in_namespaces_of_its_own() {
    skip_if!(in_vm(), "there is no Node.js");
    let node = Command::new("node").args(["-p", "process.execPath"]).output();
    skip_if!(node.is_err(), "there is no Node.js");
    let node = String::from_utf8(node.unwrap().stdout).unwrap();
    let _live = live();
    for unshare in namespaces() {
        // `*` marks the version that the optimising compiler made.
        let command = [node.trim(), "--perf-basic-prof", "-e", SPINNING_SCRIPT];
        let (_workload, pid) = in_namespaces(unshare, &command, "*spinInScript");
        let profile = agent::record(&[&["--pid", &pid.to_string()], &window()[..]].concat());
        // The rest is the runtime's: it compiles and collects garbage.
        let share = share_with(&profile, "spinInScript");
        assert!(share > 0.8, "{share} in {unshare:?}: {:?}", stacks(&profile));
    }
}

#[test]
fn the_kernels_code_in_a_process() {
    let _live = live();
    let workload = Workload::start("syscalls_c", &[]);
    let profile = record(&workload, &["--user-only"]);
    let vdso = |sample: &&chokepoint_analysis::profile::Sample| {
        let leaf = profile.stack(sample.stack).first();
        leaf.is_some_and(|leaf| profile.module(profile.location(*leaf).module).kind == ModuleKind::Vdso)
    };
    let samples: Vec<_> = profile.samples.iter().filter(vdso).collect();
    assert!(!samples.is_empty(), "{:?}", stacks(&profile));
    for sample in samples {
        let names = functions(&profile, sample);
        // What it calls within the vDSO has no symbol on some kernels.
        let innermost = &names[names.len().saturating_sub(2)..];
        assert!(innermost.iter().any(|name| name.contains("clock_gettime")), "{names:?}");
    }
}

#[test]
fn inlined_functions_with_their_lines() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    let _live = live();
    let workload = Workload::start("inlined_c", &[]);
    let profile = record(&workload, &["--user-only"]);
    mostly(&profile, &["main", "noinline_outer", "inlined_middle", "inlined_inner"]);

    let source = include_str!("../workloads/inlined.c");
    let line_of = |mark: &str| 1 + source.lines().position(|line| line.ends_with(mark)).unwrap() as u32;
    // The loop's own line is the one before its body.
    let work = line_of("// the work");
    let expected = [
        ("inlined_inner", work - 1..=work),
        ("inlined_middle", line_of("// calls inner")..=line_of("// calls inner")),
        ("noinline_outer", line_of("// calls middle")..=line_of("// calls middle")),
    ];
    let mut seen = 0;
    for location in profile.locations.iter().filter(|location| location.lines.len() == 3) {
        for (line, (name, lines)) in location.lines.iter().zip(&expected) {
            let function = profile.function(line.function);
            assert_eq!(function.name, *name);
            assert!(function.file.ends_with("inlined.c"), "{function:?}");
            assert!(lines.contains(&line.line), "{name} at line {}, not {lines:?}", line.line);
        }
        seen += 1;
    }
    assert!(seen > 0);

    let without = record(&workload, &["--user-only", "--no-inline"]);
    mostly(&without, &["main", "noinline_outer"]);
    assert_eq!(share_with(&without, "inlined_"), 0.0, "{:?}", stacks(&without));
}

#[test]
fn names_of_other_languages() {
    skip_if!(in_vm(), "emulation is too slow for its timing, and names are found alike on every kernel");
    let _live = live();
    let is_in = |workload: &str, name: &str| {
        let workload = Workload::start(workload, &[]);
        let profile = record(&workload, &["--user-only"]);
        let with = weight_where(&profile, |names| names.contains(&name));
        let share = with as f64 / profile.total_weight() as f64;
        let tolerance = share_tolerance(0.7, profile.total_count());
        assert!((share - 0.7).abs() < tolerance + 0.02, "{name} has {share}: {:?}", stacks(&profile));
        // A symbol's hash is `h` and sixteen hexadecimal digits.
        let hashed = |name: &str| name.rsplit_once("::h").is_some_and(|(_, hash)| hash.len() == 16);
        for function in &profile.functions {
            assert!(!function.name.starts_with("_Z") && !function.name.starts_with("_R"), "{function:?}");
            assert!(!hashed(&function.name), "{function:?}");
        }
    };
    is_in("shares_cc", "market::Engine<unsigned long>::spin_seventy");
    is_in("shares_rs", "<shares::Engine as shares::Spin>::spin_seventy");
    is_in("shares_go", "main.spin_seventy");
}

fn objcopy(arguments: &[&str], directory: &Path) {
    let status =
        Command::new("objcopy").args(arguments).current_dir(directory).status().expect("objcopy can be run");
    assert!(status.success());
}

#[test]
fn a_debug_file_beside_the_binary() {
    skip_if!(in_vm(), "there is no objcopy");
    let _live = live();
    let (directory, program) = copy("nest_c");
    objcopy(&["--only-keep-debug", "nest_c", "names.debug"], directory.path());
    objcopy(&["--strip-all", "--add-gnu-debuglink=names.debug", "nest_c"], directory.path());
    let workload = start(&program);
    let profile = record(&workload, &[]);
    mostly(&profile, &NEST);
    let inner = profile.functions.iter().find(|function| function.name == "inner").unwrap();
    assert!(inner.file.ends_with("nest.c"), "{inner:?}");
}

#[test]
fn a_stripped_binary_keeps_modules_and_offsets() {
    skip_if!(in_vm(), "there is no objcopy");
    let _live = live();
    let (directory, program) = copy("nest_c");
    let symbols = Command::new("nm").args(["-S", "nest_c"]).current_dir(directory.path()).output().unwrap();
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    // `address size type name`
    let inner = symbols.lines().find(|line| line.ends_with(" inner")).unwrap();
    let numbers: Vec<u64> =
        inner.split(' ').take(2).map(|number| u64::from_str_radix(number, 16).unwrap()).collect();
    let inner = numbers[0]..numbers[0] + numbers[1];

    objcopy(&["--strip-all", "nest_c"], directory.path());
    let workload = start(&program);
    let profile = record(&workload, &["--user-only"]);
    let in_inner = profile.samples.iter().filter(|sample| {
        let leaf = profile.location(profile.stack(sample.stack)[0]);
        let module = profile.module(leaf.module);
        module.path == program.to_str().unwrap() && leaf.lines.is_empty() && inner.contains(&leaf.address)
    });
    let weight: u64 = in_inner.map(|sample| sample.weight).sum();
    assert!(
        weight as f64 > 0.95 * profile.total_weight() as f64,
        "{weight} of {} ns: {inner:x?}",
        profile.total_weight()
    );

    let pid = workload.pid().to_string();
    let folded =
        Agent::new(["record", "--user-only", "-d", "300ms", "-o", "-", "--pid", &pid]).run().succeeded();
    let line = folded.stdout.lines().next().expect("a stack");
    let leaf = line.rsplit_once(' ').unwrap().0.rsplit(';').next().unwrap();
    let offset = leaf.strip_prefix("nest_c+0x").unwrap_or_else(|| panic!("{line}"));
    assert!(inner.contains(&u64::from_str_radix(offset, 16).unwrap()), "{line}");
}
