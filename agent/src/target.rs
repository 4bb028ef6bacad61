//! What is to be profiled, as a user says it, and what the kernel's gate needs to know of it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chokepoint_ebpf::COMM_LEN;
use thiserror::Error;

use crate::host::cgroups;
use crate::load::Gate;
use crate::load::layout::KernelLayout;
use crate::process;

/// What is to be profiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Everything that runs on the host.
    #[default]
    Host,
    /// Some processes.
    Processes {
        /// Process ids.
        pids: Vec<u32>,
        /// Whether processes they fork from now on belong to the target too.
        children: bool,
    },
    /// Threads whose own name, or whose process's name, is this.
    Comm(String),
    /// A cgroup and those below it.
    Cgroup {
        /// Its directory, or its path as in `/proc/PID/cgroup`.
        path: PathBuf,
        /// What it is, in words: `cgroup /kubepods`, `pod shop/web-0`.
        name: String,
    },
}

/// Why there is no such target.
#[derive(Debug, Error)]
pub enum TargetError {
    /// No process has this id.
    #[error("no process {0} on this host: pass the id of a running one")]
    NoProcess(u32),
    /// An empty name matches nothing.
    #[error("the name to match is empty: pass the process or thread name as `ps -o comm` shows it")]
    EmptyComm,
    /// The path leads to no cgroup.
    #[error("no cgroup {}: pass a directory below /sys/fs/cgroup, or its path as in /proc/PID/cgroup", .0.display())]
    NoCgroup(PathBuf),
    /// The group is in a hierarchy without a controller, of which the kernel keeps no pointer in a task.
    #[error("cgroup {} is in a hierarchy without controllers: pass the group of a controller or of version 2", .0.display())]
    NamedHierarchy(PathBuf),
    /// Something in the operating system failed.
    #[error("cannot read {}", .path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Target {
    /// The target in words: `host`, `pid 42`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Host => "host".to_owned(),
            Self::Processes { pids, children } => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                format!("pid {}{}", pids.join(","), if *children { " and children" } else { "" })
            }
            Self::Comm(comm) => format!("comm {comm}"),
            Self::Cgroup { name, .. } => name.clone(),
        }
    }

    /// What the kernel programs are to be loaded with.
    ///
    /// # Errors
    /// [`TargetError`] where there is no such process or group.
    pub fn gate(&self, layout: &KernelLayout) -> Result<Gate, TargetError> {
        match self {
            Self::Host => Ok(Gate::Everything),
            Self::Processes { pids, children } => {
                let mut tgids = pids.iter().map(|pid| process_of(*pid)).collect::<Result<Vec<_>, _>>()?;
                if *children {
                    tgids = with_descendants(&tgids);
                }
                Ok(Gate::Processes { tgids, follow_forks: *children })
            }
            Self::Comm(comm) if comm.is_empty() => Err(TargetError::EmptyComm),
            Self::Comm(comm) => {
                // The kernel keeps no more of a name.
                let end = comm.floor_char_boundary(COMM_LEN - 1);
                Ok(Gate::Comm(comm[..end].to_owned()))
            }
            Self::Cgroup { path, .. } => cgroup_gate(path, layout),
        }
    }
}

/// The process that a thread id belongs to.
fn process_of(pid: u32) -> Result<u32, TargetError> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| TargetError::NoProcess(pid))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
        .ok_or(TargetError::NoProcess(pid))
}

/// These processes and all that descend from them now.
fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = process::all()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name before the last parenthesis may contain anything.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = roots.to_vec();
    let mut done = 0;
    while done < family.len() {
        let parent = family[done];
        done += 1;
        for (pid, _) in parents.iter().filter(|(_, its_parent)| *its_parent == parent) {
            if !family.contains(pid) {
                family.push(*pid);
            }
        }
    }
    family
}

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const CGROUP_V2_MAGIC: i64 = 0x6367_7270;
const CGROUP_V1_MAGIC: i64 = 0x0027_e0eb;

/// Running processes that a gate admits: at most `max`, and none for the whole host or a command that is still to be run.
#[must_use]
pub fn admitted(gate: &Gate, target: &Target, max: usize) -> Vec<u32> {
    let mut tgids = match (gate, target) {
        (Gate::Processes { tgids, .. }, Target::Processes { .. }) => tgids.clone(),
        (Gate::Comm(comm), _) => processes_named(comm, max),
        (Gate::Cgroup { .. }, Target::Cgroup { path, .. }) => {
            let members = find_cgroup(path).map(|(directory, _)| directory.join("cgroup.procs"));
            let text = members.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        }
        _ => Vec::new(),
    };
    tgids.truncate(max);
    tgids
}

