//! What this process may do, and what it takes to profile.

use caps::{CapSet, Capability};

/// A privilege that profiling uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The capability.
    pub capability: Capability,
    /// Whether nothing works without it.
    pub required: bool,
    /// What it is for.
    pub purpose: &'static str,
}

/// The least privilege that suffices, on kernels from 5.8 on.
pub const NEEDS: &[Need] = &[
    Need {
        capability: Capability::CAP_BPF,
        required: true,
        purpose: "load the kernel programs and their maps",
    },
    Need {
        capability: Capability::CAP_PERFMON,
        required: true,
        purpose: "open perf events on every CPU and read stacks",
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        required: false,
        purpose: "read the mappings of other users' processes: without it their frames have no module",
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        required: false,
        purpose: "read binaries and perf maps that only their owner may read: without it those have no symbols",
    },
    Need {
        capability: Capability::CAP_SYSLOG,
        required: false,
        purpose: "see the addresses of kernel symbols: without it kernel frames have no names",
    },
    Need {
        capability: Capability::CAP_CHECKPOINT_RESTORE,
        required: false,
        purpose: "open deleted or replaced binaries: without it those have no symbols",
    },
];

/// Whether this process has the capability. `CAP_SYS_ADMIN` includes those that were split from it.
#[must_use]
pub fn has(capability: Capability) -> bool {
    let effective = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let split_from_admin = matches!(
        capability,
        Capability::CAP_BPF
            | Capability::CAP_PERFMON
            | Capability::CAP_SYSLOG
            | Capability::CAP_CHECKPOINT_RESTORE
    );
    effective(capability) || split_from_admin && effective(Capability::CAP_SYS_ADMIN)
}

/// The needs that this process lacks.
pub fn missing() -> impl Iterator<Item = Need> {
    NEEDS.iter().copied().filter(|need| !has(need.capability))
}
