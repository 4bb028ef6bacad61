//! The guest: what is packed for it, and following it while it runs the tests.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    image::Image,
    kernel::Kernel,
    machine::{Boot, Heard, Machine},
    outcome::{Ending, Outcome},
    protocol::Event,
    report::{self, Fault, KernelRun},
    suite::{BIN_DIR_ENV, Suite},
};
use crate::workspace::target_dir;

/// Tells tests that they run in a slow emulation.
const IN_VM_ENV: &str = "CHOKEPOINT_VM";
/// The guest's static programs: its shell and the usual commands.
const BUSYBOX: &str = "/bin/busybox";
/// Commands of this machine's that can more than the guest's own.
const COMMANDS: [&str; 6] = [
    "/usr/bin/bash",
    "/usr/bin/dd",
    "/usr/bin/setpriv",
    "/usr/bin/unshare",
    "/usr/sbin/dmsetup",
    "/usr/sbin/losetup",
];
/// Tools that tests compare with, where this machine has them.
const PEERS: [&str; 2] = ["/usr/sbin/biolatency", "/usr/sbin/biosnoop"];
/// A guest boots in 5 s where nothing else runs.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// A guest ends a test at its limit; one that says nothing for so much longer hangs.
const GRACE: Duration = Duration::from_secs(30);
/// Before what a test has measured, which is shown also where it passed.
const MEASURED: &str = "measured: ";
/// Of what a test writes, so much of its end is kept.
const KEPT_LINES: usize = 2000;

/// What every guest runs.
pub struct Guest<'a> {
    suite: &'a Suite,
    limit: Duration,
    mark: String,
    image: PathBuf,
    /// Size of its files.
    pub image_bytes: u64,
}

