//! `chokepoint signals`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use chokepoint_analysis::signals::display::shortened;
use chokepoint_analysis::signals::{
    Definition, Level, Levels, Signal, Signals, Thresholds, definition, definitions, evaluate,
};
use clap::Args;

use super::{print, print_json, runtime};
use crate::amounts::parse_duration;
use crate::failure::Failure;
use crate::host;
use crate::signals::{Depth, read, step};

/// Watched where no time is given.
const DEFAULT_DURATION: &str = "10s";

/// Arguments of `chokepoint signals`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint signals                                10 seconds of this host
  chokepoint signals -d 60 --json                   a minute, for a machine to read
  chokepoint signals --level cpu.utilization=60,80  by other thresholds
  chokepoint signals --list                         what every signal means

It needs no privileges; without root, the open files of other users' processes are not counted.")]
pub struct Arguments {
    /// How long to watch: seconds, or with a unit (500ms, 30s, 5m). Ctrl-C ends it early.
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, default_value = DEFAULT_DURATION)]
    duration: Duration,
    /// Show every signal, also those without a level and those of idle devices.
    #[arg(long)]
    all: bool,
    /// Judge a signal by these thresholds; may be given for several.
    #[arg(long = "level", value_name = "SIGNAL=WARNING,CRITICAL", value_parser = parse_level)]
    levels: Vec<(String, Thresholds)>,
    /// Print the signals as JSON.
    #[arg(long)]
    json: bool,
    /// Print what each signal means, where it is from and its thresholds, and watch nothing.
    #[arg(long)]
    list: bool,
}

fn parse_level(text: &str) -> Result<(String, Thresholds), String> {
    const FORM: &str = "give a signal's name, =, and two numbers: cpu.utilization=75,90";
    let (name, levels) = text.split_once('=').ok_or(FORM)?;
    let (warning, critical) = levels.split_once(',').ok_or(FORM)?;
    let number = |text: &str| text.trim().parse().ok().filter(|number: &f64| !number.is_nan()).ok_or(FORM);
    let thresholds = Thresholds { warning: number(warning)?, critical: number(critical)? };
    if thresholds.warning > thresholds.critical {
        return Err("the warning is above what is critical".to_owned());
    }
    if definition(name).is_none() {
        return Err(format!("there is no signal {name}: `chokepoint signals --list` tells their names"));
    }
    Ok((name.to_owned(), thresholds))
}

/// Watches the host and prints its signals to standard output.
///
/// # Errors
/// Where the output cannot be written.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.list {
        print(&list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let levels: Levels = arguments.levels.iter().cloned().collect();
    let signals = runtime()?.block_on(watch(arguments.duration, &levels));
    if arguments.json {
        print_json(&signals)?;
    } else {
        print(&render(&signals, arguments.all, std::io::stdout().is_terminal()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the host until the time is over or the user has seen enough.
async fn watch(duration: Duration, levels: &Levels) -> Signals {
    let step = step(duration);
    let mut readings = vec![read(Depth::Everything)];
    // The window is what was asked for after the first reading, which takes its time.
    let start = tokio::time::Instant::now();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    for index in 1.. {
        let at = step * index;
        // What is left would be shorter than a step.
        if at + step > duration {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep_until(start + at) => readings.push(read(Depth::Step)),
            _ = &mut interrupt => return finish(readings, levels),
        }
    }
    tokio::select! {
        () = tokio::time::sleep_until(start + duration) => {}
        _ = &mut interrupt => {}
    }
    finish(readings, levels)
}

fn finish(mut readings: Vec<chokepoint_analysis::signals::reading::Reading>, levels: &Levels) -> Signals {
    readings.push(read(Depth::Everything));
    evaluate(&readings, levels)
}

fn list() -> String {
    let mut text = String::new();
    for Definition { name, unit, thresholds, meaning, .. } in definitions() {
        let levels = thresholds.map_or_else(String::new, |thresholds| format!("; {}", thresholds.in_words()));
        let _ = writeln!(text, "{name} [{}]{levels}\n    {meaning}", unit.symbol());
    }
    text
}

fn render(signals: &Signals, all: bool, colour: bool) -> String {
    let mut text = format!("{}, {:.1} s in {} steps\n\n", host::name(), signals.window_s, signals.steps);
    let _ = writeln!(
        text,
        "{:8}  {:24} {:>10} {:>9} {:>9} {:>9}  of",
        "level", "signal", "value", "p50", "p95", "max"
    );
    let shown: Vec<&Signal> =
        signals.signals.iter().filter(|signal| all || signal.tells_something()).collect();
    for signal in &shown {
        let escape = match signal.level {
            Level::None => "",
            Level::Warning => "\x1b[33m",
            Level::Critical => "\x1b[31;1m",
        };
        let name = signal.level.name();
        let (start, end) = if colour && !escape.is_empty() { (escape, "\x1b[0m") } else { ("", "") };
        let [value, p50, p95, max] = [signal.value, signal.steps.p50, signal.steps.p95, signal.steps.max]
            .map(|value| signal.unit.quantity(value));
        let line = format!(
            "{start}{name:8}{end}  {:24} {value:>10} {p50:>9} {p95:>9} {max:>9}  {}",
            signal.name,
            shortened(&signal.instance)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let hidden = signals.signals.len() - shown.len();
    if hidden > 0 {
        let _ = writeln!(text, "\n{hidden} more signals have no level: --all shows them");
    }
    for missing in &signals.missing {
        let _ = writeln!(text, "not read: {missing}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_from_the_command_line() {
        let levels = Thresholds { warning: 60.0, critical: 80.5 };
        assert_eq!(parse_level("cpu.utilization=60, 80.5"), Ok(("cpu.utilization".to_owned(), levels)));
        for text in ["cpu.utilization", "cpu.utilization=1", "cpu.utilization=x,2", "cpu.utilization=nan,2"] {
            assert!(parse_level(text).unwrap_err().starts_with("give a signal's name"), "{text}");
        }
        assert!(parse_level("cpu.utilization=2,1").unwrap_err().contains("above what is critical"));
        assert!(parse_level("cpu.use=1,2").unwrap_err().contains("--list"));
    }

    #[test]
    fn every_signal_is_listed() {
        let text = list();
        assert!(definitions().all(|definition| text.contains(&format!("{} [", definition.name))));
        assert!(text.contains("cpu.utilization [%]; warning 75, critical 90\n"), "{text}");
        assert!(text.contains("memory.oom_kills [/s]; critical above 0\n"), "{text}");
    }
}
