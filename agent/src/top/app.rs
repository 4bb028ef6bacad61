//! What is on the screen, and what keys do to it. Without a terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::Column;
use super::latencies::{By, DiskRow, QueueRow, disk_rows, queue_rows};
use super::reader::{Scope, Stack, Stacks};
use super::rows::{Level, Query, Row, rows};
use super::snapshot::Snapshot;

/// Longest text to filter by.
const MAX_FILTER: usize = 64;
/// Views that are gone back to, at most.
const MAX_HISTORY: usize = 16;

/// What the main part of the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Rows of processes, cgroups or threads.
    Rows(Level),
    /// TCP peers that something was lost with.
    Peers,
    /// Run-queue latencies.
    Queues(By),
    /// Requests of block devices.
    Disks(By),
    /// The stacks of a scope. The name is what the row was called.
    Stacks(Scope, String),
}

/// What stands above the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    None,
    /// The keys and columns.
    Help,
    /// What was not seen.
    Losses,
}

/// What the loop is to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To end.
    Quit,
    /// To have these stacks named.
    Stacks(Scope),
}

/// A page with what was selected on it, to go back to.
#[derive(Clone, Debug)]
struct Place {
    page: Page,
    scope: Option<(Scope, String)>,
    selected: Option<Scope>,
}

/// The screen's state.
#[derive(Debug)]
pub struct App {
    /// What is profiled, in words.
    pub target: String,
    /// The window that is shown; `None` before the first.
    pub snapshot: Option<Snapshot>,
    /// The stacks that are shown.
    pub stacks: Option<Stacks>,
    /// The page.
    pub page: Page,
    /// Whose threads count on it, and what that is called; `None` for all.
    pub scope: Option<(Scope, String)>,
    /// What stands above it.
    pub overlay: Overlay,
    /// Whether what is typed goes to the filter.
    pub is_typing: bool,
    /// What names have to have in them.
    pub filter: String,
    /// What rows are sorted by.
    pub sort: Column,
    /// Whether the largest come last.
    pub ascending: bool,
    /// Whether rows stand below their parents.
    pub tree: bool,
    /// Whether those of one name are one row.
    pub by_name: bool,
    /// Whether the window stays.
    pub paused: bool,
    /// Ends of windows that were passed over, because those before had not been read yet: the window went on.
    pub passed_ends: u64,
    /// Windows in which something was not seen.
    pub lossy_windows: u64,
    /// The rows of the page.
    pub rows: Vec<Row>,
    /// Those of run queues.
    pub queues: Vec<QueueRow>,
    /// Those of block devices.
    pub disks: Vec<DiskRow>,
    /// The line that is selected, and the first that is visible.
    pub selected: usize,
    /// The first line that is visible.
    pub first: usize,
    /// The first frame that is visible of the stack that is selected.
    pub first_frame: usize,
    /// The row that the selection stays with; `None` where that is the first.
    followed: Option<Scope>,
    followed_stack: Option<Stack>,
    history: Vec<Place>,
    visible: usize,
}

impl App {
    /// The screen before the first window.
    #[must_use]
    pub fn new(target: String) -> Self {
        Self {
            target,
            snapshot: None,
            stacks: None,
            page: Page::Rows(Level::Processes),
            scope: None,
            overlay: Overlay::None,
            is_typing: false,
            filter: String::new(),
            sort: Column::Cpu,
            ascending: false,
            tree: false,
            by_name: false,
            paused: false,
            passed_ends: 0,
            lossy_windows: 0,
            rows: Vec::new(),
            queues: Vec::new(),
            disks: Vec::new(),
            selected: 0,
            first: 0,
            first_frame: 0,
            followed: None,
            followed_stack: None,
            history: Vec::new(),
            visible: 1,
        }
    }

    /// Another window is over. What is to be asked for because of it.
    pub fn show(&mut self, snapshot: Snapshot) -> Option<Command> {
        self.lossy_windows += u64::from(!snapshot.losses.is_empty());
        self.snapshot = Some(snapshot);
        self.refresh();
        match &self.page {
            Page::Stacks(scope, _) => Some(Command::Stacks(scope.clone())),
            Page::Rows(_) | Page::Peers | Page::Queues(_) | Page::Disks(_) => None,
        }
    }

