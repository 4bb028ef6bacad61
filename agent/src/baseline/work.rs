//! Counts work: a number that grows with what a target does, as an operator has it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::runtime::Runtime;

use crate::failure::{Failure, Kind};
use crate::host::clock::monotonic_ns;

/// Of a file, or of what a command prints, more than this is not read: metrics of a large server have a few megabytes.
const MAX_BYTES: u64 = 16 << 20;
/// A command that takes longer is ended, and its window has no count.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);

/// Where work is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    place: Place,
    metric: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Command(String),
}

/// A count and its time, or why there is none.
pub type Count = Result<(u64, f64), String>;

impl Counted {
    /// In a file.
    #[must_use]
    pub fn file(path: PathBuf, metric: Option<String>) -> Self {
        Self { place: Place::File(path), metric }
    }

    /// In what a command prints.
    #[must_use]
    pub fn command(command: String, metric: Option<String>) -> Self {
        Self { place: Place::Command(command), metric }
    }

    fn name(&self) -> String {
        let place = match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Command(command) => command.clone(),
        };
        self.metric.as_ref().map_or_else(|| place.clone(), |metric| format!("{metric} of {place}"))
    }

    async fn count(&self) -> Count {
        let text = match &self.place {
            Place::File(path) => {
                let mut text = String::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                text
            }
            Place::Command(command) => tokio::time::timeout(COMMAND_LIMIT, printed(command))
                .await
                .unwrap_or_else(|_| Err(format!("{command}: it took longer than {COMMAND_LIMIT:?}")))?,
        };
        let value = match &self.metric {
            Some(metric) => of_metric(&text, metric)?,
            None => text.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
                let begin: String = text.trim().chars().take(40).collect();
                format!("{begin:?} is no number: name a metric with --work-metric, if these are metrics")
            })?,
        };
        Ok((monotonic_ns(), value))
    }
}

async fn printed(command: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{command}: {error}");
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_BYTES).read_to_string(&mut text).await.map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() { Ok(text) } else { Err(format!("{command}: {status}")) }
}

/// The sum of a metric's series in Prometheus' text format, of those with the labels that `metric` names.
fn of_metric(text: &str, metric: &str) -> Result<f64, String> {
    let (name, wanted) = series(metric)
        .ok_or_else(|| format!("{metric:?} is no metric: give NAME or NAME{{LABEL=\"VALUE\"}}"))?;
    let mut sum = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let end = end_of_series(line);
        let Some((found, labels)) = series(&line[..end]) else { continue };
        if found != name || !wanted.iter().all(|label| labels.contains(label)) {
            continue;
        }
        let value: f64 = line[end..]
            .split_ascii_whitespace()
            .next()
            .and_then(|value| value.parse().ok())
            .filter(|value: &f64| value.is_finite())
            .ok_or_else(|| format!("{metric}: a value is no number"))?;
        sum = Some(sum.unwrap_or(0.0) + value);
    }
    sum.ok_or_else(|| format!("there is no metric {metric}"))
}

/// Where a line's series ends and its value begins.
fn end_of_series(line: &str) -> usize {
    let (mut in_quotes, mut is_escaped, mut in_braces) = (false, false, false);
    for (at, letter) in line.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if in_quotes => is_escaped = true,
            '"' => in_quotes = !in_quotes,
            '{' if !in_quotes => in_braces = true,
            '}' if !in_quotes => return at + 1,
            letter if letter.is_ascii_whitespace() && !in_braces => return at,
            _ => {}
        }
    }
    line.len()
}

/// Name and labels, each as `name="value"`.
fn series(text: &str) -> Option<(&str, Vec<String>)> {
    let text = text.trim();
    let (name, labels) = match text.split_once('{') {
        Some((name, labels)) => (name.trim(), labels.strip_suffix('}')?),
        None => (text, ""),
    };
    let mut found = vec![String::new()];
    let (mut in_quotes, mut is_escaped) = (false, false);
    for letter in labels.chars() {
        let was_escaped = std::mem::take(&mut is_escaped);
        match letter {
            ',' if !in_quotes => found.push(String::new()),
            letter if !in_quotes && letter.is_ascii_whitespace() => {}
            _ => {
                is_escaped = letter == '\\' && in_quotes && !was_escaped;
                in_quotes ^= letter == '"' && !was_escaped;
                if let Some(label) = found.last_mut() {
                    label.push(letter);
                }
            }
        }
    }
    found.retain(|label| !label.is_empty());
    (!name.is_empty()).then_some((name, found))
}

