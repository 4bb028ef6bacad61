//! From threads to the rows of a view: summed, filtered, sorted, and as a tree where that is asked for.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::columns::Column;
use super::reader::Scope;
use super::snapshot::{Activity, Snapshot, Thread};

/// What rows are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Processes.
    Processes,
    /// Cgroups, containers among them.
    Cgroups,
    /// Threads.
    Threads,
}

/// Which rows there are, and in which order.
#[derive(Clone, Debug)]
pub struct Query {
    /// What rows are of.
    pub level: Level,
    /// Whose threads count; `None` for all.
    pub scope: Option<Scope>,
    /// What a row's name, or its process's or container's, has to have in it; letters count as equal in both cases.
    pub filter: String,
    /// What rows are sorted by.
    pub sort: Column,
    /// Whether the largest come last.
    pub ascending: bool,
    /// Whether rows stand below their parents, whose numbers then include theirs.
    pub tree: bool,
    /// Whether processes or threads of one name are one row.
    pub by_name: bool,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is of.
    pub scope: Scope,
    /// Process id, or thread id in a list of threads; `None` where there are several.
    pub id: Option<u32>,
    /// Name of the process, thread or group.
    pub name: String,
    /// What stands behind the name where there is room: of a thread its process's name and id, of a process its container.
    pub place: Option<String>,
    /// How far below a root of the tree it is.
    pub depth: usize,
    /// What it did.
    pub activity: Activity,
}

/// Deepest nesting that is shown.
const MAX_DEPTH: usize = 32;

/// What rows are told apart by, before they are rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Process(u32, u64),
    Thread(u32, u64, u32),
    Cgroup(&'a str),
    Name(&'a str),
}

/// The rows of a snapshot.
#[must_use]
pub fn rows(snapshot: &Snapshot, query: &Query) -> Vec<Row> {
    let filter = query.filter.to_lowercase();
    let mut sums: HashMap<Key<'_>, (Row, u32)> = HashMap::new();
    for thread in &snapshot.threads {
        if query.scope.as_ref().is_some_and(|scope| !scope.has(thread)) {
            continue;
        }
        let key = key(thread, query);
        let (row, _) = sums.entry(key).or_insert_with(|| (row(thread, snapshot, query), thread.parent));
        row.activity += thread.activity;
        // The first thread has the number of the process: its name is the one known best.
        if query.level == Level::Processes && thread.tid == thread.process.pid && !query.by_name {
            row.name.clone_from(&thread.process_name);
        }
    }
    let rows: Vec<(Row, u32)> = sums
        .into_values()
        .filter(|(row, _)| {
            let has = |name: &str| name.to_lowercase().contains(&filter);
            filter.is_empty() || has(&row.name) || row.place.as_deref().is_some_and(has)
        })
        .collect();
    let is_tree = query.tree && !query.by_name && query.level != Level::Threads;
    let mut rows = if is_tree { return tree(rows, snapshot, query) } else { rows };
    rows.sort_by(|(one, _), (other, _)| order(one, other, snapshot, query));
    rows.into_iter().map(|(row, _)| row).collect()
}

fn key<'a>(thread: &'a Thread, query: &Query) -> Key<'a> {
    let process = thread.process;
    match query.level {
        Level::Cgroups => Key::Cgroup(&thread.cgroup),
        Level::Processes if query.by_name => Key::Name(&thread.process_name),
        Level::Threads if query.by_name => Key::Name(&thread.name),
        Level::Processes => Key::Process(process.pid, process.start_ns),
        Level::Threads => Key::Thread(process.pid, process.start_ns, thread.tid),
    }
}

