//! The block source: its programs and maps as the agent uses them.

use aya::maps::{Array, HashMap, MapData};
use aya::programs::{FEntry, FExit, RawTracePoint, RawTracePointRunOptions, TestRun};
use aya::{Btf, Ebpf};
use chokepoint_ebpf::block::{HeldBio, Holds, Key, PEEK_WORDS, Peek, Request, Stage, Sums};

use super::LoadError;
use super::layout::KernelLayout;
use super::pod::readable;
use super::programs::{attach, load, program, tried, unload};
use crate::block_windows::Idle;
use crate::held_bios::KernelMemory;

/// Programs that are named as their tracepoints are, in the order in which they are attached: what ends a request first, so that
/// none that begins is left.
const TRACEPOINTS: [&str; 5] =
    ["block_rq_complete", "block_rq_merge", "block_rq_requeue", "block_rq_issue", "block_rq_insert"];
/// What tells that a bio has come by its group's limit.
const RELEASED: &str = "block_bio_queue";
/// The programs at the function that decides on the limit,
const LIMIT: &str = "block_limit";
const LIMIT_OVER: &str = "block_limit_over";
/// and its names: of kernels since 5.18, and of those before.
const LIMIT_FUNCTIONS: [&str; 2] = ["__blk_throtl_bio", "blk_throtl_bio"];

/// What shows the agent the kernel's memory.
const PEEK: &str = "block_peek";
const PEEKED: &str = "BLOCK_PEEK";
/// What is over, by owner.
const SUMS: &str = "BLOCK_SUMS";
const HOLDS: &str = "BLOCK_HOLDS";

/// What the block source is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// Whether the target is a group of the hierarchy that requests are charged in.
    pub gate_by_group: bool,
    /// Whether requests are summed by device and operation alone, and bios that limits hold back are not looked for.
    pub devices_only: bool,
}

/// How the source sees bios that groups' limits hold back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeesHolds {
    /// Each, where the limit is decided on and where it is released.
    Each,
    /// Those that looks at the kernel's queues find.
    Looks,
    /// It was not asked to.
    Nothing,
}

/// The source.
pub struct Block {
    sees_holds: SeesHolds,
}

/// What the source's maps hold.
#[derive(Debug, Default)]
pub struct BlockMaps {
    /// Requests that are over.
    pub sums: Vec<(Key, Sums)>,
    /// Requests under way, by the addresses of the kernel's structures.
    pub requests: Vec<(u64, Request)>,
    /// Bios that were held back and released.
    pub holds: Vec<(Key, Holds)>,
    /// Bios that are held back now.
    pub held: Vec<HeldBio>,
}

readable! {
    KeyBytes(Key);
    SumsBytes(Sums);
    RequestBytes(Request);
    HoldsBytes(Holds);
    HeldBytes(HeldBio);
    PeekBytes(Peek);
}

impl Block {
    /// Loads the programs; nothing runs yet.
    pub(super) fn load(ebpf: &mut Ebpf, options: BlockOptions, btf: &Btf) -> Result<Self, LoadError> {
        for name in TRACEPOINTS {
            load(ebpf, name, name, btf)?;
        }
        if options.devices_only {
            return Ok(Self { sees_holds: SeesHolds::Nothing });
        }
        let peek: &mut RawTracePoint = program(ebpf, PEEK)?;
        peek.load().map_err(|source| LoadError::Program { name: PEEK, source })?;
        let sees_holds =
            LIMIT_FUNCTIONS.into_iter().any(|function| tried(function, load_limit(ebpf, function, btf)));
        if sees_holds {
            load(ebpf, RELEASED, RELEASED, btf)?;
            return Ok(Self { sees_holds: SeesHolds::Each });
        }
        Ok(Self { sees_holds: SeesHolds::Looks })
    }

