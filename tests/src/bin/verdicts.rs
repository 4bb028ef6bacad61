//! Plays the cases of known bottlenecks, and judges what the agent says of them, or proves what is said to be true of them.
//! usage: verdicts judge|prove RUNS SECONDS [FILTER]

use std::env;
use std::process::ExitCode;

use chokepoint_tests::bottlenecks::judge::{Report, Run};
use chokepoint_tests::bottlenecks::proof::{self, Proof};
use chokepoint_tests::bottlenecks::{Case, all};
use chokepoint_tests::{agent, live};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mode, runs, seconds, filter @ ..] = &arguments[..] else {
        panic!("usage: verdicts judge|prove RUNS SECONDS [FILTER]");
    };
    let runs: usize = runs.parse().expect("runs are a number");
    let seconds: f64 = seconds.parse().expect("seconds are a number");
    let cases: Vec<&Case> = all().filter(|case| filter.iter().all(|part| case.name.contains(part))).collect();
    assert!(!cases.is_empty() && runs > 0, "there is no such case");
    let _live = live();
    let good = match mode.as_str() {
        "judge" => judge(&cases, runs, seconds),
        "prove" => prove(&cases, runs, seconds),
        other => panic!("{other} is neither judge nor prove"),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn judge(cases: &[&'static Case], runs: usize, seconds: f64) -> bool {
    // Built before the first case plays.
    let _ = agent::program();
    let mut judged = Vec::new();
    for case in cases {
        for _ in 0..runs {
            match Run::undisturbed(case, seconds) {
                Ok(run) => {
                    eprintln!("{}: {}, told was {}", case.name, case.truth.join(" or "), run.ranking());
                    judged.push(run);
                }
                Err(missing) => {
                    eprintln!("{}: skipped, for want of {missing}", case.name);
                    break;
                }
            }
        }
    }
    let report = Report { runs: &judged };
    print!("{report}");
    report.failures().is_empty()
}

fn prove(cases: &[&'static Case], runs: usize, seconds: f64) -> bool {
    let mut proofs = Vec::new();
    for case in cases {
        match Proof::measure(case, runs, seconds) {
            Ok(proof) => {
                eprintln!("{}: the label {}", case.name, if proof.holds() { "holds" } else { "FAILS" });
                proofs.push(proof);
            }
            Err(missing) => eprintln!("{}: skipped, for want of {missing}", case.name),
        }
    }
    print!("{}", proof::table(&proofs));
    proofs.iter().all(Proof::holds)
}
