//! What is answered from the catalogue alone: frames, verdicts, labels and agents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chokepoint_analysis::profile::{Function, Module, ModuleKind};
use chokepoint_proto::stream;
use rusqlite::{Connection, OptionalExtension};

use super::scan::{Scan, plan};
use super::writer::signed;
use super::{Shared, failed, fresh, varint};
use crate::labels::Labels;
use crate::store::{AgentStatus, FrameLocation, Frames, Selection, StackId, StoreError, VerdictSpan};

/// Frames of a stack at most: the kernel programs keep 512 and 127 of the kernel's own, runtimes may add some.
const MAX_FRAMES: usize = 4_096;

/// Bytes of an answer's verdicts at most: a day of some hundred hosts.
const MAX_SPANS_BYTES: usize = 64 << 20;
/// Bytes of a verdict beside its texts, or somewhat less.
const SPAN_BYTES: usize = 512;

/// The frames of stacks.
///
/// # Errors
/// Where one is not there, or the catalogue cannot be read.
pub(super) fn frames(shared: &Shared, stacks: &[StackId]) -> Result<Frames, StoreError> {
    let access = shared.read()?;
    let mut reader = FrameReader::new(access.catalogue());
    for stack in stacks {
        let frames = reader.stack(*stack)?;
        reader.frames.stacks.push(frames);
    }
    Ok(reader.frames)
}

/// Reads frames, each function, module and location once.
pub(super) struct FrameReader<'a> {
    catalogue: &'a Connection,
    pub(super) frames: Frames,
    functions: HashMap<u32, usize>,
    modules: HashMap<u32, usize>,
    /// Caller and location of nodes: stacks have most of them in common.
    nodes: HashMap<u32, (u32, u32)>,
    locations: HashMap<u32, FrameLocation>,
}

impl<'a> FrameReader<'a> {
    pub(super) fn new(catalogue: &'a Connection) -> Self {
        Self {
            catalogue,
            frames: Frames::default(),
            functions: HashMap::new(),
            modules: HashMap::new(),
            nodes: HashMap::new(),
            locations: HashMap::new(),
        }
    }

    fn stack(&mut self, stack: StackId) -> Result<Vec<FrameLocation>, StoreError> {
        let missing = || StoreError::NoStack(stack.0);
        let mut node = u32::try_from(stack.0).map_err(|_| missing())?;
        let mut frames = Vec::new();
        // A caller's number is below its callee's, so this ends; the bound is for what is damaged.
        while frames.len() < MAX_FRAMES {
            let (parent, location) = match self.nodes.get(&node) {
                Some(known) => *known,
                None => {
                    let read =
                        self.read("SELECT parent, location FROM nodes WHERE id = ?1", node, |row| {
                            Ok((row.get(0)?, row.get(1)?))
                        })?;
                    *self.nodes.entry(node).or_insert(read.ok_or_else(missing)?)
                }
            };
            frames.push(self.location(location)?);
            if parent == 0 {
                break;
            }
            node = parent;
        }
        Ok(frames)
    }

    /// The location of this number.
    pub(super) fn location(&mut self, number: u32) -> Result<FrameLocation, StoreError> {
        if let Some(known) = self.locations.get(&number) {
            return Ok(known.clone());
        }
        let read: Option<(u32, i64, Vec<u8>)> =
            self.read("SELECT module, address, lines FROM locations WHERE id = ?1", number, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let (module, address, bytes) = read.ok_or_else(damaged)?;
        let mut bytes = bytes.as_slice();
        varint::take(&mut bytes).ok_or_else(damaged)?;
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let mut next = || varint::take_u32(&mut bytes).ok_or_else(damaged);
            let (function, line) = (next()?, next()?);
            lines.push((self.function(function)?, line));
        }
        let location =
            FrameLocation { module: self.module(module)?, address: address.cast_unsigned(), lines };
        self.locations.insert(number, location.clone());
        Ok(location)
    }

    fn function(&mut self, number: u32) -> Result<usize, StoreError> {
        if let Some(known) = self.functions.get(&number) {
            return Ok(*known);
        }
        let function = self.read(
            "SELECT name.text, file.text FROM functions JOIN strings AS name ON name.id = functions.name
             JOIN strings AS file ON file.id = functions.file WHERE functions.id = ?1",
            number,
            |row| Ok(Function { name: row.get(0)?, file: row.get(1)? }),
        )?;
        self.functions.insert(number, self.frames.functions.len());
        self.frames.functions.push(function.ok_or_else(damaged)?);
        Ok(self.frames.functions.len() - 1)
    }

    fn module(&mut self, number: u32) -> Result<usize, StoreError> {
        if let Some(known) = self.modules.get(&number) {
            return Ok(*known);
        }
        let module = self.read(
            "SELECT kind, path.text, build_id FROM modules JOIN strings AS path ON path.id = modules.path
             WHERE modules.id = ?1",
            number,
            |row| Ok(Module { kind: module_kind(row.get(0)?), path: row.get(1)?, build_id: row.get(2)? }),
        )?;
        self.modules.insert(number, self.frames.modules.len());
        self.frames.modules.push(module.ok_or_else(damaged)?);
        Ok(self.frames.modules.len() - 1)
    }

    fn read<T>(
        &self,
        sql: &str,
        number: u32,
        row: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.catalogue.prepare_cached(sql).map_err(failed(reading))?;
        statement.query_row([number], row).optional().map_err(failed(reading))
    }
}

