//! Takes in one agent's stream: turns its numbers into those of the content, and its windows into rows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use chokepoint_proto::stream::{Batch, Dictionary, Hello, Profile, Window};

use super::Shared;
use super::owners;
use super::rows::{AgentRow, KindRow, WindowRow, day, hour};
use super::server::{Failure, agent_literal, quoted};
use super::shard::Shard;
use super::told::{Names, Told};
use crate::clock::now_unix_ns;
use crate::labels::Labels;
use crate::store::agent_signals::{RESOURCE, agent_signals, shortened};
use crate::store::{Appended, Appender, StoreError};

/// Sequence numbers that are remembered of a stream. Batches come in the order of their numbers; what is below is asked for again.
const MAX_REMEMBERED: usize = 1 << 14;
/// Agents that a store knows.
const MAX_AGENTS: u64 = 1 << 16;
/// The time's end as a signed number has it, the year 2262: no agent gets there.
const MAX_NS: u64 = i64::MAX as u64;

/// One agent's stream.
pub(super) struct ClickHouseAppender {
    shard: Arc<Shard>,
    /// Where it was before the store grew.
    before: Vec<Arc<Shard>>,
    agent: [u8; 16],
    told: Told,
    stored: Stored,
    /// Whether an error has left the numbers incomplete.
    is_broken: bool,
}

/// Which batches are stored, from some number on.
#[derive(Debug, Default)]
struct Stored {
    /// From here on; `None`: nobody asked yet.
    from: Option<u64>,
    sequences: BTreeSet<u64>,
}

/// Series, class, stack, count and weight: in this order samples are written.
type SampleRow = (u64, Arc<str>, u64, u64, u64);

impl ClickHouseAppender {
    /// Makes the agent known.
    ///
    /// # Errors
    /// Where it is another one's, or servers do not answer.
    pub(super) fn new(shared: &Shared, hello: &Hello, owner: Option<&str>) -> Result<Self, StoreError> {
        let what = "cannot make an agent known";
        let agent: [u8; 16] = hello.agent.as_slice().try_into().map_err(|_| {
            Failure::refused("its identity does not have 16 bytes".to_owned()).into_error(what)
        })?;
        if let Some(owner) = owner {
            owners::claim(shared, &agent, owner)?;
        }
        let mut labels: Labels =
            hello.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
        labels.insert("host".to_owned(), hello.host.clone());
        labels.retain(|_, value| !value.is_empty());
        let homes = Homes::of(shared, &labels)?;
        let shard = homes.now;
        let (names, values) = labels.clone().into_iter().unzip();
        let row = AgentRow {
            agent,
            names,
            values,
            kernel: hello.kernel.clone(),
            program: hello.program.clone(),
            cpus: hello.cpus,
            seen_unix_ns: now_unix_ns(),
        };
        let known =
            format!("SELECT uniqExact(agent), countIf(agent = {}) FROM agents", agent_literal(&agent));
        let (agents, own) = shard
            .ask(|server| server.rows::<(u64, u64)>(&known))
            .map_err(|failure| failure.into_error(what))?
            .first()
            .copied()
            .unwrap_or_default();
        if own == 0 && agents >= MAX_AGENTS {
            return Err(StoreError::TooManyAgents);
        }
        shard.ask(|server| server.insert("agents", &[row])).map_err(|failure| failure.into_error(what))?;
        Ok(Self {
            shard,
            before: homes.before,
            agent,
            told: Told::new(Arc::clone(&shared.texts), labels),
            stored: Stored::default(),
            is_broken: false,
        })
    }

    /// Whether a batch is stored, as far as the servers can tell. What they cannot see yet does no harm when it comes again.
    fn is_stored(&mut self, sequence: u64) -> Result<bool, StoreError> {
        if self.stored.from.is_none_or(|from| sequence < from) {
            let (from, sequences) = self.stored_from(sequence)?;
            self.stored.sequences = sequences;
            self.stored.from = Some(from);
            if sequence < from {
                return self.has(sequence);
            }
        }
        Ok(self.stored.sequences.contains(&sequence))
    }

    /// The batches that are stored from a number on, this one or a higher one: of many, the highest.
    fn stored_from(&self, sequence: u64) -> Result<(u64, BTreeSet<u64>), StoreError> {
        let sql = format!(
            "SELECT DISTINCT sequence FROM history WHERE kind = '' AND service = '' AND agent = {} AND sequence >= {sequence} \
             ORDER BY sequence DESC LIMIT {MAX_REMEMBERED}",
            agent_literal(&self.agent)
        );
        let mut from = sequence;
        let mut sequences = BTreeSet::new();
        for own in self.ask_homes(&sql)? {
            if own.len() == MAX_REMEMBERED {
                from = own.last().map_or(from, |lowest| from.max(*lowest));
            }
            sequences.extend(own);
        }
        Ok((from, sequences))
    }

