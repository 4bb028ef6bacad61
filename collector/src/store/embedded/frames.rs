//! What stacks are made of, read from the catalogue. What was named together has numbers near each other, so rows are read in runs.

use chokepoint_analysis::profile::{Function, Module};
use hashbrown::HashMap;
use rusqlite::{Connection, Row};

use super::{Shared, failed, varint};
use crate::store::{FrameLocation, FrameNode, Frames, StackId, StoreError, module_kind};

/// Nodes that are read at a time, by their numbers: callers come just before what they call.
const BLOCK: u32 = 64;
/// Rows that are read in vain at most before the next that is wanted: more take longer than to ask anew.
const MAX_GAP: u32 = 8;

/// The frames of stacks.
///
/// # Errors
/// Where one is not there, or the catalogue cannot be read.
pub(super) fn frames(shared: &Shared, stacks: &[StackId]) -> Result<Frames, StoreError> {
    let access = shared.read()?;
    let mut tree = Tree::new(access.catalogue());
    let mut leaves = Vec::with_capacity(stacks.len());
    for stack in stacks {
        leaves.push(tree.leaf(*stack)?);
    }
    let (frames, positions) =
        locations(access.catalogue(), tree.nodes.iter().map(|(_, location)| *location))?;
    let nodes = tree.nodes.into_iter();
    let nodes = nodes.map(|(caller, location)| FrameNode { caller, location: positions[&location] });
    Ok(Frames { nodes: nodes.collect(), leaves, ..frames })
}

/// The places of these numbers with their functions and modules, and where each number's place is.
///
/// # Errors
/// Where one is not there, or the catalogue cannot be read.
pub(super) fn locations(
    catalogue: &Connection,
    numbers: impl Iterator<Item = u32>,
) -> Result<(Frames, HashMap<u32, usize>), StoreError> {
    let numbers = ascending(numbers);
    let mut frames = Frames::default();
    let sql = "SELECT id, module, address, lines FROM locations WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
    let mut addresses: Vec<i64> = Vec::with_capacity(numbers.len());
    // As the catalogue has them: numbers of functions and of a module.
    each_row(catalogue, sql, &numbers, |row| {
        let mut bytes = row.get_ref(3).and_then(|lines| Ok(lines.as_blob()?)).map_err(failed(reading))?;
        varint::take(&mut bytes).ok_or_else(damaged)?;
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let mut next = || varint::take_u32(&mut bytes).ok_or_else(damaged);
            lines.push((next()? as usize, next()?));
        }
        let module: u32 = row.get(1).map_err(failed(reading))?;
        addresses.push(row.get(2).map_err(failed(reading))?);
        frames.locations.push(FrameLocation { module: module as usize, address: 0, lines });
        Ok(())
    })?;
    let functions = frames.locations.iter().flat_map(|location| &location.lines);
    let functions =
        functions_of(catalogue, &mut frames.functions, functions.map(|(number, _)| *number as u32))?;
    let modules = frames.locations.iter().map(|location| location.module as u32);
    let modules = modules_of(catalogue, &mut frames.modules, modules)?;
    for (location, address) in frames.locations.iter_mut().zip(addresses) {
        location.address = address.cast_unsigned();
        location.module = modules[&(location.module as u32)];
        for (function, _) in &mut location.lines {
            *function = functions[&(*function as u32)];
        }
    }
    Ok((frames, positions(&numbers)))
}

