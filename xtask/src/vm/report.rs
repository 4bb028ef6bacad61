//! What ran on which kernel, as text.

use std::{fmt, time::Duration};

use super::{kernel::Series, outcome::Outcome};

/// What happened on one kernel.
#[derive(Clone, Debug)]
pub struct KernelRun {
    /// The kernel's series.
    pub series: Series,
    /// The kernel's release.
    pub release: String,
    /// Time from starting the machine to its being ready for the tests.
    pub boot: Duration,
    /// Time that the tests took together.
    pub tests: Duration,
    /// Each test's outcome, in the order of the suite, as far as it got.
    pub outcomes: Vec<(Outcome, Duration)>,
    /// What went wrong outside any test.
    pub fault: Option<Fault>,
}

/// What went wrong outside any test.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What, in one line.
    pub what: String,
    /// The last lines that the guest's kernel, and QEMU itself, had to say.
    pub last_words: String,
}

impl KernelRun {
    /// Whether all tests of a suite ran, and none of them failed.
    pub fn succeeded(&self, tests: usize) -> bool {
        let failed = self.outcomes.iter().any(|(outcome, _)| matches!(outcome, Outcome::Failed(_)));
        !failed && self.fault.is_none() && self.outcomes.len() == tests
    }

    /// Counts of passed, failed and skipped tests.
    fn counts(&self) -> (usize, usize, usize) {
        self.outcomes.iter().fold((0, 0, 0), |(passed, failed, skipped), (outcome, _)| match outcome {
            Outcome::Passed => (passed + 1, failed, skipped),
            Outcome::Failed(_) => (passed, failed + 1, skipped),
            Outcome::Skipped(_) => (passed, failed, skipped + 1),
        })
    }
}

/// One line about one test on one kernel.
pub fn line(series: Series, title: &str, outcome: &Outcome, took: Duration) -> String {
    let (word, reason) = match outcome {
        Outcome::Passed => ("ok", String::new()),
        Outcome::Skipped(reason) => ("skipped", format!(": {reason}")),
        Outcome::Failed(reason) => ("FAILED", format!(": {reason}")),
    };
    format!("linux {series:<5} {word:<8}{took:>6.1} s  {title}{reason}", took = took.as_secs_f64())
}

/// All tests on all kernels.
pub struct Table<'a> {
    /// The tests' names.
    pub titles: Vec<&'a str>,
    /// One column each.
    pub runs: &'a [KernelRun],
}

const COLUMN: usize = 10;

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.titles.iter().map(|title| title.len()).max().unwrap_or(0).max(LONGEST_ROW_NAME);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, cell: &dyn Fn(&KernelRun) -> String| {
            write!(f, "{name:<width$}")?;
            for run in self.runs {
                write!(f, "{:>COLUMN$}", cell(run))?;
            }
            writeln!(f)
        };
        row(f, "test", &|run| run.series.to_string())?;
        for (index, title) in self.titles.iter().enumerate() {
            row(f, title, &|run| match run.outcomes.get(index) {
                Some((Outcome::Passed, _)) => "ok".to_owned(),
                Some((Outcome::Skipped(_), _)) => "skipped".to_owned(),
                Some((Outcome::Failed(_), _)) => "FAILED".to_owned(),
                None => "not run".to_owned(),
            })?;
        }
        row(f, "time to boot", &|run| seconds(run.boot))?;
        row(f, "time of the tests", &|run| seconds(run.tests))?;
        writeln!(f)?;
        for run in self.runs {
            let (passed, failed, skipped) = run.counts();
            let verdict = if run.succeeded(self.titles.len()) { "ok" } else { "FAILED" };
            let not_run = self.titles.len() - run.outcomes.len();
            writeln!(
                f,
                "linux {}: {verdict}. {passed} passed; {failed} failed; {skipped} skipped; {not_run} not run",
                run.release
            )?;
            // Below the table, because whoever sees only the end of what the tests print must see why.
            if let Some(fault) = &run.fault {
                writeln!(f, "    {}; the last that it said:", fault.what)?;
                for line in fault.last_words.lines() {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        Ok(())
    }
}

const LONGEST_ROW_NAME: usize = "time of the tests".len();

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_test_and_a_column_for_each_kernel() {
        let second = Duration::from_secs(1);
        let run = |series, outcomes: &[Outcome], fault: Option<&str>| KernelRun {
            series,
            release: format!("{series}.0-cloud"),
            boot: 3 * second,
            tests: 62 * second,
            outcomes: outcomes.iter().map(|outcome| (outcome.clone(), second)).collect(),
            fault: fault
                .map(|what| Fault { what: what.to_owned(), last_words: "Oops: 0002\nRIP: x".to_owned() }),
        };
        let runs = [
            run(Series::V5_10, &[Outcome::Passed, Outcome::Skipped("no bpf_loop".to_owned())], None),
            run(Series::V6_1, &[Outcome::Failed("exit status 101".to_owned()), Outcome::Passed], None),
            run(Series::V6_12, &[Outcome::Passed], Some("the guest ended early")),
        ];
        assert_eq!(
            Table { titles: vec!["live::host", "live::deep_stacks"], runs: &runs }.to_string(),
            "test                   5.10       6.1      6.12\n\
             live::host               ok    FAILED        ok\n\
             live::deep_stacks   skipped        ok   not run\n\
             time to boot          3.0 s     3.0 s     3.0 s\n\
             time of the tests    62.0 s    62.0 s    62.0 s\n\
             \n\
             linux 5.10.0-cloud: ok. 1 passed; 0 failed; 1 skipped; 0 not run\n\
             linux 6.1.0-cloud: FAILED. 1 passed; 1 failed; 0 skipped; 0 not run\n\
             linux 6.12.0-cloud: FAILED. 1 passed; 0 failed; 0 skipped; 1 not run\n\
             \x20   the guest ended early; the last that it said:\n\
             \x20   Oops: 0002\n\
             \x20   RIP: x\n"
        );
        let verdicts: Vec<_> = runs.iter().map(|run| run.succeeded(2)).collect();
        assert_eq!(verdicts, [true, false, false]);
    }

    #[test]
    fn a_line_says_why_a_test_did_not_pass() {
        let skipped = Outcome::Skipped("no bpf_loop before 5.17".to_owned());
        assert_eq!(
            line(Series::V5_10, "live::deep_stacks", &skipped, Duration::from_millis(340)),
            "linux 5.10  skipped    0.3 s  live::deep_stacks: no bpf_loop before 5.17"
        );
    }
}
