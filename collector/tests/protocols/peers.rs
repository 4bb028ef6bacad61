//! Programs of other projects, built here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::common::secured::{Collector, run, text};

/// Go builds one of them after the other: they have most of their modules in common.
static BUILDS: Mutex<()> = Mutex::new(());

/// The minor version of Go that the peers' modules want: `tests/peers/go.mod`.
const OLDEST_GO: u32 = 26;

/// Of `go1.26.8`, 26; 0 where that is not known.
fn minor_of(version: &str) -> u32 {
    let minor = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse().ok()).unwrap_or_default()
}

/// Builds a program below `tests/peers`. `None`, with a word on why, where there is no Go, one that is too old, or no way to their modules.
pub fn peer(name: &str) -> Option<PathBuf> {
    let _turn = BUILDS.lock().unwrap_or_else(PoisonError::into_inner);
    let version = Command::new("go").args(["env", "GOVERSION"]).output();
    let version = version.map(|output| text(&output.stdout).trim().to_owned()).unwrap_or_default();
    if minor_of(&version) < OLDEST_GO {
        eprintln!("skipped: building {name} needs Go 1.{OLDEST_GO}, and there is {version:?}");
        return None;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers").join(name);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let fetched = run(Command::new("go").current_dir(&directory).args(["mod", "download"]));
    if !fetched.status.success() {
        eprintln!("skipped: the modules of {name} cannot be fetched: {}", text(&fetched.stderr));
        return None;
    }
    let built = run(Command::new("go")
        .current_dir(directory)
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(format!("./{name}")));
    assert!(built.status.success(), "{name} builds: {}", text(&built.stderr));
    Some(program)
}

/// What a program prints when all went well.
pub fn printed(program: &Path, arguments: &[&str]) -> Value {
    let output = run(Command::new(program).args(arguments));
    assert!(output.status.success(), "{program:?} {arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What the collector's own command line prints.
pub fn queried(collector: &Collector, arguments: &[&str]) -> Value {
    let mut all = vec!["query"];
    all.extend(arguments);
    all.extend(["--json", "--url", &collector.queries]);
    printed(Path::new(env!("CARGO_BIN_EXE_chokepoint-collector")), &all)
}

/// Of a flame graph that was queried: each path of functions from the outermost on that has weight of its own, with that weight.
pub fn paths(flame: &Value) -> std::collections::BTreeMap<String, u64> {
    let numbers = |value: &Value| -> Vec<u64> {
        value.as_array().expect("a column").iter().map(|value| value.as_u64().expect("a number")).collect()
    };
    let [parents, frames] = ["parent", "frame"].map(|column| numbers(&flame["nodes"][column]));
    let names = numbers(&flame["frames"]["name"]);
    let own = numbers(&flame["sides"][0]["self"]);
    let mut paths: Vec<String> = Vec::new();
    let mut weights = std::collections::BTreeMap::new();
    for node in 0..parents.len() {
        let name = flame["strings"][names[frames[node] as usize] as usize].as_str().expect("a name");
        let path = match node {
            0 => "total".to_owned(),
            _ => format!("{};{name}", paths[parents[node] as usize]),
        };
        if own[node] > 0 {
            *weights.entry(path.clone()).or_default() += own[node];
        }
        paths.push(path);
    }
    weights
}
