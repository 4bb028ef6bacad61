//! What belongs to processes, found when it is first sampled.
//!
//! [`binaries`] keeps each mapped file open, so that it can be read after the process has ended or the path has changed;
//! [`maps`] reads `/proc/PID/maps`, where the kernel will not show a mapped file directly; [`table`] keeps the processes that
//! run code of no file, [`objects`] names what threads wait for, [`place`] knows parents and cgroups.

use std::fs;

pub mod binaries;
pub mod maps;
pub mod objects;
pub mod place;
pub mod table;

/// Ids of all processes, in no order.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Name of a process as the kernel keeps it; `None` of one that has ended.
#[must_use]
pub fn name(tgid: u32) -> Option<String> {
    read_name(&format!("/proc/{tgid}/comm"))
}

/// Name of a thread as the kernel keeps it; `None` of one that has ended.
#[must_use]
pub fn thread_name(tgid: u32, tid: u32) -> Option<String> {
    read_name(&format!("/proc/{tgid}/task/{tid}/comm"))
}

fn read_name(path: &str) -> Option<String> {
    let name = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned())
}
