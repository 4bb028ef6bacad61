//! The same stack as gdb sees it: its reader of call-frame information and its ways of doing without are its own.

use std::io;
use std::io::Write;
use std::process::Command;

use chokepoint_ebpf::unwind::frame::Frame;

/// Asks for each frame: program counter, kind and stack pointer; then why there are no more.
const SCRIPT: &str = r#"
import gdb
for thread in gdb.selected_inferior().threads():
    if thread.ptid[1] == TID:
        thread.switch()
frame = gdb.newest_frame()
while frame is not None:
    try:
        print("frame %x %d %x" % (frame.pc(), frame.type(), int(frame.read_register("rsp")) & (2**64 - 1)))
        older = frame.older()
    except gdb.error as error:
        print("end %s" % error)
        break
    if older is None:
        print("end %s" % gdb.frame_stop_reason_string(frame.unwind_stop_reason()))
    frame = older
"#;

/// `enum frame_type` of gdb: functions inlined or jumped to share another one's frame.
const INLINE_FRAME: u32 = 2;
const TAILCALL_FRAME: u32 = 3;
const SIGNAL_FRAME: u32 = 4;

/// Where gdb says that it is at the start, by call-frame information or because it was told so.
const AT_THE_START: [&str; 2] = ["outermost", "no reason"];

/// A stack, leaf first.
pub struct Backtrace {
    /// Whose it is.
    pub by: String,
    frames: Vec<(u64, u64)>,
    /// Why there are no more.
    pub end: String,
}

/// How another walk compares.
#[derive(Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Frame by frame.
    Whole,
    /// As far as this one goes, which is so many frames.
    Part(usize),
    /// Behind so many frames they differ.
    Not(usize),
}

impl Backtrace {
    /// Has gdb look at a stopped thread.
    pub fn by_gdb(pid: u32, tid: u32) -> io::Result<Self> {
        let mut script = tempfile::Builder::new().suffix(".py").tempfile()?;
        script.write_all(SCRIPT.replace("TID", &tid.to_string()).as_bytes())?;
        let output = Command::new("gdb")
            .args(["-nx", "-batch", "-p", &pid.to_string()])
            .args(["-ex", "set debuginfod enabled off"])
            .args(["-ex", "set backtrace past-main on", "-ex", "set backtrace past-entry on"])
            .args(["-ex", "set backtrace limit unlimited", "-x"])
            .arg(script.path())
            .output()?;
        let version = Command::new("gdb").arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout);
        let by = format!(
            "gdb {}",
            version.lines().next().and_then(|line| line.split(' ').next_back()).unwrap_or_default()
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let mut frames = Vec::new();
        let mut is_exact = true;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("frame ") else { continue };
            let fields: Vec<&str> = rest.split(' ').collect();
            let hex = |text: &str| u64::from_str_radix(text, 16).map_err(io::Error::other);
            let kind: u32 = fields[1].parse().map_err(io::Error::other)?;
            if kind == INLINE_FRAME || kind == TAILCALL_FRAME {
                continue;
            }
            // Of callers the call is meant, but not of what a signal interrupted.
            match hex(fields[0])?.checked_sub(u64::from(!is_exact)) {
                Some(address) => frames.push((address, hex(fields[2])?)),
                // What a goroutine's first function seems to return to.
                None => break,
            }
            is_exact = kind == SIGNAL_FRAME;
        }
        let end = text.lines().find_map(|line| line.strip_prefix("end ")).unwrap_or_default().to_owned();
        if frames.is_empty() {
            return Err(io::Error::other(format!("gdb says: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(Self { by, frames, end })
    }

    /// The addresses of the code that is meant.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.frames.iter().map(|(address, _)| *address)
    }

    /// The stack pointer of the last frame.
    pub fn outermost_stack_pointer(&self) -> u64 {
        self.frames.last().map_or(0, |(_, stack_pointer)| *stack_pointer)
    }

    /// Compares the places of its addresses with another walk.
    pub fn compare(&self, theirs: &[Frame], own: &[Frame]) -> Agreement {
        let is_whole = AT_THE_START.contains(&self.end.as_str());
        if theirs == own && is_whole {
            Agreement::Whole
        } else if own.starts_with(theirs) {
            Agreement::Part(theirs.len())
        } else {
            Agreement::Not(theirs.iter().zip(own).take_while(|(theirs, own)| theirs == own).count())
        }
    }
}
