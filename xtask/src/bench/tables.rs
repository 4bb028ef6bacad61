//! What tables of large files take in the kernel, and the time to build them.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{
    machine::{Machine, load_average},
    report::{Table, verdict},
};
use crate::workspace::{cargo, root, run as run_command, step, target_dir};

/// Kernel memory of all, in that of the layout that was tried first.
const BYTES_BAR: f64 = 0.8;
/// Time to build each, in that of gimli reading the same section and keeping nothing.
const TIME_BAR: f64 = 1.5;

/// A file, and how many rows the layout that was tried first had for it.
struct Reference {
    name: &'static str,
    directory: Directory,
    /// How the file's name begins.
    begins: &'static str,
    rows: u64,
}

enum Directory {
    At(&'static str),
    /// Where the compiler of this workspace has its libraries.
    Compiler,
}

/// Debian 12's; node 20 as its maker packages it; and those of Rust 1.95 as rustup has it.
const REFERENCES: [Reference; 6] = [
    Reference { name: "libc", directory: Directory::At(LIBRARIES), begins: "libc.so.6", rows: 28_000 },
    Reference {
        name: "libpython",
        directory: Directory::At(LIBRARIES),
        begins: "libpython3.11.so.1.0",
        rows: 64_000,
    },
    Reference {
        name: "libjvm",
        directory: Directory::At("/usr/lib/jvm/java-17-openjdk-amd64/lib/server"),
        begins: "libjvm.so",
        rows: 191_000,
    },
    Reference { name: "node", directory: Directory::At("/usr/bin"), begins: "node", rows: 372_000 },
    Reference {
        name: "librustc_driver",
        directory: Directory::Compiler,
        begins: "librustc_driver-",
        rows: 1_150_000,
    },
    Reference { name: "libLLVM", directory: Directory::Compiler, begins: "libLLVM.so.", rows: 1_290_000 },
];

const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// Bytes that the other layout had for a row, pages and rules included.
const REFERENCE_ROW_BYTES: u64 = 4;

/// How far the rows of a file's call-frame information may be from those it had in the other layout: beyond, it is another
/// build, of which nothing can be said.
const SAME_BUILD: std::ops::Range<f64> = 0.85..1.15;

/// What one file's table costs.
#[derive(Deserialize)]
struct Cost {
    /// Rows of its call-frame information.
    cfi_rows: u64,
    /// Rows of the table.
    rows: u64,
    /// Rows, pages and rules in the kernel.
    kernel_bytes: u64,
    /// Time that gimli takes to read its call-frame information and keep nothing; `None` where there is none.
    gimli_ms: Option<f64>,
    /// Time to build the table.
    build_ms: f64,
    /// Which file.
    #[serde(skip)]
    name: &'static str,
    /// Bytes that it had in the other layout.
    #[serde(skip)]
    reference_bytes: u64,
}

impl Cost {
    fn share(&self) -> f64 {
        self.kernel_bytes as f64 / self.reference_bytes as f64
    }

    fn ratio(&self) -> Option<f64> {
        self.gimli_ms.map(|gimli_ms| self.build_ms / gimli_ms)
    }
}

/// Measures the files that are there and says it as Markdown.
pub fn measure() -> Result<String> {
    step(&format!("tables of large files, load average {}", load_average()));
    let costs = costs()?;
    ensure!(!costs.is_empty(), "none of the files to measure is here");
    let mut text = String::new();
    writeln!(text, "{} Load average {}.\n", Machine::this(), load_average())?;

    let bytes: u64 = costs.iter().map(|cost| cost.kernel_bytes).sum();
    let reference: u64 = costs.iter().map(|cost| cost.reference_bytes).sum();
    let share = bytes as f64 / reference as f64;
    let worst = costs.iter().filter_map(Cost::ratio).fold(0.0, f64::max);
    let mut bars = Table::new(["bar", "measured", ""]);
    bars.row([
        format!(
            "kernel memory of the tables of {} large files: at most {BYTES_BAR} of what the first layout took",
            costs.len()
        ),
        format!("{:.2} MB, {:.2} MB then: {share:.2}", bytes as f64 / 1e6, reference as f64 / 1e6),
        verdict(share <= BYTES_BAR),
    ]);
    bars.row([
        format!("building each: at most {TIME_BAR} times a bare pass of gimli over the same section"),
        format!("{worst:.2} times at the most"),
        verdict(worst <= TIME_BAR),
    ]);
    let mut table = Table::new([
        "file",
        "rows in it",
        "rows kept",
        "kernel memory",
        "then",
        "share",
        "gimli",
        "built in",
        "ratio",
    ]);
    for cost in &costs {
        table.row([
            cost.name.to_owned(),
            cost.cfi_rows.to_string(),
            cost.rows.to_string(),
            format!("{} kB", cost.kernel_bytes / 1000),
            format!("{} kB", cost.reference_bytes / 1000),
            format!("{:.2}", cost.share()),
            cost.gimli_ms.map_or_else(String::new, |gimli_ms| format!("{gimli_ms:.1} ms")),
            format!("{:.1} ms", cost.build_ms),
            cost.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        ]);
    }
    write!(text, "{bars}\n{table}")?;
    Ok(text)
}

/// Of those files that are there.
fn costs() -> Result<Vec<Cost>> {
    run_command(cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "chokepoint",
        "--example",
        "table_cost",
    ]))?;
    let found = REFERENCES.iter().filter_map(|reference| Some((reference, reference.find()?)));
    let mut costs = Vec::new();
    for (reference, path) in found {
        let cost = cost(reference, &path)?;
        if SAME_BUILD.contains(&(cost.cfi_rows as f64 / reference.rows as f64)) {
            costs.push(cost);
        } else {
            step(&format!("{} is another build than the one to compare with", path.display()));
        }
    }
    Ok(costs)
}

fn cost(reference: &Reference, path: &Path) -> Result<Cost> {
    let output = Command::new(target_dir().join("release/examples/table_cost"))
        .arg("--json")
        .arg(path)
        .output()
        .context("cannot run table_cost")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && text.is_empty(), "table_cost fails: {text}");
    let cost: Cost = serde_json::from_slice(&output.stdout).context("table_cost says something else")?;
    let reference_bytes = reference.rows * REFERENCE_ROW_BYTES;
    Ok(Cost { name: reference.name, reference_bytes, ..cost })
}

impl Reference {
    fn find(&self) -> Option<PathBuf> {
        let directory = match self.directory {
            Directory::At(directory) => PathBuf::from(directory),
            Directory::Compiler => {
                let output =
                    Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output().ok()?;
                Path::new(String::from_utf8_lossy(&output.stdout).trim_end()).join("lib")
            }
        };
        let entries = directory.read_dir().ok()?.flatten();
        let is_it = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(self.begins) && path.is_file()
        };
        entries.map(|entry| entry.path()).filter(is_it).min()
    }
}
