//! A report as one page of HTML: no file, no host, no script beside it.
//!
//! What maud puts into a page is escaped. Flame graphs are pages within the page (`srcdoc`), so that the script by which inferno's
//! zoom and search finds its own elements, and each other's ids do not meet; a policy in the head forbids to load anything.

use std::io;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::document::{Answer, Block, Cell, Document, Facts, FlameGraph, Section, Table, Tone};
use crate::activity::{Class, Rgb};
use crate::export::picture::{HotPaths, Picture};
use crate::names::printable;

/// Nothing is loaded from anywhere; what the page brings along runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
/// Of all parts of a page.
const STYLE: &str = include_str!("page.css");
/// Before a flame graph in its page. Fingers do not hover, so Search is always seen. inferno's script keeps what is zoomed into in
/// the address, which such a page does not have.
const BEFORE_FLAMES: &str = "<!DOCTYPE html><style>body{margin:0}svg{display:block;width:100%}#search{opacity:.7!important}</style><script>history.replaceState=()=>{}</script>";

/// The whole page.
///
/// # Errors
/// A flame graph could not be drawn, which should not happen.
pub(super) fn render(document: &Document<'_>) -> io::Result<String> {
    let sections = document
        .sections
        .iter()
        .enumerate()
        .map(|(number, section)| section_markup(section, number))
        .collect::<io::Result<Vec<Markup>>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (shown(&document.title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (shown(&document.title)) }
                    p { (shown(&document.about)) }
                }
                nav aria-label="Sections" {
                    ul {
                        @for (number, section) in document.sections.iter().enumerate() {
                            li { a href={ "#section-" (number) } { (section.title) } }
                        }
                    }
                }
                main { @for section in &sections { (section) } }
            }
        }
    };
    Ok(page.into_string() + "\n")
}

fn section_markup(section: &Section<'_>, number: usize) -> io::Result<Markup> {
    let blocks = section.blocks.iter().map(block_markup).collect::<io::Result<Vec<Markup>>>()?;
    Ok(html! {
        section id={ "section-" (number) } aria-labelledby={ "heading-" (number) } {
            h2 id={ "heading-" (number) } { (section.title) }
            @for block in &blocks { (block) }
        }
    })
}

fn block_markup(block: &Block<'_>) -> io::Result<Markup> {
    Ok(match block {
        Block::Text(text) => html! { p { (shown(text)) } },
        Block::List(items) => html! { ul { @for item in items { li { (shown(item)) } } } },
        Block::Answer(Answer { tone, code, summary, judgement }) => html! {
            div.answer.(tone_class(*tone)) {
                p { strong { (shown(code)) } " " (shown(summary)) }
                p { (shown(judgement)) }
            }
        },
        Block::Facts(Facts { source, facts }) => html! {
            dl { @for (what, cell) in facts { div { dt { (what) } dd { (cell_markup(cell)) } } } }
            (source_markup(source))
        },
        Block::Table(table) => table_markup(table),
        Block::Bar(parts) => bar(parts),
        Block::Flames(flames) => flames_markup(flames)?,
    })
}

fn table_markup(table: &Table) -> Markup {
    let class = |number: usize| table.columns.get(number).filter(|column| column.is_number).map(|_| "number");
    html! {
        // Wide tables scroll, the page does not; who has no pointer scrolls by keys.
        div.table tabindex="0" role="region" aria-label=(table.title) {
            table {
                caption { (table.title) }
                thead { tr {
                    @for (number, column) in table.columns.iter().enumerate() {
                        th scope="col" class=[class(number)] { (column.title) }
                    }
                } }
                tbody {
                    @for row in &table.rows {
                        tr { @for (number, cell) in row.iter().enumerate() {
                            td class=[class(number).or(is_long(cell).then_some("long"))] { (cell_markup(cell)) }
                        } }
                    }
                }
            }
        }
        @if table.left_out > 0 { p.source { (table.left_out) " more rows are left out." } }
        (source_markup(table.source))
    }
}

/// Whether it is a sentence, which needs room: in a narrow table it would be a column of single words.
fn is_long(cell: &Cell) -> bool {
    /// More than a line of a phone.
    const LETTERS: usize = 40;
    matches!(cell, Cell::Text(text) if text.chars().count() > LETTERS)
}

