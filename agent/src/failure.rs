//! How a command fails: one line that says what to do, and an exit code that a script can tell apart.

use std::fmt;

use caps::Capability;
use chokepoint_analysis::export::ExportError;

use crate::containers::ContainerError;
use crate::host::{self, capabilities};
use crate::load::LoadError;
use crate::load::layout::{KERNEL_BTF, LayoutError};
use crate::target::TargetError;

/// The kinds of failure. The numbers are the exit codes and part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something that should not happen.
    Unexpected = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A privilege is missing.
    Permission = 3,
    /// This kernel or host lacks something that profiling needs.
    Unsupported = 4,
    /// The target does not exist, or the command could not be started.
    Target = 5,
    /// The output cannot be written.
    Output = 6,
}

/// Exit code of a comparison that found a regression.
pub const REGRESSION: u8 = 7;
/// Exit code of a comparison that cannot tell.
pub const INCONCLUSIVE: u8 = 8;

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: Kind,
    /// One line, lowercase, that says what to do.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure nobody expected, with its causes.
    #[must_use]
    pub fn unexpected(error: &dyn std::error::Error) -> Self {
        Self::new(Kind::Unexpected, with_causes(error))
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::new(Kind::Target, with_causes(&error))
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Self {
        Self::new(Kind::Target, with_causes(&error))
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        let message = format!("{error}: this kernel's {KERNEL_BTF} does not fit; please report its version");
        Self::new(Kind::Unsupported, message)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        if error.is_permission() {
            let advice = privilege_advice();
            let message = format!("{}: {advice}; `chokepoint doctor` tells more", with_causes(&error));
            return Self::new(Kind::Permission, message);
        }
        Self::new(Kind::Unsupported, format!("{}; `chokepoint doctor` tells more", with_causes(&error)))
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::new(Kind::Output, with_causes(&error))
    }
}

/// What to do when the kernel says that the agent may not.
fn privilege_advice() -> String {
    const PARANOID: &str = "kernel.perf_event_paranoid";
    let lacks_required = capabilities::missing().any(|need| need.required);
    let is_admin = capabilities::has(Capability::CAP_SYS_ADMIN);
    let paranoid = host::sysctl(PARANOID).filter(|level| *level > host::STRICTEST_PARANOID_FOR_PERFMON);
    if lacks_required {
        "run as root, or with CAP_BPF and CAP_PERFMON".to_owned()
    } else if host::is_memlock_too_small(
        host::parse_release(&host::kernel_release()),
        host::memlock_limit_bytes(),
    ) {
        "this kernel counts maps as locked memory: raise the limit with `ulimit -l unlimited`, or give CAP_SYS_RESOURCE"
            .to_owned()
    } else if let Some(level) = paranoid.filter(|_| !is_admin) {
        format!("{PARANOID} is {level}, which CAP_PERFMON does not pass: set it to 2, or give CAP_SYS_ADMIN")
    } else {
        "capabilities count in the host's user namespace only, and lockdown may forbid it to everyone"
            .to_owned()
    }
}

/// An error and what caused it, on one line. Verifier logs have thousands; the last one says why.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = first_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = first_line(&error.to_string());
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}

/// Without the number that the standard library puts behind the words for it.
fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim_end();
    line.split(" (os error ").next().unwrap_or_default().to_owned()
}
