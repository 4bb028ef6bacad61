//! A stopped process, read from outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::case::Hex;
#[cfg(target_arch = "x86_64")]
use crate::case::{PROGRAM_COUNTER, REGISTERS};

/// A process that stands still; goes on when this is dropped, unless it stood still before.
pub struct Stopped {
    pub pid: u32,
    pub tid: u32,
    /// Of the thread.
    pub registers: BTreeMap<String, Hex>,
    memory: File,
    was_stopped: bool,
}

/// How long a process may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

impl Stopped {
    /// Stops all threads of a process, so that another debugger finds the same stack afterwards, and reads a thread's
    /// registers.
    pub fn stop(pid: u32, tid: u32) -> io::Result<Self> {
        let was_stopped = state(pid, tid)? == 'T';
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        if !was_stopped {
            signal(pid, libc::SIGSTOP)?;
        }
        let mut stopped = Self { pid, tid, registers: BTreeMap::new(), memory, was_stopped };
        let deadline = Instant::now() + PATIENCE;
        while state(pid, tid)? != 'T' {
            if Instant::now() > deadline {
                return Err(io::Error::other("the thread does not stop"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        stopped.registers = registers(tid)?;
        Ok(stopped)
    }

    /// A word of its memory.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// Bytes of its memory.
    pub fn bytes(&self, address: u64, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize];
        self.memory.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if !self.was_stopped {
            // It fails only if the process is gone.
            let _ = signal(self.pid, libc::SIGCONT);
        }
    }
}

/// The threads of a process, the first one first; at least one.
pub fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let mut threads: Vec<u32> =
        tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
    threads.sort_unstable_by_key(|thread| (*thread != pid, *thread));
    if threads.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(threads) }
}

/// The letter that the kernel gives for a thread's state.
fn state(pid: u32, tid: u32) -> io::Result<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"))?;
    // Its name is in parentheses, and may have some, too.
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    Ok(after_name.chars().next().unwrap_or('?'))
}

fn signal(pid: u32, number: i32) -> io::Result<()> {
    // SAFETY: it takes numbers only.
    succeeded(i64::from(unsafe { libc::kill(pid as i32, number) }))
}

fn succeeded(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(not(target_arch = "x86_64"))]
fn registers(_: u32) -> io::Result<BTreeMap<String, Hex>> {
    Err(io::Error::other("only threads of x86-64 can be recorded"))
}

#[cfg(target_arch = "x86_64")]
fn registers(tid: u32) -> io::Result<BTreeMap<String, Hex>> {
    let tid = tid as i32;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the requests take no addresses but the last one's, which has room for what it writes.
    let registers = unsafe {
        succeeded(libc::ptrace(libc::PTRACE_SEIZE, tid, none, none))?;
        succeeded(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none))?;
        let mut status = 0;
        succeeded(libc::waitpid(tid, &mut status, libc::__WALL).into())?;
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let got = succeeded(libc::ptrace(libc::PTRACE_GETREGS, tid, none, &raw mut registers));
        succeeded(libc::ptrace(libc::PTRACE_DETACH, tid, none, none))?;
        got?;
        registers
    };
    let r = &registers;
    let in_order = [
        r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15, r.rip,
    ];
    let names = REGISTERS.iter().chain([&PROGRAM_COUNTER]);
    Ok(names.map(|name| (*name).to_owned()).zip(in_order.map(Hex)).collect())
}
