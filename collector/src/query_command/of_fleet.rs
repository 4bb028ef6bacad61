//! What limits services, and what was rolled out, as pages for people.

use std::fmt::Write;

use chokepoint_analysis::compare::selections::Compared;
use chokepoint_analysis::names::printable;

use super::tables::{labels_shown, more, short, utc};
use crate::query::fleet::regressions::{Regressions, Rollout};
use crate::query::fleet::{Callee, Constraint, Fleet, Outlier, Service};

/// Hosts, functions and the like in one line; the rest is counted.
const NAMED: usize = 6;

/// The services that something limits, then the hosts that differ, then how many services are well.
pub(super) fn services(found: &Fleet) -> String {
    if found.services.is_empty() {
        return "nothing is stored of this\n".to_owned();
    }
    let mut text = String::new();
    let is_limited = |service: &&Service| !service.constraints.is_empty();
    for service in found.services.iter().filter(is_limited) {
        for constraint in &service.constraints {
            limited(&mut text, service, constraint);
        }
    }
    for outlier in &found.outliers {
        odd(&mut text, outlier);
    }
    for neighbour in &found.neighbours {
        let _ = writeln!(
            text,
            "neighbour {} queues {:.0} % of its demand on {} behind {}",
            labels_shown(&neighbour.victim),
            neighbour.share * 100.0,
            printable(&neighbour.host),
            list(&neighbour.culprits)
        );
    }
    let free: Vec<&Service> = found.services.iter().filter(|service| !is_limited(service)).collect();
    let unknown = free.iter().filter(|service| service.unknown > service.hosts / 2).count();
    let _ = writeln!(text, "{} services have no constraint of their own", free.len() - unknown);
    if unknown > 0 {
        let _ = writeln!(text, "{unknown} services: not enough is known");
    }
    more(&mut text, found.left_out, " services");
    for missing in &found.missing {
        let _ = writeln!(text, "missing: {}", printable(missing));
    }
    text
}

fn limited(text: &mut String, service: &Service, constraint: &Constraint) {
    let severity = ["-", "low", "warning", "critical"].get(usize::from(constraint.severity));
    let since = if constraint.since_is_earlier { "since before" } else { "since" };
    let since = match constraint.since_unix_ms {
        0 => String::new(),
        ms => format!("  {since} {}", utc(ms)),
    };
    let _ = writeln!(
        text,
        "{:9} {:18} {:>9}{since}  {}",
        severity.unwrap_or(&"?"),
        short(&constraint.code),
        format!("{}/{}", constraint.hosts, service.hosts),
        labels_shown(&service.labels)
    );
    let _ = writeln!(text, "          {}", printable(&constraint.summary));
    let _ = writeln!(text, "          on {}", list(&constraint.named_hosts));
    for callee in &constraint.waits_for {
        let _ = writeln!(text, "          {}", behind(callee));
    }
    for change in &constraint.changes {
        let before = if change.before.is_empty() { "nothing".to_owned() } else { list(&change.before) };
        let _ = writeln!(
            text,
            "          {} was {before}, and is {} since",
            printable(&change.label),
            list(&change.since)
        );
    }
    if let Some(usual) = &constraint.usual {
        for baseline in usual.baselines.iter().filter(|baseline| baseline.is_unusual) {
            let _ = writeln!(
                text,
                "          unusual: {:.0} % of the time, {:.0} % by {}",
                usual.now * 100.0,
                baseline.median * 100.0,
                printable(&baseline.over)
            );
        }
    }
    if !constraint.next_step.is_empty() {
        let _ = writeln!(text, "          next: {}", printable(&constraint.next_step));
    }
}

fn behind(callee: &Callee) -> String {
    let code = callee.code.as_deref().unwrap_or("no constraint is known");
    format!(
        "waits for {} at {} on {}: {}",
        labels_shown(&callee.labels),
        printable(&callee.address),
        list(&callee.hosts),
        printable(code)
    )
}

fn odd(text: &mut String, outlier: &Outlier) {
    let code =
        if outlier.code.is_empty() { String::new() } else { format!(": {}", printable(&outlier.code)) };
    let _ = writeln!(
        text,
        "differs   {} from the {} hosts of {}{code}",
        printable(&outlier.host),
        outlier.hosts,
        labels_shown(&outlier.among)
    );
    for difference in &outlier.differences {
        let _ = writeln!(
            text,
            "          {} {:.1} {}, the median is {:.1}",
            printable(&difference.name),
            difference.value,
            printable(&difference.unit),
            difference.median
        );
    }
}

/// What was rolled out, the latest first.
pub(super) fn regressions(found: &Regressions) -> String {
    if found.changes.is_empty() {
        return "no version or image changed in this time\n".to_owned();
    }
    let mut text = String::new();
    for change in &found.changes {
        rollout(&mut text, change);
    }
    more(&mut text, found.left_out, " changes");
    text
}

fn rollout(text: &mut String, change: &Rollout) {
    let _ = writeln!(
        text,
        "{}  {}: {} {} -> {}",
        utc(change.at_unix_ms),
        labels_shown(&change.labels),
        printable(&change.label),
        printable(&change.before),
        printable(&change.after)
    );
    for (functions, word) in [(&change.grew, "grew"), (&change.shrank, "shrank")] {
        for function in functions.iter().take(NAMED) {
            function_line(text, function, word);
        }
        more(text, functions.len().saturating_sub(NAMED) as u64, " functions");
    }
    if change.grew.is_empty() && change.shrank.is_empty() {
        text.push_str("  no function changed by more than chance\n");
    }
    for note in &change.notes {
        let _ = writeln!(text, "  {}", printable(note));
    }
}

fn function_line(text: &mut String, function: &Compared, word: &str) {
    let _ = writeln!(
        text,
        "  {word:6} {} ({}): {:.3} to {:.3} {}",
        printable(&function.name),
        printable(&function.instance),
        function.before,
        function.after,
        printable(&function.unit)
    );
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMED).map(|name| printable(name)).collect();
    let rest = names.len().saturating_sub(NAMED);
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}
