//! Draws the screen.

use std::time::Duration;

use chokepoint_analysis::activity::{Class, Group};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::app::{App, Page};
use super::columns::Column;
use super::fitted::{cut, cut_left, pad, printable};
use super::latency_lines;
use super::overlays;
use super::plain;
use super::reader::{Stack, Stacks};
use super::rows::{Level, Row};
use super::snapshot::Snapshot;

/// Smallest screen that is drawn on.
const MIN_WIDTH: u16 = 40;
const MIN_HEIGHT: u16 = 12;
/// Width of the column of process or thread ids.
const ID_WIDTH: usize = 7;
/// Narrowest column of names.
const NAME_WIDTH: u16 = 14;
/// Width of a name from which on the process stands behind a thread's, and the container behind a process's.
const NAME_AND_PLACE: usize = 32;
/// Width of the bar of time on a CPU, with a gap.
const BAR_WIDTH: u16 = 6;
/// Of the bar of a wide screen.
const WIDE_BAR_WIDTH: u16 = 17;
/// From this width on all pages have their names where it is said whose the shown one is.
const ALL_TABS: u16 = 100;
/// From this width on the bar is wide.
const WIDE: u16 = 132;

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
        let text = format!("this terminal is too small: {MIN_WIDTH}x{MIN_HEIGHT} at least");
        return frame.render_widget(Paragraph::new(text), area);
    }
    let [header, tabs, page, keys] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_header(frame, app, header);
    frame.render_widget(Paragraph::new(tab_line(app, area.width)), tabs);
    match &app.page {
        Page::Rows(level) => draw_rows(frame, app, *level, page),
        Page::Peers | Page::Queues(_) | Page::Disks(_) => draw_lines(frame, app, page),
        Page::Stacks(..) => draw_stacks(frame, app, page),
    }
    frame.render_widget(Paragraph::new(key_line(app)).style(dim()), keys);
    overlays::draw(frame, app);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn heading() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// The colour of a group of classes, of the sixteen that every terminal has.
fn colour(group: Group) -> Color {
    match group {
        Group::Cpu => Color::Red,
        Group::Queue => Color::Yellow,
        Group::Io => Color::Blue,
        Group::Memory => Color::Gray,
        Group::Lock => Color::Magenta,
        Group::Net => Color::Green,
        Group::Wait => Color::Cyan,
        Group::Idle => Color::DarkGray,
    }
}

