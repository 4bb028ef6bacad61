//! The tcp source: its programs as the agent uses them.

use aya::programs::FEntry;
use aya::{Btf, Ebpf};

use super::LoadError;
use super::programs::{attach, load, program, tried, unload};

/// Programs that are named as their tracepoints are.
const TRACEPOINTS: [&str; 5] = [
    "inet_sock_set_state",
    "tcp_receive_reset",
    "tcp_send_reset",
    "tcp_retransmit_synack",
    // What the others tell more of comes last.
    "tcp_retransmit_skb",
];
/// Where programs see threads send: a tracepoint since 6.3,
const SENT: &str = "sock_send_length";
/// or the entry of a function, where the kernel lets programs in there.
const SENDS: &str = "tcp_sendmsg";

/// What a kernel without such a place does not tell.
const STACKS: &str = "stacks of sends";

/// Where the source sees threads send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// At the tracepoint `sock_send_length`.
    Tracepoint,
    /// At the entry of the function `tcp_sendmsg`.
    Function,
    /// Nowhere: connections that were accepted, or opened before, have no stack.
    Nowhere,
}

/// The source.
pub struct Tcp {
    sends: Sends,
}

impl Tcp {
    /// Loads the programs; nothing runs yet.
    pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<Self, LoadError> {
        for name in TRACEPOINTS {
            load(ebpf, name, name, btf)?;
        }
        let sends = if tried(STACKS, load(ebpf, SENT, SENT, btf)) {
            Sends::Tracepoint
        } else {
            let function: &mut FEntry = program(ebpf, SENDS)?;
            let loaded = function.load(SENDS, btf);
            if tried(STACKS, loaded.map_err(|source| LoadError::Program { name: SENDS, source })) {
                Sends::Function
            } else {
                Sends::Nowhere
            }
        };
        Ok(Self { sends })
    }

    /// Begins to see.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        match self.sends {
            Sends::Tracepoint => attach(ebpf, SENT)?,
            Sends::Function => {
                let function: &mut FEntry = program(ebpf, SENDS)?;
                // A kernel without the function tracer takes the program and refuses its place.
                let attached = function.attach().map(drop);
                if !tried(STACKS, attached.map_err(|source| LoadError::Program { name: SENDS, source })) {
                    self.sends = Sends::Nowhere;
                }
            }
            Sends::Nowhere => {}
        }
        TRACEPOINTS.into_iter().try_for_each(|name| attach(ebpf, name))
    }

    /// Stops, and unloads the programs.
    pub(super) fn stop(&self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        for name in TRACEPOINTS.into_iter().rev() {
            unload(ebpf, name)?;
        }
        match self.sends {
            Sends::Tracepoint => unload(ebpf, SENT),
            Sends::Function => {
                let function: &mut FEntry = program(ebpf, SENDS)?;
                function.unload().map_err(|source| LoadError::Program { name: SENDS, source })
            }
            Sends::Nowhere => Ok(()),
        }
    }

    /// Where it sees threads send.
    #[must_use]
    pub const fn sends(&self) -> Sends {
        self.sends
    }
}
