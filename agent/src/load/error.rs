//! Why the kernel programs could not be loaded, attached or read.

use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{BtfError, EbpfError};
use thiserror::Error;

/// Why the programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object or its maps were refused.
    #[error("the kernel refused the programs or their maps")]
    Object(#[from] EbpfError),
    /// A program was refused or could not be attached.
    #[error("the kernel refused program {name}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// The kernel's answer.
        #[source]
        source: ProgramError,
    },
    /// A map could not be used.
    #[error("map {name} could not be used")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// The kernel's answer.
        #[source]
        source: MapError,
    },
    /// The object lacks something that the agent expects: they were not built together.
    #[error("the compiled kernel programs have no {0}")]
    Missing(&'static str),
    /// The kernel's type information could not be read for a program that needs it.
    #[error("the kernel's type information could not be read")]
    Btf(#[from] BtfError),
    /// Too many target processes for the table.
    #[error("more than {} target processes", chokepoint_ebpf::gate::MAX_TARGET_PROCESSES)]
    TooManyProcesses,
    /// Something in the operating system failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl LoadError {
    /// Whether the kernel said that the agent may not do this.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::PermissionDenied
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}
