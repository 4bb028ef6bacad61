//! A build that never ends: gcc on every CPU, a process or more for each small file, and cargo beside it.

use std::{
    fmt::Write,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use crate::workspace::root;

/// Files to compile.
const FILES: usize = 2_000;

/// Compiles all files, and begins again.
const COMPILE: &str = "while :; do ls *.c | xargs -n 1 -P \"$1\" cc -O2 -c -o /dev/null; done";
/// Builds a crate of this workspace with all it depends on, and begins again.
const BUILD: &str = "while :; do \"$1\" build --quiet --offline --package chokepoint-analysis --target-dir \"$2\"; rm -rf \"$2\"; done";

/// The running build. It ends with this value.
pub struct BuildLoad(Vec<Child>);

impl BuildLoad {
    /// Writes the files and starts.
    pub fn start(directory: &Path) -> Result<Self> {
        let sources = directory.join("sources");
        fs::create_dir_all(&sources).with_context(|| format!("cannot create {}", sources.display()))?;
        for index in 0..FILES {
            let file = sources.join(format!("part{index}.c"));
            if !file.exists() {
                fs::write(&file, source(index))
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        let cpus = thread::available_parallelism().map_or(1, usize::from).to_string();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut load = Self(Vec::new());
        load.add(Command::new("sh").args(["-c", COMPILE, "sh", &cpus]).current_dir(&sources))?;
        load.add(
            Command::new("sh")
                .args(["-c", BUILD, "sh"])
                .arg(cargo)
                .arg(directory.join("target"))
                .current_dir(root()),
        )?;
        Ok(load)
    }

    fn add(&mut self, command: &mut Command) -> Result<()> {
        // A group of its own, so that all of it can be ended.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(command.spawn().context("cannot start the build")?);
        Ok(())
    }
}

impl Drop for BuildLoad {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only if it is gone already.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }
}

/// A file of some functions, as large as takes a compiler some tens of milliseconds.
fn source(index: usize) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for function in 0..6 + index % 9 {
        let constant = index * 31 + function;
        let _ = write!(
            text,
            "int part{index}_{function}(int *values, int count) {{\n\
             \x20   int sum = {constant};\n\
             \x20   for (int i = 0; i < count; i++) {{\n\
             \x20       if (values[i] % {} == 0) {{ sum += values[i] * {constant}; }}\n\
             \x20       else {{ char text[32]; snprintf(text, sizeof text, \"%d\", values[i]); sum += (int)strlen(text); }}\n\
             \x20   }}\n\
             \x20   return sum;\n}}\n",
            function + 2
        );
    }
    text
}