/// Whether a gate admits a process. `is_listed` tells whether it is in the table of target processes.
#[must_use]
pub fn admits(gate: &Gate, target: &Target, tgid: u32, is_listed: impl FnOnce(u32) -> bool) -> bool {
    match (gate, target) {
        (Gate::Everything, _) => true,
        (Gate::Processes { .. }, _) => is_listed(tgid),
        (Gate::Comm(comm), _) => process::name(tgid).is_some_and(|name| name == *comm),
        (Gate::Cgroup { .. }, Target::Cgroup { path, .. }) => is_in_cgroup(tgid, path),
        (Gate::Cgroup { .. }, _) => false,
    }
}

fn is_in_cgroup(tgid: u32, path: &Path) -> bool {
    let directory = |path: &Path| find_cgroup(path).and_then(|(directory, _)| directory.canonicalize().ok());
    let Some(wanted) = directory(path) else { return false };
    cgroups::of_process(tgid).iter().any(|(_, group)| {
        let group = Path::new(group);
        group
            .ancestors()
            .filter(|group| *group != Path::new("/"))
            .any(|group| directory(group).as_ref() == Some(&wanted))
    })
}

fn processes_named(comm: &str, max: usize) -> Vec<u32> {
    process::all().filter(|tgid| process::name(*tgid).is_some_and(|name| name == comm)).take(max).collect()
}

fn cgroup_gate(path: &Path, layout: &KernelLayout) -> Result<Gate, TargetError> {
    let (directory, is_v2) = find_cgroup(path).ok_or_else(|| TargetError::NoCgroup(path.to_owned()))?;
    let failed = |source| TargetError::Io { path: directory.clone(), source };
    // On a 64-bit kernel the inode number is the group's id.
    let id = directory.metadata().map_err(failed)?.ino();
    if is_v2 {
        return Ok(Gate::Cgroup { id, controller: None });
    }
    let hierarchies = cgroups::hierarchies()
        .map_err(|source| TargetError::Io { path: "/proc/self/mountinfo".into(), source })?;
    let directory = directory.canonicalize().map_err(failed)?;
    let inside = hierarchies.iter().filter(|hierarchy| directory.starts_with(hierarchy.root()));
    // Of mounts within each other, the innermost.
    inside
        .max_by_key(|hierarchy| hierarchy.root().as_os_str().len())
        .and_then(|hierarchy| hierarchy.options().find_map(|option| layout.controller(option)))
        .map(|controller| Gate::Cgroup { id, controller: Some(controller) })
        .ok_or_else(|| TargetError::NamedHierarchy(path.to_owned()))
}

/// The group's directory, and whether it is in the version 2 hierarchy. A path as in `/proc/PID/cgroup` is looked up in
/// each hierarchy, version 2 first.
fn find_cgroup(path: &Path) -> Option<(PathBuf, bool)> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let mut candidates = vec![path.to_owned(), Path::new(CGROUP_ROOT).join(relative)];
    candidates.push(Path::new(CGROUP_ROOT).join("unified").join(relative));
    if let Ok(hierarchies) = fs::read_dir(CGROUP_ROOT) {
        let mut hierarchies: Vec<PathBuf> =
            hierarchies.filter_map(|entry| Some(entry.ok()?.path())).collect();
        hierarchies.sort();
        candidates.extend(hierarchies.into_iter().map(|hierarchy| hierarchy.join(relative)));
    }
    candidates.into_iter().find_map(|candidate| match file_system(&candidate) {
        Some(CGROUP_V2_MAGIC) => Some((candidate, true)),
        Some(CGROUP_V1_MAGIC) => Some((candidate, false)),
        _ => None,
    })
}

/// Magic number of the file system that holds a directory.
fn file_system(directory: &Path) -> Option<i64> {
    use std::os::unix::ffi::OsStrExt;
    if !directory.is_dir() {
        return None;
    }
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a valid statfs.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    (unsafe { libc::statfs(path.as_ptr(), &mut facts) } == 0).then_some(facts.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_id_stands_for_its_process() {
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::gettid() } as u32;
        assert_eq!(process_of(tid).unwrap(), std::process::id());
    }

    #[test]
    fn descendants_include_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = with_descendants(&[std::process::id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&child.id()), "{family:?}");
    }
}
