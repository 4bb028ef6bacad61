//! What a report is made of, whatever it is written as.
//!
//! Texts and names are as they came: what writes them escapes them. Every table and list of facts says where its numbers are from.

use crate::activity::Class;
use crate::export::picture::Selection;

/// A report.
#[derive(Clone, Debug)]
pub struct Document<'p> {
    /// Its title.
    pub title: String,
    /// What it is of, in one sentence below the title.
    pub about: String,
    /// Its parts, in the order of reading.
    pub sections: Vec<Section<'p>>,
}

/// A part of a report, with a heading of its own.
#[derive(Clone, Debug)]
pub struct Section<'p> {
    /// The heading.
    pub title: &'static str,
    /// What stands below it.
    pub blocks: Vec<Block<'p>>,
}

/// Something that stands by itself.
#[derive(Clone, Debug)]
pub enum Block<'p> {
    /// Sentences.
    Text(String),
    /// What has to be seen first.
    Answer(Answer),
    /// Names and what they stand for.
    Facts(Facts),
    /// Sentences, each by itself.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// Parts of a whole, drawn as one bar. A table beside it has the numbers.
    Bar(Vec<(Class, f64)>),
    /// A flame graph.
    Flames(FlameGraph<'p>),
}

/// How urgent something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// To be known.
    Plain,
    /// To be looked at.
    Warning,
    /// To be acted on.
    Critical,
}

/// What has to be seen first.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How urgent it is.
    pub tone: Tone,
    /// A name for it: `lock.mutex`.
    pub code: String,
    /// In one sentence.
    pub summary: String,
    /// How bad it is and how sure.
    pub judgement: String,
}

/// Names and what they stand for.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where they are from.
    pub source: &'static str,
    /// The facts.
    pub facts: Vec<(&'static str, Cell)>,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: &'static str,
    /// Where its numbers are from; empty where each row says it.
    pub source: &'static str,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows: as many cells as columns.
    pub rows: Vec<Vec<Cell>>,
    /// Rows that had no room.
    pub left_out: usize,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Whether it is of numbers, which stand below each other.
    pub is_number: bool,
}

/// What stands in a table or beside a name.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Words or a number.
    Text(String),
    /// A name that is to be read letter by letter: of a process, a function, a signal, a command.
    Name(String),
    /// Several of them, in order.
    Names(Vec<String>),
    /// The same, each leading to the next.
    Path(Vec<String>),
    /// A class of thread time, in its colour.
    Class(Class),
    /// A word, and how urgent what it says is.
    Level(Tone, String),
}

/// A flame graph.
#[derive(Clone, Debug)]
pub struct FlameGraph<'p> {
    /// What it shows.
    pub title: String,
    /// Which part of the whole that is, and where it is from.
    pub about: String,
    /// The samples.
    pub selection: Selection<'p>,
}

/// Columns of these headings; those that begin with a `#` are of numbers.
pub(super) fn columns(titles: &[&'static str]) -> Vec<Column> {
    let column = |title: &&'static str| match title.strip_prefix('#') {
        Some(title) => Column { title, is_number: true },
        None => Column { title, is_number: false },
    };
    titles.iter().map(column).collect()
}

/// A cell of words.
pub(super) fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

/// A cell with a name.
pub(super) fn name(name: impl Into<String>) -> Cell {
    Cell::Name(name.into())
}

impl Table {
    /// A table of all rows, or of the first of them where there are more than `most`.
    pub(super) fn new(
        title: &'static str,
        source: &'static str,
        titles: &[&'static str],
        most: usize,
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> Self {
        let mut rows: Vec<Vec<Cell>> = rows.into_iter().collect();
        let left_out = rows.len().saturating_sub(most);
        rows.truncate(most);
        Self { title, source, columns: columns(titles), rows, left_out }
    }
}