    /// Whether one batch is stored.
    fn has(&self, sequence: u64) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT DISTINCT sequence FROM history WHERE kind = '' AND service = '' AND agent = {} AND sequence = {sequence}",
            agent_literal(&self.agent)
        );
        Ok(self.ask_homes(&sql)?.into_iter().any(|found| !found.is_empty()))
    }

    /// Asks for numbers where the agent is, and where it was.
    fn ask_homes(&self, sql: &str) -> Result<Vec<Vec<u64>>, StoreError> {
        let homes = std::iter::once(&self.shard).chain(&self.before);
        homes
            .map(|shard| shard.ask(|server| server.rows::<u64>(sql)))
            .collect::<Result<_, _>>()
            .map_err(|failure| failure.into_error("cannot tell whether a batch is stored"))
    }

    fn rows(&mut self, batch: &Batch, window: &Window) -> Result<Vec<WindowRow>, StoreError> {
        let start_unix_ns = window.start_unix_ns.min(MAX_NS);
        let common = WindowRow {
            day: day(start_unix_ns),
            hour: hour(start_unix_ns),
            agent: self.agent,
            sequence: batch.sequence,
            start_unix_ns,
            duration_ns: window.duration_ns.min(MAX_NS - start_unix_ns),
            ..WindowRow::default()
        };
        let mut rows = vec![self.head(batch, window, common.clone())?];
        let mut new_stacks = HashSet::new();
        for profile in &window.profiles {
            rows.extend(self.samples(profile, &common, &mut new_stacks)?);
        }
        Ok(rows)
    }

    /// What a window has once.
    fn head(&mut self, batch: &Batch, window: &Window, common: WindowRow) -> Result<WindowRow, StoreError> {
        let mut row = common;
        row.host = self.told.host();
        row.dropped_batches = batch.dropped_batches;
        row.notes = window.losses.as_ref().map_or_else(Vec::new, |losses| shortened(&losses.notes));
        row.given_up = window.cost.as_ref().map_or_else(Vec::new, |cost| shortened(&cost.given_up));
        if let Some(verdict) = &window.verdict {
            row.has_verdict = 1;
            row.code.clone_from(&verdict.code);
            row.confidence = number(verdict.confidence);
            row.severity = u8::try_from(verdict.severity).unwrap_or(u8::MAX);
            row.share = number(verdict.share);
            row.summary.clone_from(&verdict.summary);
            row.diagnosis.clone_from(&verdict.diagnosis);
        }
        for signal in &window.signals {
            let instance = Arc::clone(self.told.text(signal.instance)?);
            row.signal_series.push(self.told.instance(&instance));
            row.signal.push(self.told.text(signal.name)?.to_string());
            row.signal_resource.push(self.told.text(signal.resource)?.to_string());
            row.signal_kind.push(self.told.text(signal.kind)?.to_string());
            row.signal_unit.push(self.told.text(signal.unit)?.to_string());
            row.signal_level.push(u8::try_from(signal.level).unwrap_or(u8::MAX));
            let values = [signal.value, signal.p50, signal.p95, signal.p99, signal.p999, signal.max];
            push_values(&mut row, values);
        }
        for signal in agent_signals(window) {
            row.signal_series.push(self.told.instance_named(signal.instance));
            row.signal.push(signal.name.to_owned());
            row.signal_resource.push(RESOURCE.to_owned());
            row.signal_kind.push(signal.kind.to_owned());
            row.signal_unit.push(signal.unit.to_owned());
            row.signal_level.push(0);
            push_values(&mut row, [signal.value; 6]);
        }
        Ok(row)
    }

    /// The samples of one kind: a row for each service.
    fn samples(
        &mut self,
        profile: &Profile,
        common: &WindowRow,
        new_stacks: &mut HashSet<u64>,
    ) -> Result<Vec<WindowRow>, StoreError> {
        let unit = u8::try_from(profile.unit).unwrap_or_default();
        self.told.unwritten.kinds.push(KindRow { kind: profile.kind.clone(), unit });
        let mut services: BTreeMap<Arc<str>, Vec<SampleRow>> = BTreeMap::new();
        let none: Arc<str> = "".into();
        let shard = Arc::clone(&self.shard);
        for at in 0..profile.subject.len() {
            let whose = self.told.subject(profile.subject[at])?.clone();
            let class = match profile.class.get(at) {
                Some(class) => Arc::clone(self.told.text(*class)?),
                None => Arc::clone(&none),
            };
            let is_written = |stack| shard.written.has_stack(stack) || !new_stacks.insert(stack);
            let stack = self.told.stack(profile.stack[at], is_written)?;
            let sample = (whose.series, class, stack, profile.count[at], profile.weight[at]);
            services.entry(whose.service).or_default().push(sample);
        }
        let rows = services.into_iter().map(|(service, mut samples)| {
            // What is the same in the next window is then in the same place, and costs little.
            samples.sort_unstable();
            let mut row = WindowRow {
                kind: profile.kind.clone(),
                service: service.to_string(),
                unit,
                ..common.clone()
            };
            for (series, class, stack, count, weight) in samples {
                row.series.push(series);
                row.class.push(class.to_string());
                row.stack.push(stack);
                row.count.push(count);
                row.weight.push(weight);
            }
            row
        });
        Ok(rows.collect())
    }

    fn store(&mut self, batch: &Batch, window: &Window, new: &Dictionary) -> Result<Appended, StoreError> {
        self.told.extend(new)?;
        if self.is_stored(batch.sequence)? {
            // What it has named is written with the next.
            return Ok(Appended::Known);
        }
        let rows = self.rows(batch, window)?;
        let names = std::mem::take(&mut self.told.unwritten);
        self.shard.queue.write(rows, names)?;
        self.stored.sequences.insert(batch.sequence);
        while self.stored.sequences.len() > MAX_REMEMBERED
            && let Some(lowest) = self.stored.sequences.pop_first()
        {
            self.stored.from = Some(lowest + 1);
        }
        Ok(Appended::New)
    }
}