fn row(thread: &Thread, snapshot: &Snapshot, query: &Query) -> Row {
    let process = thread.process;
    let (scope, id, name) = match query.level {
        Level::Cgroups => {
            let name = snapshot.groups.name(&thread.cgroup).to_owned();
            (Scope::Cgroup(Arc::clone(&thread.cgroup)), None, name)
        }
        Level::Processes if query.by_name => {
            (Scope::Name(thread.process_name.clone()), None, thread.process_name.clone())
        }
        Level::Threads if query.by_name => {
            (Scope::ThreadName(thread.name.clone()), None, thread.name.clone())
        }
        Level::Processes => (Scope::Process(process), Some(process.pid), thread.process_name.clone()),
        Level::Threads => (Scope::Thread(process, thread.tid), Some(thread.tid), thread.name.clone()),
    };
    let place = match scope {
        Scope::Thread(..) => Some(format!("{} {}", thread.process_name, process.pid)),
        Scope::Process(_) => snapshot.groups.container(&thread.cgroup).map(|name| name.to_string()),
        Scope::Cgroup(_) | Scope::Name(_) | Scope::ThreadName(_) => None,
    };
    Row { scope, id, name, place, depth: 0, activity: Activity::default() }
}

/// The same order in every window where numbers are equal.
fn order(one: &Row, other: &Row, snapshot: &Snapshot, query: &Query) -> Ordering {
    let value = |row: &Row, column: Column| column.value(&row.activity, snapshot);
    let by = |column| value(other, column).total_cmp(&value(one, column));
    let by_sort = if query.ascending { by(query.sort).reverse() } else { by(query.sort) };
    by_sort
        .then_with(|| by(Column::Cpu))
        .then_with(|| one.id.cmp(&other.id))
        .then_with(|| one.name.cmp(&other.name))
}

/// Rows below their parents, each with the numbers of all below it.
fn tree(rows: Vec<(Row, u32)>, snapshot: &Snapshot, query: &Query) -> Vec<Row> {
    let place: HashMap<Scope, usize> =
        rows.iter().enumerate().map(|(at, (row, _))| (row.scope.clone(), at)).collect();
    let by_pid: HashMap<u32, usize> =
        rows.iter().enumerate().filter_map(|(at, (row, _))| Some((row.id?, at))).collect();
    let parents: Vec<Option<usize>> = rows
        .iter()
        .enumerate()
        .map(|(at, (row, parent))| match &row.scope {
            Scope::Cgroup(path) => {
                ancestors(path).find_map(|above| place.get(&Scope::Cgroup(above.into())).copied())
            }
            _ => by_pid.get(parent).copied().filter(|parent| *parent != at),
        })
        .collect();
    let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    for (at, parent) in parents.iter().enumerate() {
        children.entry(*parent).or_default().push(at);
    }
    let mut rows: Vec<Row> = rows.into_iter().map(|(row, _)| row).collect();
    let own: Vec<Activity> = rows.iter().map(|row| row.activity).collect();
    for (at, own) in own.iter().enumerate() {
        // Process numbers that changed hands could make a circle.
        let mut met = HashSet::from([at]);
        let mut above = parents[at];
        while let Some(parent) = above.filter(|parent| met.insert(*parent)) {
            rows[parent].activity += *own;
            above = parents[parent];
        }
    }
    for siblings in children.values_mut() {
        siblings.sort_by(|one, other| order(&rows[*one], &rows[*other], snapshot, query));
    }
    let mut sorted = Vec::with_capacity(rows.len());
    let mut is_shown = vec![false; rows.len()];
    let roots = children.remove(&None).unwrap_or_default();
    // What stands in a circle is below no root.
    for root in roots.into_iter().chain(0..rows.len()) {
        let mut left = vec![(root, 0)];
        while let Some((at, depth)) = left.pop() {
            if std::mem::replace(&mut is_shown[at], true) {
                continue;
            }
            sorted.push(Row { depth: depth.min(MAX_DEPTH), ..rows[at].clone() });
            let below = children.get(&Some(at)).into_iter().flatten().rev();
            left.extend(below.map(|child| (*child, depth + 1)));
        }
    }
    sorted
}