fn source_markup(source: &str) -> Markup {
    html! { @if !source.is_empty() { p.source { "Source: " (source) "." } } }
}

fn cell_markup(cell: &Cell) -> Markup {
    let names = |names: &[String], between: &str| {
        html! {
            @for (number, name) in names.iter().enumerate() {
                @if number > 0 { (between) }
                code { (shown(name)) }
            }
        }
    };
    html! {
        @match cell {
            Cell::Text(text) => (shown(text)),
            Cell::Name(name) => @if !name.is_empty() { code { (shown(name)) } },
            Cell::Names(all) => (names(all, ", ")),
            Cell::Path(all) => (names(all, " → ")),
            Cell::Class(class) => { (swatch(class.colour())) code { (class.name()) } }
            Cell::Level(tone, word) => span.level.(tone_class(*tone)) { (shown(word)) },
        }
    }
}

/// Parts of a whole as one bar, as wide as the page.
fn bar(parts: &[(Class, f64)]) -> Markup {
    /// Of the drawing, which is stretched.
    const WIDTH: f64 = 1000.0;
    let total: f64 = parts.iter().map(|(_, part)| part).sum::<f64>().max(f64::MIN_POSITIVE);
    let share = |part: f64| format!("{:.1} %", part * 100.0 / total);
    let mut parts: Vec<(Class, f64)> = parts.to_vec();
    // Classes that belong together stand together.
    parts.sort_by_key(|(class, _)| *class);
    let told: Vec<String> = parts.iter().map(|(class, part)| format!("{class} {}", share(*part))).collect();
    let mut from = 0.0;
    html! {
        svg.bar viewBox="0 0 1000 24" preserveAspectRatio="none" role="img"
            aria-label={ "Time of the threads: " (told.join(", ")) } {
            @for ((class, part), told) in parts.iter().zip(&told) {
                @let (x, width) = (from, WIDTH * part / total);
                @let () = from += width;
                rect x=(format!("{x:.2}")) y="0" width=(format!("{width:.2}")) height="24"
                    fill=(css_colour(class.colour())) { title { (told) } }
            }
        }
    }
}

fn flames_markup(FlameGraph { title, about, selection }: &FlameGraph<'_>) -> io::Result<Markup> {
    let picture = selection.draw(title)?;
    let HotPaths { lines, left_out } = selection.hot_paths();
    Ok(html! {
        figure {
            figcaption {
                h3 { (shown(title)) }
                p { (shown(about)) }
            }
            @if let Some(picture) = &picture {
                (frame(title, picture))
                p.legend {
                    @for (colour, name) in &picture.legend { span { (swatch(*colour)) (name) } " " }
                }
                p.source {
                    "Click a frame to zoom in; Search takes a regular expression. Frames below "
                    (format!("{:.2}", picture.min_width_pct)) " % of the width are left out."
                }
            }
            details {
                summary { "The hottest paths as text" }
                pre { @for line in &lines { (shown(line)) "\n" } }
                @if left_out > 0 { p.source { (left_out) " more frames of 1 % and above are left out." } }
            }
        }
    })
}

/// A flame graph as a page within the page.
fn frame(title: &str, picture: &Picture) -> Markup {
    // The prolog is for files.
    let start = picture.svg.find("<svg").unwrap_or_default();
    // All that ends an attribute in single quotes, or is changed in it. Double quotes, of which SVG has many, stay one byte.
    let escape = |text: &str| text.replace('&', "&amp;").replace('\'', "&#39;");
    PreEscaped(format!(
        "<iframe title='Flame graph: {}' style='height:{}px' srcdoc='{}{}'></iframe>",
        escape(&printable(title)),
        picture.height_px,
        escape(BEFORE_FLAMES),
        escape(&picture.svg[start..]),
    ))
}

fn swatch(colour: Rgb) -> Markup {
    html! { span.swatch aria-hidden="true" style={ "background:" (css_colour(colour)) } {} }
}

fn css_colour([r, g, b]: Rgb) -> String {
    format!("rgb({r},{g},{b})")
}

const fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Plain => "plain",
        Tone::Warning => "warning",
        Tone::Critical => "critical",
    }
}

/// Without characters that act; maud escapes the rest.
fn shown(text: &str) -> String {
    printable(text)
}
