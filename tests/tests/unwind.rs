//! User stacks of code without frame pointers: they reach the thread's start, and every frame is right.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use chokepoint_analysis::profile::{ModuleKind, Profile};
use chokepoint_tests::chains::{Comparison, ELSEWHERE, SOMEWHERE, Truth, compare};
use chokepoint_tests::unwinding::{Recorded, record};
use chokepoint_tests::workload::{on_path, path};
use chokepoint_tests::{Agent, Workload, giant, in_vm, live, skip_if};

/// Share of the samples that a workload spends where its truth says it does; else the truth would be empty.
const MOST: f64 = 0.5;
/// Recordings under way at a time. A workload spins: with more of them than CPUs less one, the agent would wait for its turn
/// while the first samples of each file go without a table.
const AT_A_TIME: usize = 1;

/// A workload, and what is known of its stacks.
#[derive(Clone, Copy)]
struct Case {
    workload: &'static str,
    mode: &'static str,
    truth: Truth,
}

/// Records workloads and compares; every fault of every one is told.
fn prove(cases: &[Case]) {
    let names: Vec<_> = cases.iter().map(|case| (case.workload, path(case.workload))).collect();
    let program = |case: &Case| names.iter().find(|(name, _)| *name == case.workload).unwrap().1.clone();
    prove_each("", cases, |case| Workload::start_program(Command::new(program(case)).arg(case.mode)));
}

