//! The tcp source: its programs as the agent uses them.

use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, FEntry};
use aya::{Btf, Ebpf};

use super::LoadError;
use super::programs::{attach, load, program, tried, unload};

/// Programs that are named as their tracepoints are.
const TRACEPOINTS: [&str; 5] = [
    STATES,
    "tcp_receive_reset",
    "tcp_send_reset",
    "tcp_retransmit_synack",
    // What the others tell more of comes last.
    "tcp_retransmit_skb",
];
const STATES: &str = "inet_sock_set_state";
/// Where programs see threads send: a tracepoint since 6.3,
const SENT: &str = "sock_send_length";
/// or the entry of a function, where the kernel lets programs in there.
const SENDS: &str = "tcp_sendmsg";

/// Whether it is a program whose every run tells of a retransmit or a reset.
pub(super) fn tells_losses(name: &str) -> bool {
    name != STATES && TRACEPOINTS.contains(&name)
}

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

/// What the tcp source is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether the stack of each thread that opens a socket is taken, and every send is looked at. Otherwise sends are seen when the
    /// agent says so: after something was lost.
    pub openers: bool,
}

/// The source.
pub struct Tcp {
    options: TcpOptions,
    sends: Sends,
    /// What sees sends now, where that was not to be always so.
    sending: Option<BtfTracePointLinkId>,
}

impl Tcp {
    /// Loads the programs; nothing runs yet.
    pub(super) fn load(ebpf: &mut Ebpf, options: TcpOptions, btf: &Btf) -> Result<Self, LoadError> {
        for name in TRACEPOINTS {
            load(ebpf, name, name, btf)?;
        }
        let sends = if tried(STACKS, load(ebpf, SENT, SENT, btf)) {
            Sends::Tracepoint
        } else if !options.openers {
            // Programs at functions are not put there and taken away again and again.
            Sends::Nowhere
        } else {
            let function: &mut FEntry = program(ebpf, SENDS)?;
            let loaded = function.load(SENDS, btf);
            if tried(STACKS, loaded.map_err(|source| LoadError::Program { name: SENDS, source })) {
                Sends::Function
            } else {
                Sends::Nowhere
            }
        };
        Ok(Self { options, sends, sending: None })
    }

    /// Begins to see.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        match self.sends {
            Sends::Tracepoint if self.options.openers => attach(ebpf, SENT)?,
            Sends::Function => {
                let function: &mut FEntry = program(ebpf, SENDS)?;
                // A kernel without the function tracer takes the program and refuses its place.
                let attached = function.attach().map(drop);
                if !tried(STACKS, attached.map_err(|source| LoadError::Program { name: SENDS, source })) {
                    self.sends = Sends::Nowhere;
                }
            }
            Sends::Tracepoint | Sends::Nowhere => {}
        }
        TRACEPOINTS.into_iter().try_for_each(|name| attach(ebpf, name))
    }

    /// Sees threads send, or not any more, where that is not always so.
    pub(super) fn see_sends(&mut self, ebpf: &mut Ebpf, on: bool) -> Result<(), LoadError> {
        if self.options.openers || self.sends != Sends::Tracepoint || on == self.sending.is_some() {
            return Ok(());
        }
        let unusable = |source| LoadError::Program { name: SENT, source };
        let tracing: &mut BtfTracePoint = program(ebpf, SENT)?;
        match self.sending.take() {
            Some(link) => tracing.detach(link).map_err(unusable)?,
            None => self.sending = Some(tracing.attach().map_err(unusable)?),
        }
        Ok(())
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
