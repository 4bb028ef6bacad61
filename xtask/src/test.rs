//! `cargo xtask test`.

use std::{
    env::consts::ARCH,
    fmt,
    io::{self, BufRead, BufReader, IsTerminal, Write},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    packages::Purpose,
    setup, ui, vm,
    workspace::{Privilege, cargo, step},
};

/// Options of the tests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only tests whose names contain this, and those on this kernel only
    filter: Option<String>,
    /// Do not boot other kernels
    #[arg(long)]
    skip_vm: bool,
}

/// Builds everything, then runs all tests; fails if anything did.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Test])?;
    build::binaries(&[build::AGENT])?;
    ui::build()?;
    let mut summary = cargo_test(args)?;
    if let Err(error) = other_kernels(args, &summary) {
        eprintln!("{error:#}");
        summary.failed = true;
    }
    print!("{summary}");
    if !summary.all_passed() {
        bail!("tests failed");
    }
    Ok(())
}

/// Runs the live tests on other kernels, unless there is a reason not to, which it says. They come after the
/// tests that are quicker to fail.
fn other_kernels(args: &Args, summary: &Summary) -> Result<()> {
    let skipped_because = if args.skip_vm {
        "as asked"
    } else if args.filter.is_some() {
        "a filter is given; `cargo xtask vm -- FILTER` takes one"
    } else if ARCH != "x86_64" {
        "their guests are x86-64"
    } else if !summary.all_passed() {
        "tests failed on this one"
    } else {
        step("running the live tests on other kernels");
        return vm::run(vm::Args::default());
    };
    step(&format!("other kernels skipped: {skipped_because}"));
    Ok(())
}

/// Runs the tests of all crates. Their output passes through as it comes.
fn cargo_test(args: &Args) -> Result<Summary> {
    step("running the tests");
    let mut command = cargo();
    // One crate's failure must not hide another's.
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.args(args.filter.as_slice());
    run_as_root(&mut command)?;
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }

    // One pipe for both streams: which crate a closing line belongs to follows from their order.
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdout(writer.try_clone().context("cannot share a pipe")?).stderr(writer);
    let mut child = command.spawn().context("cannot run cargo")?;
    // The command holds the pipe's other ends; with them open the reader would never see the end.
    drop(command);
    let mut summary = Summary::default();
    let mut stdout = io::stdout().lock();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read the tests' output")?;
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
        summary.read(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().context("cannot wait for cargo")?;
    summary.failed |= !status.success();
    Ok(summary)
}

/// Has cargo run the tests it builds as root, where this process may become it.
pub fn run_as_root(command: &mut Command) -> Result<()> {
    match Privilege::probe() {
        Privilege::Root => {}
        Privilege::Sudo => {
            command.env(format!("CARGO_TARGET_{}_RUNNER", host_triple()?), "sudo -nE");
        }
        Privilege::User => {
            step("not root: the tests that load kernel programs cannot pass; run `sudo -v` first")
        }
    }
    Ok(())
}

/// The host's target triple as cargo spells it in the names of variables.
fn host_triple() -> Result<String> {
    let output = cargo().arg("-vV").output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("cargo does not name its host")?.to_uppercase().replace('-', "_"))
}

/// The runner's closing lines.
#[derive(Debug, Default)]
struct Summary {
    /// What ran last: the line that announced it.
    current: String,
    /// Each suite that had something to run, and its closing line.
    suites: Vec<(String, String)>,
    totals: Totals,
    /// Something went wrong, in the tests or before them.
    failed: bool,
}

/// Counts of a closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
    measured: u64,
    filtered_out: u64,
    seconds: f64,
}

impl Summary {
    /// Takes a line of the output of `cargo test`.
    fn read(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        if let Some(suite) = line.strip_prefix("Running ").or_else(|| line.strip_prefix("Doc-tests ")) {
            self.current = suite.to_owned();
        } else if let Some(totals) = Totals::parse(line) {
            self.failed |= totals.failed > 0;
            self.totals.add(totals);
            if totals.passed + totals.failed + totals.ignored > 0 {
                self.suites.push((self.current.clone(), line.to_owned()));
            }
        }
    }

    fn all_passed(&self) -> bool {
        !self.failed
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (suite, closing) in &self.suites {
            writeln!(f, "{suite}\n    {closing}")?;
        }
        let Totals { passed, failed, ignored, measured, filtered_out, seconds } = self.totals;
        let verdict = if self.all_passed() { "ok" } else { "FAILED" };
        writeln!(f, "all {} suites together", self.suites.len())?;
        writeln!(
            f,
            "test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; {measured} measured; \
             {filtered_out} filtered out; finished in {seconds:.2}s"
        )
    }
}

impl Totals {
    /// Reads `test result: ok. 3 passed; 0 failed; ...; finished in 0.01s`.
    fn parse(line: &str) -> Option<Self> {
        let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut totals = Self::default();
        for part in counts.split("; ") {
            if let Some(seconds) = part.strip_prefix("finished in ") {
                totals.seconds = seconds.strip_suffix('s')?.parse().ok()?;
                continue;
            }
            let (count, name) = part.split_once(' ')?;
            let count = count.parse().ok()?;
            match name {
                "passed" => totals.passed = count,
                "failed" => totals.failed = count,
                "ignored" => totals.ignored = count,
                "measured" => totals.measured = count,
                "filtered out" => totals.filtered_out = count,
                _ => return None,
            }
        }
        Some(totals)
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.measured += other.measured;
        self.filtered_out += other.filtered_out;
        self.seconds += other.seconds;
    }
}

/// Drops the escape sequences that set colours.
fn without_colour(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str) -> Summary {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.read(line));
        summary
    }

    #[test]
    fn closing_lines_come_last_with_their_suites_and_a_total() {
        let summary = summary(
            "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/a-1)\n\
             running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s\n\
             \x20    Running tests/live.rs (target/debug/deps/live-1)\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.25s\n\
             \x20  Doc-tests a\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert!(summary.all_passed());
        assert_eq!(
            summary.to_string(),
            "\n\
             unittests src/lib.rs (target/debug/deps/a-1)\n\
             \x20   test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s\n\
             tests/live.rs (target/debug/deps/live-1)\n\
             \x20   test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.25s\n\
             all 2 suites together\n\
             test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 1.75s\n"
        );
    }

    #[test]
    fn a_failed_test_fails_the_whole() {
        let summary = summary(
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
        );
        assert!(!summary.all_passed());
        assert!(summary.to_string().ends_with(
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n"
        ));
    }

    #[test]
    fn what_only_looks_like_a_closing_line_is_not_counted() {
        for line in ["test result: unknown", "test result: ok. many passed", "the test result: ok. 1 passed"]
        {
            assert_eq!(Totals::parse(line), None, "{line}");
        }
    }
}