fn prove_each(variant: &str, cases: &[Case], start: impl Fn(&Case) -> Workload + Sync) {
    let _live = live();
    let mut faults = Vec::new();
    for cases in cases.chunks(AT_A_TIME) {
        let results: Vec<(Recorded, Comparison)> = thread::scope(|scope| {
            let runs: Vec<_> = cases
                .iter()
                .map(|case| {
                    scope.spawn(|| {
                        let workload = start(case);
                        settle();
                        let recorded = record(&["--pid", &workload.pid().to_string()]);
                        let comparison = compare(&recorded.profile, &case.truth);
                        (recorded, comparison)
                    })
                })
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for (case, (recorded, comparison)) in cases.iter().zip(results) {
            let name = format!("{} {} {variant}", case.workload, case.mode);
            let name = name.trim_end();
            faults.extend(recorded.tell(name, Some(comparison.wrong_samples())));
            faults.extend(fault_in_chains(name, case, &comparison));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Lets a program get from its start to where it stays.
fn settle() {
    thread::sleep(Duration::from_millis(if in_vm() { 2000 } else { 100 }));
}

fn fault_in_chains(name: &str, case: &Case, comparison: &Comparison) -> Option<String> {
    let Comparison { samples, in_chains, in_leaves, .. } = *comparison;
    let Truth { leaves, from, .. } = case.truth;
    if (in_chains as f64) < MOST * samples as f64 {
        return Some(format!(
            "{name}: only {in_chains} of {samples} stacks have {from}:{}",
            comparison.worst()
        ));
    }
    if !leaves.is_empty() && (in_leaves as f64) < MOST * samples as f64 {
        return Some(format!("{name}: only {in_leaves} of {samples} samples are in {leaves:?}"));
    }
    let wrong = comparison.wrong_samples();
    (wrong > 0).then(|| format!("{name}: {wrong} of {samples} stacks are impossible:{}", comparison.worst()))
}

/// Three frames of the program's and the C library's start lie below main.
const C: Truth = Truth {
    binary: "unwind_c",
    runtime: &[],
    from: "main",
    installed: &[],
    below: 3,
    leaves: &["spin"],
    chains: &[],
};

const CHAIN: &[&str] = &[
    "main", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11", "a12", "a13", "a14", "a15",
    "a16", "a17", "a18", "a19", "a20", "a21", "a22", "a23", "a24", "a25", "a26", "a27", "a28", "a29", "a30",
    "a31", "a32", "a33", "a34", "a35", "a36", "a37", "a38", "a39", "a40", "spin",
];
const TREE: &[&str] = &["main", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11", "d12"];

/// The modes of unwind.c.
fn c_modes() -> Vec<(&'static str, Truth)> {
    vec![
        ("chain", Truth { chains: &[CHAIN], ..C }),
        ("tree", Truth { leaves: &[], chains: &[TREE], ..C }),
        ("dynamic", Truth { chains: &[&["main", "allocates", "variable", "pushes", "many", "spin"]], ..C }),
        ("clobber", Truth { chains: &[&["main", "by_register", "clobbers", "spin"]], ..C }),
        (
            "tail",
            Truth {
                chains: &[
                    &["main", "tail_three", "spin"],
                    &["main", "tail_two", "tiny"],
                    &["main", "tail_one"],
                ],
                ..C
            },
        ),
        (
            "noreturn",
            Truth {
                chains: &[&["main", "never_returns", "forever", "spin"], &["main", "never_returns", "tiny"]],
                ..C
            },
        ),
        (
            "cold",
            Truth {
                chains: &[&["main", "has_cold_part", "fails", "spin"], &["main", "has_cold_part", "tiny"]],
                ..C
            },
        ),
        (
            "signal",
            Truth {
                // The handler interrupts either function, and the C library has what it returns to.
                chains: &[
                    &["main", "arms", "interrupted", ELSEWHERE, "on_alarm", "handles", "spin"],
                    &["main", "arms", "interrupted", "tiny", ELSEWHERE, "on_alarm", "handles", "spin"],
                ],
                ..C
            },
        ),
        (
            "jump",
            Truth {
                chains: &[&["main", "lands", "jumped_over", "jumps", "spin"], &["main", "lands", "spin"]],
                ..C
            },
        ),
        ("realigned", Truth { chains: &[&["main", "aligned", "aligned_more", "spin"]], ..C }),
        ("callback", Truth { chains: &[&["main", "sorts", SOMEWHERE, "compares", "spin"]], ..C }),
        ("linkage", Truth { leaves: &[], chains: &[&["main", "links"]], ..C }),
        ("thread", Truth { from: "starts", chains: &[&["starts", "threaded", "spin"]], ..C }),
    ]
}

#[test]
fn c() {
    let case = |(mode, truth)| Case { workload: "unwind_c", mode, truth };
    let mut cases: Vec<_> = c_modes().into_iter().map(case).collect();
    if in_vm() {
        // One of each kind of rule; all of them would take minutes.
        cases.retain(|case| ["chain", "signal", "realigned", "callback", "thread"].contains(&case.mode));
    }
    prove(&cases);
}

#[test]
fn c_at_the_highest_optimisation() {
    skip_if!(in_vm(), "to the kernel it is the same as at -O2");
    let case = |(mode, truth)| Case {
        workload: "unwind_o3_c",
        mode,
        truth: Truth { binary: "unwind_o3_c", ..truth },
    };
    prove(&c_modes().into_iter().map(case).collect::<Vec<_>>());
}

#[test]
fn exceptions_in_cpp() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    const WHOLE: &[&str] = &[
        "main",
        "t1",
        "t2",
        "Derived::call",
        "t4",
        "t5",
        "catches",
        "t7",
        "t8",
        "t9",
        "t10",
        "t11",
        "t12",
        "spin",
    ];
    /// Functions up to the one that catches.
    const OUTER: usize = 7;
    let caught = Vec::leak([&WHOLE[..OUTER], &["spin"]].concat());
    let mut chains: Vec<&[&str]> = vec![WHOLE, caught];
    // Before it goes to a frame, the runtime writes the address at which that frame was left over its own return address.
    chains.extend((OUTER..WHOLE.len()).map(|inner| {
        let twice = [&WHOLE[..inner], &WHOLE[inner - 1..inner]].concat();
        &*Vec::leak(twice)
    }));
    // On its way each function's objects are destroyed, and where all goes well those of the outer ones.
    const DESTRUCTORS: [&str; 2] =
        ["std::_Vector_base<unsigned long, std::allocator<unsigned long> >::~_Vector_base", "Guard::~Guard"];
    const OUTERMOST: usize = 4;
    chains.extend((OUTERMOST..WHOLE.len() - 1).flat_map(|inner| {
        DESTRUCTORS.map(|destructor| &*Vec::leak([&WHOLE[..inner], &[destructor]].concat()))
    }));
    prove(&[Case {
        workload: "unwind_cc",
        mode: "",
        truth: Truth { binary: "unwind_cc", installed: &WHOLE[OUTER - 1..], chains: Vec::leak(chains), ..C },
    }]);
}

#[test]
fn rust_that_aborts_on_panic() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    const R: &str = "unwind::recurses";
    const CHAIN: &[&str] = &[
        "unwind::runs",
        "unwind::has_big_frame",
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        R,
        "<unwind::Last as unwind::Step>::step",
        "unwind::spin",
    ];
    let truth = Truth {
        binary: "unwind_rs",
        runtime: &[],
        from: "unwind::runs",
        installed: &[],
        // The standard library starts threads and programs in many steps.
        below: 20,
        leaves: &["unwind::spin"],
        chains: &[CHAIN],
    };
    prove(&["main", "thread"].map(|mode| Case { workload: "unwind_rs", mode, truth }));
}

const GO: Truth = Truth {
    binary: "unwind_go",
    // The last ones are in assembly.
    runtime: &["runtime.", "internal/", "_cgo_", "indexbyte", "memeqbody", "cmpbody", "countbody", "aeshash"],
    from: "runtime.goexit",
    installed: &[],
    below: 0,
    leaves: &["main.spin"],
    chains: &[],
};
const GO_RECURSION: &[&str] = &{
    let mut chain = ["main.recurses"; 35];
    chain[0] = "runtime.goexit";
    chain[1] = "main.recursion";
    chain[33] = "main.last";
    chain[34] = "main.spin";
    chain
};
const GO_MAIN: &[&str] = &{
    let mut chain = ["main.recurses"; 37];
    chain[0] = "runtime.goexit";
    // runtime.main
    chain[1] = ELSEWHERE;
    chain[2] = "main.main";
    chain[3] = "main.recursion";
    chain[35] = "main.last";
    chain[36] = "main.spin";
    chain
};
const GO_MODES: [(&str, Truth); 3] = [
    ("recursion", Truth { chains: &[GO_RECURSION], ..GO }),
    ("main", Truth { chains: &[GO_MAIN], ..GO }),
    (
        "iteration",
        Truth {
            leaves: &[],
            chains: &[
                &["runtime.goexit", "main.iteration", "main.iterates"],
                &["runtime.goexit", "main.iteration", "main.iterates", SOMEWHERE],
            ],
            ..GO
        },
    ),
];

#[test]
fn tables_that_do_not_fit_are_told_of() {
    skip_if!(in_vm(), "there is no compiler as large as the memory");
    let _live = live();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/unwind.rs");
    let record =
        ["record", "-F", "997", "-o", "profile.json", "--unwind-memory", "1", "--unwind-cache", "none"];
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("object");
    let compile =
        ["--", "rustc", "--edition=2024", "-O", "--emit=obj", "-o", object.to_str().unwrap(), source];
    let finished = Agent::new(record.iter().chain(&compile)).run().succeeded();
    // The compiler's own library has several megabytes of rows.
    let coverage = finished.profile("profile.json").coverage;
    assert!(coverage.notes.iter().any(|note| note.contains("--unwind-memory")), "{coverage:?}");
    let without = coverage.user_stacks.incomplete.iter().any(|loss| loss.cause == "no unwind table yet");
    assert!(without, "{coverage:?}");
}

/// Files are mapped, not copied, so what is resident counts the pages of them that were looked at, too.
const GIANT_MEMORY_MB: u64 = 300;

#[test]
fn a_library_of_555_megabytes() {
    skip_if!(in_vm(), "it does not fit into the memory");
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("giant.so");
    let spins = giant::write(&library).unwrap();
    assert!(library.metadata().unwrap().len() > 555_000_000);
    let workload =
        Workload::start_program(Command::new(path("giant_c")).arg(&library).arg(spins.to_string()));
    let pid = workload.pid().to_string();
    // How long building the table takes is up to the disk and to other work; the samples that count come after it.
    let record = |duration| {
        let record = ["record", "-F", "99", "-d", duration, "-o", "profile.json", "--pid", &pid];
        let finished = Agent::new(record).run().succeeded();
        let (complete, chain) = giant_stacks(&finished.profile("profile.json"));
        let memory = finished.stderr.split(" ms CPU, ").nth(1).and_then(|rest| rest.split(" MB").next());
        let memory: u64 = memory.and_then(|text| text.parse().ok()).expect("the agent tells what it takes");
        assert!(memory < GIANT_MEMORY_MB, "{memory} MB");
        eprintln!("measured: a library of 555 MB takes {memory} MB: {}", finished.stderr);
        (finished, complete, chain)
    };
    let mut recorded = record("8s");
    for duration in ["30s", "90s"] {
        if recorded.1 > 100 {
            break;
        }
        recorded = record(duration);
    }
    let (finished, complete, chain) = recorded;
    assert!(complete > 100 && chain == complete, "{chain} of {complete}: {}", finished.stderr);
}

/// Samples whose stacks reach `main`, and those of them in which it is called by nobody but the library.
fn giant_stacks(profile: &Profile) -> (u64, u64) {
    let (mut complete, mut chain) = (0, 0);
    for sample in &profile.samples {
        let module = |id| profile.module(profile.location(id).module);
        let named = |id, name| {
            profile.location(id).lines.iter().any(|line| profile.function(line.function).name == name)
        };
        let stack = profile.stack(sample.stack).iter().copied();
        let stack: Vec<_> = stack.filter(|id| module(*id).kind != ModuleKind::Kernel).collect();
        if let Some(at) = stack.iter().position(|id| named(*id, "main")) {
            complete += sample.count;
            chain += if at == 1 && module(stack[0]).path.ends_with("/giant.so") { sample.count } else { 0 };
        }
    }
    (complete, chain)
}

#[test]
fn go() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    prove(&GO_MODES.map(|(mode, truth)| Case { workload: "unwind_go", mode, truth }));
}

#[test]
fn go_without_its_symbols() {
    skip_if!(in_vm(), "there is no objcopy");
    let directory = tempfile::tempdir().unwrap();
    let stripped = directory.path().join("unwind_go");
    let status = Command::new("objcopy").arg("--strip-all").arg(path("unwind_go")).arg(&stripped).status();
    skip_if!(status.is_err(), "there is no objcopy");
    assert!(status.unwrap().success());
    let cases = GO_MODES.map(|(mode, truth)| Case { workload: "unwind_go", mode, truth });
    prove_each("stripped", &cases, |case| Workload::start_program(Command::new(&stripped).arg(case.mode)));
}

#[test]
fn go_that_calls_c() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    // C runs on the thread's own stack, which Go's runtime switches to and back from.
    const CHAINS: &[&[&str]] = &[&[
        "runtime.goexit",
        "main.main.func1",
        "main.calls",
        "main._Cfunc_c_calls",
        SOMEWHERE,
        "c_calls",
        "c_spin",
    ]];
    let truth = Truth { binary: "unwindcgo_go", leaves: &["c_spin"], chains: CHAINS, ..GO };
    prove(&[Case { workload: "unwindcgo_go", mode: "", truth }]);
}

mod beside_perf {
    //! The same process, sampled at the same time by perf, which copies the stack and unwinds later.

    use std::collections::BTreeMap;

    use chokepoint_tests::chains;

    use super::*;

    /// Shares of stacks, from the chain's beginning on.
    type Shares = BTreeMap<String, f64>;

    fn ours(recorded: &Recorded, truth: &Truth) -> Shares {
        let stacks = recorded.profile.samples.iter().map(|sample| {
            let frames = chains::frames(&recorded.profile, sample, truth);
            (frames.into_iter().map(str::to_owned).collect(), sample.count)
        });
        shares(stacks, truth)
    }

    fn shares(stacks: impl Iterator<Item = (Vec<String>, u64)>, truth: &Truth) -> Shares {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (frames, count) in stacks {
            let start = frames.iter().position(|name| name == truth.from).unwrap_or(0);
            *counts.entry(frames[start..].join(" ")).or_default() += count;
        }
        let total: u64 = counts.values().sum();
        counts.into_iter().map(|(stack, count)| (stack, count as f64 / total.max(1) as f64)).collect()
    }

    /// Reads `perf script -F ip,sym,dso`: a line for each frame, leaf first, and an empty one after each sample.
    fn perfs(text: &str, truth: &Truth) -> Shares {
        let frame = |line: &str| {
            let (symbol, file) = line.trim().split_once(' ')?.1.rsplit_once(" (")?;
            let own = file.trim_end_matches(')').rsplit('/').next() == Some(truth.binary);
            let kernel = file.starts_with('[') && file.contains("kernel");
            let name = match symbol {
                "[unknown]" if own => "?",
                _ if own => symbol,
                _ => ELSEWHERE,
            };
            (!kernel).then(|| name.to_owned())
        };
        let stacks = text.split("\n\n").map(|sample| {
            let mut frames: Vec<String> = sample.lines().filter_map(frame).collect();
            frames.reverse();
            (frames, 1)
        });
        shares(stacks.filter(|(frames, _)| !frames.is_empty()), truth)
    }

    fn agree(mode: &'static str) {
        let truth = c_modes().into_iter().find(|(name, _)| *name == mode).unwrap().1;
        let workload = Workload::start("unwind_c", &[mode]);
        settle();
        let pid = workload.pid().to_string();
        let directory = tempfile::tempdir().unwrap();
        let perf = Workload::start_program(
            Command::new("perf")
                .args([
                    "record",
                    "-q",
                    "-e",
                    "cpu-clock",
                    "-F",
                    "997",
                    "--call-graph",
                    "dwarf,16384",
                    "-p",
                    &pid,
                ])
                .args(["-o", "perf.data", "--", "sleep", "1.5"])
                .current_dir(directory.path())
                .stderr(Stdio::null()),
        );
        let recorded = record(&["--pid", &pid]);
        let mut perf = perf;
        perf.wait();
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-F", "ip,sym,dso", "-i", "perf.data"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
        let theirs = perfs(&String::from_utf8_lossy(&script.stdout), &truth);
        let ours = ours(&recorded, &truth);
        for (stack, share) in ours.iter().chain(&theirs).filter(|(_, share)| **share > 0.01) {
            let of = |side: &Shares| side.get(stack).copied().unwrap_or(0.0);
            let (ours, theirs) = (of(&ours), of(&theirs));
            // Neither side has many samples, and they do not cover quite the same time.
            assert!(
                (ours - theirs).abs() < 0.02 + 0.5 * share,
                "{mode}: {stack}: {ours:.3} here, {theirs:.3} by perf"
            );
        }
    }

    #[test]
    fn the_stacks_are_the_same() {
        skip_if!(in_vm(), "there is no perf");
        skip_if!(!on_path("perf"), "there is no perf");
        let _live = live();
        for mode in ["chain", "callback", "realigned"] {
            agree(mode);
        }
    }
}
