//! Folded stacks: one line for each, `comm;root;...;leaf count`, with the number of samples as the count. Kernel frames
//! end in `_[k]`, those of a JIT in `_[j]`.

use std::io::{self, Write};

use crate::profile::Profile;

use super::Options;
use super::fold::Labels;

pub(super) fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    for (stack, sums) in Labels::new(profile, options).fold(profile) {
        writeln!(out, "{} {}", stack.join(";"), sums.count)?;
    }
    Ok(())
}
