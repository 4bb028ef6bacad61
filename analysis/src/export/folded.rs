//! Folded stacks: one line for each, `comm;root;...;leaf count`, with the number of samples as the count, or microseconds where
//! samples stand for different times. Kernel frames end in `_[k]`, those of a JIT in `_[j]`.

use std::io::{self, Write};

use crate::profile::{Basis, Profile, Unit};

use super::Options;
use super::fold::Labels;

pub(super) fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    for (stack, sums) in Labels::new(profile, options).fold(profile) {
        let count = match (profile.header.basis, profile.header.unit) {
            (Basis::Samples, _) => sums.count,
            (Basis::Weight, Unit::Nanoseconds) => (sums.weight + 500) / 1000,
            (Basis::Weight, Unit::Count) => sums.weight,
        };
        if count > 0 {
            writeln!(out, "{} {count}", stack.join(";"))?;
        }
    }
    Ok(())
}
