//! What builds the kernel programs: which compiler, which linker, with which arguments.
//!
//! `agent/build.rs` and `cargo xtask` both ask here, so that they can never disagree. The programs need a
//! nightly feature (`core` compiled from source for a target without a prebuilt one), a compiler whose LLVM
//! is the one `bpf-linker` was built with, and that `bpf-linker`. Two kinds of compiler qualify:
//!
//! - a toolchain of rustup's that has the `rust-src` component;
//! - the distribution's own, such as Debian's `rustc-web` with `rust-web-src`.
//!
//! A stable compiler is as good as a nightly one, because `RUSTC_BOOTSTRAP` opens the feature in both.
//!
//! [`Installed::probe`] looks at the machine, [`Installed::choose`] decides without touching it.

#![forbid(unsafe_code)]

mod choose;
mod installed;
mod kernel_build;

pub use choose::{Missing, Rejection, Shortage, Toolchain};
pub use installed::{Compiler, Installed, Linker, Origin, Version};
pub use kernel_build::{KernelBuild, UnsupportedArch, target_dir};

/// The release of `bpf-linker` the kernel programs are linked with.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// The major version of LLVM that `bpf-linker` is built with. It reads the compiler's bitcode, whose format
/// changes between major versions.
pub const LLVM_MAJOR: u32 = 22;

/// The oldest Rust release, major and minor, that the workspace builds with (`rust-version`).
pub const MIN_RUST: (u32, u32) = (1, 95);

/// Names the `bpf-linker` executable to use instead of the one `cargo xtask setup` builds.
pub const BPF_LINKER_ENV: &str = "CHOKEPOINT_BPF_LINKER";

/// Finds the toolchain of the kernel programs on this machine, or says what is missing.
pub fn discover() -> Result<Toolchain, Missing> {
    Installed::probe().choose()
}
