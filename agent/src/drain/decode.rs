//! The layout of records, without any kernel.

use chokepoint_ebpf::memory::{Fault, FaultFacts, KillRecord, ReclaimFacts, Scope};
use chokepoint_ebpf::record::Kind;
use chokepoint_ebpf::sample::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES, SampleHeader, Source, StackOutcome};
use chokepoint_ebpf::sched::{RunningThread, State, ThreadRecord, WaitFacts, WakeFacts};
use chokepoint_ebpf::tcp::{Call, Event, OpenerFacts, TcpRecord};
use chokepoint_ebpf::unwind::file::NewFile;
use chokepoint_ebpf::unwind::frame::Frame;
use thiserror::Error;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the record says it has.
    #[error("record of {0} bytes is cut short")]
    Truncated(usize),
    /// A number that the contract does not know.
    #[error("record has unknown {what} {value}")]
    Unknown {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// More frames than the contract allows.
    #[error("record has {0} frames")]
    TooManyFrames(usize),
}

/// A decoded record.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// A sample.
    Sample(Sample<'a>),
    /// A file that was sampled for the first time.
    NewFile(Box<NewFile>),
    /// A wait, and the sample of the thread that waited.
    Wait(Wait<'a>),
    /// What woke a thread: a sample of the waker.
    Wake(WakeFacts, Sample<'a>),
    /// The times of a thread.
    Thread(Box<ThreadRecord>),
    /// Something sent again or reset.
    Tcp(Box<TcpRecord>, Event),
    /// Who opened a connection or sent on it.
    TcpOpener(OpenerFacts, Call, Sample<'a>),
    /// A page fault.
    Fault(Fault, Sample<'a>),
    /// A direct reclaim, with its stack where that was taken.
    Reclaim(ReclaimFacts, Scope, Option<Sample<'a>>),
    /// A process that is to be killed since memory ran out.
    Kill(Box<KillRecord>),
}

/// A decoded wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// What is known of it.
    pub facts: WaitFacts,
    /// The state in which the thread left the CPU.
    pub state: State,
    /// The thread, with the stack it waited with.
    pub sample: Sample<'a>,
}

/// A decoded sample; it borrows the frames from the ring buffer.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The fixed part.
    pub header: SampleHeader,
    /// Which program took it.
    pub source: Source,
    /// How the capture of the user stack ended.
    pub user_outcome: StackOutcome,
    /// How the capture of the kernel stack ended.
    pub kernel_outcome: StackOutcome,
    user: &'a [[u8; 8]],
    kernel: &'a [[u8; 8]],
}

impl Sample<'_> {
    /// Frames of the user stack, leaf first.
    pub fn user_frames(&self) -> impl DoubleEndedIterator<Item = Frame> + ExactSizeIterator + '_ {
        self.user.iter().map(|bytes| Frame(u64::from_le_bytes(*bytes)))
    }

    /// Size of the record.
    fn bytes(&self) -> usize {
        size_of::<SampleHeader>() + (self.user.len() + self.kernel.len()) * size_of::<u64>()
    }

    /// Addresses of the kernel stack, leaf first.
    pub fn kernel_addresses(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.kernel.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

impl Wait<'_> {
    /// What of a wait lies after the window's start; `None` where nothing does. What is left stands for its part of what the
    /// whole wait stood for.
    #[must_use]
    pub fn since(mut self, start_ns: u64) -> Option<Self> {
        let facts = &mut self.facts;
        let length_ns = facts.length_ns();
        let before_ns = start_ns.saturating_sub(facts.left_ns);
        if before_ns == 0 {
            return Some(self);
        }
        let left_ns = length_ns.checked_sub(before_ns).filter(|left_ns| *left_ns > 0)?;
        let mut off_ns = before_ns;
        for part_ns in [&mut facts.blocked_ns, &mut facts.throttled_ns, &mut facts.queued_ns] {
            let taken_ns = off_ns.min(*part_ns);
            *part_ns -= taken_ns;
            off_ns -= taken_ns;
        }
        let period_ns = u128::from(facts.period_ns) * u128::from(left_ns) / u128::from(length_ns);
        // No longer than before, so it fits.
        facts.period_ns = period_ns as u64;
        Some(self)
    }

    /// What of a wait that is not over lies before the window's end; `None` where nothing does.
    #[must_use]
    pub fn until(mut self, end_ns: u64) -> Option<Self> {
        let facts = &mut self.facts;
        let length_ns = end_ns.saturating_sub(facts.left_ns);
        let mut rest_ns = length_ns;
        for part_ns in [&mut facts.blocked_ns, &mut facts.throttled_ns, &mut facts.queued_ns] {
            *part_ns = rest_ns.min(*part_ns);
            rest_ns -= *part_ns;
        }
        (length_ns > 0).then_some(self)
    }
}

/// Reads one record of the ring buffer.
///
/// # Errors
/// [`DecodeError`] where the bytes are not what the contract says.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let truncated = DecodeError::Truncated(bytes.len());
    let kind = bytes.first_chunk().map(|word| u32::from_le_bytes(*word)).ok_or(truncated)?;
    match Kind::from_u32(kind) {
        Some(Kind::Sample) => decode_sample(bytes).map(Record::Sample),
        Some(Kind::NewFile) => {
            let (file, _) = fixed(bytes)?;
            Ok(Record::NewFile(Box::new(file)))
        }
        Some(Kind::Wait) => {
            let (facts, sample): (WaitFacts, _) = fixed(bytes)?;
            let state = State::from_u32(facts.state)
                .ok_or(DecodeError::Unknown { what: "state", value: facts.state })?;
            Ok(Record::Wait(Wait { facts, state, sample: decode_sample(sample)? }))
        }
        Some(Kind::Wake) => {
            let (facts, sample) = fixed(bytes)?;
            Ok(Record::Wake(facts, decode_sample(sample)?))
        }
        Some(Kind::Thread) => {
            let (thread, _) = fixed(bytes)?;
            Ok(Record::Thread(Box::new(thread)))
        }
        Some(Kind::Tcp) => {
            let (record, _): (TcpRecord, _) = fixed(bytes)?;
            let event = Event::from_u32(record.event)
                .ok_or(DecodeError::Unknown { what: "event of a connection", value: record.event })?;
            Ok(Record::Tcp(Box::new(record), event))
        }
        Some(Kind::TcpOpener) => {
            let (facts, sample): (OpenerFacts, _) = fixed(bytes)?;
            let call =
                Call::from_u32(facts.call).ok_or(DecodeError::Unknown { what: "call", value: facts.call })?;
            Ok(Record::TcpOpener(facts, call, decode_sample(sample)?))
        }
        Some(Kind::Fault) => {
            let (facts, sample): (FaultFacts, _) = fixed(bytes)?;
            let fault = Fault::from_u32(facts.fault)
                .ok_or(DecodeError::Unknown { what: "kind of fault", value: facts.fault })?;
            Ok(Record::Fault(fault, decode_sample(sample)?))
        }
        Some(kind @ (Kind::Reclaim | Kind::ReclaimStack)) => {
            let (facts, sample): (ReclaimFacts, _) = fixed(bytes)?;
            let scope = Scope::from_u32(facts.scope)
                .ok_or(DecodeError::Unknown { what: "scope of a reclaim", value: facts.scope })?;
            let sample = if kind == Kind::ReclaimStack { Some(decode_sample(sample)?) } else { None };
            Ok(Record::Reclaim(facts, scope, sample))
        }
        Some(Kind::Kill) => {
            let (record, _) = fixed(bytes)?;
            Ok(Record::Kill(Box::new(record)))
        }
        None => Err(DecodeError::Unknown { what: "kind", value: kind }),
    }
}

/// Parts of records that have one size and are made of integers alone, so that any bytes are a valid one.
///
/// # Safety
/// The type must be so.
unsafe trait Fixed: Copy {}
// SAFETY: `repr(C)` structures of integers and arrays of them, without holes.
unsafe impl Fixed for NewFile {}
// SAFETY: as above.
unsafe impl Fixed for SampleHeader {}
// SAFETY: as above.
unsafe impl Fixed for WaitFacts {}
// SAFETY: as above.
unsafe impl Fixed for WakeFacts {}
// SAFETY: as above.
unsafe impl Fixed for ThreadRecord {}
// SAFETY: as above.
unsafe impl Fixed for RunningThread {}
// SAFETY: as above.
unsafe impl Fixed for TcpRecord {}
// SAFETY: as above.
unsafe impl Fixed for OpenerFacts {}
// SAFETY: as above.
unsafe impl Fixed for FaultFacts {}
// SAFETY: as above.
unsafe impl Fixed for ReclaimFacts {}
// SAFETY: as above.
unsafe impl Fixed for KillRecord {}

/// The fixed part that bytes begin with, and the rest.
fn fixed<T: Fixed>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let (fixed, rest) = bytes.split_at_checked(size_of::<T>()).ok_or(DecodeError::Truncated(bytes.len()))?;
    // SAFETY: the slice has the type's size, and any bytes are a valid one.
    Ok((unsafe { fixed.as_ptr().cast::<T>().read_unaligned() }, rest))
}

