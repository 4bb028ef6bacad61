//! `cargo xtask vm`: the live tests on other kernels.
//!
//! Each kernel is a package of Debian's, booted by QEMU without hardware support. The tests are built here
//! and packed with all they need into the guest's memory; there each runs alone, in a process of its own. A
//! complaint of the guest's kernel, such as a warning or a stall, fails the test it came in.
//! `docs/kernels.md` says what a test may rely on.

mod apt;
mod cpio;
mod guest;
mod image;
mod kernel;
mod kernel_log;
mod machine;
mod outcome;
mod protocol;
mod report;
mod silence;
mod suite;

use std::{
    env::consts::ARCH,
    fs,
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    guest::Guest,
    kernel::{Kernel, Series},
    report::Table,
    suite::Suite,
};
use crate::{
    packages::Purpose,
    setup,
    workspace::{step, target_dir},
};

/// Options of the tests on other kernels.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Boot only these kernels, of all that there are
    #[arg(long = "kernel", value_name = "SERIES", value_enum, num_args = 1.., value_delimiter = ',')]
    pub kernels: Vec<Series>,
    /// Look for newer packages of the kernels, instead of using those fetched before
    #[arg(long)]
    pub refresh: bool,
    /// Seconds that one test may take in a guest
    #[arg(long, value_name = "SECONDS", default_value_t = Args::default().test_limit_s,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub test_limit_s: u64,
    /// Run only tests whose names, as they are shown, contain one of these
    #[arg(last = true, value_name = "FILTER")]
    pub filters: Vec<String>,
}

impl Default for Args {
    fn default() -> Self {
        // Some times what the slowest takes there on a quiet machine: on 5.10, the verifier with all programs.
        Self { kernels: Vec::new(), refresh: false, test_limit_s: 300, filters: Vec::new() }
    }
}

/// Does something with each kernel, as many at a time as this machine has processors: an emulated machine takes one of them.
fn side_by_side<T: Send>(kernels: &[Kernel], job: impl Fn(&Kernel) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = kernels.get(index) else { return Ok(done) };
            done.push((index, job(kernel)?));
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let done: Result<Vec<_>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a guest's thread does not panic")).collect()
    });
    let mut done: Vec<_> = done?.into_iter().flatten().collect();
    done.sort_by_key(|&(index, _)| index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Runs the live tests on each kernel; fails if any of them failed on any.
pub fn run(args: Args) -> Result<()> {
    ensure!(ARCH == "x86_64", "the guests are x86-64, and what this machine builds is for {ARCH}");
    setup::ensure(&[Purpose::Test])?;
    let started = Instant::now();
    let series = if args.kernels.is_empty() { Series::ALL.to_vec() } else { args.kernels };
    let mut kernels = Vec::new();
    for series in series {
        kernels.push(Kernel::obtain(series, args.refresh)?);
    }
    let suite = Suite::build(&args.filters)?;
    ensure!(!suite.tests.is_empty(), "no test is selected");

    let limit = Duration::from_secs(args.test_limit_s);
    let directory = target_dir().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let guest = Guest::pack(&suite, &kernels, limit, &directory)?;
    let runs = side_by_side(&kernels, |kernel| {
        step(&format!("booting {} with {} MB of files", kernel.release, guest.image_bytes >> 20));
        guest.run(kernel, &directory)
    })?;

    let titles: Vec<_> = suite.tests.iter().map(|test| test.title.as_str()).collect();
    println!("\n{}all in {:.0} s", Table { titles, runs: &runs }, started.elapsed().as_secs_f64());
    let failed: Vec<_> =
        runs.iter().filter(|run| !run.succeeded(suite.tests.len())).map(|run| run.release.as_str()).collect();
    if !failed.is_empty() {
        bail!("tests failed on {}; the logs are in {}", failed.join(", "), directory.display());
    }
    Ok(())
}