/// Counts that follow each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts(Option<(u64, f64)>);

impl Counts {
    /// Work in a second since the count before. One that is less has begun anew, so that nothing is known.
    pub(super) fn rate(&mut self, (time_ns, count): (u64, f64)) -> Option<f64> {
        let (before_ns, before) = self.0.replace((time_ns, count))?;
        let seconds = time_ns.saturating_sub(before_ns) as f64 / 1e9;
        (count >= before && seconds > 0.0).then(|| (count - before) / seconds)
    }
}

/// Reads counts on a thread of its own, since a command takes its time.
pub struct WorkCounter {
    name: String,
    requests: Sender<Sender<Count>>,
}

impl WorkCounter {
    /// Starts the thread, on which `runtime` waits for commands. `is_there` is whether the count can be read already; a command that is yet to begin may make it.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure where it should be there and cannot be read.
    pub fn begin(counted: Counted, is_there: bool, runtime: Runtime) -> Result<Self, Failure> {
        if is_there {
            runtime
                .block_on(counted.count())
                .map_err(|cause| Failure::new(Kind::Usage, format!("cannot count the work: {cause}")))?;
        }
        let name = counted.name();
        let (requests, asked) = channel::<Sender<Count>>();
        std::thread::Builder::new()
            .name("count work".to_owned())
            .spawn(move || {
                while let Ok(answer) = asked.recv() {
                    // Nobody may want it any more.
                    let _ = answer.send(runtime.block_on(counted.count()));
                }
            })
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { name, requests })
    }

    /// How work is counted, in words.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has the count read now. It comes when it is there.
    #[must_use]
    pub fn read(&self) -> Receiver<Count> {
        let (answer, count) = channel();
        // Where the thread died, nothing comes.
        let _ = self.requests.send(answer);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code=\"200\",path=\"/a b\"} 1.5e3 1700000000000
requests_total{code=\"200\", path=\"/}\\\"{,\"} 7
requests_total{code=\"500\"} 3
requests_total_created 12
up 1
broken{x=\"1\" 4
";

    #[test]
    fn series_of_a_metric_are_added_up() {
        for (metric, expected) in [
            ("requests_total", 1510.0),
            ("requests_total{code=\"200\"}", 1507.0),
            ("requests_total{ path=\"/}\\\"{,\" , code=\"200\" }", 7.0),
            ("up", 1.0),
        ] {
            assert_eq!(of_metric(METRICS, metric), Ok(expected), "{metric}");
        }
        for metric in ["requests", "requests_total{code=\"404\"}", "{code=\"200\"}", "up{", "broken"] {
            assert!(of_metric(METRICS, metric).is_err(), "{metric}");
        }
    }

    #[test]
    fn a_count_that_begins_anew_says_nothing() {
        let mut counts = Counts::default();
        assert_eq!(counts.rate((1_000_000_000, 100.0)), None);
        assert_eq!(counts.rate((3_000_000_000, 300.0)), Some(100.0));
        assert_eq!(counts.rate((4_000_000_000, 5.0)), None);
        assert_eq!(counts.rate((5_000_000_000, 10.0)), Some(5.0));
    }

    #[tokio::test]
    async fn counts_are_read_from_files_and_commands() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let count = |counted: Counted| async move { counted.count().await.map(|(_, count)| count) };
        std::fs::write(file.path(), " 42\n").expect("it can be written");
        assert_eq!(count(Counted::file(file.path().to_owned(), None)).await, Ok(42.0));
        std::fs::write(file.path(), METRICS).expect("it can be written");
        assert_eq!(count(Counted::file(file.path().to_owned(), Some("up".to_owned()))).await, Ok(1.0));
        assert!(
            count(Counted::file(file.path().to_owned(), None)).await.unwrap_err().contains("--work-metric")
        );
        assert_eq!(count(Counted::command("echo 7".to_owned(), None)).await, Ok(7.0));
        assert!(count(Counted::command("echo 7; exit 3".to_owned(), None)).await.unwrap_err().contains("3"));
        assert!(count(Counted::command("true".to_owned(), None)).await.is_err());
    }
}
