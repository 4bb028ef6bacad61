//! A report as Markdown, as forges show it: GitHub's dialect, with tables.
//!
//! Names are hostile. They stand in code spans, where nothing is markup, a link or a mention; in sentences each character that
//! could begin any of these is escaped. Forges strip scripts and SVG out of a page and show a linked picture only where its file lies
//! beside, so a flame graph is told as text, which goes wherever the report is pasted: its hottest paths, folded up.

use std::fmt::Write;

use super::document::{Answer, Block, Cell, Document, Facts, FlameGraph, Table, Tone};
use crate::export::picture::HotPaths;
use crate::names::printable;

/// The whole report.
pub(super) fn render(document: &Document<'_>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# {}\n\n{}", sentence(&document.title), sentence(&document.about));
    for section in &document.sections {
        let _ = writeln!(out, "\n## {}", sentence(section.title));
        for block in &section.blocks {
            write_block(&mut out, block);
        }
    }
    out
}

fn write_block(out: &mut String, block: &Block<'_>) {
    let _ = match block {
        Block::Text(text) => writeln!(out, "\n{}", sentence(text)),
        Block::Answer(Answer { tone, code, summary, judgement }) => {
            let sign = match tone {
                Tone::Good | Tone::Plain => "",
                Tone::Warning => "**Warning:** ",
                Tone::Critical => "**Critical:** ",
            };
            let (code, summary) = (span(code, Place::Line), sentence(summary));
            writeln!(out, "\n> {sign}{code} {summary}\n>\n> {}", sentence(judgement))
        }
        Block::List(items) => {
            out.push('\n');
            items.iter().try_for_each(|item| writeln!(out, "- {}", sentence(item)))
        }
        Block::Facts(Facts { source, facts }) => {
            out.push('\n');
            for (what, cell) in facts {
                let _ = writeln!(out, "- **{}**: {}", sentence(what), cell_text(cell, Place::Line));
            }
            write_source(out, source);
            Ok(())
        }
        Block::Table(table) => {
            write_table(out, table);
            Ok(())
        }
        // The table beside it has the numbers.
        Block::Bar(_) => Ok(()),
        Block::Flames(flames) => {
            write_flames(out, flames);
            Ok(())
        }
    };
}

fn write_table(out: &mut String, table: &Table) {
    let Table { title, source, columns, rows, left_out } = table;
    let _ = write!(out, "\n**{}**\n\n|", sentence(title));
    for column in columns {
        let _ = write!(out, " {} |", sentence(column.title));
    }
    out.push_str("\n|");
    for column in columns {
        out.push_str(if column.is_number { " ---: |" } else { " --- |" });
    }
    for row in rows {
        out.push_str("\n|");
        for cell in row {
            let _ = write!(out, " {} |", cell_text(cell, Place::Table));
        }
    }
    out.push('\n');
    if *left_out > 0 {
        let _ = writeln!(out, "\n{left_out} more rows are left out.");
    }
    write_source(out, source);
}

fn write_source(out: &mut String, source: &str) {
    if !source.is_empty() {
        let _ = writeln!(out, "\nSource: {}.", sentence(source));
    }
}

fn write_flames(out: &mut String, FlameGraph { title, about, selection }: &FlameGraph<'_>) {
    let HotPaths { lines, left_out } = selection.hot_paths();
    let _ = writeln!(out, "\n### {}\n\n{}\n", sentence(title), sentence(about));
    let text = printable_lines(&lines);
    // Longer than any run of backticks within, so that none ends the block.
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    let _ = writeln!(
        out,
        "<details><summary>The hottest paths</summary>\n\n{fence}text\n{text}{fence}\n\n</details>"
    );
    if left_out > 0 {
        let _ = writeln!(
            out,
            "\n{left_out} more frames of 1 % and above are left out; the same report as HTML draws them."
        );
    }
}

fn printable_lines(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line) + "\n").collect()
}

/// Where something stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Line,
    Table,
}

fn cell_text(cell: &Cell, place: Place) -> String {
    let spans = |names: &[String], between: &str| {
        names.iter().map(|name| span(name, place)).collect::<Vec<_>>().join(between)
    };
    match cell {
        Cell::Text(text) => inline(text, place),
        Cell::Name(name) => span(name, place),
        Cell::Names(names) => spans(names, ", "),
        Cell::Path(names) => spans(names, " → "),
        Cell::Class(class) => span(class.name(), place),
        Cell::Level(Tone::Warning | Tone::Critical, word) => format!("**{}**", inline(word, place)),
        Cell::Level(Tone::Good | Tone::Plain, word) => inline(word, place),
    }
}

/// A name as a code span, which shows it letter by letter.
fn span(name: &str, place: Place) -> String {
    let name = printable(name);
    if name.trim().is_empty() {
        return String::new();
    }
    // A table is cut into cells before code spans are found, and readers differ in what a backslash before a bar means.
    if place == Place::Table && name.contains('|') {
        return format!("<code>{}</code>", inline(&name, place));
    }
    let fence = "`".repeat(longest_run(&name) + 1);
    let gap = if name.starts_with(['`', ' ']) || name.ends_with(['`', ' ']) { " " } else { "" };
    format!("{fence}{gap}{name}{gap}{fence}")
}

/// The longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or_default()
}

/// A text by itself, in which nothing is markup.
fn sentence(text: &str) -> String {
    inline(text, Place::Line)
}

/// A text in which nothing is markup.
fn inline(text: &str, place: Place) -> String {
    let text = printable(text);
    let text = text.trim();
    let mut out = String::with_capacity(text.len());
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        let follows_number = at > 0 && text[..at].bytes().all(|byte| byte.is_ascii_digit());
        match letter {
            // As entities, as a backslash before a bar is read in two ways.
            '\\' => out.push_str("&#92;"),
            '|' => out.push_str("&#124;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '`' | '*' | '_' | '[' | ']' | '~' | '$' => out.extend(['\\', letter]),
            // At the beginning of a line it would be a heading, a list or a rule.
            '#' | '+' | '-' | '=' if at == 0 && place == Place::Line => out.extend(['\\', letter]),
            '.' | ')' if follows_number && next.is_none_or(|next| next == ' ') => out.extend(['\\', letter]),
            // Forges make links of addresses, and mentions of names, from plain text.
            ':' if next == Some('/') => out.push_str("&#58;"),
            '.' if text[..at].ends_with(['w', 'W']) => out.push_str("\\."),
            '@' if next.is_some_and(char::is_alphanumeric) => out.push_str("@<!-- -->"),
            _ => out.push(letter),
        }
    }
    out
}
