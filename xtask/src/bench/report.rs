//! Figures as tables that are Markdown and can be read as text as well.

use std::fmt;

/// Rows under a heading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// One cell for each column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<const COLUMNS: usize>(columns: [&'static str; COLUMNS]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(self.columns[column].chars().count())
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for (width, cell) in widths.iter().zip(cells) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")
        };
        line(f, &mut self.columns.iter().copied())?;
        for width in &widths {
            write!(f, "|{:-<width$}", "", width = width + 2)?;
        }
        writeln!(f, "|")?;
        for row in &self.rows {
            line(f, &mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

/// Whether a bar is reached.
pub fn verdict(reached: bool) -> String {
    if reached { "PASS" } else { "FAIL" }.to_owned()
}

/// Puts `text` between the marks of the section; `None` where the document lacks them.
pub fn replace_section(document: &str, section: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {section} -->\n"), format!("<!-- end {section} -->"));
    let start = document.find(&begin)? + begin.len();
    let stop = start + document[start..].find(&end)?;
    Some(format!("{}\n{}\n\n{}", &document[..start], text.trim(), &document[stop..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["what", "µs"]);
        table.row(["a longer one".to_owned(), "1".to_owned()]);
        table.row(["b".to_owned(), "22 µs".to_owned()]);
        let expected = "\
| what         | µs    |
|--------------|-------|
| a longer one | 1     |
| b            | 22 µs |
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn only_the_section_is_replaced() {
        let document = "top\n<!-- begin record -->\nold\n<!-- end record -->\nbottom\n";
        let expected = "top\n<!-- begin record -->\n\nnew\n\n<!-- end record -->\nbottom\n";
        assert_eq!(replace_section(document, "record", "new\n").as_deref(), Some(expected));
        assert_eq!(replace_section(expected, "record", "new\n").as_deref(), Some(expected));
        assert_eq!(replace_section(document, "other", "new"), None);
    }
}
