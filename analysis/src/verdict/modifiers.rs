//! What changes every number of a window, whatever limits the target.

use super::account::Account;
use super::finding::Fact;

/// Below a twentieth of the CPUs' time, what the hypervisor or interrupts take is that of any host.
const TAKEN_PCT: f64 = 5.0;

/// Signals of the host, what they are in words, and why they matter.
const OF_CPUS: [(&str, &str); 2] = [
    (
        "cpu.steal",
        "of the CPUs' time, taken by the hypervisor: work takes longer by it, and so do waits for who works",
    ),
    ("cpu.interrupts", "of the CPUs' time, in interrupts: threads that were interrupted take longer by it"),
];

/// Those that are there, the greatest first.
pub(super) fn of(account: &Account<'_>) -> Vec<Fact> {
    let of_cpus = OF_CPUS.into_iter().filter_map(|(signal, what)| {
        let value = account.signal(signal).filter(|value| *value >= TAKEN_PCT)?;
        Some(Fact { what: what.to_owned(), value, unit: "%", source: format!("signal {signal}") })
    });
    let mut facts: Vec<Fact> = of_cpus.collect();
    facts.sort_by(|one, other| other.value.total_cmp(&one.value));
    facts
}