fn draw_header(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let mut first = vec![Span::styled("chokepoint top", heading()), Span::raw(format!("  {}", app.target))];
    let mut lines = Vec::new();
    match &app.snapshot {
        None => {
            lines.push(Line::from(first));
            lines.push(Line::from("the first window is under way"));
        }
        Some(snapshot) => {
            first.push(Span::raw(format!(
                "  {}  {:.1} s",
                plain::time_of_day(snapshot.end_unix_s),
                snapshot.length.as_secs_f64()
            )));
            if app.paused {
                first.push(Span::styled(
                    "  PAUSED",
                    Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
                ));
            }
            lines.push(Line::from(first));
            lines.push(Line::from(plain::cpu_line(snapshot)));
            lines.push(Line::from(plain::stall_line(snapshot)));
            lines.push(own_line(app, snapshot));
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// What it costs, and whether anything was not seen.
fn own_line<'a>(app: &App, snapshot: &Snapshot) -> Line<'a> {
    let mut spans = vec![Span::raw(plain::own_line(snapshot))];
    let warning = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
    match (snapshot.losses.as_slice(), app.lossy_windows) {
        ([], 0) => spans.push(Span::styled("  nothing lost", dim())),
        ([], windows) => spans.push(Span::raw(format!("  losses in {windows} windows"))),
        (losses, _) => {
            // The first as far as there is room.
            spans.push(Span::styled(format!("  losses: l shows {}", losses.len()), warning));
            spans.push(Span::styled(format!("  ({})", printable(&losses[0])), dim()));
        }
    }
    if app.passed_ends > 0 {
        spans.push(Span::styled(format!("  {} ends late", app.passed_ends), warning));
    }
    Line::from(spans)
}

/// The pages, and whose the one that is shown is. Where that has no room, the others are their keys alone.
fn tab_line<'a>(app: &App, width: u16) -> Line<'a> {
    let is_brief = width < ALL_TABS && (app.scope.is_some() || matches!(app.page, Page::Stacks(..)));
    let mut spans = Vec::new();
    let pages = [
        ("1 processes", matches!(app.page, Page::Rows(Level::Processes))),
        ("2 cgroups", matches!(app.page, Page::Rows(Level::Cgroups))),
        ("3 threads", matches!(app.page, Page::Rows(Level::Threads))),
        ("4 peers", matches!(app.page, Page::Peers)),
        ("5 queue", matches!(app.page, Page::Queues(_))),
        ("6 disks", matches!(app.page, Page::Disks(_))),
    ];
    for (title, is_shown) in pages {
        let style = if is_shown { Style::new().add_modifier(Modifier::REVERSED) } else { dim() };
        let title = if is_brief && !is_shown { &title[..1] } else { title };
        spans.push(Span::styled(format!(" {title} "), style));
    }
    if let Page::Stacks(_, name) = &app.page {
        spans.push(Span::styled(
            format!(" stacks of {} ", cut(name, 24)),
            Style::new().add_modifier(Modifier::REVERSED),
        ));
    }
    if let Some((_, name)) = app.scope.as_ref().filter(|_| !matches!(app.page, Page::Stacks(..))) {
        spans.push(Span::raw(format!(" of {}", cut_left(name, 20))));
    }
    if let Page::Rows(_) = app.page {
        let modes = [(app.tree, " tree"), (app.by_name, " by name")];
        spans.extend(modes.into_iter().filter(|(is_on, _)| *is_on).map(|(_, mode)| Span::raw(mode)));
        if app.is_typing {
            spans.push(Span::styled(format!(" /{}_", app.filter), heading()));
        } else if !app.filter.is_empty() {
            spans.push(Span::styled(format!(" /{}", app.filter), heading()));
        }
    }
    Line::from(spans)
}

fn key_line(app: &App) -> &'static str {
    match &app.page {
        _ if app.is_typing => "type a part of a name  Enter keep it  Esc all",
        Page::Rows(Level::Threads) => {
            "? help  / filter  < > sort  Enter stacks  Esc back  space pause  q quit"
        }
        Page::Rows(Level::Processes) => {
            "? help  / filter  < > sort  Enter threads  s stacks  t tree  space pause  q quit"
        }
        Page::Rows(Level::Cgroups) => "? help  / filter  < > sort  Enter processes  s stacks  t tree  q quit",
        Page::Peers => "? help  Tab next view  space pause  q quit",
        Page::Queues(_) => "? help  c by process, cgroup  Tab next view  space pause  q quit",
        Page::Disks(_) => "? help  c by device, process, cgroup  Tab next view  space pause  q quit",
        Page::Stacks(..) => "? help  up/down stack  left/right frames  Esc back  space pause  q quit",
    }
}

fn draw_rows(frame: &mut Frame<'_>, app: &mut App, level: Level, area: Rect) {
    app.set_visible(usize::from(area.height.saturating_sub(1)));
    let Some(snapshot) = &app.snapshot else { return };
    let has_id = level != Level::Cgroups;
    let bar = if area.width >= WIDE { WIDE_BAR_WIDTH } else { BAR_WIDTH };
    let id = if has_id { ID_WIDTH as u16 + 1 } else { 0 };
    let name_width = if has_id { NAME_WIDTH } else { NAME_WIDTH + ID_WIDTH as u16 };
    let columns = Column::fitting(area.width.saturating_sub(id + name_width + bar), app.sort);
    let numbers: u16 = columns.iter().map(|column| column.width()).sum();
    let name_width = usize::from(area.width.saturating_sub(id + bar + numbers));

    let mut title = Vec::new();
    let (id_title, name_title) = match level {
        Level::Processes => ("PID", "PROCESS"),
        Level::Cgroups => ("", "CGROUP"),
        Level::Threads => ("TID", "THREAD"),
    };
    if has_id {
        title.push(Span::raw(format!("{id_title:>ID_WIDTH$} ")));
    }
    title.push(Span::raw(format!("{name_title:name_width$}{:width$}", "", width = usize::from(bar))));
    for column in &columns {
        let is_sorted = *column == app.sort;
        let mark = if is_sorted && app.ascending { "^" } else { "" };
        let text =
            format!("{:>width$}", format!("{mark}{}", column.title()), width = usize::from(column.width()));
        let style = if is_sorted { Style::new().add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        title.push(Span::styled(text, style));
    }
    let mut lines = vec![Line::from(title).style(heading())];
    let full_pct = if level == Level::Threads { 100.0 } else { 100.0 * snapshot.host.cpus.max(1) as f64 };
    let visible =
        app.rows.iter().enumerate().skip(app.first).take(usize::from(area.height.saturating_sub(1)));
    for (at, row) in visible {
        let mut spans = Vec::new();
        if has_id {
            let id = row.id.map_or_else(|| format!("{}x", row.activity.threads), |id| id.to_string());
            spans.push(Span::raw(format!("{id:>ID_WIDTH$} ")));
        }
        spans.push(Span::raw(pad(&name_of(row, level, name_width.saturating_sub(1)), name_width)));
        spans.extend(bar_of(row, snapshot, full_pct, usize::from(bar)));
        for column in &columns {
            let text = column.text(&row.activity, snapshot);
            let width = usize::from(column.width());
            let style = if text == "." { dim() } else { column_style(*column) };
            spans.push(Span::styled(format!("{text:>width$}"), style));
        }
        lines.push(selectable(Line::from(spans), at == app.selected));
    }
    if app.rows.is_empty() {
        lines.push(Line::from(nothing(app)).style(dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn nothing(app: &App) -> &'static str {
    if app.filter.is_empty() {
        "nothing of the target lived in this window"
    } else {
        "no name has this in it; / and Esc show all"
    }
}

fn selectable(line: Line<'_>, is_selected: bool) -> Line<'_> {
    if is_selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

fn column_style(column: Column) -> Style {
    let group = match column {
        Column::Cpu | Column::User | Column::System => Group::Cpu,
        Column::RunQueue | Column::Throttled => Group::Queue,
        Column::Io => Group::Io,
        Column::Memory => Group::Memory,
        Column::Lock => Group::Lock,
        Column::Net => Group::Net,
        Column::Wait | Column::Timer => Group::Wait,
        Column::Idle => Group::Idle,
        Column::Switches | Column::Threads => return Style::new(),
    };
    Style::new().fg(colour(group))
}

/// Where a name is too long, of a path the end is kept, which tells more. Behind a thread's stands its process, behind a process's its
/// container, where there is room.
fn name_of(row: &Row, level: Level, width: usize) -> String {
    let indent = (2 * row.depth).min(width / 2);
    let name = printable(&row.name);
    let name = match (level, &row.place) {
        (Level::Cgroups, _) => cut_left(&name, width - indent),
        (_, Some(place)) if width >= NAME_AND_PLACE => {
            cut(&format!("{name:<16} of {}", printable(place)), width - indent)
        }
        _ => cut(&name, width - indent),
    };
    format!("{:indent$}{name}", "")
}

/// Time on a CPU: user code and the kernel, of what there is.
fn bar_of<'a>(row: &Row, snapshot: &Snapshot, full_pct: f64, width: usize) -> [Span<'a>; 3] {
    let length = width.saturating_sub(1);
    let cells = |pct: f64| ((pct / full_pct * length as f64).round() as usize).min(length);
    let user = cells(snapshot.pct(row.activity.class_ns(Class::CpuUser)));
    let both = cells(snapshot.pct(row.activity.group_ns(Group::Cpu))).max(user);
    [
        Span::styled("|".repeat(user), Style::new().fg(Color::Red)),
        Span::styled("|".repeat(both - user), Style::new().fg(Color::LightMagenta)),
        Span::raw(" ".repeat(width - both)),
    ]
}

/// A page of lines that are in their order already.
fn draw_lines(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    app.set_visible(usize::from(area.height.saturating_sub(1)));
    let Some(snapshot) = &app.snapshot else { return };
    let width = usize::from(area.width);
    let shown = |number: usize| app.first..number.min(app.first + usize::from(area.height.saturating_sub(1)));
    let (title, texts, nothing): (String, Vec<String>, String) = match &app.page {
        Page::Queues(by) => {
            let of = |row| latency_lines::queue_line(row, snapshot, width);
            let lines = app.queues[shown(app.queues.len())].iter().map(of).collect();
            (
                latency_lines::queue_title(*by, width),
                lines,
                "nothing waited for a CPU in this window".to_owned(),
            )
        }
        Page::Disks(by) => {
            let of = |row| latency_lines::disk_line(row, snapshot, width);
            let lines = app.disks[shown(app.disks.len())].iter().map(of).collect();
            (latency_lines::disk_title(*by, width), lines, no_requests(snapshot))
        }
        Page::Peers | Page::Rows(_) | Page::Stacks(..) => {
            let lines = snapshot.peers[shown(snapshot.peers.len())].iter().map(plain::peer_line).collect();
            let nothing = "no TCP connection sent anything again, or was reset, in this window";
            (plain::PEER_TITLE.to_owned(), lines, nothing.to_owned())
        }
    };
    let mut lines = vec![Line::from(title).style(heading())];
    let first = app.first;
    lines.extend(
        texts
            .into_iter()
            .enumerate()
            .map(|(at, text)| selectable(Line::from(text), first + at == app.selected)),
    );
    if lines.len() == 1 {
        lines.push(Line::from(nothing).style(dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn no_requests(snapshot: &Snapshot) -> String {
    match &snapshot.block_refused {
        Some(reason) => format!("this kernel refuses to have block devices watched: {reason}"),
        None => "no block device had a request in this window".to_owned(),
    }
}

fn draw_stacks(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let list_height = (area.height / 2).max(3);
    let [list, frames] = Layout::vertical([Constraint::Length(list_height), Constraint::Min(1)]).areas(area);
    app.set_visible(usize::from(list.height.saturating_sub(1)));
    let Some(stacks) = &app.stacks else {
        return frame.render_widget(Paragraph::new("naming the stacks").style(dim()), area);
    };
    let mut lines = vec![Line::from(stack_title(stacks)).style(heading())];
    let visible =
        stacks.stacks.iter().enumerate().skip(app.first).take(usize::from(list.height.saturating_sub(1)));
    for (at, stack) in visible {
        let line = stack_line(stack, stacks, usize::from(list.width));
        lines.push(selectable(line, at == app.selected));
    }
    if stacks.stacks.is_empty() {
        lines.push(Line::from("no time in this window: it has ended, or has not begun").style(dim()));
    }
    frame.render_widget(Paragraph::new(lines), list);

    let Some(stack) = app.selected_stack() else { return };
    let room = usize::from(frames.height.saturating_sub(1));
    let left = stack.frames.len().saturating_sub(app.first_frame);
    let more = if left > room { format!(", {} more", left - room) } else { String::new() };
    let object =
        stack.object.as_ref().map(|object| format!(" for {}", printable(object))).unwrap_or_default();
    let title =
        format!("-- {}{object}: {} frames{more}, the innermost first", stack.class, stack.frames.len());
    let mut lines = vec![Line::from(title).style(heading())];
    lines.extend(
        stack
            .frames
            .iter()
            .skip(app.first_frame)
            .take(room)
            .map(|name| Line::from(format!("  {}", printable(name)))),
    );
    frame.render_widget(Paragraph::new(lines), frames);
}

fn stack_title(stacks: &Stacks) -> String {
    let left_out = match stacks.left_out {
        0 => String::new(),
        left_out => format!("; {left_out} stacks left out"),
    };
    format!("{:>5} {:>6}  {:<18}WAITS FOR, FUNCTIONS{left_out}", "PCT", "COUNT", "CLASS")
}

/// A stack on one line: its share of the window, its class, what it waits for, and its functions as far as they fit.
fn stack_line<'a>(stack: &Stack, stacks: &Stacks, width: usize) -> Line<'a> {
    let pct = 100.0 * stack.time_ns as f64 / (stacks.length.max(Duration::from_nanos(1)).as_nanos() as f64);
    let mut what: Vec<String> =
        stack.object.iter().map(|object| format!("[{}]", printable(object))).collect();
    // The class and the object say what the kernel's functions would; who called them is to be seen.
    let first = if stack.user_from < stack.frames.len() { stack.user_from } else { 0 };
    what.extend(stack.frames[first..].iter().map(|name| printable(name)));
    let head = format!("{pct:>5.1} {:>6}  ", stack.samples);
    let rest = width.saturating_sub(head.len() + 18);
    Line::from(vec![
        Span::raw(head),
        Span::styled(format!("{:<18}", stack.class.name()), Style::new().fg(colour(stack.class.group()))),
        Span::raw(cut(&what.join(" < "), rest)),
    ])
}
