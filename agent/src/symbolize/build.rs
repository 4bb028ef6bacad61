//! The files that tell the symbols of a build that was met, and what they come to: for who names it elsewhere.

use std::fs::File;

use chokepoint_symbols::extract::{self, Extracted, Limits, Part};
use chokepoint_symbols::{Function, Quality};

use super::elf::{BuildId, Elf};
use super::places::Met;
use super::{debug_file, image, name};
use crate::unwind::GoFunctions;

/// The files of a build, open.
pub struct Build {
    build_id: BuildId,
    binary: (File, Elf),
    /// The separate file of debug information, where there is one.
    debug: Option<(File, Elf)>,
}

impl Build {
    /// Looks for what there is. `None` where the file is no binary any more.
    #[must_use]
    pub fn find(met: Met, debug_dirs: &[std::path::PathBuf]) -> Option<Self> {
        let Met { build_id, file, path, root } = met;
        let elf = Elf::read(&file).ok()?;
        let debug = match elf.has_debug_info() {
            true => None,
            false => debug_file::find(&file, &elf, &path, &root, debug_dirs).found,
        };
        let debug = debug.map(|found| (found.file, found.elf));
        Some(Self { build_id, binary: (file, elf), debug })
    }

    /// Which build.
    #[must_use]
    pub fn build_id(&self) -> &BuildId {
        &self.build_id
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let files = self.debug.iter().chain([&self.binary]);
        files.map(|(file, elf)| Part { file, elf }).collect()
    }

    fn go_functions(&self) -> Option<GoFunctions> {
        let (file, elf) = &self.binary;
        // What is not stripped has all of them in its symbol table.
        elf.section(".symtab").is_none().then(|| GoFunctions::with_headers(file, elf)).flatten()
    }

    /// How much its symbols would tell; `None` where it has none.
    #[must_use]
    pub fn quality(&self, limits: &Limits) -> Option<Quality> {
        extract::quality(&self.parts(), self.go_functions().is_some(), limits)
    }

    /// Makes its symbols. `is_over` says when that has taken too long: it has functions alone then.
    #[must_use]
    pub fn symbols(&self, limits: &Limits, is_over: &mut dyn FnMut() -> bool) -> Extracted {
        let (file, elf) = &self.binary;
        let mini = elf.section(".gnu_debugdata").filter(|_| elf.section(".symtab").is_none());
        let mini = mini.and_then(|section| {
            let unfolded = image::unfold_mini_debug_info(file, section).ok()?;
            let elf = Elf::read(&unfolded).ok()?;
            Some((unfolded, elf))
        });
        let mut parts = self.parts();
        parts.extend(mini.iter().map(|(file, elf)| Part { file, elf }));
        let own_table = self.go_functions().map(|go| go.functions()).unwrap_or_default();
        let function = |(range, name): (_, String)| Function { range, name: name::function(&name) };
        let own_table = own_table.into_iter().map(function).collect();
        extract::extract(self.build_id.as_bytes(), &parts, own_table, limits, is_over)
    }
}
