//! Compares what was told with the truth, and sums that up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::table::Table;
use super::verdict::{Diagnosis, Verdict};
use super::{Case, Missing, Names, Stage, Variant};
use crate::host_time::HostTime;

/// At least this share of the cases is to have a right first answer in all of its runs.
const LEAST_RIGHT: f64 = 0.95;
/// From this confidence on an answer must not be wrong.
const CONFIDENT: f64 = 0.7;

/// What others had of the CPUs' time is no disturbance up to this: the kernel's own threads, which serve the devices of a case, take
/// as much. With more, others are a neighbour that may be named rightly.
const QUIET: f64 = 0.25;

/// How a first answer compares with the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is one of those that are right, and names what it should.
    Right,
    /// It is, but leaves out what it should name.
    Unnamed(Vec<String>),
    /// It is not.
    Wrong,
}

/// A run of a case, and what was told of it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The case.
    pub case: &'static Case,
    /// The agent's answer, or why there is none.
    pub told: Result<Diagnosis, String>,
    /// Share of the CPUs' time that went to neither the case nor the agent, if that is known: 0 to 1.
    pub others: Option<f64>,
}

impl Run {
    /// Plays the constrained variant, and asks the agent about it for so many seconds.
    ///
    /// # Errors
    /// What this machine lacks for the case.
    pub fn of(case: &'static Case, seconds: f64) -> Result<Self, Missing> {
        let mut stage = Stage::new(Variant::Constrained);
        (case.play)(&mut stage)?;
        stage.settle();
        let (host_time, before_ns) = (HostTime::begin(), stage.cpu_time_ns());
        let finished = stage.diagnose(seconds).run();
        let own_ns = stage.cpu_time_ns().zip(before_ns).map(|(after, before)| after - before);
        let others = own_ns.map(|own_ns| host_time.share_of_others(own_ns));
        let told = match finished.code {
            Some(0) => Diagnosis::read(&finished.stdout),
            code => {
                Err(format!("exit code {code:?}: {}", finished.stderr.lines().next().unwrap_or_default()))
            }
        };
        Ok(Self { case, told, others })
    }

    /// The same again and again while others are busy, but not for ever.
    ///
    /// # Errors
    /// What this machine lacks for the case.
    pub fn undisturbed(case: &'static Case, seconds: f64) -> Result<Self, Missing> {
        /// Other work comes in bursts, such as a build's.
        const TRIES: usize = 3;
        let mut run = Self::of(case, seconds)?;
        for _ in 1..TRIES {
            if !run.is_disturbed() {
                break;
            }
            run = Self::of(case, seconds)?;
        }
        Ok(run)
    }

    /// How the first answer compares with the truth.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let Ok(told) = &self.told else { return Answer::Wrong };
        if !self.case.truth.contains(&told.verdict.code.as_str()) {
            return Answer::Wrong;
        }
        let left_out = left_out(&self.case.names, &told.verdict);
        if left_out.is_empty() { Answer::Right } else { Answer::Unnamed(left_out) }
    }

    /// The code that was told.
    #[must_use]
    pub fn code(&self) -> &str {
        self.told.as_ref().map_or("no answer", |told| &told.verdict.code)
    }

    /// All that was told, the first answer first, or why nothing was.
    #[must_use]
    pub fn ranking(&self) -> String {
        match &self.told {
            Ok(told) => {
                let all = told.findings().map(|found| format!("{} {:.0} %", found.code, found.share * 100.0));
                all.collect::<Vec<_>>().join(", ")
            }
            Err(error) => error.clone(),
        }
    }

    /// Whether other work may be why the answer is not the right one, so that it says nothing of the agent.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.answer() != Answer::Right && self.others.is_some_and(|others| others > QUIET)
    }

    /// Whether it is wrong, and said to be sure.
    fn is_confidently_wrong(&self) -> bool {
        self.answer() == Answer::Wrong
            && self.told.as_ref().is_ok_and(|told| told.verdict.confidence >= CONFIDENT)
    }

    /// Alarms where nothing is wrong.
    fn false_alarms(&self) -> Vec<String> {
        let Ok(told) = &self.told else { return Vec::new() };
        if !self.case.is_decoy() {
            return Vec::new();
        }
        told.alarms().map(|(code, severity)| format!("{code} ({severity:?})")).collect()
    }
}

