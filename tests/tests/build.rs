//! A profile of this project's own build: many processes, each a large program, most of them short.

use std::process::Command;

use chokepoint_analysis::profile::Sample;
use chokepoint_tests::chains::INCOMPLETE;
use chokepoint_tests::stacks::{functions, process_names};
use chokepoint_tests::{Agent, in_vm, live, skip_if};

#[test]
fn a_build_with_all_of_its_compilers() {
    skip_if!(in_vm(), "there is no compiler");
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().to_str().unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    // It depends on nothing but the standard library. Compilers without a build id have their unwind tables built anew in each recording,
    // while the first of these builds runs: that takes a third of its CPU time.
    let builds = r#"
        for turn in 1 2 3 4 5 6; do
            "$0" build --offline -p chokepoint-toolchain --manifest-path "$1" --target-dir "$2/$turn" || exit 1
        done
    "#;
    let build = ["sh", "-c", builds, &cargo, manifest, target];
    let fixed = ["record", "-o", "build.json", "--"];
    let finished = Agent::new(fixed.iter().chain(&build)).run().succeeded();
    assert!(finished.stderr.contains("sh exited with 0"), "{}", finished.stderr);
    assert!(finished.stderr.contains("until the target ended"), "{}", finished.stderr);

    let profile = finished.profile("build.json");
    assert_eq!(profile.coverage.total_lost(), 0, "{:?}", profile.coverage);
    assert_eq!(profile.coverage.attempted, profile.total_count());
    for process in ["cargo", "rustc"] {
        assert!(process_names(&profile).contains(process), "{:?}", process_names(&profile));
    }
    let rustc = |sample: &&Sample| profile.thread(sample.thread).process_name == "rustc";
    let compiling: Vec<&Sample> = profile.samples.iter().filter(rustc).collect();
    let weight = |condition: &dyn Fn(&Sample) -> bool| -> u64 {
        compiling.iter().filter(|sample| condition(sample)).map(|sample| sample.weight).sum()
    };
    let in_driver = |sample: &Sample| {
        let modules =
            profile.stack(sample.stack).iter().map(|id| profile.module(profile.location(*id).module));
        modules.into_iter().any(|module| module.path.contains("librustc_driver"))
    };
    // Until the driver's unwind table is there, its stacks are not whole.
    let whole = |sample: &Sample| {
        in_driver(sample) && !functions(&profile, sample).iter().any(|name| name.starts_with(INCOMPLETE))
    };
    let named = |sample: &Sample| {
        whole(sample) && functions(&profile, sample).iter().any(|name| name.contains("rustc_"))
    };
    // A small crate: half of the time goes to LLVM, the loader and the kernel.
    let [all, in_driver, whole, named] =
        [weight(&|_| true), weight(&in_driver), weight(&whole), weight(&named)];
    assert!(in_driver as f64 > 0.2 * all as f64, "{in_driver} of {all} ns of rustc are in librustc_driver");
    assert!(whole > 0, "no stack in librustc_driver reaches the thread's start: {:?}", profile.coverage);
    assert!(
        named as f64 > 0.9 * whole as f64,
        "{named} of {whole} ns in librustc_driver with whole stacks show a function of rustc"
    );
}

#[test]
fn a_build_that_fails() {
    skip_if!(in_vm(), "there is no compiler");
    skip_if!(
        Command::new("rustc").arg("--version").output().is_err(),
        "there is no rustc on the search path"
    );
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("broken.rs");
    std::fs::write(&source, "fn main() { nothing }").unwrap();
    let finished = Agent::new(["record", "-o", "out.json", "--", "rustc", source.to_str().unwrap()]).run();
    assert!(finished.stderr.contains("rustc exited with 1"), "{}", finished.stderr);
    assert!(finished.profile("out.json").total_count() > 0);
}