/// The groups above a group, nearest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let above = |path: &str| path.rfind('/').map(|end| end.max(1)).filter(|end| *end < path.len());
    std::iter::successors(above(path).map(|end| &path[..end]), move |path| {
        above(path).map(|end| &path[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::place::ProcessKey;
    use chokepoint_analysis::activity::Class;
    use std::time::Duration;

    fn thread(pid: u32, tid: u32, parent: u32, names: [&str; 2], cgroup: &str, user_ms: u64) -> Thread {
        let mut activity = Activity::of_thread(u64::from(tid));
        activity.add(Class::CpuUser, user_ms * 1_000_000);
        activity.add(Class::Timer, 1_000_000_000 - user_ms * 1_000_000);
        Thread {
            process: ProcessKey { pid, start_ns: 1 },
            tid,
            process_name: names[0].to_owned(),
            name: names[1].to_owned(),
            cgroup: cgroup.into(),
            parent,
            activity,
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            length: Duration::from_secs(1),
            threads: vec![
                thread(1, 1, 0, ["init", "init"], "/", 0),
                thread(10, 10, 1, ["web", "web"], "/pods/a", 100),
                thread(10, 11, 1, ["web", "worker"], "/pods/a", 300),
                thread(20, 20, 10, ["db", "db"], "/pods/b/c", 250),
                thread(30, 30, 1, ["web", "web"], "/pods", 200),
            ],
            ..Snapshot::default()
        }
    }

    fn query(level: Level) -> Query {
        Query {
            level,
            scope: None,
            filter: String::new(),
            sort: Column::Cpu,
            ascending: false,
            tree: false,
            by_name: false,
        }
    }

    fn shown(query: &Query) -> Vec<String> {
        let snapshot = snapshot();
        rows(&snapshot, query)
            .iter()
            .map(|row| {
                let id = row.id.map_or("-".to_owned(), |id| id.to_string());
                let cpu = Column::Cpu.value(&row.activity, &snapshot);
                format!("{}{} {id} {cpu:.0}", "  ".repeat(row.depth), row.name)
            })
            .collect()
    }

    #[test]
    fn threads_are_summed_and_sorted() {
        assert_eq!(shown(&query(Level::Processes)), ["web 10 40", "db 20 25", "web 30 20", "init 1 0"]);
        assert_eq!(
            shown(&query(Level::Threads)),
            ["worker 11 30", "db 20 25", "web 30 20", "web 10 10", "init 1 0"]
        );
        assert_eq!(shown(&query(Level::Cgroups)), ["/pods/a - 40", "/pods/b/c - 25", "/pods - 20", "/ - 0"]);
        let by_switches = Query { sort: Column::Switches, ..query(Level::Processes) };
        assert_eq!(shown(&by_switches)[0], "web 30 20");
        let ascending = Query { ascending: true, ..query(Level::Processes) };
        assert_eq!(shown(&ascending)[0], "init 1 0");
    }

    #[test]
    fn names_are_summed_and_filtered() {
        let by_name = Query { by_name: true, ..query(Level::Processes) };
        assert_eq!(shown(&by_name), ["web - 60", "db - 25", "init - 0"]);
        let filtered = Query { filter: "WE".to_owned(), ..query(Level::Processes) };
        assert_eq!(shown(&filtered), ["web 10 40", "web 30 20"]);
        let scope = Some(Scope::Process(ProcessKey { pid: 10, start_ns: 1 }));
        assert_eq!(shown(&Query { scope, ..query(Level::Threads) }), ["worker 11 30", "web 10 10"]);
        let scope = Some(Scope::Cgroup("/pods".into()));
        assert_eq!(shown(&Query { scope, ..query(Level::Processes) }).len(), 3);
    }

    #[test]
    fn trees_stand_below_their_parents_with_the_sums() {
        let processes = Query { tree: true, ..query(Level::Processes) };
        assert_eq!(shown(&processes), ["init 1 85", "  web 10 65", "    db 20 25", "  web 30 20"]);
        let cgroups = Query { tree: true, ..query(Level::Cgroups) };
        assert_eq!(shown(&cgroups), ["/ - 85", "  /pods - 85", "    /pods/a - 40", "    /pods/b/c - 25"]);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let mut snapshot = snapshot();
        snapshot.threads[0].parent = 20;
        let query = Query { tree: true, ..query(Level::Processes) };
        assert_eq!(rows(&snapshot, &query).len(), 4);
    }
}
