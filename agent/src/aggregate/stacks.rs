//! Every distinct stack once.
//!
//! User frames come as positions in files, so a stack means the same in every process. It is identified by all of its frames
//! and how it ended, and by the process where a frame lies in memory of no file; the hash only finds it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::unwind::frame::{Frame, Place};
use hashbrown::HashTable;

use crate::process::table::ProcessId;

/// Where a frame's code lies. Of callers it is the call's last byte, not the instruction after it, which may belong to
/// another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawFrame {
    /// In the kernel, absolute.
    Kernel(u64),
    /// In a file by the kernel programs' id, at this file offset.
    File(u32, u64),
    /// In the vDSO, at this offset.
    Vdso(u64),
    /// In code that this process's runtime compiled, absolute.
    Jit(ProcessId, u64),
    /// In none of the process's mappings, absolute.
    Unmapped(u64),
    /// Stands for the outermost frames of a user stack that are missing, and says why.
    Missing(StackOutcome),
}

/// Index of a [`RawFrame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawFrameId(u32);

impl RawFrameId {
    /// Position in [`super::Aggregate::frames`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Ends the words of a stack whose outermost frames are missing; the outcome is in the low bits. No frame has this kind.
const MISSING: u64 = 0xf << 60;

/// The word that ends those of such a stack.
pub(super) fn missing(outcome: StackOutcome) -> u64 {
    MISSING | outcome as u64
}

/// One distinct stack: a stretch of the frames' tables, the kernel's first.
#[derive(Clone, Copy, Debug)]
struct StackEntry {
    hash: u64,
    /// `None` for stacks that mean the same in every process.
    process: Option<ProcessId>,
    start: u32,
    kernel_frames: u16,
    /// User frames, and the word that says that some are missing.
    user_words: u16,
}

impl StackEntry {
    fn range(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.kernel_frames) + usize::from(self.user_words)
    }
}

/// The stacks. See the module's documentation.
pub(super) struct StackTable {
    /// Frames of all stacks together.
    limit: usize,
    frames: Vec<RawFrame>,
    frame_ids: HashMap<RawFrame, RawFrameId>,
    entries: Vec<StackEntry>,
    ids: HashTable<u32>,
    hasher: RandomState,
    /// Words of all stacks, one after the other, as the kernel gave them.
    words: Vec<u64>,
    /// What each of them is.
    placed: Vec<RawFrameId>,
}

impl StackTable {
    /// An empty one, which takes so many frames.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            frames: Vec::new(),
            frame_ids: HashMap::new(),
            entries: Vec::new(),
            ids: HashTable::new(),
            hasher: RandomState::new(),
            words: Vec::new(),
            placed: Vec::new(),
        }
    }

    /// Every distinct frame.
    pub(super) fn frames(&self) -> &[RawFrame] {
        &self.frames
    }

    /// The stacks, leaf first: the kernel's frames, then the user's.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[RawFrameId]> {
        self.entries.iter().map(|entry| &self.placed[entry.range()])
    }

    /// What [`Self::insert`] was told of a stack.
    pub(super) fn words_of(&self, stack: u32) -> (Option<ProcessId>, &[u64], u16) {
        let entry = self.entries[stack as usize];
        (entry.process, &self.words[entry.range()], entry.kernel_frames)
    }

    /// Number of a stack's kernel frames.
    pub(super) fn kernel_frames(&self, stack: u32) -> usize {
        usize::from(self.entries[stack as usize].kernel_frames)
    }

    /// Whether a stack has frames of user code.
    pub(super) fn has_user_frames(&self, stack: u32) -> bool {
        self.entries[stack as usize].user_words > 0
    }

    /// The position of a stack, which is added where it is new; `None` where there is no room.
    pub(super) fn insert(
        &mut self,
        process: Option<ProcessId>,
        words: &[u64],
        kernel_frames: u16,
    ) -> Option<u32> {
        let hash = self.hasher.hash_one((process, kernel_frames, words));
        let found = self.ids.find(hash, |id| {
            let entry = &self.entries[*id as usize];
            entry.hash == hash
                && entry.process == process
                && entry.kernel_frames == kernel_frames
                && &self.words[entry.range()] == words
        });
        if let Some(id) = found {
            return Some(*id);
        }
        if self.words.len() + words.len() > self.limit {
            return None;
        }
        let id = self.entries.len() as u32;
        let start = self.words.len() as u32;
        self.words.extend_from_slice(words);
        self.entries.push(StackEntry {
            hash,
            process,
            start,
            kernel_frames,
            user_words: words.len() as u16 - kernel_frames,
        });
        self.ids.insert_unique(hash, id, |id| self.entries[*id as usize].hash);
        for (position, word) in words.iter().enumerate() {
            let frame = if position < usize::from(kernel_frames) {
                // Every kernel address but the first is a return address.
                RawFrame::Kernel(word.saturating_sub(u64::from(position > 0)))
            } else {
                user_frame(process, *word)
            };
            let frame = self.frame(frame);
            self.placed.push(frame);
        }
        Some(id)
    }

    fn frame(&mut self, frame: RawFrame) -> RawFrameId {
        *self.frame_ids.entry(frame).or_insert_with(|| {
            let id = RawFrameId(self.frames.len() as u32);
            self.frames.push(frame);
            id
        })
    }
}

fn user_frame(process: Option<ProcessId>, word: u64) -> RawFrame {
    match (Frame(word).place(), process) {
        (Some(Place::File(id, offset)), _) => RawFrame::File(id, offset),
        (Some(Place::Vdso(offset)), _) => RawFrame::Vdso(offset),
        (Some(Place::Anonymous(address)), Some(process)) => RawFrame::Jit(process, address),
        (Some(Place::Anonymous(address) | Place::Unmapped(address)), _) => RawFrame::Unmapped(address),
        (None, _) => {
            RawFrame::Missing(StackOutcome::from_u8((word & 0xff) as u8).unwrap_or(StackOutcome::Unreadable))
        }
    }
}
