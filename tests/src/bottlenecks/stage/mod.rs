//! What a case is played on: its programs, what they are asked and told, and what is made for them ([`made`]).

mod made;

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use tempfile::TempDir;

use super::storage::{DirtyLimits, Mount, Swap};
use crate::Agent;
use crate::block::LoopDevice;
use crate::cgroup::Cgroup;
use crate::net::Wire;
use crate::workload::{self, Workload, on_path};

/// Which of a case's two variants is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// With its constraint.
    Constrained,
    /// Without.
    Relieved,
}

/// What this machine lacks for a case, in words.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the agent is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These processes.
    Pids(Vec<u32>),
    /// A control group.
    Group(PathBuf),
}

/// All that a case consists of. It is gone when dropped.
pub struct Stage {
    variant: Variant,
    programs: Vec<Program>,
    measured: Option<Work>,
    target: Option<Target>,
    swap: Option<Swap>,
    mount: Option<Mount>,
    dirty_limits: Option<DirtyLimits>,
    devices: Vec<LoopDevice>,
    wire: Option<Wire>,
    /// Those within others come later.
    groups: Vec<Cgroup>,
    weighty: Option<Weighty>,
    /// Counts the CPU time of all programs and the agent.
    accounts: Option<Cgroup>,
    directory: TempDir,
    open_directories: Vec<TempDir>,
}

/// A program that plays.
struct Program {
    workload: Workload,
    /// The signal that it is asked to end by, with its children, before it is killed.
    ends_by: Option<i32>,
}

/// Whose work is counted, and how.
enum Work {
    /// The program at this position says it when it ends.
    OfProgram(usize),
    /// The load generator at this position, `wrk`, says it when it is interrupted.
    OfRequests(usize),
    /// Somebody who is asked for it: how much there was at what time, and the question.
    Asked(Count, f64, Instant),
}

/// Tells how much work was done so far.
pub(super) type Count = Box<dyn Fn() -> f64>;

/// Groups that the rest of the machine is light against, so that other work on it neither makes nor hides a constraint.
struct Weighty {
    programs: PathBuf,
    agent: PathBuf,
}

/// The hierarchies of version 1 controllers.
const HIERARCHIES: &str = "/sys/fs/cgroup";
/// As much as 16 others. With more, the kernel's own threads, which serve devices, would get too little.
const WEIGHT: &str = "16384";
/// A service that was asked to end has so long before it is killed.
const ENDING: Duration = Duration::from_secs(3);
/// What begins when programs have begun, such as wake-ups of many threads, is over after this.
const SETTLING: Duration = Duration::from_millis(300);

impl Stage {
    /// An empty one.
    #[must_use]
    pub fn new(variant: Variant) -> Self {
        let mut groups = Vec::new();
        let weighty = Cgroup::new(&Path::new(HIERARCHIES).join("cpu"), "chokepoint-stage").map(|stage| {
            fs::write(stage.path().join("cpu.shares"), WEIGHT).expect("a group can be given weight");
            let [programs, agent] = ["programs", "agent"].map(|name| stage.child(name));
            let weighty = Weighty { programs: programs.path().to_owned(), agent: agent.path().to_owned() };
            groups = vec![stage, programs, agent];
            weighty
        });
        Self {
            variant,
            programs: Vec::new(),
            measured: None,
            target: None,
            swap: None,
            mount: None,
            dirty_limits: None,
            devices: Vec::new(),
            wire: None,
            groups,
            weighty,
            accounts: Cgroup::new(&Path::new(HIERARCHIES).join("cpuacct"), "chokepoint-stage"),
            // Not in the memory that /tmp may be.
            directory: tempfile::tempdir_in("/var/tmp").expect("a temporary directory can be made"),
            open_directories: Vec::new(),
        }
    }

    /// One of the two, by the variant that is played.
    pub fn of<T>(&self, constrained: T, relieved: T) -> T {
        match self.variant {
            Variant::Constrained => constrained,
            Variant::Relieved => relieved,
        }
    }

