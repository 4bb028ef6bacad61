//! What stacks are made of.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use chokepoint_analysis::profile::{Function, Module};

use super::Shared;
use super::rows::{FrameRow, StackRow};
use super::server::list;
use crate::store::{FrameLocation, FrameNode, Frames, StackId, StoreError, module_kind};

/// Numbers that one query names.
const AT_ONCE: usize = 20_000;

/// The frames of stacks, in the order asked for.
///
/// # Errors
/// Where no server answers, or there is no such stack.
pub(super) fn frames(shared: &Shared, stacks: &[StackId]) -> Result<Frames, StoreError> {
    let wanted: BTreeSet<u64> = stacks.iter().map(|stack| stack.0).collect();
    let mut found: HashMap<u64, Vec<u64>> = HashMap::with_capacity(wanted.len());
    read(shared, "stacks", "id, frames", wanted, |row: StackRow| {
        found.insert(row.id, row.frames);
    })?;
    let wanted: BTreeSet<u64> = found.values().flatten().copied().collect();
    let mut rows: HashMap<u64, FrameRow> = HashMap::with_capacity(wanted.len());
    let columns = "id, module_kind, module, build_id, address, is_spin_wait, functions, files, lines";
    read(shared, "frames", columns, wanted, |row: FrameRow| {
        rows.insert(row.id, row);
    })?;

    let mut frames = Frames::default();
    let mut built = Built::default();
    for StackId(stack) in stacks {
        let missing = || StoreError::NoStack(*stack);
        let mut caller = None;
        for frame in found.get(stack).ok_or_else(missing)?.iter().rev() {
            let location = match built.locations.get(frame) {
                Some(location) => *location,
                None => {
                    let location = built.location(&mut frames, rows.get(frame).ok_or_else(missing)?);
                    built.locations.insert(*frame, location);
                    location
                }
            };
            let node = FrameNode { caller, location };
            caller = Some(position(&mut built.nodes, &mut frames.nodes, (caller, location), node));
        }
        frames.leaves.push(caller.ok_or_else(missing)?);
    }
    Ok(frames)
}

/// Asks for these numbers of every server that has not told of them; they are the same wherever they are.
fn read<T>(
    shared: &Shared,
    table: &str,
    columns: &str,
    wanted: BTreeSet<u64>,
    mut take: impl FnMut(T),
) -> Result<(), StoreError>
where
    T: clickhouse::RowOwned + clickhouse::RowRead + Numbered + Send,
{
    let mut wanted = wanted;
    let mut silent = None;
    for shard in &shared.shards {
        if wanted.is_empty() {
            return Ok(());
        }
        let asked: Vec<u64> = wanted.iter().copied().collect();
        for numbers in asked.chunks(AT_ONCE) {
            let sql = format!("SELECT {columns} FROM {table} WHERE id IN ({}) LIMIT 1 BY id", list(numbers));
            match shard.ask(|server| server.rows::<T>(&sql)) {
                Ok(rows) => {
                    for row in rows {
                        wanted.remove(&row.number());
                        take(row);
                    }
                }
                Err(failure @ super::Failure::Silent(_)) => {
                    silent = Some(failure);
                    break;
                }
                Err(failure) => return Err(failure.into_error("cannot read what stacks are made of")),
            }
        }
    }
    match silent {
        // It may have what the others have not.
        Some(failure) if !wanted.is_empty() => Err(failure.into_error("cannot read what stacks are made of")),
        _ => Ok(()),
    }
}

/// What has a number of its content.
trait Numbered {
    fn number(&self) -> u64;
}

impl Numbered for StackRow {
    fn number(&self) -> u64 {
        self.id
    }
}

impl Numbered for FrameRow {
    fn number(&self) -> u64 {
        self.id
    }
}

/// Where what is there already is.
#[derive(Default)]
struct Built {
    functions: HashMap<(String, String), usize>,
    modules: HashMap<(i32, String, Vec<u8>), usize>,
    locations: HashMap<u64, usize>,
    nodes: HashMap<(Option<usize>, usize), usize>,
}

impl Built {
    fn location(&mut self, frames: &mut Frames, row: &FrameRow) -> usize {
        let key = (row.module_kind, row.module.clone(), row.build_id.clone());
        let module = Module {
            kind: module_kind(row.module_kind),
            path: row.module.clone(),
            build_id: row.build_id.clone(),
        };
        let module = position(&mut self.modules, &mut frames.modules, key, module);
        let named = row.functions.iter().zip(&row.files).zip(&row.lines);
        let lines = named.map(|((name, file), line)| {
            let function = Function { name: name.clone(), file: file.clone() };
            let key = (name.clone(), file.clone());
            (position(&mut self.functions, &mut frames.functions, key, function), *line)
        });
        let lines = lines.collect();
        frames.locations.push(FrameLocation { module, address: row.address, lines });
        frames.locations.len() - 1
    }
}

fn position<K: Eq + Hash, T>(known: &mut HashMap<K, usize>, list: &mut Vec<T>, key: K, entry: T) -> usize {
    *known.entry(key).or_insert_with(|| {
        list.push(entry);
        list.len() - 1
    })
}
