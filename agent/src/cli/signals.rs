//! `chokepoint signals`.

use std::fmt::Write;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use chokepoint_analysis::signals::{
    Definition, Kind, Level, Levels, Signal, Signals, Thresholds, Unit, definition, definitions, evaluate,
};
use clap::Args;

use super::record::parse_duration;
use crate::failure::{self, Failure};
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
    let text = if arguments.list {
        list()
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::unexpected(&error))?;
        let levels: Levels = arguments.levels.iter().cloned().collect();
        let signals = runtime.block_on(watch(arguments.duration, &levels));
        if arguments.json {
            serde_json::to_string_pretty(&signals).map_err(|error| Failure::unexpected(&error))? + "\n"
        } else {
            render(&signals, arguments.all, std::io::stdout().is_terminal())
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(failure::Kind::Output, format!("cannot print: {error}")))?;
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
        let levels = match thresholds {
            None => String::new(),
            Some(Thresholds { warning, critical }) if *warning <= f64::MIN_POSITIVE => {
                let level = if *critical <= f64::MIN_POSITIVE { "critical" } else { "warning" };
                format!("; {level} above 0")
            }
            Some(Thresholds { warning, critical }) => format!("; warning {warning}, critical {critical}"),
        };
        let _ = writeln!(text, "{name} [{}]{levels}\n    {meaning}", symbol(*unit));
    }
    text
}

const fn symbol(unit: Unit) -> &'static str {
    match unit {
        Unit::Percent => "%",
        Unit::Number => "1",
        Unit::PerSecond => "/s",
        Unit::BytesPerSecond => "B/s",
        Unit::Milliseconds => "ms",
    }
}

/// Signals that show how much each resource does where all is well.
const ALWAYS_SHOWN: &[&str] = &[
    "cpu.utilization",
    "cpu.runnable_per_cpu",
    "memory.utilization",
    "block.utilization",
    "fs.utilization",
    "net.utilization",
    "net.received_bytes",
    "net.sent_bytes",
    "tcp.retransmit_share",
];

/// Longest instance that is shown whole.
const INSTANCE_WIDTH: usize = 24;

fn render(signals: &Signals, all: bool, colour: bool) -> String {
    let mut text = format!("{}, {:.1} s in {} steps\n\n", host::name(), signals.window_s, signals.steps);
    let _ = writeln!(
        text,
        "{:8}  {:24} {:>10} {:>9} {:>9} {:>9}  of",
        "level", "signal", "value", "p50", "p95", "max"
    );
    let is_shown = |signal: &&Signal| {
        let is_busy = ALWAYS_SHOWN.contains(&signal.name.as_str())
            && (signal.instance.is_empty() || signal.value > 0.0);
        let has_failed = signal.kind == Kind::Errors && signal.value > 0.0;
        all || signal.level > Level::None || is_busy || has_failed
    };
    let shown: Vec<&Signal> = signals.signals.iter().filter(is_shown).collect();
    for signal in &shown {
        let (name, escape) = match signal.level {
            Level::None => ("", ""),
            Level::Warning => ("warning", "\x1b[33m"),
            Level::Critical => ("critical", "\x1b[31;1m"),
        };
        let (start, end) = if colour && !escape.is_empty() { (escape, "\x1b[0m") } else { ("", "") };
        let [value, p50, p95, max] = [signal.value, signal.steps.p50, signal.steps.p95, signal.steps.max]
            .map(|value| quantity(value, signal.unit));
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

/// The end of a long name, which tells more than its beginning.
fn shortened(instance: &str) -> String {
    let length = instance.chars().count();
    if length <= INSTANCE_WIDTH {
        return instance.to_owned();
    }
    let end: String = instance.chars().skip(length - INSTANCE_WIDTH + 1).collect();
    format!("…{end}")
}

/// A value in at most eight characters: `12.3 %`, `4.56 MB/s`.
fn quantity(value: f64, unit: Unit) -> String {
    let scaled = |steps: &[(&str, f64)]| {
        let (prefix, size) = steps.iter().rev().find(|(_, size)| value >= *size).unwrap_or(&steps[0]);
        (value / size, prefix.to_string())
    };
    let (value, prefix) = match unit {
        Unit::Percent | Unit::Number | Unit::Milliseconds => (value, String::new()),
        Unit::PerSecond | Unit::BytesPerSecond => scaled(&[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)]),
    };
    let digits = match value {
        value if value == 0.0 || value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let symbol = if unit == Unit::Number { "" } else { symbol(unit) };
    let space = if symbol.is_empty() || symbol == "/s" && prefix.is_empty() { "" } else { " " };
    format!("{value:.digits$}{space}{prefix}{symbol}")
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
    fn quantities_are_short() {
        let cases = [
            (0.0, Unit::Percent, "0 %"),
            (12.345, Unit::Percent, "12.3 %"),
            (100.0, Unit::Percent, "100 %"),
            (1.234, Unit::Number, "1.23"),
            (0.5, Unit::PerSecond, "0.50/s"),
            (12_345.0, Unit::PerSecond, "12.3 k/s"),
            (4_560_000.0, Unit::BytesPerSecond, "4.56 MB/s"),
            (7.0, Unit::BytesPerSecond, "7.00 B/s"),
            (3.0, Unit::Milliseconds, "3.00 ms"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(quantity(value, unit), text);
        }
    }

    #[test]
    fn the_end_of_long_names_is_shown() {
        assert_eq!(shortened("/kubepods/burstable/pod123456789/abc"), "…stable/pod123456789/abc");
        assert_eq!(shortened("vda"), "vda");
    }

    #[test]
    fn every_signal_is_listed() {
        let text = list();
        assert!(definitions().all(|definition| text.contains(&format!("{} [", definition.name))));
        assert!(text.contains("cpu.utilization [%]; warning 75, critical 90\n"), "{text}");
        assert!(text.contains("memory.oom_kills [/s]; critical above 0\n"), "{text}");
    }
}
