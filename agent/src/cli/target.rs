//! The arguments that choose a target, the same for every command.

use std::path::PathBuf;

use clap::Args;

use crate::target::Target;

/// What to profile; without any of these, the whole host.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// Profile these processes, by id; separate several by commas.
    #[arg(short, long, value_name = "PID", value_delimiter = ',', group = "target")]
    pid: Vec<u32>,
    /// With --pid, profile their children too.
    #[arg(long, requires = "pid")]
    children: bool,
    /// Profile the processes and threads of this name.
    #[arg(long, value_name = "NAME", group = "target")]
    comm: Option<String>,
    /// Profile this cgroup and those below it: a directory, or a path as in /proc/PID/cgroup.
    #[arg(long, value_name = "PATH", group = "target")]
    cgroup: Option<PathBuf>,
}

impl TargetArguments {
    /// The target.
    #[must_use]
    pub fn target(&self) -> Target {
        if !self.pid.is_empty() {
            Target::Processes { pids: self.pid.clone(), children: self.children }
        } else if let Some(comm) = &self.comm {
            Target::Comm(comm.clone())
        } else if let Some(cgroup) = &self.cgroup {
            Target::Cgroup(cgroup.clone())
        } else {
            Target::Host
        }
    }
}