    /// Whether the constraint is there.
    #[must_use]
    pub fn is_constrained(&self) -> bool {
        self.of(true, false)
    }

    /// Starts a program of `workloads/`, waits until it has begun, and tells its process id.
    ///
    /// # Errors
    /// The program's interpreter, if it is not there.
    pub fn run(&mut self, program: &str, arguments: &[&str]) -> Result<u32, Missing> {
        self.run_in(&[], program, arguments)
    }

    /// The same in control groups.
    ///
    /// # Errors
    /// The program's interpreter, if it is not there.
    pub fn run_in(&mut self, groups: &[&Path], program: &str, arguments: &[&str]) -> Result<u32, Missing> {
        let mut command = command(program)?;
        command.args(arguments);
        Ok(self.start(command, groups))
    }

    /// Starts a command that says when it has begun, and tells its process id.
    pub(super) fn start(&mut self, command: Command, groups: &[&Path]) -> u32 {
        let mut workload = self.begin(command, groups);
        workload.wait_for_line("begun");
        self.keep_program(workload, None)
    }

    /// Starts a service, which is asked to end by a signal before it is killed, and tells its process id. It may not be ready yet.
    pub(super) fn serve(&mut self, groups: &[&Path], command: Command, ends_by: i32) -> u32 {
        let workload = self.begin(command, groups);
        self.keep_program(workload, Some(ends_by))
    }

    /// Starts `wrk`, whose requests are counted.
    pub(super) fn request(&mut self, command: Command) {
        let workload = self.begin(command, &[]);
        self.keep_program(workload, None);
        self.measured = Some(Work::OfRequests(self.programs.len() - 1));
    }

    /// Has work counted by asking somebody.
    pub(super) fn count_by(&mut self, count: impl Fn() -> f64 + 'static) {
        let before = count();
        self.measured = Some(Work::Asked(Box::new(count), before, Instant::now()));
    }

    fn keep_program(&mut self, workload: Workload, ends_by: Option<i32>) -> u32 {
        let pid = workload.pid();
        self.programs.push(Program { workload, ends_by });
        pid
    }

    fn begin(&mut self, mut command: Command, groups: &[&Path]) -> Workload {
        let weighty = self.weighty.iter().map(|weighty| weighty.programs.as_path());
        let accounts = self.accounts.iter().map(Cgroup::path);
        let all = weighty.chain(accounts).chain(groups.iter().copied());
        for group in all {
            enter(&mut command, group);
        }
        Workload::start_program(&mut command)
    }

    /// The same for the program whose work is counted and that the agent is asked about.
    ///
    /// # Errors
    /// The program's interpreter, if it is not there.
    pub fn subject(&mut self, program: &str, arguments: &[&str]) -> Result<u32, Missing> {
        self.subject_in(&[], program, arguments)
    }

    /// The same in control groups.
    ///
    /// # Errors
    /// The program's interpreter, if it is not there.
    pub fn subject_in(
        &mut self,
        groups: &[&Path],
        program: &str,
        arguments: &[&str],
    ) -> Result<u32, Missing> {
        let pid = self.run_in(groups, program, arguments)?;
        self.measure_last();
        self.ask_about(Target::Pids(vec![pid]));
        Ok(pid)
    }

    /// The same for a program whose children the agent is asked about, too: those that it has already, and those to come.
    ///
    /// # Errors
    /// The version 1 hierarchy of the CPU controller, if it is not there.
    pub fn family(&mut self, groups: &[&Path], program: &str, arguments: &[&str]) -> Result<(), Missing> {
        let family = self.cpu_group("family", None)?;
        let all: Vec<&Path> = groups.iter().copied().chain([family.as_path()]).collect();
        self.run_in(&all, program, arguments)?;
        self.measure_last();
        self.ask_about(Target::Group(family));
        Ok(())
    }

    /// Has the work of the program that was started last counted.
    pub fn measure_last(&mut self) {
        self.measured = self.programs.len().checked_sub(1).map(Work::OfProgram);
    }

