//! The source of failed calls: its program and maps as the agent uses them.

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::{Btf, Ebpf};
use chokepoint_ebpf::failed_calls::{CallKey, CallTotals};

use super::LoadError;
use super::pod::readable;
use super::programs::{load, program};

const NAME: &str = "sys_exit";
const CALLS: &str = "FAILED_CALLS";
const SEEN: &str = "CALLS_SEEN";
const ANY: &str = "ANY_FAILED";

readable! {
    Key(CallKey);
    Totals(CallTotals);
}

/// The source.
pub(super) struct FailedCalls {
    calls: HashMap<MapData, Key, Totals>,
    seen: PerCpuArray<MapData, u64>,
    any: Array<MapData, u64>,
    /// While it sees calls.
    link: Option<BtfTracePointLinkId>,
}

impl FailedCalls {
    /// Loads the program; nothing runs yet.
    pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<Self, LoadError> {
        load(ebpf, NAME, NAME, btf)?;
        let unusable = |name| move |source| LoadError::Map { name, source };
        let mut take = |name| ebpf.take_map(name).ok_or(LoadError::Missing(name));
        Ok(Self {
            calls: HashMap::try_from(take(CALLS)?).map_err(unusable(CALLS))?,
            seen: PerCpuArray::try_from(take(SEEN)?).map_err(unusable(SEEN))?,
            any: Array::try_from(take(ANY)?).map_err(unusable(ANY))?,
            link: None,
        })
    }

    /// Unloads the program. What it has seen stays.
    pub(super) fn stop(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        self.link = None;
        let tracing: &mut BtfTracePoint = program(ebpf, NAME)?;
        tracing.unload().map_err(|source| LoadError::Program { name: NAME, source })
    }
}

/// The source as it looks at calls now and then.
pub struct Looking<'a> {
    pub(super) source: &'a mut FailedCalls,
    pub(super) ebpf: &'a mut Ebpf,
}

impl Looking<'_> {
    /// Sees calls from now on.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn begin(&mut self) -> Result<(), LoadError> {
        let tracing: &mut BtfTracePoint = program(self.ebpf, NAME)?;
        let link = tracing.attach().map_err(|source| LoadError::Program { name: NAME, source })?;
        self.source.link = Some(link);
        Ok(())
    }

    /// Sees none any more.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn end(&mut self) -> Result<(), LoadError> {
        let tracing: &mut BtfTracePoint = program(self.ebpf, NAME)?;
        match self.source.link.take() {
            Some(link) => tracing.detach(link).map_err(|source| LoadError::Program { name: NAME, source }),
            None => Ok(()),
        }
    }

    /// Calls of the host that it has seen, whether they failed or not.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn seen(&self) -> Result<u64, LoadError> {
        let seen = self.source.seen.get(&0, 0).map_err(|source| LoadError::Map { name: SEEN, source })?;
        Ok(seen.iter().sum())
    }

    /// What calls have failed since the last time, with those of the same processes and kinds that did not.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn take(&mut self) -> Result<Vec<(CallKey, CallTotals)>, LoadError> {
        let unusable = |name| move |source| LoadError::Map { name, source };
        let taken: Vec<(CallKey, CallTotals)> = self
            .source
            .calls
            .iter()
            .map(|entry| entry.map(|(Key(key), Totals(totals))| (key, totals)).map_err(unusable(CALLS)))
            .collect::<Result<_, _>>()?;
        if !taken.is_empty() {
            self.source.any.set(0, 0, 0).map_err(unusable(ANY))?;
            for (key, _) in &taken {
                // One that another reader has removed is gone as well.
                let _ = self.source.calls.remove(&Key(*key));
            }
        }
        Ok(taken)
    }
}
