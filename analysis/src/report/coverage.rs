//! What was looked at, how much of it was seen, and what was not.

use super::Recorded;
use super::document::{Block, Cell, Facts, name, text};
use crate::export::caption::utc;

/// What no recording shows, whatever it has captured.
const METHOD: [&str; 5] = [
    "Calls that fail at once leave no wait: they are looked at for a part of the time, and those that fail seldom may be missed.",
    "A spinlock in code that a runtime compiled, or on aarch64, is CPU time like any other, unless its function's name says so.",
    "A thread that asks again and again, with pauses between, looks like one that has nothing to do, unless another waits for it, or it hands the work to a thread of its own process.",
    "A wait is divided by what its ender did in the whole window, not during that wait.",
    "What other hosts did meanwhile: a service that is waited for is named, and has to be diagnosed where it runs.",
];

/// Target, host, window and versions.
pub(super) fn scope<'p>(recorded: &Recorded<'p>) -> Block<'p> {
    let (header, diagnosis) = (&recorded.profile.header, &recorded.diagnosis);
    let known = |value: &str| if value.is_empty() { text("not known") } else { name(value) };
    let cpus = if header.cpus > 0 { header.cpus.to_string() } else { "not known".to_owned() };
    let facts: Vec<(&'static str, Cell)> = vec![
        ("target", name(&header.target)),
        ("host", name(&header.host)),
        ("kernel", known(&header.kernel)),
        ("CPUs", text(cpus)),
        ("from", text(utc(header.start_unix_ns))),
        ("window", text(format!("{:.1} s", diagnosis.window_s))),
        ("threads", text(diagnosis.coverage.threads.to_string())),
        ("recorded by version", known(&header.program)),
        ("report by version", name(env!("CARGO_PKG_VERSION"))),
    ];
    Block::Facts(Facts { source: "the recording's header and its threads", facts })
}

/// What was captured and what was lost.
pub(super) fn captured<'p>(recorded: &Recorded<'p>) -> Block<'p> {
    let (coverage, basis) = (&recorded.profile.coverage, &recorded.diagnosis.coverage);
    let complete = coverage.user_stacks.complete_pct();
    let facts = vec![
        ("captured", text(coverage.statements().join("; "))),
        ("samples lost", text(basis.lost.to_string())),
        (
            "user stacks that reach the thread's start",
            text(complete.map_or_else(|| "no stacks".to_owned(), |pct| format!("{pct:.1} %"))),
        ),
        (
            "waiting time of which it is known what ended it",
            text(format!("{:.0} %", basis.ends_known * 100.0)),
        ),
    ];
    Block::Facts(Facts { source: "the kernel programs' counters", facts })
}

/// What changes every number of this recording; empty where nothing does.
pub(super) fn modifiers<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let told: Vec<String> = recorded
        .diagnosis
        .modifiers
        .iter()
        .map(|fact| format!("{} {} ({})", fact.number(), fact.what, fact.source))
        .collect();
    if told.is_empty() { Vec::new() } else { vec![Block::List(told)] }
}

/// What this recording lacks.
pub(super) fn missing<'p>(recorded: &Recorded<'p>) -> Block<'p> {
    let profile = recorded.profile;
    let mut missing = recorded.diagnosis.coverage.missing.clone();
    let signals = profile.signals.iter().flat_map(|signals| &signals.missing);
    missing.extend(signals.map(|what| format!("not read: {what}")));
    if missing.is_empty() {
        return Block::Text("Nothing is known to be missing.".to_owned());
    }
    Block::List(missing)
}

/// What no recording shows.
pub(super) fn method<'p>() -> Block<'p> {
    Block::List(METHOD.map(str::to_owned).into())
}