/// What a verdict should name and does not.
fn left_out(names: &Names, verdict: &Verdict) -> Vec<String> {
    let among = |wanted: &str, told: &[String]| told.iter().any(|name| name == wanted);
    // A step of the path is a whole of which the name is a part.
    let within = |wanted: &str, told: &[String]| told.iter().any(|step| step.contains(wanted));
    let missing = |kind: &str, wanted: &[&str], is_named: &dyn Fn(&str) -> bool| {
        let missing = wanted.iter().filter(|wanted| !is_named(wanted));
        missing.map(|wanted| format!("{kind} {wanted}")).collect::<Vec<_>>()
    };
    [
        missing("process", names.processes, &|name| among(name, &verdict.processes)),
        missing("culprit", names.culprits, &|name| among(name, &verdict.culprits)),
        missing("function", names.functions, &|name| among(name, &verdict.functions)),
        missing("path", names.path, &|name| within(name, &verdict.path)),
    ]
    .concat()
}

/// All runs together.
#[derive(Debug)]
pub struct Report<'a> {
    /// The runs, those of a case behind each other.
    pub runs: &'a [Run],
}

impl Report<'_> {
    fn judged(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| !run.is_disturbed())
    }

    /// Cases whose first answer was right in all runs that were not disturbed, and all cases that had one.
    #[must_use]
    pub fn cases_right(&self) -> (usize, usize) {
        let name = |run: &Run| run.case.name;
        let all: BTreeSet<&str> = self.judged().map(name).collect();
        let not: BTreeSet<&str> =
            self.judged().filter(|run| run.answer() != Answer::Right).map(name).collect();
        (all.len() - not.len(), all.len())
    }

    /// What is below the bars, in words; nothing where all of it is good enough.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let (right, all) = self.cases_right();
        if (right as f64) < LEAST_RIGHT * all as f64 {
            failures.push(format!(
                "{right} of {all} cases are right in all runs, {:.0} % must be",
                LEAST_RIGHT * 100.0
            ));
        }
        let alarms: Vec<String> = self
            .judged()
            .flat_map(|run| run.false_alarms().into_iter().map(|alarm| format!("{}: {alarm}", run.case.name)))
            .collect();
        if !alarms.is_empty() {
            failures.push(format!("false alarms: {}", alarms.join(", ")));
        }
        let sure: Vec<String> = self
            .judged()
            .filter(|run| run.is_confidently_wrong())
            .map(|run| format!("{}: {}", run.case.name, run.code()))
            .collect();
        if !sure.is_empty() {
            failures.push(format!("wrong with a confidence of {CONFIDENT} or more: {}", sure.join(", ")));
        }
        failures
    }

    fn verdicts(&self) -> Table {
        let mut table =
            Table::new(["case", "truth", "verdict", "confidence", "severity", "share", "others", "answer"]);
        for run in self.runs {
            let (confidence, severity, share) = match &run.told {
                Ok(Diagnosis { verdict, .. }) => (
                    format!("{:.2}", verdict.confidence),
                    format!("{:?}", verdict.severity).to_lowercase(),
                    format!("{:.0} %", verdict.share * 100.0),
                ),
                Err(_) => Default::default(),
            };
            let answer = match (run.answer(), &run.told) {
                (_, Err(error)) => error.clone(),
                (Answer::Right, _) => "right".to_owned(),
                (Answer::Unnamed(left_out), _) => format!("without {}", left_out.join(", ")),
                (Answer::Wrong, _) => "WRONG".to_owned(),
            };
            let answer = match run.is_disturbed() {
                true => format!("{answer}, but others were busy: not judged"),
                false => answer,
            };
            let others = run.others.map_or("-".to_owned(), |others| format!("{:.0} %", others * 100.0));
            let truth = run.case.truth.join(" or ");
            table.row([run.case.name, &truth, run.code(), &confidence, &severity, &share, &others, &answer]);
        }
        table
    }

    /// How often which code was told of which truth, where they differ.
    fn confusion(&self) -> Table {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for run in self.judged().filter(|run| run.answer() == Answer::Wrong) {
            *counts.entry((run.case.truth[0], run.code())).or_default() += 1;
        }
        let mut table = Table::new(["truth", "told", "runs"]);
        for ((truth, told), runs) in counts {
            table.row([truth, told, &runs.to_string()]);
        }
        table
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdicts())?;
        let confusion = self.confusion();
        if !confusion.is_empty() {
            writeln!(f, "{confusion}")?;
        }
        let (right, all) = self.cases_right();
        let right_runs = self.runs.iter().filter(|run| run.answer() == Answer::Right).count();
        let judged = self.judged().count();
        writeln!(f, "right: {right} of {all} cases in all runs, {right_runs} of {judged} runs")?;
        if judged < self.runs.len() {
            writeln!(f, "not judged, because others were busy: {} runs", self.runs.len() - judged)?;
        }
        for failure in self.failures() {
            writeln!(f, "below the bar: {failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{all, case, verdict::Severity};
    use super::*;

    fn verdict(code: &str, confidence: f64, severity: Severity) -> Verdict {
        Verdict {
            code: code.to_owned(),
            confidence,
            severity,
            share: 0.5,
            processes: Vec::new(),
            culprits: Vec::new(),
            functions: Vec::new(),
            path: Vec::new(),
        }
    }

    fn run(name: &str, verdict: Verdict) -> Run {
        Run { case: case(name), told: Ok(Diagnosis { schema: 1, verdict, ranked: Vec::new() }), others: None }
    }

    #[test]
    fn an_answer_is_right_with_its_names_only() {
        let mut told = verdict("cpu.noisy-neighbour", 0.9, Severity::Critical);
        assert_eq!(
            run("cpu-neighbour", told.clone()).answer(),
            Answer::Unnamed(vec!["culprit batch_job".to_owned()])
        );
        told.culprits = vec!["other".to_owned(), "batch_job".to_owned()];
        assert_eq!(run("cpu-neighbour", told.clone()).answer(), Answer::Right);
        assert_eq!(run("cpu-quota", told).answer(), Answer::Wrong);
    }

    #[test]
    fn a_name_may_be_part_of_a_step_of_the_path() {
        let mut told = verdict("net.loss", 0.9, Severity::Critical);
        told.functions = vec!["upload_file".to_owned()];
        told.path = vec!["upload".to_owned(), "tcp 10.213.77.2:7002".to_owned()];
        assert_eq!(run("net-loss", told).answer(), Answer::Right);
    }

    #[test]
    fn one_wrong_run_makes_a_case_wrong() {
        let right = || run("cpu-quota", verdict("cpu.quota", 0.9, Severity::Critical));
        let runs = [right(), run("cpu-quota", verdict("unknown", 0.2, Severity::None)), right()];
        let report = Report { runs: &runs };
        assert_eq!(report.cases_right(), (0, 1));
        assert_eq!(report.failures().len(), 1);
        let runs = [right(), right()];
        assert!(Report { runs: &runs }.failures().is_empty());
    }

    #[test]
    fn alarms_and_wrong_certainty_are_below_the_bar_however_few() {
        // So many right ones that their share suffices.
        let mut runs: Vec<Run> = all()
            .filter(|case| case.names == Names::NONE)
            .map(|case| run(case.name, verdict(case.truth[0], 0.9, Severity::None)))
            .collect();
        assert!(Report { runs: &runs }.failures().is_empty());
        let healthy = runs.iter_mut().find(|run| run.case.name == "healthy-server").unwrap();
        let second = verdict("lock.mutex", 0.3, Severity::Warning);
        healthy.told.as_mut().unwrap().ranked.push(second);
        let failures = Report { runs: &runs }.failures();
        assert_eq!(failures, ["false alarms: healthy-server: lock.mutex (Warning)"]);

        let sure = [run("cpu-quota", verdict("lock.mutex", 0.7, Severity::Critical))];
        assert!(
            Report { runs: &sure }.failures().iter().any(|failure| failure.contains("cpu-quota: lock.mutex"))
        );
        let unsure = [run("cpu-quota", verdict("lock.mutex", 0.69, Severity::Critical))];
        assert_eq!(Report { runs: &unsure }.failures().len(), 1);
    }

    #[test]
    fn a_wrong_answer_does_not_count_where_others_are_busy() {
        let told = |code, others| {
            let run = run("cpu-quota", verdict(code, 0.9, Severity::Critical));
            Run { others: Some(others), ..run }
        };
        let runs = [told("cpu.quota", 0.9), told("cpu.noisy-neighbour", 0.9)];
        let report = Report { runs: &runs };
        assert_eq!((report.cases_right(), report.failures().len()), ((1, 1), 0));
        assert!(report.to_string().contains("not judged"));
        let runs = [told("cpu.quota", 0.9), told("cpu.noisy-neighbour", 0.2)];
        assert_eq!(Report { runs: &runs }.cases_right(), (0, 1));
    }

    #[test]
    fn no_answer_is_not_a_right_one() {
        let runs = [Run { case: case("idle-daemon"), told: Err("exit code 4".to_owned()), others: None }];
        assert_eq!(Report { runs: &runs }.cases_right(), (0, 1));
        assert!(Report { runs: &runs }.to_string().contains("exit code 4"));
    }
}
