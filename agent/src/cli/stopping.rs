//! What ends a command before its time.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::pipeline::{End, Stop};
use crate::record::workload::WatchedProcesses;

/// The signals that end a command early.
pub struct Signals([Signal; 3]);

const STOP_SIGNALS: [SignalKind; 3] =
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn listen() -> Result<Self, Failure> {
        let [interrupt, terminate, hangup] = STOP_SIGNALS.map(signal);
        let listen = || Ok(Self([interrupt?, terminate?, hangup?]));
        listen().map_err(|error: io::Error| Failure::unexpected(&error))
    }

    /// Resolves with the next of them.
    pub async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Has the signals end the process again: tokio keeps its handlers for good.
pub fn restore_signals() {
    for kind in STOP_SIGNALS {
        // SAFETY: setting the default disposition has no preconditions.
        unsafe { libc::signal(kind.as_raw_value(), libc::SIG_DFL) };
    }
}

/// Ends a session on a signal, or when every process it was asked for has ended.
pub struct Stopping<'a> {
    signals: &'a mut Signals,
    /// `None` where the target is no list of processes.
    processes: Option<WatchedProcesses>,
}

impl<'a> Stopping<'a> {
    /// `watched` are the processes; none where the target is no list of processes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(signals: &'a mut Signals, watched: &[u32]) -> Result<Self, Failure> {
        let watch = || WatchedProcesses::new(watched).map_err(|error| Failure::unexpected(&error));
        let processes = if watched.is_empty() { None } else { Some(watch()?) };
        Ok(Self { signals, processes })
    }
}

impl Stop for Stopping<'_> {
    async fn wait(&mut self) -> End {
        let processes = self.processes.as_mut();
        let all_ended = async {
            if let Some(processes) = processes
                && processes.all_ended().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = self.signals.any() => End::Interrupted,
            () = all_ended => End::TargetEnded,
        }
    }
}
