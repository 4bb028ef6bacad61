//! The block source over a window: looks at bios that limits hold back, and what the window came to in the end.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chokepoint_analysis::block::Block;

use crate::block_devices::{self, RequestFields};
use crate::block_windows::BlockWindows;
use crate::failure::Failure;
use crate::held_bios::{Fields, HeldBios};
use crate::host::clock::monotonic_ns;
use crate::host::devices::Devices;
use crate::host::io_groups;
use crate::load::block::{BlockMaps, BlockOptions};
use crate::load::layout::KernelLayout;
use crate::load::{Gate, Programs};

/// Time between two looks at bios that limits hold back, while there are any. The kernel counts these waits in ticks, of which this
/// is one to ten.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// Groups whose paths are remembered, about 100 bytes each. Of more, all are forgotten and looked for again.
const MAX_GROUPS: usize = 20_000;

/// See the module's documentation.
pub struct BlockWatch {
    /// Where held bios are to be looked for.
    held_fields: Option<Fields>,
    request_fields: RequestFields,
    /// The target's group, where it is one that requests are charged to.
    target_group: Option<u64>,
    has_target: bool,
    held: HeldBios,
    looked: Instant,
    windows: BlockWindows,
    /// Paths of groups by their ids, which are never given to others; `None` of those that were gone when they were looked for.
    groups: HashMap<u64, Option<String>>,
}

/// What a window came to.
#[derive(Clone, Debug, Default)]
pub struct BlockSeen {
    /// `None` where block devices were not watched, or could not be.
    pub block: Option<Block>,
    /// Why they could not be.
    pub refused: Option<String>,
    /// Requests that had ended unseen when the window did.
    pub ended_unseen: u64,
    /// Looks for held bios that did not see all.
    pub short_looks: u64,
}

impl BlockWatch {
    /// Nothing seen yet. `gate` is that of the target.
    #[must_use]
    pub fn new(gate: &Gate, layout: &KernelLayout) -> Self {
        let target_group = match gate {
            Gate::Cgroup { id, .. } if is_charged_by(gate, layout) => Some(*id),
            _ => None,
        };
        Self {
            held_fields: Fields::of(layout),
            request_fields: RequestFields::of(layout),
            target_group,
            has_target: *gate != Gate::Everything,
            held: HeldBios::default(),
            looked: Instant::now(),
            windows: BlockWindows::default(),
            groups: HashMap::new(),
        }
    }

    /// What the source is to be loaded with.
    #[must_use]
    pub fn options(gate: &Gate, layout: &KernelLayout) -> BlockOptions {
        BlockOptions { gate_by_group: is_charged_by(gate, layout), devices_only: false }
    }

    /// Whether the next look is due before anything else wakes the agent.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        self.held.is_pressing(monotonic_ns())
    }

    /// Looks for held bios, if it is time to.
    pub fn look(&mut self, programs: &mut Programs) {
        if self.looked.elapsed() >= INTERVAL && self.look_until(programs, monotonic_ns()) {
            self.looked = Instant::now();
        }
    }

    /// Has the last look, which is the window's end, before the programs stop. Whether held bios are to be looked for.
    pub fn end(&mut self, programs: &mut Programs, end_ns: u64) -> bool {
        self.look_until(programs, end_ns)
    }

    fn look_until(&mut self, programs: &mut Programs, now_ns: u64) -> bool {
        let looks = programs.peek_at_holds().zip(self.held_fields.as_ref());
        looks.map(|(mut memory, fields)| self.held.look(&mut memory, fields, now_ns)).is_some()
    }

    /// What a window came to that another follows.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn close_window(&mut self, programs: &mut Programs, end_ns: u64) -> Result<BlockSeen, Failure> {
        let has_looked = self.look_until(programs, end_ns);
        if let Some(seen) = unseen(programs) {
            return Ok(seen);
        }
        let mut maps = programs.read_block()?;
        // They are counted when their places are taken.
        if let Some(mut memory) = programs.peek() {
            drop(block_devices::take_ended_unseen(&mut maps, &mut memory, self.request_fields));
        }
        if has_looked {
            (maps.holds, maps.held) = self.held.close_window();
        }
        let idle = self.windows.close(&mut maps, has_looked);
        programs.forget_block(&idle)?;
        let block = self.named(maps, has_looked, end_ns);
        Ok(BlockSeen {
            block: Some(block),
            refused: None,
            ended_unseen: 0,
            short_looks: self.held.take_short(),
        })
    }

    /// What the window came to, after the programs have stopped. `has_looked` is what [`Self::end`] said.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn finish(
        mut self,
        programs: &mut Programs,
        has_looked: bool,
        end_ns: u64,
    ) -> Result<BlockSeen, Failure> {
        if let Some(seen) = unseen(programs) {
            return Ok(seen);
        }
        let mut maps = programs.read_block()?;
        let ended_unseen = programs
            .peek()
            .map_or(0, |mut memory| block_devices::settle(&mut maps, &mut memory, self.request_fields));
        let short_looks = self.held.take_short();
        if has_looked {
            (maps.holds, maps.held) = self.held.close_window();
        }
        let block = self.named(maps, has_looked, end_ns);
        Ok(BlockSeen { block: Some(block), refused: None, ended_unseen, short_looks })
    }

    fn named(&mut self, mut maps: BlockMaps, has_looked: bool, end_ns: u64) -> Block {
        let mut ids = block_devices::groups(&maps);
        ids.extend(self.target_group);
        let groups = self.paths(&ids);
        if has_looked {
            block_devices::mark_target(&mut maps, &groups, self.has_target, self.target_group);
        }
        block_devices::block(&maps, &mut Devices::default(), &groups, self.has_target, end_ns)
    }

    /// The paths of groups. All groups of the host are gone through only for one that was never looked for.
    fn paths(&mut self, ids: &HashSet<u64>) -> HashMap<u64, String> {
        if ids.iter().any(|id| !self.groups.contains_key(id)) {
            let mut found = io_groups::paths(ids);
            if self.groups.len() > MAX_GROUPS {
                self.groups.clear();
            }
            self.groups.extend(ids.iter().map(|id| (*id, found.remove(id))));
        }
        let known = |id: &u64| Some((*id, self.groups.get(id)?.clone()?));
        ids.iter().filter_map(known).collect()
    }
}

/// What a window came to of a source that this kernel refuses, or that nobody asked for; `None` where there is one.
fn unseen(programs: &Programs) -> Option<BlockSeen> {
    match programs.block() {
        Some(Ok(_)) => None,
        Some(Err(reason)) => Some(BlockSeen { refused: Some(reason.to_owned()), ..BlockSeen::default() }),
        None => Some(BlockSeen::default()),
    }
}

/// Whether the target is a group of the hierarchy that block requests are charged in.
fn is_charged_by(gate: &Gate, layout: &KernelLayout) -> bool {
    match (gate, io_groups::is_version_1()) {
        (Gate::Cgroup { controller: None, .. }, Some(is_version_1)) => !is_version_1,
        (Gate::Cgroup { controller, .. }, Some(true)) => *controller == layout.controller("blkio"),
        _ => false,
    }
}
