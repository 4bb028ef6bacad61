//! What `profile` tells on the terminal.

use std::fmt::Write;
use std::path::Path;

use chokepoint_analysis::names::printable;

use crate::control::{Outcome, Shown};

/// How it goes, in a line.
pub(super) fn progress(shown: &Shown) -> String {
    let Shown { host, target, .. } = shown;
    match shown.state.as_str() {
        "asked" => format!("asking the agent of {host}"),
        "recording" if shown.recorded_ms < shown.duration_ms => format!(
            "recording {target} on {host}: {:.1} of {:.1} s, {} samples",
            seconds(shown.recorded_ms),
            seconds(shown.duration_ms),
            shown.samples
        ),
        "recording" => format!("{host} is naming what it has seen"),
        "receiving" => format!("receiving from {host}: {} kB", shown.bytes / 1000),
        state => state.to_owned(),
    }
}

/// What came of it: how much was seen, and what limits the target.
pub(super) fn page(shown: &Shown, written: Option<&Path>) -> String {
    let mut text = String::new();
    let nothing = Outcome::default();
    let outcome = shown.outcome.as_ref().unwrap_or(&nothing);
    let verdict = &outcome.verdict;
    let _ = writeln!(
        text,
        "{} on {}: {} samples in {:.1} s at {} Hz, here {:.1} s after the question",
        printable(&shown.target),
        printable(&shown.host),
        outcome.captured,
        seconds(outcome.window_ms),
        shown.frequency_hz,
        seconds(shown.taken_ms)
    );
    // The first is the number of samples.
    for missing in outcome.coverage.iter().skip(1) {
        let _ = writeln!(text, "  {}", printable(missing));
    }
    let _ = writeln!(text, "{}  {}", printable(&verdict.code), printable(&verdict.summary));
    let _ = writeln!(
        text,
        "  {}, confidence {:.0} %, {:.0} % of the demand",
        if verdict.severity == "none" { "nothing wrong".to_owned() } else { printable(&verdict.severity) },
        verdict.confidence * 100.0,
        verdict.share * 100.0
    );
    if !verdict.next_step.is_empty() {
        let _ = writeln!(text, "  next: {}", printable(&verdict.next_step));
    }
    match written {
        Some(path) => {
            let _ = writeln!(text, "wrote {}; kept as {}", path.display(), printable(&shown.id));
        }
        None => {
            let _ = writeln!(text, "kept as {}", printable(&shown.id));
        }
    }
    text
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Verdict;

    fn shown() -> Shown {
        Shown {
            id: "1-0c0ffee0".to_owned(),
            state: "recording".to_owned(),
            host: "web-7".to_owned(),
            target: "pod shop/web-0\x1b[2J".to_owned(),
            frequency_hz: 999,
            duration_ms: 30_000,
            taken_ms: 31_250,
            recorded_ms: 12_340,
            samples: 4_242,
            ..Shown::default()
        }
    }

    #[test]
    fn progress_says_what_is_waited_for() {
        let of = |change: &dyn Fn(&mut Shown)| {
            let mut shown = Shown { target: "pod shop/web-0".to_owned(), ..shown() };
            change(&mut shown);
            progress(&shown)
        };
        assert_eq!(of(&|_| {}), "recording pod shop/web-0 on web-7: 12.3 of 30.0 s, 4242 samples");
        assert_eq!(of(&|shown| shown.state = "asked".to_owned()), "asking the agent of web-7");
        assert_eq!(of(&|shown| shown.recorded_ms = 30_001), "web-7 is naming what it has seen");
    }

    #[test]
    fn the_page_has_the_verdict_and_what_is_missing() {
        let outcome = Outcome {
            window_ms: 30_000,
            captured: 5_000,
            coverage: vec!["5000 samples".to_owned(), "3 stacks truncated".to_owned()],
            verdict: Verdict {
                code: "cpu.single-thread".to_owned(),
                severity: "critical".to_owned(),
                confidence: 0.9,
                share: 0.97,
                summary: "one thread uses a CPU in full".to_owned(),
                next_step: "profile that thread".to_owned(),
            },
            ..Outcome::default()
        };
        let page = page(&Shown { outcome: Some(outcome), ..shown() }, Some(Path::new("flame.svg")));
        let expected = "\
pod shop/web-0?[2J on web-7: 5000 samples in 30.0 s at 999 Hz, here 31.2 s after the question
  3 stacks truncated
cpu.single-thread  one thread uses a CPU in full
  critical, confidence 90 %, 97 % of the demand
  next: profile that thread
wrote flame.svg; kept as 1-0c0ffee0
";
        assert_eq!(page, expected);
    }
}