fn functions_of(
    catalogue: &Connection,
    functions: &mut Vec<Function>,
    numbers: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, usize>, StoreError> {
    let numbers = ascending(numbers);
    let mut strings: Vec<(u32, u32)> = Vec::with_capacity(numbers.len());
    let sql = "SELECT id, name, file FROM functions WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
    each_row(catalogue, sql, &numbers, |row| {
        strings.push((row.get(1).map_err(failed(reading))?, row.get(2).map_err(failed(reading))?));
        Ok(())
    })?;
    let texts = texts_of(catalogue, strings.iter().flat_map(|(name, file)| [*name, *file]))?;
    let function =
        |(name, file): (u32, u32)| Function { name: texts[&name].clone(), file: texts[&file].clone() };
    functions.extend(strings.into_iter().map(function));
    Ok(positions(&numbers))
}

fn modules_of(
    catalogue: &Connection,
    modules: &mut Vec<Module>,
    numbers: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, usize>, StoreError> {
    let numbers = ascending(numbers);
    let sql = "SELECT modules.id, kind, path.text, build_id FROM modules JOIN strings AS path ON path.id = modules.path
               WHERE modules.id BETWEEN ?1 AND ?2 ORDER BY modules.id";
    each_row(catalogue, sql, &numbers, |row| {
        let read = || {
            let kind = module_kind(row.get(1)?);
            Ok::<_, rusqlite::Error>(Module { kind, path: row.get(2)?, build_id: row.get(3)? })
        };
        modules.push(read().map_err(failed(reading))?);
        Ok(())
    })?;
    Ok(positions(&numbers))
}

fn texts_of(
    catalogue: &Connection,
    numbers: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, String>, StoreError> {
    let numbers = ascending(numbers);
    let mut texts = HashMap::with_capacity(numbers.len());
    let sql = "SELECT id, text FROM strings WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
    each_row(catalogue, sql, &numbers, |row| {
        let read = || Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?));
        let (number, text) = read().map_err(failed(reading))?;
        texts.insert(number, text);
        Ok(())
    })?;
    Ok(texts)
}

/// Shows the rows of these numbers, which ascend. `sql` has those of a range, in their order, the number first.
fn each_row(
    catalogue: &Connection,
    sql: &str,
    numbers: &[u32],
    mut visit: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = catalogue.prepare_cached(sql).map_err(failed(reading))?;
    for run in numbers.chunk_by(|one, next| next - one <= MAX_GAP) {
        let mut wanted = run.iter().copied().peekable();
        let mut rows = statement.query((run[0], run[run.len() - 1])).map_err(failed(reading))?;
        while let Some(row) = rows.next().map_err(failed(reading))? {
            let number: u32 = row.get(0).map_err(failed(reading))?;
            if wanted.next_if_eq(&number).is_some() {
                visit(row)?;
            }
        }
        if wanted.next().is_some() {
            return Err(damaged());
        }
    }
    Ok(())
}

fn ascending(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn positions(numbers: &[u32]) -> HashMap<u32, usize> {
    numbers.iter().enumerate().map(|(position, number)| (*number, position)).collect()
}

/// The part of the tree of stacks that some stacks are of.
struct Tree<'a> {
    catalogue: &'a Connection,
    /// Nodes as the catalogue has them, caller and location, in blocks of near numbers. A location of 0: there is no such node.
    blocks: HashMap<u32, Box<[(u32, u32); BLOCK as usize]>>,
    /// Caller, a position here, and location, the catalogue's number.
    nodes: Vec<(Option<usize>, u32)>,
    positions: HashMap<u32, usize>,
}

impl<'a> Tree<'a> {
    fn new(catalogue: &'a Connection) -> Self {
        Self { catalogue, blocks: HashMap::new(), nodes: Vec::new(), positions: HashMap::new() }
    }

    /// The position of a stack's leaf.
    fn leaf(&mut self, stack: StackId) -> Result<usize, StoreError> {
        let missing = || StoreError::NoStack(stack.0);
        let mut number = u32::try_from(stack.0).map_err(|_| missing())?;
        let mut caller = None;
        let mut new = Vec::new();
        while number != 0 {
            if let Some(position) = self.positions.get(&number) {
                caller = Some(*position);
                break;
            }
            let (parent, location) = self.read(number)?;
            if location == 0 {
                return Err(missing());
            }
            // A caller got its number first, so this ends.
            if parent >= number {
                return Err(damaged());
            }
            new.push((number, location));
            number = parent;
        }
        for (number, location) in new.into_iter().rev() {
            self.positions.insert(number, self.nodes.len());
            self.nodes.push((caller, location));
            caller = Some(self.nodes.len() - 1);
        }
        caller.ok_or_else(missing)
    }

    fn read(&mut self, number: u32) -> Result<(u32, u32), StoreError> {
        let (block, at) = (number / BLOCK, (number % BLOCK) as usize);
        if let Some(nodes) = self.blocks.get(&block) {
            return Ok(nodes[at]);
        }
        let mut nodes = Box::new([(0, 0); BLOCK as usize]);
        let sql = "SELECT id, parent, location FROM nodes WHERE id BETWEEN ?1 AND ?2";
        let mut statement = self.catalogue.prepare_cached(sql).map_err(failed(reading))?;
        let first = block * BLOCK;
        let mut rows = statement.query((first, first + (BLOCK - 1))).map_err(failed(reading))?;
        while let Some(row) = rows.next().map_err(failed(reading))? {
            let read = || Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?, row.get(2)?));
            let (number, parent, location): (u32, u32, u32) = read().map_err(failed(reading))?;
            nodes[(number - first) as usize] = (parent, location);
        }
        Ok(self.blocks.entry(block).or_insert(nodes)[at])
    }
}

fn reading() -> String {
    "cannot read the catalogue".to_owned()
}

fn damaged() -> StoreError {
    failed(reading)("a stack refers to what is not there")
}
