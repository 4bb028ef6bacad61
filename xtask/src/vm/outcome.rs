//! What became of a test in a guest.

use std::time::Duration;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It asserted what it is there to assert.
    Passed,
    /// It says that it cannot run there, and why.
    Skipped(String),
    /// Why it counts as failed.
    Failed(String),
}

/// A test that cannot run on a kernel prints this and the reason, and returns.
pub const SKIPPED: &str = "skipped: ";

/// What is known of a test that has ended.
pub struct Ending<'a> {
    /// Its name, as the test binary prints it.
    pub name: &'a str,
    /// Its exit status, as a shell gives it.
    pub status: u8,
    /// What it wrote.
    pub output: &'a [String],
    /// How long it ran.
    pub took: Duration,
    /// How long it was allowed to.
    pub limit: Duration,
    /// Whether the kernel complained meanwhile.
    pub kernel_complained: bool,
}

/// The exit status that a shell gives for a process that SIGKILL ended.
const KILLED: u8 = 128 + 9;

impl Ending<'_> {
    /// Decides.
    pub fn outcome(&self) -> Outcome {
        let Self { name, status, output, .. } = self;
        if self.kernel_complained {
            return Outcome::Failed("the kernel complained".to_owned());
        }
        if *status == KILLED && self.took >= self.limit {
            return Outcome::Failed(format!("not done after {} s", self.limit.as_secs()));
        }
        if *status != 0 {
            return Outcome::Failed(format!("exit status {status}"));
        }
        // With one name to run, the binary must have found exactly that.
        if !output.iter().any(|line| line.starts_with("test result: ok. 1 passed; 0 failed; 0 ignored")) {
            return Outcome::Failed("the test binary did not run it".to_owned());
        }
        // libtest has printed the name, and has not ended that line, when a test begins.
        let announced = format!("test {name} ... ");
        let mut lines = output.iter().map(|line| line.strip_prefix(&announced).unwrap_or(line));
        match lines.find_map(|line| line.strip_prefix(SKIPPED)) {
            Some(reason) => Outcome::Skipped(reason.trim().to_owned()),
            None => Outcome::Passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s";

    fn check(status: u8, output: &[&str], expected: Outcome) {
        let output: Vec<_> = output.iter().map(|&line| line.to_owned()).collect();
        let ending = Ending {
            name: "a::b",
            status,
            output: &output,
            took: Duration::from_secs(5),
            limit: Duration::from_secs(60),
            kernel_complained: false,
        };
        assert_eq!(ending.outcome(), expected, "{output:?}");
        let late = Ending { limit: Duration::from_secs(5), ..ending };
        if status == KILLED {
            assert_eq!(late.outcome(), Outcome::Failed("not done after 5 s".to_owned()));
        } else {
            assert_eq!(late.outcome(), expected);
        }
        let complained = Ending { kernel_complained: true, ..late };
        assert_eq!(complained.outcome(), Outcome::Failed("the kernel complained".to_owned()));
    }

    #[test]
    fn status_and_output_decide() {
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        check(0, &["running 1 test", "test a::b ... ok", OK], Outcome::Passed);
        check(0, &["test a::b ... it says skipped: no", "ok", OK], Outcome::Passed);
        check(0, &["test a::b ... skipped: no BTF", "ok", OK], Outcome::Skipped("no BTF".to_owned()));
        check(
            0,
            &["test a::b ... a word", "skipped: no BTF", "ok", OK],
            Outcome::Skipped("no BTF".to_owned()),
        );
        check(101, &["test a::b ... skipped: no BTF", "FAILED"], failed("exit status 101"));
        check(
            127,
            &["timeout: can't execute '/t/live': No such file or directory"],
            failed("exit status 127"),
        );
        check(KILLED, &["test a::b ... "], failed("exit status 137"));
        check(0, &[&OK.replace("1 passed", "0 passed")], failed("the test binary did not run it"));
        check(0, &[&OK.replace("0 ignored", "1 ignored")], failed("the test binary did not run it"));
    }
}
