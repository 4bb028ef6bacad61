//! The report of two selections of what a fleet stored: what changed from one to the other, and whether that is real.

use super::document::{Block, Cell, Document, Facts, Section, Table, Tone, name, text};
use crate::activity::Class;
use crate::compare::selections::{Compared, Kind, Reality};
use crate::export::caption::utc;

/// Rows of a table: who wants more asks for the answer itself.
const MOST: usize = 40;

/// One of the two, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// What was selected.
    pub query: String,
    /// From when, nanoseconds since the Unix epoch.
    pub from_unix_ns: u64,
    /// Up to when.
    pub until_unix_ns: u64,
    /// How many steps of it are compared, and how long they are.
    pub steps: String,
}

/// The report. `kinds` are what was compared of each kind; `notes` what was not, and why.
#[must_use]
pub fn document(sides: &[Side; 2], kinds: &[(Kind, &[Compared])], notes: &[String]) -> Document<'static> {
    let of = |kind: Kind| kinds.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, of)| *of);
    let is_real = |change: &&Compared| matches!(change.is, Reality::Grew | Reality::Shrank);
    let mut answer = vec![Block::Text(in_short(of(Kind::Total)))];
    let real: Vec<String> = [Kind::Class, Kind::Function]
        .into_iter()
        .flat_map(|kind| of(kind).iter().filter(is_real).take(3))
        .map(sentence)
        .collect();
    if !real.is_empty() {
        answer.push(Block::List(real));
    }
    let mut rests = vec![Block::Text(
        "Each is a series of steps of time, and their means are compared by a test that knows that steps depend on those before them; \
         chances are corrected for the number of comparisons of each kind. Real is what has a chance below 5 %."
            .to_owned(),
    )];
    if !notes.is_empty() {
        rests.push(Block::List(notes.to_vec()));
    }
    let section = |title, blocks| Section { title, blocks };
    Document {
        title: "Comparison".to_owned(),
        about: format!("What changed from {} to {}.", sides[0].query, sides[1].query),
        sections: vec![
            section("What changed", answer),
            section("Selections", vec![facts("before", &sides[0]), facts("after", &sides[1])]),
            section(
                "Classes of time",
                table("Classes of time", "thread time that agents stored", of(Kind::Class)),
            ),
            section(
                "Functions",
                table("Functions, without what they called", "sampled stacks", of(Kind::Function)),
            ),
            section("Signals", table("Signals of the hosts", "the kernel's counters", of(Kind::Signal))),
            section("What this rests on", rests),
        ],
    }
}

fn in_short(total: &[Compared]) -> String {
    let Some(change) = total.first() else { return "Not enough is stored of both to compare.".to_owned() };
    match change.is {
        Reality::Grew | Reality::Shrank => sentence(change),
        Reality::Chance => format!("All of it changed by {}, which may be chance.", relative(change)),
        Reality::Unknown => {
            format!(
                "All of it changed by {}: there are too few steps to tell whether that is chance.",
                relative(change)
            )
        }
    }
}

fn sentence(change: &Compared) -> String {
    let what = if change.instance.is_empty() {
        change.name.clone()
    } else {
        format!("{} ({})", change.name, change.instance)
    };
    let [before, after] = [change.before, change.after].map(|value| quantity(value, &change.unit));
    format!("{what} {}, from {before} to {after} ({}).", change.is.words(), relative(change))
}

fn facts(title: &'static str, side: &Side) -> Block<'static> {
    let Side { query, from_unix_ns, until_unix_ns, steps } = side;
    let time = format!("{} to {}", utc(*from_unix_ns), utc(*until_unix_ns));
    let facts = vec![(title, name(query)), ("time", text(time)), ("compared", text(steps))];
    Block::Facts(Facts { source: "what was asked for", facts })
}

fn table(title: &'static str, source: &'static str, changes: &[Compared]) -> Vec<Block<'static>> {
    if changes.is_empty() {
        return vec![Block::Text("There are none of both, or they were not compared.".to_owned())];
    }
    let row = |change: &Compared| {
        let tone = match change.is {
            Reality::Grew | Reality::Shrank => Tone::Warning,
            Reality::Chance | Reality::Unknown => Tone::Plain,
        };
        let class =
            Class::from_name(&change.name).filter(|_| change.unit == "threads" && change.instance.is_empty());
        vec![
            class.map_or_else(|| name(&change.name), Cell::Class),
            name(&change.instance),
            text(quantity(change.before, &change.unit)),
            text(quantity(change.after, &change.unit)),
            text(relative(change)),
            text(change.interval.map_or_else(
                || "-".to_owned(),
                |[from, to]| format!("{} to {}", quantity(from, &change.unit), quantity(to, &change.unit)),
            )),
            text(change.p.map_or_else(
                || "-".to_owned(),
                |p| if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") },
            )),
            Cell::Level(tone, change.is.words().to_owned()),
        ]
    };
    let columns =
        ["what", "of", "#before", "#after", "#change", "#95 % confidence of the change", "#chance", "real"];
    vec![Block::Table(Table::new(title, source, &columns, MOST, changes.iter().map(row)))]
}

fn relative(change: &Compared) -> String {
    match change.relative {
        Some(relative) if relative.abs() < 10.0 => format!("{:+.1} %", relative * 100.0),
        Some(relative) => format!("{:.0} times", relative + 1.0),
        None => "new".to_owned(),
    }
}

/// A value of a unit: threads are small where a process waits most of its time.
fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "threads" => format!("{value:.3} threads"),
        "1" => format!("{value:.2}"),
        _ => format!("{value:.2} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Format, write};

    fn written(format: Format) -> String {
        let side = |query: &str| Side {
            query: query.to_owned(),
            from_unix_ns: 0,
            until_unix_ns: 3_600_000_000_000,
            steps: "60 of 60 s".to_owned(),
        };
        let change = |name: &str, after: f64, p: f64, is: Reality| Compared {
            name: name.to_owned(),
            unit: "threads".to_owned(),
            before: 1.0,
            after,
            change: after - 1.0,
            relative: Some(after - 1.0),
            interval: Some([after - 1.1, after - 0.9]),
            p: Some(p),
            is,
            ..Compared::default()
        };
        let total = [change("all", 1.02, 0.4, Reality::Chance)];
        let classes = [change("futex", 2.0, 0.00001, Reality::Grew)];
        let functions = [change("<script>alert(1)</script>", 0.5, 0.01, Reality::Shrank)];
        let kinds = [(Kind::Total, &total[..]), (Kind::Class, &classes), (Kind::Function, &functions)];
        let notes = ["signals were not compared".to_owned()];
        let document = document(&[side("cpu{version=\"1\"}"), side("cpu{version=\"2\"}")], &kinds, &notes);
        let mut text = Vec::new();
        write(&document, format, &mut text).expect("it can be written");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn both_formats_say_what_changed_and_whether_it_is_real() {
        for format in Format::ALL {
            let text = written(format);
            for told in [
                "+2.0 %",
                "which may be chance",
                "futex",
                "+100.0 %",
                "grew",
                "shrank",
                "0.0001",
                "signals were not compared",
            ] {
                assert!(text.contains(told), "{format}: {told} is missing:\n{text}");
            }
        }
        assert!(!written(Format::Html).contains("<script>alert"), "what a process chose is text");
    }
}
