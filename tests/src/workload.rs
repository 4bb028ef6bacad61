//! Programs that are profiled. Their sources are in `workloads/`; what each does is told there.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::{in_vm, target_dir};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads");

/// Every workload's name: its source's name, with the dot as an underscore.
#[must_use]
pub fn all() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(SOURCES)
        .expect("the workloads' sources are there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| [".c", ".cc", ".rs", ".go"].iter().any(|end| file.ends_with(end)))
        .map(|file| file.replace('.', "_"))
        .collect();
    names.sort();
    names
}

/// The source of a workload that is not compiled.
#[must_use]
pub fn source(file: &str) -> PathBuf {
    Path::new(SOURCES).join(file)
}

/// Held while a workload is made.
static MAKING: Mutex<()> = Mutex::new(());

/// The compiled workload, made now if it is older than its source.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let directory = std::env::var_os("CHOKEPOINT_TEST_BIN_DIR")
        .map_or_else(|| target_dir().join("test-bin"), PathBuf::from);
    let program = directory.join(name);
    if in_vm() {
        return program;
    }
    let (stem, language) = name.rsplit_once('_').expect("a workload's name ends in its language");
    let source = Path::new(SOURCES).join(format!("{stem}.{language}"));
    let text = fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let modified = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified()).ok();
    // The compilers' options are in this program.
    let this_program = std::env::current_exe().expect("this program has a path");
    let included = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    let newest = included
        .map(|file| Path::new(SOURCES).join(file))
        .chain([source.clone(), this_program])
        .filter_map(|path| modified(&path))
        .max();
    // Tests of one program run at the same time, and none is to have the file replaced that it runs.
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if modified(&program) >= newest {
        return program;
    }
    fs::create_dir_all(&directory).expect("the workloads' directory can be made");
    // Another test binary may run the old one; a new file in its place does not disturb it.
    let fresh = directory.join(format!("{name}.{}", std::process::id()));
    let mut compiler = compiler(language, own_options(&text));
    let output =
        compiler.arg(&fresh).arg(&source).output().unwrap_or_else(|error| panic!("{compiler:?}: {error}"));
    assert!(output.status.success(), "{compiler:?}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &program).expect("the workload can take its place");
    program
}

/// Optimised and with frame pointers, unless the source says otherwise; gcc omits them in leaf functions all the same.
const C_OPTIONS: [&str; 5] =
    ["-O2", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"];

/// Options in place of the usual ones, which a source asks for in its first line: `// options: -O3`.
fn own_options(source: &str) -> Option<Vec<&str>> {
    let options = source.lines().next()?.strip_prefix("// options: ")?;
    Some(options.split_whitespace().collect())
}

/// Up to the option that names the output.
fn compiler(language: &str, own_options: Option<Vec<&str>>) -> Command {
    let (program, fixed, usual): (&str, &[&str], &[&str]) = match language {
        "c" => ("cc", &[], &C_OPTIONS),
        "cc" => ("c++", &[], &C_OPTIONS),
        "rs" => ("rustc", &["--edition=2024"], &["-O", "-g", "-Cforce-frame-pointers=yes"]),
        "go" => ("go", &["build"], &[]),
        other => panic!("no compiler for .{other}"),
    };
    let mut command = Command::new(program);
    command.args(fixed).args(own_options.as_deref().unwrap_or(usual)).arg("-o");
    command
}

/// A running workload; killed when dropped, or when the test ends in whatever way.
pub struct Workload {
    child: Child,
}

impl Workload {
    /// Starts a workload of `workloads/`.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_program(Command::new(path(name)).args(arguments))
    }

    /// Starts any program as a workload.
    #[must_use]
    pub fn start_program(command: &mut Command) -> Self {
        die_with_test(command);
        let child =
            command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has said this, in a line of its own.
    ///
    /// # Panics
    /// Where it ends before.
    pub fn wait_for_line(&mut self, awaited: &str) {
        // Byte by byte, to leave the rest where it is.
        let stdout = self.child.stdout.as_mut().expect("it is piped");
        let mut line = Vec::new();
        let mut byte = [0];
        while line != awaited.as_bytes() {
            line.clear();
            loop {
                stdout.read_exact(&mut byte).unwrap_or_else(|error| panic!("no {awaited:?}: {error}"));
                if byte == *b"\n" {
                    break;
                }
                line.push(byte[0]);
            }
        }
    }

    /// Asks the workload to end, and returns what it says it has done: a number by name.
    #[must_use]
    pub fn truth(mut self) -> BTreeMap<String, f64> {
        self.signal(libc::SIGTERM);
        let mut text = String::new();
        self.child
            .stdout
            .take()
            .expect("it is piped")
            .read_to_string(&mut text)
            .expect("the workload speaks");
        self.child.wait().expect("the workload ends");
        text.lines()
            .filter_map(|line| {
                let (name, number) = line.split_once(' ')?;
                Some((name.to_owned(), number.parse().ok()?))
            })
            .collect()
    }

    /// Interrupts a program, and returns what it says until it has ended.
    ///
    /// # Panics
    /// Where it says no text.
    #[must_use]
    pub fn interrupted(mut self) -> String {
        self.signal(libc::SIGINT);
        let mut text = String::new();
        self.child.stdout.take().expect("it is piped").read_to_string(&mut text).expect("the program speaks");
        self.child.wait().expect("the program ends");
        text
    }

    /// Asks it to end by a signal, and waits until it has, but no longer than so.
    pub fn end_by(&mut self, signal: i32, limit: Duration) {
        self.signal(signal);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < limit {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits until the workload has ended by itself.
    pub fn wait(&mut self) {
        self.child.wait().expect("the workload ends");
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the command's process when the test's thread ends.
pub fn die_with_test(command: &mut Command) {
    // SAFETY: prctl is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Whether there is such a program, on the search path or at its own.
#[must_use]
pub fn on_path(program: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    // Joining an absolute path replaces the directory.
    std::env::split_paths(&directories).any(|directory| directory.join(program).is_file())
}

/// Waits until something holds; panics when it does not for long.
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(if in_vm() { 120 } else { 20 }), what, check)
}

/// Waits until something holds; panics when it does not for so long.
pub fn eventually_within<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
