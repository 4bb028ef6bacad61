//! What the kernel programs log, for those who debug them. Off unless `--log debug` or finer is given: the programs are
//! then loaded with it switched off, and the verifier removes it.

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

use crate::failure::{Failure, Kind};
use crate::load::Programs;

/// Passes the programs' messages on to this process's log until the runtime ends.
///
/// # Errors
/// Where the programs have no log, or it cannot be polled.
pub fn forward(programs: &mut Programs) -> Result<(), Failure> {
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Unexpected, format!("the kernel programs' log cannot be read: {error}"))
    };
    let logger = EbpfLogger::init(programs.ebpf_mut()).map_err(|error| unusable(&error))?;
    // SAFETY: the logger owns its descriptor and keeps it open as long as it lives.
    let mut logger = unsafe { AsyncFd::register(logger) }.map_err(|error| unusable(&error))?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
