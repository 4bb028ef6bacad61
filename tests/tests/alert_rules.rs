//! The example alert rules, by Prometheus' own tool: they are well formed, and fire for what they are meant for.

use std::path::Path;

use chokepoint_tests::debian::DebianProgram;
use chokepoint_tests::{in_vm, skip_if};

#[test]
fn rules_are_well_formed_and_fire_for_what_they_are_meant_for() {
    skip_if!(in_vm(), "the guests have no Prometheus");
    let Some(promtool) = DebianProgram::find("promtool", &["prometheus"]) else {
        skip_if!(true, "Debian's package prometheus is neither installed nor to be had");
        return;
    };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
    for (what, file) in [("check", "chokepoint-alerts.yml"), ("test", "chokepoint-alerts-test.yml")] {
        let output = promtool.command().args([what, "rules", file]).current_dir(&rules).output();
        let output = output.unwrap_or_else(|error| panic!("promtool cannot be run: {error}"));
        let [said, complained] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{what} {file}: {said}{complained}");
    }
}