    /// Has the agent asked about this.
    pub fn ask_about(&mut self, target: Target) {
        self.target = Some(target);
    }

    /// Lets the programs go on until what began with them is over.
    pub fn settle(&self) {
        thread::sleep(SETTLING);
    }

    /// The agent's run that tells what bounds this.
    ///
    /// # Panics
    /// Where the case does not say what to ask about.
    #[must_use]
    pub fn diagnose(&self, seconds: f64) -> Agent {
        let mut arguments = vec!["diagnose".to_owned()];
        match self.target.as_ref().expect("the case says what to ask about") {
            Target::Pids(pids) => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                arguments.extend(["--pid".to_owned(), pids.join(",")]);
            }
            Target::Group(path) => arguments.extend(["--cgroup".to_owned(), text(path)]),
        }
        arguments.extend(["-d", &format!("{}ms", (seconds * 1e3).round()), "--json"].map(str::to_owned));
        let weighty = self.weighty.iter().map(|weighty| weighty.agent.as_path());
        let groups = weighty.chain(self.accounts.iter().map(Cgroup::path));
        let enter: String =
            groups.map(|group| format!("echo $$ > {}/cgroup.procs; ", group.display())).collect();
        Agent::through(&["sh", "-c", &format!("{enter}exec \"$0\" \"$@\"")], arguments)
    }

    /// CPU time of all programs and the agent so far, nanoseconds; `None` where no controller counts it.
    #[must_use]
    pub fn cpu_time_ns(&self) -> Option<u64> {
        let text = fs::read_to_string(self.accounts.as_ref()?.path().join("cpuacct.usage")).ok()?;
        text.trim().parse().ok()
    }

    /// Ends the program whose work is counted, and tells how much that was a second.
    ///
    /// # Panics
    /// Where the case does not say which program that is, or the program does not say what it did.
    #[must_use]
    pub fn work_per_s(mut self) -> f64 {
        match self.measured.take().expect("the case says whose work is counted") {
            Work::OfProgram(index) => {
                let truth = self.programs.remove(index).workload.truth();
                let said = |name: &str| *truth.get(name).unwrap_or_else(|| panic!("no {name} in {truth:?}"));
                said("work") / (said("ns") / 1e9)
            }
            Work::OfRequests(index) => {
                let said = self.programs.remove(index).workload.interrupted();
                let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
                let rate = rate.unwrap_or_else(|| panic!("no rate of requests in {said:?}"));
                rate.trim().parse().expect("it is a number")
            }
            Work::Asked(count, before, since) => {
                let done = count() - before;
                done / since.elapsed().as_secs_f64()
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Clients before their servers.
        while let Some(mut program) = self.programs.pop() {
            if let Some(signal) = program.ends_by {
                program.workload.end_by(signal, ENDING);
            }
        }
        while let Some(group) = self.groups.pop() {
            drop(group);
        }
    }
}

/// CPUs of this machine, or of what this process may use of it.
#[must_use]
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn command(program: &str) -> Result<Command, Missing> {
    let Some((_, language)) = program.rsplit_once('.') else {
        return Ok(Command::new(workload::path(program)));
    };
    let interpreter = match language {
        "py" => "python3",
        "js" => "node",
        "java" => "java",
        other => panic!("no interpreter for .{other}"),
    };
    if !on_path(interpreter) {
        return Err(Missing(interpreter.to_owned()));
    }
    let mut command = Command::new(interpreter);
    command.arg(workload::source(program));
    Ok(command)
}

/// Has the command's process enter a group before it runs the program, so that all it ever uses is the group's.
fn enter(command: &mut Command, group: &Path) {
    let file = OpenOptions::new().write(true).open(group.join("cgroup.procs"));
    let file = file.expect("a group's processes can be opened");
    // SAFETY: a write to a file that is open is safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            use std::io::Write;
            (&file).write_all(b"0")
        });
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}
