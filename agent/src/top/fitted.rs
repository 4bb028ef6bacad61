//! Text that fits: names that came from anywhere, in so many columns of a terminal.

use ratatui::text::Span;

/// Names come from anywhere: nothing in them is to move the cursor, or to be wider than it seems.
#[must_use]
pub fn printable(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// The beginning of a text.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for letter in text.chars() {
        cut.push(letter);
        if Span::raw(cut.as_str()).width() + 1 > width {
            cut.pop();
            break;
        }
    }
    if width > 0 {
        cut.push('+');
    }
    cut
}

/// The end of a text.
#[must_use]
pub fn cut_left(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut kept = Vec::new();
    let mut taken = 1;
    for letter in text.chars().rev() {
        taken += Span::raw(letter.to_string()).width();
        if taken > width {
            break;
        }
        kept.push(letter);
    }
    if width > 0 {
        kept.push('+');
    }
    kept.into_iter().rev().collect()
}

/// With blanks up to a width.
#[must_use]
pub fn pad(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(Span::raw(text).width());
    format!("{text}{:blanks$}", "")
}
