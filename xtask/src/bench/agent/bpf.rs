//! What the kernel tells of BPF programs and maps of a process.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};

/// Commands of bpf(2).
const PROGRAM_BY_ID: libc::c_long = 13;
const INFO_BY_DESCRIPTOR: libc::c_long = 15;
const ENABLE_STATISTICS: libc::c_long = 32;
/// Where `struct bpf_prog_info` has the name, and its length.
const NAME_AT: usize = 64;
const NAME_LENGTH: usize = 16;

/// What a program has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Time that it ran.
    pub time: Duration,
    /// How often.
    pub count: u64,
}

impl Runs {
    /// What came since then.
    pub fn since(self, earlier: Self) -> Self {
        Self { time: self.time.saturating_sub(earlier.time), count: self.count.saturating_sub(earlier.count) }
    }
}

/// Has the kernel count the time of programs for as long as the value lives, whatever else asks for that.
pub fn enable_statistics() -> io::Result<OwnedFd> {
    // All zeros asks for the time of runs.
    call(ENABLE_STATISTICS, &mut [0; 8])
}

/// The programs of a process by name; those of one name together.
pub fn programs_of(pid: u32) -> Result<BTreeMap<String, Runs>> {
    let mut programs: BTreeMap<String, Runs> = BTreeMap::new();
    let mut seen = HashSet::new();
    for facts in descriptors(pid)? {
        let number = |name: &str| field(&facts, name);
        let (Some(id), Some(time_ns), Some(count)) =
            (number("prog_id"), number("run_time_ns"), number("run_cnt"))
        else {
            continue;
        };
        if seen.insert(id) {
            let runs = programs.entry(name(id as u32)?).or_default();
            runs.time += Duration::from_nanos(time_ns);
            runs.count += count;
        }
    }
    Ok(programs)
}

/// Memory of a process's maps, bytes.
pub fn map_bytes_of(pid: u32) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for facts in descriptors(pid)? {
        if let (Some(id), Some(memory)) = (field(&facts, "map_id"), field(&facts, "memlock"))
            && seen.insert(id)
        {
            bytes += memory;
        }
    }
    Ok(bytes)
}

/// What the kernel tells of each of a process's descriptors.
fn descriptors(pid: u32) -> Result<Vec<String>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
    // One that was closed meanwhile is none.
    Ok(entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect())
}

fn field(facts: &str, name: &str) -> Option<u64> {
    let mut lines = facts.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

fn name(id: u32) -> Result<String> {
    let mut asked = [0; 16];
    asked[..4].copy_from_slice(&id.to_ne_bytes());
    let program = call(PROGRAM_BY_ID, &mut asked).context("cannot look at a BPF program")?;
    let mut info = [0u8; 256];
    let mut asked = [0; 16];
    asked[..4].copy_from_slice(&program.as_raw_fd().to_ne_bytes());
    asked[4..8].copy_from_slice(&(info.len() as u32).to_ne_bytes());
    asked[8..].copy_from_slice(&(info.as_mut_ptr() as u64).to_ne_bytes());
    tell(INFO_BY_DESCRIPTOR, &mut asked).context("cannot read what the kernel tells of a BPF program")?;
    let name = &info[NAME_AT..NAME_AT + NAME_LENGTH];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LENGTH);
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[expect(unsafe_code, reason = "the standard library has no bpf(2)")]
fn call(command: libc::c_long, attributes: &mut [u8]) -> io::Result<OwnedFd> {
    let descriptor = tell(command, attributes)?;
    // SAFETY: these commands return a descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[expect(unsafe_code, reason = "the standard library has no bpf(2)")]
fn tell(command: libc::c_long, attributes: &mut [u8]) -> io::Result<i32> {
    // SAFETY: the attributes are valid for the call, and what they point to is as long as they say.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len() as libc::c_long)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_descriptor_are_found_by_their_whole_name() {
        let facts = "pos:\t0\nprog_type:\t26\nprog_id:\t12\nrun_time_ns:\t3400\nrun_cnt:\t5\n";
        assert_eq!((field(facts, "prog_id"), field(facts, "run_time_ns")), (Some(12), Some(3_400)));
        assert_eq!((field(facts, "id"), field(facts, "prog")), (None, None));
    }
}