impl Appender for ClickHouseAppender {
    fn append(
        &mut self,
        batch: &Batch,
        window: &Window,
        new: &Dictionary,
        begins_anew: bool,
    ) -> Result<Appended, StoreError> {
        if begins_anew {
            self.told.forget();
            self.told.unwritten = Names::default();
            self.is_broken = false;
        }
        if self.is_broken {
            let why = "an error has ended the stream: it is to begin anew".to_owned();
            return Err(Failure::refused(why).into_error("cannot store a window"));
        }
        self.is_broken = true;
        let stored = self.store(batch, window, new)?;
        self.is_broken = false;
        Ok(stored)
    }
}

/// What is no number is taken for nothing at all, as the other home takes it.
fn number(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

fn push_values(row: &mut WindowRow, [value, p50, p95, p99, p999, max]: [f64; 6]) {
    row.signal_value.push(value);
    row.signal_p50.push(p50);
    row.signal_p95.push(p95);
    row.signal_p99.push(p99);
    row.signal_p999.push(p999);
    row.signal_max.push(max);
}

/// The shards of what an agent tells.
struct Homes {
    now: Arc<Shard>,
    /// Where it was when the store had fewer.
    before: Vec<Arc<Shard>>,
}

impl Homes {
    /// That of `cityHash64(service, host)` modulo their number, by the server's own function, so that tables that are distributed by it
    /// agree. The service is the one that the host's operator names; an agent's rows are all on one shard, for they are one block.
    fn of(shared: &Shared, labels: &Labels) -> Result<Self, StoreError> {
        let what = "cannot tell on which server an agent is";
        let count = shared.shards.len() as u64;
        if let [only] = shared.shards.as_slice() {
            return Ok(Self { now: Arc::clone(only), before: Vec::new() });
        }
        let hash = hash(shared, labels).map_err(|failure| failure.into_error(what))?;
        let shard = |of: u64| Arc::clone(&shared.shards[(hash % of) as usize]);
        let now = shard(count);
        let before = now.before().map_err(|failure| failure.into_error(what))?;
        let mut others: Vec<u64> = before.into_iter().map(|of| hash % u64::from(of.max(1))).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|other| *other != hash % count);
        let before = others.into_iter().map(|other| Arc::clone(&shared.shards[other as usize])).collect();
        Ok(Self { now, before })
    }
}

/// By which agents are spread, of whichever server answers.
fn hash(shared: &Shared, labels: &Labels) -> Result<u64, Failure> {
    let of = |name: &str| quoted(labels.get(name).map_or("", String::as_str));
    let sql = format!("SELECT cityHash64({}, {})", of("service"), of("host"));
    let mut why = Failure::refused("the store has no servers".to_owned());
    for shard in &shared.shards {
        match shard.ask(|server| server.rows::<u64>(&sql)) {
            Ok(rows) => return Ok(rows.first().copied().unwrap_or(0)),
            Err(failure) => why = failure,
        }
    }
    Err(why)
}