/// Reads the records that the kernel's iterator over threads wrote one after the other. `sink` is also given the bytes of
/// each.
///
/// # Errors
/// [`DecodeError`] where the bytes are not what the contract says; the records before have been handed over then.
pub fn decode_look(mut bytes: &[u8], mut sink: impl FnMut(Record<'_>, &[u8])) -> Result<(), DecodeError> {
    while !bytes.is_empty() {
        let record = decode(bytes)?;
        let length = match &record {
            Record::Thread(_) => size_of::<ThreadRecord>(),
            Record::Wait(wait) => size_of::<WaitFacts>() + wait.sample.bytes(),
            _ => return Err(DecodeError::Unknown { what: "kind in a look at threads", value: 0 }),
        };
        sink(record, bytes.get(..length).unwrap_or(bytes));
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// Reads what the kernel's iterator told of the threads on CPUs.
///
/// # Errors
/// [`DecodeError`] where the last is cut short.
pub fn decode_running(mut bytes: &[u8]) -> Result<Vec<RunningThread>, DecodeError> {
    let mut running = Vec::new();
    while !bytes.is_empty() {
        let (thread, rest) = fixed(bytes)?;
        running.push(thread);
        bytes = rest;
    }
    Ok(running)
}

fn decode_sample(bytes: &[u8]) -> Result<Sample<'_>, DecodeError> {
    let truncated = DecodeError::Truncated(bytes.len());
    let (header, frames): (SampleHeader, _) = fixed(bytes)?;

    let (user_frames, kernel_frames) = (usize::from(header.user_frames), usize::from(header.kernel_frames));
    if user_frames > MAX_USER_FRAMES || kernel_frames > MAX_KERNEL_FRAMES {
        return Err(DecodeError::TooManyFrames(user_frames + kernel_frames));
    }
    let (frames, _) = frames.as_chunks::<8>();
    // The ring buffer may pad the end of a record.
    let frames = frames.get(..user_frames + kernel_frames).ok_or(truncated)?;
    let (user, kernel) = frames.split_at(user_frames);
    let outcome = |what, value| {
        StackOutcome::from_u8(value).ok_or(DecodeError::Unknown { what, value: u32::from(value) })
    };
    Ok(Sample {
        header,
        source: Source::from_u8(header.source)
            .ok_or(DecodeError::Unknown { what: "source", value: u32::from(header.source) })?,
        user_outcome: outcome("user stack outcome", header.user_outcome)?,
        kernel_outcome: outcome("kernel stack outcome", header.kernel_outcome)?,
        user,
        kernel,
    })
}

/// A task name from the kernel as text: up to the terminating zero, foreign bytes replaced.
#[must_use]
pub fn comm(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    fn record(user: &[u64], kernel: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<SampleHeader>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(SampleHeader, kind), &(Kind::Sample as u32).to_le_bytes());
        put(offset_of!(SampleHeader, tid), &7u32.to_le_bytes());
        put(offset_of!(SampleHeader, user_frames), &(user.len() as u16).to_le_bytes());
        put(offset_of!(SampleHeader, kernel_frames), &(kernel.len() as u16).to_le_bytes());
        put(offset_of!(SampleHeader, source), &[Source::OnCpu as u8]);
        put(offset_of!(SampleHeader, user_outcome), &[StackOutcome::Walked as u8]);
        put(offset_of!(SampleHeader, kernel_outcome), &[StackOutcome::Absent as u8]);
        bytes.extend(user.iter().chain(kernel).flat_map(|address| address.to_le_bytes()));
        bytes
    }

    fn sample(bytes: &[u8]) -> Sample<'_> {
        match decode(bytes) {
            Ok(Record::Sample(sample)) => sample,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_stacks_are_read_in_order() {
        let bytes = record(&[1, 2, 3], &[u64::MAX, 5]);
        let sample = sample(&bytes);
        assert_eq!(sample.header.tid, 7);
        assert_eq!(sample.user_frames().collect::<Vec<_>>(), [1, 2, 3].map(Frame));
        assert_eq!(sample.kernel_addresses().collect::<Vec<_>>(), [u64::MAX, 5]);
        assert_eq!(
            (sample.user_outcome, sample.kernel_outcome),
            (StackOutcome::Walked, StackOutcome::Absent)
        );
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        let bytes = record(&[1, 2], &[3]);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]).unwrap_err(), DecodeError::Truncated(length));
        }
    }

    #[test]
    fn numbers_outside_the_contract_are_refused() {
        let cases = [
            (offset_of!(SampleHeader, kind), DecodeError::Unknown { what: "kind", value: 0xee }),
            (offset_of!(SampleHeader, source), DecodeError::Unknown { what: "source", value: 0xee }),
            (
                offset_of!(SampleHeader, user_outcome),
                DecodeError::Unknown { what: "user stack outcome", value: 0xee },
            ),
            // The upper byte of two.
            (offset_of!(SampleHeader, user_frames) + 1, DecodeError::TooManyFrames(0xee02 + 1)),
        ];
        for (at, expected) in cases {
            let mut bytes = record(&[1, 2], &[3]);
            bytes[at] = 0xee;
            assert_eq!(decode(&bytes).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_new_file_is_read_whole_or_not_at_all() {
        let mut bytes = vec![0; size_of::<NewFile>()];
        bytes[0] = Kind::NewFile as u8;
        bytes[offset_of!(NewFile, tgid)] = 7;
        let Ok(Record::NewFile(file)) = decode(&bytes) else { panic!("no file") };
        assert_eq!(file.tgid, 7);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]).unwrap_err(), DecodeError::Truncated(length));
        }
    }

    fn wait(left_ns: u64, blocked_ns: u64, throttled_ns: u64, queued_ns: u64) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<WaitFacts>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(WaitFacts, kind), &(Kind::Wait as u32).to_le_bytes());
        put(offset_of!(WaitFacts, state), &(State::Io as u32).to_le_bytes());
        put(offset_of!(WaitFacts, left_ns), &left_ns.to_le_bytes());
        put(offset_of!(WaitFacts, blocked_ns), &blocked_ns.to_le_bytes());
        put(offset_of!(WaitFacts, throttled_ns), &throttled_ns.to_le_bytes());
        put(offset_of!(WaitFacts, queued_ns), &queued_ns.to_le_bytes());
        bytes.extend(record(&[1, 2], &[3]));
        bytes
    }

    #[test]
    fn a_wait_is_read_with_its_sample_or_not_at_all() {
        let bytes = wait(100, 50, 0, 5);
        let Ok(Record::Wait(read)) = decode(&bytes) else { panic!("no wait") };
        assert_eq!((read.state, read.facts.blocked_ns, read.sample.header.tid), (State::Io, 50, 7));
        assert_eq!(read.sample.kernel_addresses().collect::<Vec<_>>(), [3]);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let mut unknown = bytes;
        unknown[offset_of!(WaitFacts, state)] = 99;
        assert_eq!(decode(&unknown).unwrap_err(), DecodeError::Unknown { what: "state", value: 99 });
    }

    #[test]
    fn an_open_wait_ends_with_the_window() {
        for (end_ns, expected) in [
            (200, Some((50, 20, 5))),
            (173, Some((50, 20, 3))),
            (160, Some((50, 10, 0))),
            (120, Some((20, 0, 0))),
            (90, None),
        ] {
            let bytes = wait(100, 50, 20, 5);
            let Ok(Record::Wait(read)) = decode(&bytes) else { panic!("no wait") };
            let parts = |facts: WaitFacts| (facts.blocked_ns, facts.throttled_ns, facts.queued_ns);
            let cut = read.until(end_ns).map(|cut| parts(cut.facts));
            assert_eq!(cut, expected, "{end_ns}");
        }
    }

    #[test]
    fn of_a_wait_what_lies_after_the_windows_start_is_left() {
        let bytes = wait(1_000, 600, 100, 300);
        let Ok(Record::Wait(mut wait)) = decode(&bytes) else { panic!("not a wait") };
        // Chosen with a probability of a quarter, it stands for four times its length.
        wait.facts.period_ns = 4_000;
        let left = |start_ns| {
            let facts = wait.since(start_ns)?.facts;
            Some((facts.blocked_ns, facts.throttled_ns, facts.queued_ns, facts.period_ns))
        };
        assert_eq!(left(900), Some((600, 100, 300, 4_000)));
        assert_eq!(left(1_200), Some((400, 100, 300, 3_200)));
        assert_eq!(left(1_650), Some((0, 50, 300, 1_400)));
        assert_eq!(left(1_900), Some((0, 0, 100, 400)));
        assert_eq!(left(2_000), None);
    }

    #[test]
    fn looks_are_records_one_after_the_other() {
        let mut thread = vec![0; size_of::<ThreadRecord>()];
        thread[0] = Kind::Thread as u8;
        let look = [thread.clone(), wait(1, 2, 0, 3), thread].concat();
        let mut kinds = String::new();
        let told = decode_look(&look, |record, _| {
            kinds.push(match record {
                Record::Thread(_) => 't',
                Record::Wait(_) => 'w',
                _ => '?',
            });
        });
        assert_eq!((told, kinds.as_str()), (Ok(()), "twt"));
        assert!(decode_look(&look[..look.len() - 1], |_, _| {}).is_err());
        assert!(decode_look(&record(&[], &[]), |_, _| {}).is_err(), "a sample is no part of a look");
    }

    #[test]
    fn a_fault_or_a_reclaim_is_read_with_its_sample_or_not_at_all() {
        let mut fault = vec![0; size_of::<FaultFacts>()];
        fault[0] = Kind::Fault as u8;
        fault[offset_of!(FaultFacts, fault)] = Fault::Major as u8;
        fault.extend(record(&[1, 2], &[3]));
        assert!(matches!(decode(&fault), Ok(Record::Fault(Fault::Major, sample)) if sample.header.tid == 7));
        let mut reclaim = vec![0; size_of::<ReclaimFacts>()];
        reclaim[0] = Kind::Reclaim as u8;
        reclaim[offset_of!(ReclaimFacts, scope)] = Scope::Group as u8;
        reclaim[offset_of!(ReclaimFacts, pages)] = 32;
        assert!(
            matches!(decode(&reclaim), Ok(Record::Reclaim(facts, Scope::Group, None)) if facts.pages == 32)
        );
        reclaim[0] = Kind::ReclaimStack as u8;
        reclaim.extend(record(&[1], &[]));
        assert!(
            matches!(decode(&reclaim), Ok(Record::Reclaim(_, _, Some(sample))) if sample.header.tid == 7)
        );
        for bytes in [fault, reclaim] {
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
            }
        }
    }

    #[test]
    fn comm_ends_at_the_zero() {
        assert_eq!(comm(b"sh\0old-name\0"), "sh");
        assert_eq!(comm(b"\xff"), "\u{fffd}");
    }
}
