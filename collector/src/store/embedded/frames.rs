//! What stacks are made of, read from the catalogue, and kept in memory for the next question. What was named together has numbers near each
//! other, so rows are read in runs.

use std::sync::{Mutex, PoisonError};

use chokepoint_analysis::profile::{Function, Module};
use hashbrown::HashMap;
use rusqlite::{Connection, Row};

use super::{Shared, failed, varint};
use crate::store::{FrameLocation, FrameNode, Frames, StackId, StoreError, module_kind};

/// Nodes that are read at a time, by their numbers: callers come just before what they call.
const BLOCK: u32 = 64;
/// Rows that are read in vain at most before the next that is wanted: more take longer than to ask anew.
const MAX_GAP: u32 = 8;

/// Bytes of names that are kept in memory, about: those of some ten thousand functions and their stacks.
const MAX_KNOWN_BYTES: usize = 16 << 20;
/// Of an entry, beside its texts.
const ENTRY_BYTES: usize = 64;

/// Names that were read for questions before. They never change, and no number is given to another name; so one that was deleted meanwhile
/// does no harm. When there is too much of it, all is forgotten.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Names>);

type Block = Box<[(u32, u32); BLOCK as usize]>;

/// What the catalogue says of names, by their numbers.
#[derive(Debug, Default)]
struct Names {
    /// Nodes, caller and location, in blocks of near numbers. A location of 0: there is no such node.
    blocks: HashMap<u32, Block>,
    places: HashMap<u32, Place>,
    functions: HashMap<u32, Function>,
    modules: HashMap<u32, Module>,
    bytes: usize,
}

/// A location, with the catalogue's numbers of its module and functions.
#[derive(Debug)]
struct Place {
    module: u32,
    address: u64,
    lines: Box<[(u32, u32)]>,
}

/// The frames of stacks.
///
/// # Errors
/// Where one is not there, or the catalogue cannot be read.
pub(super) fn frames(shared: &Shared, stacks: &[StackId]) -> Result<Frames, StoreError> {
    let access = shared.read()?;
    // What panicked has left names as they are.
    let mut names = shared.frames.0.lock().unwrap_or_else(PoisonError::into_inner);
    if names.bytes > MAX_KNOWN_BYTES {
        *names = Names::default();
    }
    let mut tree = Tree::new(access.catalogue(), &mut names)?;
    let mut leaves = Vec::with_capacity(stacks.len());
    for stack in stacks {
        leaves.push(tree.leaf(*stack)?);
    }
    let nodes = tree.nodes;
    let numbers = nodes.iter().map(|(_, location)| *location);
    let (frames, positions) = names.locations(access.catalogue(), numbers)?;
    let nodes = nodes.into_iter();
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
    Names::default().locations(catalogue, numbers)
}

impl Names {
    fn locations(
        &mut self,
        catalogue: &Connection,
        numbers: impl Iterator<Item = u32>,
    ) -> Result<(Frames, HashMap<u32, usize>), StoreError> {
        let numbers = ascending(numbers);
        self.read_places(catalogue, &numbers)?;
        let places: Vec<&Place> = numbers.iter().map(|number| &self.places[number]).collect();
        let functions = ascending(places.iter().flat_map(|place| place.lines.iter().map(|line| line.0)));
        let modules = ascending(places.iter().map(|place| place.module));
        self.read_functions(catalogue, &functions)?;
        self.read_modules(catalogue, &modules)?;
        let (of_functions, of_modules) = (positions(&functions), positions(&modules));
        let location = |number: &u32| {
            let Place { module, address, lines } = &self.places[number];
            let lines = lines.iter().map(|(function, line)| (of_functions[function], *line)).collect();
            FrameLocation { module: of_modules[module], address: *address, lines }
        };
        let frames = Frames {
            locations: numbers.iter().map(location).collect(),
            functions: functions.iter().map(|number| self.functions[number].clone()).collect(),
            modules: modules.iter().map(|number| self.modules[number].clone()).collect(),
            ..Frames::default()
        };
        Ok((frames, positions(&numbers)))
    }

    fn read_places(&mut self, catalogue: &Connection, numbers: &[u32]) -> Result<(), StoreError> {
        let new = lacking(numbers, &self.places);
        let sql = "SELECT id, module, address, lines FROM locations WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
        each_row(catalogue, sql, &new, |number, row| {
            let mut bytes = row.get_ref(3).and_then(|lines| Ok(lines.as_blob()?)).map_err(failed(reading))?;
            varint::take(&mut bytes).ok_or_else(damaged)?;
            let mut lines = Vec::new();
            while !bytes.is_empty() {
                let mut next = || varint::take_u32(&mut bytes).ok_or_else(damaged);
                lines.push((next()?, next()?));
            }
            let address: i64 = row.get(2).map_err(failed(reading))?;
            let module = row.get(1).map_err(failed(reading))?;
            self.bytes += ENTRY_BYTES + 8 * lines.len();
            let place = Place { module, address: address.cast_unsigned(), lines: lines.into() };
            self.places.insert(number, place);
            Ok(())
        })
    }