    /// Begins to see.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        if self.sees_holds == SeesHolds::Each {
            attach(ebpf, RELEASED)?;
            // A kernel without the function tracer takes the programs and refuses their place.
            if !tried(LIMIT, attach_limit(ebpf)) {
                unload(ebpf, RELEASED)?;
                self.sees_holds = SeesHolds::Looks;
            }
        }
        TRACEPOINTS.into_iter().try_for_each(|name| attach(ebpf, name))
    }

    /// Stops, and unloads the programs. What was under way then is left in the maps.
    pub(super) fn stop(&self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        for name in TRACEPOINTS.into_iter().rev() {
            unload(ebpf, name)?;
        }
        if self.sees_holds == SeesHolds::Each {
            let limit: &mut FEntry = program(ebpf, LIMIT)?;
            limit.unload().map_err(|source| LoadError::Program { name: LIMIT, source })?;
            let over: &mut FExit = program(ebpf, LIMIT_OVER)?;
            over.unload().map_err(|source| LoadError::Program { name: LIMIT_OVER, source })?;
            unload(ebpf, RELEASED)?;
        }
        Ok(())
    }

    /// How it sees bios that a group's limit holds back.
    #[must_use]
    pub const fn sees_holds(&self) -> SeesHolds {
        self.sees_holds
    }

    /// Sums by device and operation alone. The programs go on: of a request that completes meanwhile, some of its numbers may be missing.
    pub(super) fn read_devices(ebpf: &Ebpf) -> Result<Vec<(Key, Sums)>, LoadError> {
        let devices = entries::<KeyBytes, SumsBytes>(ebpf, "BLOCK_DEVICES")?;
        Ok(devices.into_iter().map(|(key, sums)| (key.0, sums.0)).collect())
    }

    /// What the programs have summed up so far, and what is under way.
    pub(super) fn read(ebpf: &Ebpf) -> Result<BlockMaps, LoadError> {
        let sums = entries::<KeyBytes, SumsBytes>(ebpf, SUMS)?;
        let devices = entries::<KeyBytes, SumsBytes>(ebpf, "BLOCK_DEVICES")?;
        let requests = entries::<u64, RequestBytes>(ebpf, "BLOCK_REQUESTS")?;
        let holds = entries::<KeyBytes, HoldsBytes>(ebpf, HOLDS)?;
        let held = entries::<u64, HeldBytes>(ebpf, "BLOCK_HELD")?;
        Ok(BlockMaps {
            sums: sums.into_iter().chain(devices).map(|(key, sums)| (key.0, sums.0)).collect(),
            requests: requests
                .into_iter()
                .map(|(address, request)| (address, request.0))
                .filter(|(_, request)| request.stage != Stage::Over as u32)
                .collect(),
            holds: holds.into_iter().map(|(key, holds)| (key.0, holds.0)).collect(),
            held: held.into_iter().map(|(_, bio)| bio.0).collect(),
        })
    }

    /// Makes room in the sums for others, by those of these keys. What a program is adding to one at that moment is lost.
    pub(super) fn forget(ebpf: &mut Ebpf, idle: &Idle) -> Result<(), LoadError> {
        forget::<SumsBytes>(ebpf, SUMS, &idle.sums)?;
        forget::<HoldsBytes>(ebpf, HOLDS, &idle.holds)
    }
}

/// The kernel's memory, by way of a program that is loaded and never attached.
pub(super) struct Peeking<'a>(pub(super) &'a mut Ebpf);

impl KernelMemory for Peeking<'_> {
    fn read(&mut self, address: u64) -> Option<[u64; PEEK_WORDS]> {
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = address;
        let peek: &mut RawTracePoint = program(self.0, PEEK).ok()?;
        peek.test_run(options).ok()?;
        let map: Array<&MapData, PeekBytes> = Array::try_from(self.0.map(PEEKED)?).ok()?;
        let PeekBytes(peeked) = map.get(&0, 0).ok()?;
        (peeked.is_read != 0).then_some(peeked.words)
    }
}

impl KernelLayout {
    /// The globals of the block source that are not offsets.
    pub(super) fn block_globals(&self) -> [(&'static str, u8); 4] {
        [
            ("HAS_QUEUE_ARGUMENT", u8::from(self.has_queue_argument)),
            ("HAS_QUEUE_DISK", u8::from(self.has_queue_disk())),
            ("HAS_BIO_DEVICE", u8::from(self.has_bio_device())),
            ("HAS_BIO_GROUP", u8::from(self.has_bio_group())),
        ]
    }
}

/// All of a map.
fn entries<K: aya::Pod, V: aya::Pod>(ebpf: &Ebpf, name: &'static str) -> Result<Vec<(K, V)>, LoadError> {
    let unusable = |source| LoadError::Map { name, source };
    let map = ebpf.map(name).ok_or(LoadError::Missing(name))?;
    let map: HashMap<&MapData, K, V> = HashMap::try_from(map).map_err(unusable)?;
    map.iter().collect::<Result<_, _>>().map_err(unusable)
}

fn forget<V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, keys: &[Key]) -> Result<(), LoadError> {
    let unusable = |source| LoadError::Map { name, source };
    let map = ebpf.map_mut(name).ok_or(LoadError::Missing(name))?;
    let mut map: HashMap<&mut MapData, KeyBytes, V> = HashMap::try_from(map).map_err(unusable)?;
    for key in keys {
        match map.remove(&KeyBytes(*key)) {
            Ok(()) => {}
            Err(error) => return Err(unusable(error)),
        }
    }
    Ok(())
}

fn load_limit(ebpf: &mut Ebpf, function: &str, btf: &Btf) -> Result<(), LoadError> {
    let limit: &mut FEntry = program(ebpf, LIMIT)?;
    limit.load(function, btf).map_err(|source| LoadError::Program { name: LIMIT, source })?;
    let over: &mut FExit = program(ebpf, LIMIT_OVER)?;
    over.load(function, btf).map_err(|source| LoadError::Program { name: LIMIT_OVER, source })
}

/// First the end: a bio that has only begun to be looked at would seem to be held.
fn attach_limit(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let over: &mut FExit = program(ebpf, LIMIT_OVER)?;
    over.attach().map_err(|source| LoadError::Program { name: LIMIT_OVER, source })?;
    let limit: &mut FEntry = program(ebpf, LIMIT)?;
    limit.attach().map(drop).map_err(|source| LoadError::Program { name: LIMIT, source })
}