    /// Stacks have been named. Those of another scope come too late.
    pub fn show_stacks(&mut self, stacks: Stacks) {
        if matches!(&self.page, Page::Stacks(scope, _) if *scope == stacks.scope) {
            self.stacks = Some(stacks);
            self.refresh();
        }
    }

    /// How many lines of the page are visible.
    pub fn set_visible(&mut self, lines: usize) {
        self.visible = lines.max(1);
        self.keep_in_sight();
    }

    /// Lines of the page.
    #[must_use]
    pub fn lines(&self) -> usize {
        match &self.page {
            Page::Rows(_) => self.rows.len(),
            Page::Peers => self.snapshot.as_ref().map_or(0, |snapshot| snapshot.peers.len()),
            Page::Queues(_) => self.queues.len(),
            Page::Disks(_) => self.disks.len(),
            Page::Stacks(..) => self.stacks.as_ref().map_or(0, |stacks| stacks.stacks.len()),
        }
    }

    /// The stack that is selected.
    #[must_use]
    pub fn selected_stack(&self) -> Option<&Stack> {
        self.stacks.as_ref()?.stacks.get(self.selected)
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Option<Command> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Command::Quit);
        }
        if self.overlay != Overlay::None {
            // Any key closes it.
            self.overlay = Overlay::None;
            return None;
        }
        if self.is_typing {
            self.type_filter(key.code);
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Command::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Char('l') => self.overlay = Overlay::Losses,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('1') => self.go_to(Page::Rows(Level::Processes)),
            KeyCode::Char('2') => self.go_to(Page::Rows(Level::Cgroups)),
            KeyCode::Char('3') => self.go_to(Page::Rows(Level::Threads)),
            KeyCode::Char('4') => self.go_to(Page::Peers),
            KeyCode::Char('5') => self.go_to(Page::Queues(By::Process)),
            KeyCode::Char('6') => self.go_to(Page::Disks(By::Device)),
            KeyCode::Tab => self.go_to(self.next_page()),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(self.visible)),
            KeyCode::PageDown => self.select(self.selected + self.visible),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Esc | KeyCode::Backspace => self.go_back(),
            KeyCode::Enter => return self.descend(),
            KeyCode::Char('s') => return self.look_at_stacks(),
            _ => self.press_on_page(key.code),
        }
        None
    }

    fn press_on_page(&mut self, code: KeyCode) {
        match (&self.page, code) {
            (Page::Stacks(..), KeyCode::Left) => self.first_frame = self.first_frame.saturating_sub(1),
            (Page::Stacks(..), KeyCode::Right) => {
                let last = self.selected_stack().map_or(0, |stack| stack.frames.len().saturating_sub(1));
                self.first_frame = (self.first_frame + 1).min(last);
            }
            (Page::Queues(by), KeyCode::Char('c')) => self.page = Page::Queues(by.next(&By::OF_QUEUES)),
            (Page::Disks(by), KeyCode::Char('c')) => self.page = Page::Disks(by.next(&By::OF_DISKS)),
            (Page::Rows(_), KeyCode::Char('/')) => self.is_typing = true,
            (Page::Rows(_), KeyCode::Left | KeyCode::Char('<')) => self.sort_by_next(-1),
            (Page::Rows(_), KeyCode::Right | KeyCode::Char('>')) => self.sort_by_next(1),
            (Page::Rows(_), KeyCode::Char('r')) => self.ascending = !self.ascending,
            (Page::Rows(_), KeyCode::Char('t')) => self.tree = !self.tree,
            (Page::Rows(_), KeyCode::Char('n')) => self.by_name = !self.by_name,
            _ => return,
        }
        self.refresh();
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(letter) if self.filter.len() < MAX_FILTER => self.filter.push(letter),
            _ => {}
        }
        self.refresh();
    }

    fn sort_by_next(&mut self, step: isize) {
        let columns = Column::ALL;
        let at = columns.iter().position(|column| *column == self.sort).unwrap_or_default();
        self.sort = columns[at.saturating_add_signed(step).min(columns.len() - 1)];
    }

    fn next_page(&self) -> Page {
        match self.page {
            Page::Rows(Level::Processes) => Page::Rows(Level::Cgroups),
            Page::Rows(Level::Cgroups) => Page::Rows(Level::Threads),
            Page::Rows(Level::Threads) => Page::Peers,
            Page::Peers => Page::Queues(By::Process),
            Page::Queues(_) => Page::Disks(By::Device),
            Page::Disks(_) | Page::Stacks(..) => Page::Rows(Level::Processes),
        }
    }

    /// To a page of all there is.
    fn go_to(&mut self, page: Page) {
        self.history.clear();
        self.enter(page, None);
    }

    fn enter(&mut self, page: Page, scope: Option<(Scope, String)>) {
        (self.page, self.scope) = (page, scope);
        (self.selected, self.first, self.first_frame) = (0, 0, 0);
        (self.followed, self.followed_stack, self.stacks) = (None, None, None);
        self.refresh();
    }

    fn remember(&mut self) {
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(0);
        }
        self.history.push(Place {
            page: self.page.clone(),
            scope: self.scope.clone(),
            selected: self.rows.get(self.selected).map(|row| row.scope.clone()),
        });
    }

    fn go_back(&mut self) {
        let Some(Place { page, scope, selected }) = self.history.pop() else { return };
        self.enter(page, scope);
        self.followed = selected;
        self.refresh();
    }

    /// From a group to its processes, from a process to its threads, from a thread to its stacks.
    fn descend(&mut self) -> Option<Command> {
        let Page::Rows(level) = self.page else { return None };
        let row = self.rows.get(self.selected)?;
        let scope = Some((row.scope.clone(), row.name.clone()));
        let below = match level {
            Level::Cgroups => Level::Processes,
            Level::Processes => Level::Threads,
            Level::Threads => return self.look_at_stacks(),
        };
        self.remember();
        // What filtered the rows above would hide those below.
        self.filter.clear();
        self.enter(Page::Rows(below), scope);
        None
    }

    fn look_at_stacks(&mut self) -> Option<Command> {
        let Page::Rows(_) = self.page else { return None };
        let row = self.rows.get(self.selected)?;
        let (scope, name) = (row.scope.clone(), row.name.clone());
        self.remember();
        let outer = self.scope.clone();
        self.enter(Page::Stacks(scope.clone(), name), outer);
        Some(Command::Stacks(scope))
    }

    fn select(&mut self, line: usize) {
        self.selected = line.min(self.lines().saturating_sub(1));
        self.first_frame = 0;
        self.followed =
            self.rows.get(self.selected).filter(|_| self.selected > 0).map(|row| row.scope.clone());
        self.followed_stack = self.selected_stack().filter(|_| self.selected > 0).cloned();
        self.keep_in_sight();
    }

    /// What the rows are by now, with the selection where it was.
    fn refresh(&mut self) {
        if let (Page::Rows(level), Some(snapshot)) = (&self.page, &self.snapshot) {
            let query = Query {
                level: *level,
                scope: self.scope.as_ref().map(|(scope, _)| scope.clone()),
                filter: self.filter.clone(),
                sort: self.sort,
                ascending: self.ascending,
                tree: self.tree,
                by_name: self.by_name,
            };
            self.rows = rows(snapshot, &query);
        } else {
            self.rows.clear();
        }
        self.queues = match (&self.page, &self.snapshot) {
            (Page::Queues(by), Some(snapshot)) => queue_rows(snapshot, *by),
            _ => Vec::new(),
        };
        self.disks = match (&self.page, &self.snapshot) {
            (Page::Disks(by), Some(snapshot)) => disk_rows(snapshot, *by),
            _ => Vec::new(),
        };
        let found = match (&self.page, &self.followed, &self.followed_stack) {
            (Page::Rows(_), Some(followed), _) => self.rows.iter().position(|row| row.scope == *followed),
            (Page::Stacks(..), _, Some(followed)) => self.stacks.as_ref().and_then(|stacks| {
                stacks.stacks.iter().position(|stack| {
                    stack.class == followed.class
                        && stack.object == followed.object
                        && stack.frames == followed.frames
                })
            }),
            (Page::Peers | Page::Queues(_) | Page::Disks(_), ..) => Some(self.selected),
            _ => Some(0),
        };
        self.selected = found.unwrap_or(self.selected).min(self.lines().saturating_sub(1));
        self.keep_in_sight();
    }

    fn keep_in_sight(&mut self) {
        let last_first = self.lines().saturating_sub(self.visible);
        self.first = self.first.min(self.selected).max((self.selected + 1).saturating_sub(self.visible));
        self.first = self.first.min(last_first);
    }
}