    fn read_functions(&mut self, catalogue: &Connection, numbers: &[u32]) -> Result<(), StoreError> {
        let new = lacking(numbers, &self.functions);
        let mut strings: Vec<(u32, u32, u32)> = Vec::with_capacity(new.len());
        let sql = "SELECT id, name, file FROM functions WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
        each_row(catalogue, sql, &new, |number, row| {
            let (name, file) = (row.get(1).map_err(failed(reading))?, row.get(2).map_err(failed(reading))?);
            strings.push((number, name, file));
            Ok(())
        })?;
        let texts = texts_of(catalogue, strings.iter().flat_map(|(_, name, file)| [*name, *file]))?;
        for (number, name, file) in strings {
            let function = Function { name: texts[&name].clone(), file: texts[&file].clone() };
            self.bytes += 2 * ENTRY_BYTES + function.name.len() + function.file.len();
            self.functions.insert(number, function);
        }
        Ok(())
    }

    fn read_modules(&mut self, catalogue: &Connection, numbers: &[u32]) -> Result<(), StoreError> {
        let new = lacking(numbers, &self.modules);
        let sql = "SELECT modules.id, kind, path.text, build_id FROM modules JOIN strings AS path ON path.id = modules.path
                   WHERE modules.id BETWEEN ?1 AND ?2 ORDER BY modules.id";
        each_row(catalogue, sql, &new, |number, row| {
            let read = || {
                let kind = module_kind(row.get(1)?);
                Ok::<_, rusqlite::Error>(Module { kind, path: row.get(2)?, build_id: row.get(3)? })
            };
            let module = read().map_err(failed(reading))?;
            self.bytes += 2 * ENTRY_BYTES + module.path.len() + module.build_id.len();
            self.modules.insert(number, module);
            Ok(())
        })
    }
}

/// Those that are not known, of numbers that ascend.
fn lacking<T>(numbers: &[u32], known: &HashMap<u32, T>) -> Vec<u32> {
    numbers.iter().copied().filter(|number| !known.contains_key(number)).collect()
}

fn texts_of(
    catalogue: &Connection,
    numbers: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, String>, StoreError> {
    let numbers = ascending(numbers);
    let mut texts = HashMap::with_capacity(numbers.len());
    let sql = "SELECT id, text FROM strings WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
    each_row(catalogue, sql, &numbers, |number, row| {
        texts.insert(number, row.get(1).map_err(failed(reading))?);
        Ok(())
    })?;
    Ok(texts)
}

/// Shows the rows of these numbers, which ascend, each with its number. `sql` has those of a range, in their order, the number first.
fn each_row(
    catalogue: &Connection,
    sql: &str,
    numbers: &[u32],
    mut visit: impl FnMut(u32, &Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = catalogue.prepare_cached(sql).map_err(failed(reading))?;
    for run in numbers.chunk_by(|one, next| next - one <= MAX_GAP) {
        let mut wanted = run.iter().copied().peekable();
        let mut rows = statement.query((run[0], run[run.len() - 1])).map_err(failed(reading))?;
        while let Some(row) = rows.next().map_err(failed(reading))? {
            let number: u32 = row.get(0).map_err(failed(reading))?;
            if wanted.next_if_eq(&number).is_some() {
                visit(number, row)?;
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
    names: &'a mut Names,
    /// The block that has the last node, as it is now: it may have more later, so it is not kept.
    last_block: u32,
    last: Option<Block>,
    /// Caller, a position here, and location, the catalogue's number.
    nodes: Vec<(Option<usize>, u32)>,
    positions: HashMap<u32, usize>,
}

impl<'a> Tree<'a> {
    fn new(catalogue: &'a Connection, names: &'a mut Names) -> Result<Self, StoreError> {
        let last: u32 = catalogue
            .query_row("SELECT coalesce(max(id), 0) FROM nodes", (), |row| row.get(0))
            .map_err(failed(reading))?;
        let (nodes, positions) = (Vec::new(), HashMap::new());
        Ok(Self { catalogue, names, last_block: last / BLOCK, last: None, nodes, positions })
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
        if block > self.last_block {
            return Ok((0, 0));
        }
        let is_last = block == self.last_block;
        let known = if is_last { self.last.as_ref() } else { self.names.blocks.get(&block) };
        if let Some(nodes) = known {
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
        let node = nodes[at];
        if is_last {
            self.last = Some(nodes);
        } else {
            self.names.bytes += ENTRY_BYTES + size_of_val(&*nodes);
            self.names.blocks.insert(block, nodes);
        }
        Ok(node)
    }
}

fn reading() -> String {
    "cannot read the catalogue".to_owned()
}

fn damaged() -> StoreError {
    failed(reading)("a stack refers to what is not there")
}