impl<'a> Guest<'a> {
    /// Packs the guest's files.
    pub fn pack(suite: &'a Suite, kernels: &[Kernel], limit: Duration, directory: &Path) -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mark = format!("<vm {:x}-{:x}> ", process::id(), now.as_nanos());

        let mut image = Image::default();
        for empty in ["dev", "proc", "root", "run", "sys", "tmp", "var/tmp"] {
            image.directory(Path::new("/").join(empty));
        }
        image.program(Path::new(BUSYBOX)).context("install busybox-static, or run `cargo xtask setup`")?;
        image.contents("/init", 0o755, include_str!("guest.sh"));
        image.contents("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
        image.contents("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
        image.tree(&suite.directory)?;
        image.tree(&suite.bin_dir)?;
        let peers = PEERS.into_iter().filter(|peer| Path::new(peer).exists());
        for command in COMMANDS.into_iter().chain(peers) {
            image.program(Path::new(command))?;
        }
        for kernel in kernels {
            let modules = Path::new("/vm/modules").join(&kernel.release);
            for (place, module) in kernel.modules.iter().enumerate() {
                // The shell loads them in the order of their names.
                image.host_file_as(module, &modules.join(format!("{place}.ko")));
            }
        }
        // Debug information is most of a test binary, and every guest would unpack it into its memory.
        let stripped = directory.join("stripped");
        fs::create_dir_all(&stripped).with_context(|| format!("cannot create {}", stripped.display()))?;
        for program in &suite.programs {
            image.stripped_program(program, &stripped)?;
        }
        image.program(&suite.agent)?;
        // Cargo promises tests this directory.
        image.directory(target_dir().join("tmp"));
        image.contents("/vm/environment", 0o644, environment(suite, limit, &mark));
        image.contents("/vm/tests", 0o644, jobs(suite)?);

        let archive = directory.join("guest.cpio");
        let image_bytes = image.write(&archive)?;
        Ok(Self { suite, limit, mark, image: archive, image_bytes })
    }

    /// Boots a kernel and runs the tests in it.
    pub fn run(&self, kernel: &Kernel, directory: &Path) -> Result<KernelRun> {
        let directory = directory.join(kernel.series.name());
        let boot = Boot {
            kernel,
            image: &self.image,
            image_bytes: self.image_bytes,
            mark: &self.mark,
            directory: &directory,
        };
        let mut machine = Machine::start(&boot)?;
        let started = Instant::now();
        let mut run = KernelRun {
            series: kernel.series,
            release: kernel.release.clone(),
            boot: Duration::ZERO,
            tests: Duration::ZERO,
            outcomes: Vec::new(),
            fault: None,
        };
        if let Err(fault) = self.follow(&mut machine, &mut run) {
            println!("linux {} FAILED: {fault:#}", run.series);
            let kernel = machine.kernel_log.tail().unwrap_or_default();
            run.fault = Some(Fault {
                what: format!("{fault:#}"),
                last_words: format!("{kernel}\n{}", machine.ended_as()),
            });
        }
        run.tests = started.elapsed().saturating_sub(run.boot);
        Ok(run)
    }

    /// Follows a guest to its end, and reports each test as it ends.
    fn follow(&self, machine: &mut Machine, run: &mut KernelRun) -> Result<()> {
        let booting = Instant::now();
        let mut deadline = booting + BOOT_LIMIT;
        let mut test: Option<Running> = None;
        loop {
            let event = match machine.hear(deadline) {
                Heard::Event(event) => event,
                unheard => {
                    let what = if matches!(unheard, Heard::Silent) { "hangs" } else { "has ended" };
                    if matches!(unheard, Heard::Silent)
                        && let Err(error) = machine.investigate()
                    {
                        println!("linux {}: {error:#}", run.series);
                    }
                    if let Some(running) = test {
                        self.end(running, Ended::Guest(what), machine, run)?;
                    }
                    let when =
                        if run.boot == Duration::ZERO { "before it was ready" } else { "before its time" };
                    bail!("the guest {what} {when}");
                }
            };
            match event {
                Event::Ready => {
                    run.boot = booting.elapsed();
                    ensure!(
                        machine.kernel_log.new_complaint()?.is_none(),
                        "the kernel complained while it booted"
                    );
                }
                Event::Begin(index) => {
                    ensure!(index == run.outcomes.len() && test.is_none(), "test {index} began out of turn");
                    test = Some(Running { began: Instant::now(), output: VecDeque::new() });
                }
                Event::Output(line) => {
                    match &mut test {
                        Some(running) => running.keep(line),
                        None => println!("linux {}: {line}", run.series),
                    }
                    continue;
                }
                Event::End(index, status) => {
                    let running = test.take().filter(|_| index == run.outcomes.len());
                    let running = running.with_context(|| format!("test {index} ended out of turn"))?;
                    self.end(running, Ended::Test(status), machine, run)?;
                }
                Event::Done => {
                    ensure!(run.outcomes.len() == self.suite.tests.len(), "the guest did not run all tests");
                    ensure!(
                        machine.kernel_log.new_complaint()?.is_none(),
                        "the kernel complained after the tests"
                    );
                    return Ok(());
                }
            }
            // What a test writes gives it no more time.
            deadline = Instant::now() + self.limit + GRACE;
        }
    }

    /// Decides what became of a test, and reports it.
    fn end(&self, running: Running, ended: Ended, machine: &mut Machine, run: &mut KernelRun) -> Result<()> {
        let test = self.suite.tests.get(run.outcomes.len()).context("more tests ran than there are")?;
        let took = running.began.elapsed();
        let complaint = machine.kernel_log.new_complaint()?;
        let output = Vec::from(running.output);
        let outcome = match &ended {
            Ended::Guest(what) => Outcome::Failed(format!("the guest {what}")),
            Ended::Test(status) => Ending {
                name: &test.name,
                status: *status,
                output: &output,
                took,
                limit: self.limit,
                kernel_complained: complaint.is_some(),
            }
            .outcome(),
        };
        let mut said = vec![report::line(run.series, &test.title, &outcome, took)];
        said.extend(output.iter().filter_map(|line| Some(format!("    {}", line.split_once(MEASURED)?.1))));
        if matches!(outcome, Outcome::Failed(_)) {
            said.extend(output.iter().map(|line| format!("    {line}")));
        }
        // When the whole guest has ended, the end of its log is shown anyway.
        if let (Some(complaint), Ended::Test(_)) = (complaint, ended) {
            said.extend(complaint.lines().map(|line| format!("    kernel: {line}")));
        }
        // In one piece: other guests print at the same time.
        println!("{}", said.join("\n"));
        run.outcomes.push((outcome, took));
        Ok(())
    }
}

/// What ended.
enum Ended {
    /// A test, with that exit status.
    Test(u8),
    /// The whole guest did that.
    Guest(&'static str),
}

/// A test while it runs.
struct Running {
    began: Instant,
    /// The end of what it wrote.
    output: VecDeque<String>,
}

impl Running {
    fn keep(&mut self, line: String) {
        if self.output.len() == KEPT_LINES {
            self.output.pop_front();
        }
        self.output.push_back(line);
    }
}

/// What the guest's shell reads before the tests.
fn environment(suite: &Suite, limit: Duration, mark: &str) -> String {
    let path = |path: &Path| path.display().to_string();
    let exported = [
        ("HOME", "/root".to_owned()),
        ("CARGO_MANIFEST_DIR", path(&suite.directory)),
        (BIN_DIR_ENV, path(&suite.bin_dir)),
        (IN_VM_ENV, "1".to_owned()),
    ];
    let mut script = format!("MARK={}\nLIMIT_S={}\n", quoted(mark), limit.as_secs());
    for (name, value) in exported {
        script += &format!("export {name}={}\n", quoted(&value));
    }
    script
}

/// A word that the shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What the guest's shell is to run: a line for each test.
fn jobs(suite: &Suite) -> Result<String> {
    let mut jobs = String::new();
    for test in &suite.tests {
        let words = [suite.directory.to_str(), test.binary.to_str(), Some(&*test.name)];
        for word in words {
            let word = word.filter(|word| !word.contains([' ', '\t', '\n', '\\']));
            let word =
                word.with_context(|| format!("{} lies at a path that a guest cannot read", test.title))?;
            jobs += word;
            jobs += " ";
        }
        jobs += "\n";
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::suite::Test;

    fn suite(binary: &str) -> Suite {
        let test = Test { title: "live::a".to_owned(), name: "a".to_owned(), binary: PathBuf::from(binary) };
        Suite {
            tests: vec![test],
            programs: Vec::new(),
            agent: PathBuf::from("/p/chokepoint"),
            directory: PathBuf::from("/p/tests"),
            bin_dir: PathBuf::from("/p/it's here"),
        }
    }

    #[test]
    fn the_shell_reads_what_was_meant() {
        let environment = environment(&suite("/t/live-1"), Duration::from_secs(9), "<vm 1> ");
        let script = environment
            + "printf '%s|' \"$MARK\" \"$LIMIT_S\" \"$CHOKEPOINT_TEST_BIN_DIR\" \"$CHOKEPOINT_VM\"";
        let output = process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "<vm 1> |9|/p/it's here|1|");
    }

    #[test]
    fn each_test_is_a_line_of_three_words() {
        assert_eq!(jobs(&suite("/t/live-1")).unwrap(), "/p/tests /t/live-1 a \n");
        assert!(jobs(&suite("/my tests/live-1")).is_err());
    }
}