/// A kind that a newer agent knows is an unknown one.
fn module_kind(kind: i32) -> ModuleKind {
    match stream::ModuleKind::try_from(kind).unwrap_or_default() {
        stream::ModuleKind::Unknown => ModuleKind::Unknown,
        stream::ModuleKind::Binary => ModuleKind::Binary,
        stream::ModuleKind::Kernel => ModuleKind::Kernel,
        stream::ModuleKind::Vdso => ModuleKind::Vdso,
        stream::ModuleKind::Jit => ModuleKind::Jit,
        stream::ModuleKind::Activity => ModuleKind::Activity,
    }
}

/// What limited hosts: all runs that have a window of the selection's time, each as a whole.
///
/// # Errors
/// Where the catalogue cannot be read.
pub(super) fn verdicts(shared: &Shared, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
    let access = shared.read()?;
    let mut statement = access
        .catalogue()
        .prepare_cached(
            "SELECT host, code, from_unix_ns, until_unix_ns, windows, confidence, severity, share, summary, diagnosis
             FROM verdicts WHERE from_unix_ns < ?2 AND last_unix_ns >= ?1 AND until_unix_ns > ?1",
        )
        .map_err(failed(reading))?;
    let mut rows = statement
        .query([signed(selection.from_unix_ns), signed(selection.until_unix_ns)])
        .map_err(failed(reading))?;
    // Hosts are few.
    let mut hosts: HashMap<u32, Option<Labels>> = HashMap::new();
    let mut spans = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(failed(reading))? {
        let host = row.get(0).map_err(failed(reading))?;
        let labels = hosts.entry(host).or_insert_with(|| {
            let labels = access.index.set_labels(host);
            selection.matchers.iter().all(|matcher| matcher.admits(&labels)).then_some(labels)
        });
        if let Some(labels) = labels {
            let span = span(row, labels.clone())?;
            bytes += span.diagnosis.len() + span.summary.len() + SPAN_BYTES;
            if bytes > MAX_SPANS_BYTES {
                return Err(StoreError::TooLarge { what: "bytes of verdicts", limit: MAX_SPANS_BYTES });
            }
            spans.push(span);
        }
    }
    spans.sort_by(|one, other| (host_of(one), one.from_unix_ns).cmp(&(host_of(other), other.from_unix_ns)));
    Ok(spans)
}

fn host_of(span: &VerdictSpan) -> (Option<&String>, &Labels) {
    (span.labels.get("host"), &span.labels)
}

fn span(row: &rusqlite::Row<'_>, labels: Labels) -> Result<VerdictSpan, StoreError> {
    let unsigned = |column| row.get(column).map(i64::unsigned_abs).map_err(failed(reading));
    let diagnosis = fresh::decompress(&row.get::<_, Vec<u8>>(9).map_err(failed(reading))?)?;
    Ok(VerdictSpan {
        labels,
        code: row.get(1).map_err(failed(reading))?,
        from_unix_ns: unsigned(2)?,
        until_unix_ns: unsigned(3)?,
        windows: unsigned(4)?,
        confidence: row.get(5).map_err(failed(reading))?,
        severity: unsigned(6)?.min(u64::from(u8::MAX)) as u8,
        share: row.get(7).map_err(failed(reading))?,
        summary: row.get(8).map_err(failed(reading))?,
        diagnosis: String::from_utf8_lossy(&diagnosis).into_owned(),
    })
}

/// Label names with their values; of those that have more, some.
///
/// # Errors
/// Where the store cannot be read.
pub(super) fn labels(
    shared: &Shared,
    selection: &Selection,
    max_values: usize,
) -> Result<Vec<(String, Vec<String>)>, StoreError> {
    let access = shared.read()?;
    let series = access.index.select(&selection.matchers);
    let scan = Scan {
        shared,
        access: &access,
        parts: plan(selection.from_unix_ns, selection.until_unix_ns, None),
        kind: None,
        series: &series,
    };
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, _) in scan.series()?.iter().enumerate().filter(|(_, is_found)| **is_found) {
        for (name, value) in access.index.labels(number as u32) {
            let values = values.entry(name).or_default();
            if values.len() < max_values {
                values.insert(value);
            }
        }
    }
    Ok(values.into_iter().map(|(name, values)| (name, values.into_iter().collect())).collect())
}

/// All agents, in the order in which they came.
///
/// # Errors
/// Where the catalogue cannot be read.
pub(super) fn agents(shared: &Shared) -> Result<Vec<AgentStatus>, StoreError> {
    let access = shared.read()?;
    let mut statement = access
        .catalogue()
        .prepare_cached(
            "SELECT identity, host, kernel, program, last_window_unix_ns, batches, dropped_batches FROM agents ORDER BY id",
        )
        .map_err(failed(reading))?;
    let agents = statement
        .query_map((), |row| {
            let identity: Vec<u8> = row.get(0)?;
            let unsigned = |column| row.get(column).map(i64::unsigned_abs);
            Ok(AgentStatus {
                agent: identity.iter().map(|byte| format!("{byte:02x}")).collect(),
                labels: access.index.set_labels(row.get(1)?),
                kernel: row.get(2)?,
                program: row.get(3)?,
                last_window_unix_ns: unsigned(4)?,
                batches: unsigned(5)?,
                dropped_batches: unsigned(6)?,
            })
        })
        .map_err(failed(reading))?;
    agents.collect::<Result<_, _>>().map_err(failed(reading))
}

fn reading() -> String {
    "cannot read the catalogue".to_owned()
}

fn damaged() -> StoreError {
    failed(reading)("a stack refers to what is not there")
}
