//! The live tests: which there are, and which programs they need.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    build,
    workspace::{cargo, root, run as run_command, shown, step, target_dir},
};

/// The program of the tests' package that makes every workload. It runs here, never in the guest: compilers
/// are too slow there.
const MAKE_WORKLOADS: &str = "workloads";

/// Names, for the tests, the directory that holds workloads and programs made before.
pub const BIN_DIR_ENV: &str = "CHOKEPOINT_TEST_BIN_DIR";

/// A test of one of the test binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The binary's name and the test's, as a user knows them.
    pub title: String,
    /// The name that the binary knows.
    pub name: String,
    /// The binary.
    pub binary: PathBuf,
}

impl Test {
    /// Whether its title contains one of the filters, if there are any.
    fn is_selected(&self, filters: &[String]) -> bool {
        filters.is_empty() || filters.iter().any(|filter| self.title.contains(filter))
    }
}

/// The tests to run, and what they need.
#[derive(Debug)]
pub struct Suite {
    /// In the order they run.
    pub tests: Vec<Test>,
    /// The test binaries, which are needed at their own paths.
    pub programs: Vec<PathBuf>,
    /// The agent, as it is released.
    pub agent: PathBuf,
    /// Where the tests run, and find their own files.
    pub directory: PathBuf,
    /// Where [`BIN_DIR_ENV`] points.
    pub bin_dir: PathBuf,
}

impl Suite {
    /// Builds the tests and what they need.
    pub fn build(filters: &[String]) -> Result<Self> {
        build::binaries(&[build::AGENT])?;
        let directory = root().join("tests");
        // The whole workspace, as `cargo xtask test` builds it: for one package alone, cargo would build the
        // dependencies again with other features.
        step("building the tests");
        let mut built = executables(cargo().args(["test", "--workspace", "--no-run"]))?;
        built.retain(|artifact| artifact.manifest_path.parent() == Some(&directory));

        let bin_dir = target_dir().join("test-bin");
        std::fs::create_dir_all(&bin_dir).with_context(|| format!("cannot create {}", bin_dir.display()))?;
        if let Some(make) =
            built.iter().find(|artifact| artifact.is_program() && artifact.target.name == MAKE_WORKLOADS)
        {
            step("making the workloads");
            run_command(Command::new(&make.executable).env(BIN_DIR_ENV, &bin_dir).stdout(Stdio::null()))?;
        }

        built.retain(Artifact::holds_tests);
        built.sort_by(|a, b| a.target.name.cmp(&b.target.name));
        let mut tests = Vec::new();
        for artifact in &built {
            tests.extend(list(artifact, &directory)?.into_iter().filter(|test| test.is_selected(filters)));
        }
        let programs = built.into_iter().map(|artifact| artifact.executable).collect();
        Ok(Self { tests, programs, agent: build::binary_path(build::AGENT), directory, bin_dir })
    }
}

/// Something that cargo has built and that can be run.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    manifest_path: PathBuf,
    executable: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Artifact {
    /// A binary of integration tests.
    fn holds_tests(&self) -> bool {
        self.target.kind == ["test"]
    }

    /// A program itself; the same target is also built as a binary of its unit tests.
    fn is_program(&self) -> bool {
        self.target.kind == ["bin"] && !self.profile.test
    }
}

/// Runs a build, and returns what it built that can be run.
fn executables(build: &mut Command) -> Result<Vec<Artifact>> {
    build.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = build.spawn().with_context(|| format!("cannot run {}", shown(build)))?;
    let mut artifacts = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        artifacts.extend(executable(&line?));
    }
    let status = child.wait()?;
    ensure!(status.success(), "{} failed ({status})", shown(build));
    Ok(artifacts)
}

/// Reads one of cargo's messages; most are about something else.
fn executable(message: &str) -> Option<Artifact> {
    serde_json::from_str(message).ok()
}

/// The tests of a binary, without the ones that are marked to be ignored.
fn list(artifact: &Artifact, directory: &Path) -> Result<Vec<Test>> {
    let list = |which: &[&str]| {
        let mut command = Command::new(&artifact.executable);
        command.current_dir(directory).args(["--list", "--format", "terse"]).args(which);
        let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
        if !output.status.success() {
            bail!("{} failed: {}", shown(&command), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(listed(&String::from_utf8_lossy(&output.stdout)))
    };
    let ignored: HashSet<_> = list(&["--ignored"])?.into_iter().collect();
    let tests = list(&[])?.into_iter().filter(|name| !ignored.contains(name)).map(|name| Test {
        title: format!("{}::{name}", artifact.target.name),
        name,
        binary: artifact.executable.clone(),
    });
    Ok(tests.collect())
}

/// The names in a test binary's list.
fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_listed_without_benchmarks() {
        let names = listed("record::host: test\nrecord::speed: benchmark\na: test\n");
        assert_eq!(names, ["record::host", "a"]);
    }

    #[test]
    fn a_test_is_selected_by_any_part_of_its_title() {
        let test =
            Test { title: "gate::a_cgroup".to_owned(), name: "a_cgroup".to_owned(), binary: PathBuf::new() };
        for (filters, expected) in [
            (&[][..], true),
            (&["gate::"], true),
            (&["x", "cgr"], true),
            (&["x"], false),
            (&["gate", "x"], true),
        ] {
            let filters: Vec<_> = filters.iter().map(|&filter: &&str| filter.to_owned()).collect();
            assert_eq!(test.is_selected(&filters), expected, "{filters:?}");
        }
    }

    #[test]
    fn only_what_can_be_run_counts() {
        let message = r#"{"reason":"compiler-artifact","package_id":"path+file:///p#chokepoint-tests@0.1.0",
            "manifest_path":"/p/Cargo.toml",
            "target":{"kind":["test"],"crate_types":["bin"],"name":"live","src_path":"/p/tests/live.rs"},
            "profile":{"test":true},"features":[],"filenames":["/t/live-1"],"executable":"/t/live-1",
            "fresh":true}"#;
        let artifact = executable(message).unwrap();
        assert!(artifact.holds_tests() && !artifact.is_program());
        assert_eq!(
            (artifact.target.name.as_str(), artifact.executable.to_str()),
            ("live", Some("/t/live-1"))
        );
        assert!(
            executable(&message.replace(r#""executable":"/t/live-1""#, r#""executable":null"#)).is_none()
        );
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(executable("warning: not a message").is_none());
    }
}
