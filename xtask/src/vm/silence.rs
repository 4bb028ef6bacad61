//! What a guest that says nothing any more is doing: its processors are looked at from outside, and then made to tell.

use std::{
    fmt::Write as _,
    fs,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

/// The socket of QEMU's monitor, in the guest's directory.
pub const MONITOR: &str = "monitor";
/// Makes the guest's kernel take an interrupt that nobody asked for as a reason to end, with its stack in its log.
pub const KERNEL_PARAMETER: &str = "unknown_nmi_panic";
/// Where the registers go, in the guest's directory.
const REGISTERS: &str = "registers.log";
/// Looks at the processors: what stays the same is where they are stuck.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// By when the monitor has answered, also where the machine is busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// By when an emulated kernel has written its last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Keeps the registers of all processors, and ends the guest with a stack in its kernel's log.
pub fn investigate(directory: &Path) -> io::Result<()> {
    let mut monitor = UnixStream::connect(directory.join(MONITOR))?;
    monitor.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut registers = String::new();
    for look in 1..=LOOKS {
        let answer = ask(&mut monitor, "info registers -a")?;
        // Writing to a string cannot fail.
        let _ = writeln!(registers, "look {look} of {LOOKS}\n{answer}");
        thread::sleep(BETWEEN_LOOKS);
    }
    fs::write(directory.join(REGISTERS), registers)?;
    ask(&mut monitor, "nmi")?;
    thread::sleep(LAST_WORDS);
    Ok(())
}

/// What the monitor says until it has said nothing for a while, which is how its answers end.
fn ask(monitor: &mut UnixStream, command: &str) -> io::Result<String> {
    writeln!(monitor, "{command}")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match monitor.read(&mut buffer) {
            // It ends with the machine.
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
