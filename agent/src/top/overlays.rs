//! What stands above the page: the keys and columns, and what was not seen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph};

use super::app::{App, Overlay};
use super::columns::Column;
use super::fitted::printable;

/// Draws it, if there is any.
pub fn draw(frame: &mut Frame<'_>, app: &App) {
    let width = frame.area().width;
    match app.overlay {
        Overlay::None => {}
        Overlay::Help => draw_lines(frame, " keys and columns; any key closes ", help(width)),
        Overlay::Losses => draw_lines(frame, " what is not seen; any key closes ", losses(app)),
    }
}

/// Draws lines above the middle of the screen.
fn draw_lines(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>) {
    let area = frame.area();
    let height = (lines.len() as u16 + 2).min(area.height);
    let width =
        (lines.iter().map(Line::width).max().unwrap_or(0).max(title.len()) as u16 + 4).min(area.width);
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title.to_owned())), place);
}

const KEYS: [(&str, &str); 13] = [
    ("1 to 6 Tab", "the views"),
    ("up down PgUp PgDn", "select a row; also j k g G"),
    ("Enter", "cgroup > processes > threads > stacks"),
    ("s", "stacks of the row"),
    ("Esc Backspace", "back"),
    ("< > left right", "sort by another column"),
    ("r", "reverse the order"),
    ("/", "filter by name"),
    ("t", "tree: sums of children included"),
    ("n", "one row for each name"),
    ("c", "run queue, disks: by process, cgroup, device"),
    ("space p", "pause"),
    ("l", "what is not seen"),
];

/// Keys, and the columns beside or below them.
fn help<'a>(width: u16) -> Vec<Line<'a>> {
    let key = |(key, about): (&str, &str)| format!("{key:<18}{about:<40}");
    let column = |column: Column| format!("{:<5}{}", column.title(), column.about());
    let mut keys: Vec<String> = KEYS.into_iter().map(key).collect();
    keys.push(key(("q Ctrl-C", "quit")));
    let columns: Vec<String> = Column::ALL.into_iter().map(column).collect();
    let lines: Vec<String> = if width >= 110 {
        let blank = " ".repeat(58);
        let length = keys.len().max(columns.len());
        (0..length)
            .map(|at| {
                let key = keys.get(at).unwrap_or(&blank);
                format!("{key}  {}", columns.get(at).map_or("", String::as_str))
            })
            .collect()
    } else {
        // Two columns to a line.
        let half = columns.len().div_ceil(2);
        let pairs = (0..half).map(|at| {
            let second = columns.get(at + half).map_or("", String::as_str);
            format!("{:<39}{second}", columns[at])
        });
        keys.iter().cloned().chain(pairs).collect()
    };
    let mut lines: Vec<Line<'_>> =
        lines.into_iter().map(|line| Line::from(line.trim_end().to_owned())).collect();
    lines.push(
        Line::from("Numbers are per cent of the window; several threads add up to more than 100.")
            .style(Style::new().add_modifier(Modifier::DIM)),
    );
    lines
}

fn losses<'a>(app: &App) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'_>> = app
        .snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.losses)
        .map(|loss| Line::from(printable(loss)))
        .collect();
    if lines.is_empty() {
        lines.push(Line::from("nothing in this window"));
    }
    lines.push(
        Line::from(format!("windows with losses so far: {}", app.lossy_windows))
            .style(Style::new().add_modifier(Modifier::DIM)),
    );
    lines.push(
        Line::from(format!(
            "ends of windows passed over so far: {} (reading took longer; nothing is lost)",
            app.passed_ends
        ))
        .style(Style::new().add_modifier(Modifier::DIM)),
    );
    lines
}
