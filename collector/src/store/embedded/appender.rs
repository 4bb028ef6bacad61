//! Takes in one agent's stream: turns its numbers into the store's.

use std::sync::Arc;

use chokepoint_proto::stream::{Batch, Dictionary, Hello, Subject, Verdict, Window};

use super::names::{Function, Kind, LabelSet, Location, Module, Node, Series, Signal, Tables};
use super::rows::{Reading, Sample, VALUES};
use super::told::{Numbers, Stream};
use super::writer::{NewAgent, NewBatch, NewVerdict, Outcome, Work, signed};
use super::{Shared, failed, fresh, varint};
use crate::clock::now_unix_ns;
use crate::store::agent_signals::{AgentSignal, RESOURCE, agent_signals, shortened};
use crate::store::{Appended, Appender, StoreError};

/// One agent's stream.
pub(super) struct EmbeddedAppender {
    shared: Arc<Shared>,
    agent: i64,
    /// What it has been told, and the number by which it is closed.
    stream: Stream,
    opened_as: u64,
    /// Bytes that its numbers take while a batch is taken in.
    numbers_bytes: usize,
    /// Whether an error has left the numbers incomplete.
    is_broken: bool,
}

impl EmbeddedAppender {
    /// Makes the agent known.
    ///
    /// # Errors
    /// Where it is another one's, or the store cannot write.
    pub(super) fn new(shared: Arc<Shared>, hello: &Hello, owner: Option<&str>) -> Result<Self, StoreError> {
        let mut labels: Vec<(&str, &str)> =
            hello.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
        labels.push(("host", &hello.host));
        let (opened_as, stream) = shared.streams.open_one();
        // From here on it is closed whatever happens.
        let mut appender = Self { shared, agent: 0, stream, opened_as, numbers_bytes: 0, is_broken: false };
        let shared = &appender.shared;
        let under_way = shared.streams.begin();
        let host = label_set(&mut shared.names.lock(), &labels)?;
        appender.stream.lock().host = host;
        let agent = NewAgent {
            identity: hello.agent.clone(),
            host,
            kernel: hello.kernel.clone(),
            program: hello.program.clone(),
            cpus: hello.cpus,
            owner: owner.map(str::to_owned),
            seen_unix_ns: signed(now_unix_ns()),
        };
        let agent = match shared.queue.write(Work::Agent(agent))? {
            Outcome::Agent(agent) => agent,
            Outcome::NotOwned => return Err(StoreError::NotOwned),
            Outcome::TooManyAgents => return Err(StoreError::TooManyAgents),
            _ => return Err(failed(|| "cannot make an agent known".to_owned())("it has no number")),
        };
        drop(under_way);
        appender.agent = agent;
        Ok(appender)
    }

    fn new_batch(
        &mut self,
        batch: &Batch,
        window: &Window,
        new: &Dictionary,
    ) -> Result<NewBatch, StoreError> {
        let (host, mut samples, mut readings) = {
            let mut told = self.stream.lock();
            let host = told.host;
            let mut numbers = self.shared.streams.load(&told)?;
            let before = numbers.lengths();
            let names = &mut *self.shared.names.lock();
            numbers.extend(names, host, new)?;
            self.shared.streams.keep(&mut told, &numbers, before)?;
            self.numbers_bytes = numbers.bytes();
            let mut readings = numbers.readings(names, host, window)?;
            readings.extend(own_readings(names, host, window)?);
            (host, numbers.samples(names, window)?, readings)
        };
        Ok(NewBatch {
            agent: self.agent,
            host,
            sequence: signed(batch.sequence),
            dropped_batches: signed(batch.dropped_batches),
            seen_unix_ns: signed(now_unix_ns()),
            start_unix_ns: signed(window.start_unix_ns),
            duration_ns: signed(window.duration_ns),
            samples: if samples.is_empty() { Vec::new() } else { fresh::of_samples(&mut samples)? },
            signals: if readings.is_empty() { Vec::new() } else { fresh::of_readings(&mut readings)? },
            rows: (samples.len() + readings.len()) as i64,
            verdict: window.verdict.as_ref().map(new_verdict).transpose()?,
            notes: json(&window.losses.as_ref().map_or_else(Vec::new, |losses| shortened(&losses.notes))),
            given_up: json(&window.cost.as_ref().map_or_else(Vec::new, |cost| shortened(&cost.given_up))),
        })
    }
}

impl Appender for EmbeddedAppender {
    fn append(
        &mut self,
        batch: &Batch,
        window: &Window,
        new: &Dictionary,
        begins_anew: bool,
    ) -> Result<Appended, StoreError> {
        if begins_anew {
            self.shared.streams.forget(&mut self.stream.lock());
            self.is_broken = false;
        }
        if self.is_broken {
            return Err(failed(|| "cannot go on with a stream".to_owned())("a window before was not stored"));
        }
        self.is_broken = true;
        let shared = Arc::clone(&self.shared);
        let _under_way = shared.streams.begin();
        let new_batch = self.new_batch(batch, window, new)?;
        let outcome = self.shared.queue.write(Work::Batch(new_batch))?;
        self.is_broken = false;
        Ok(if matches!(outcome, Outcome::Known) { Appended::Known } else { Appended::New })
    }

    fn held_bytes(&self) -> usize {
        self.numbers_bytes
    }
}

impl Drop for EmbeddedAppender {
    fn drop(&mut self) {
        self.shared.streams.close(self.opened_as);
    }
}

impl Numbers {
    /// Takes in what is new in the stream's dictionary.
    fn extend(&mut self, names: &mut Tables, host: u32, new: &Dictionary) -> Result<(), StoreError> {
        for text in &new.strings {
            let number = names.string(text)?;
            self.strings.push(number);
        }
        for function in &new.functions {
            let [name, file] = [function.name, function.file].map(|string| at(&self.strings, string));
            self.functions.push(names.function(Function { name: name?, file: file? })?);
        }
        for module in &new.modules {
            let path = at(&self.strings, module.path)?;
            let build_id = module.build_id.as_slice().into();
            self.modules.push(names.module(Module { kind: module.kind, path, build_id })?);
        }
        for location in &new.locations {
            let mut lines = Vec::with_capacity(1 + 6 * location.lines.len());
            varint::put(&mut lines, u64::from(location.is_spin_wait));
            for line in &location.lines {
                varint::put(&mut lines, u64::from(at(&self.functions, line.function)?));
                varint::put(&mut lines, u64::from(line.line));
            }
            let module = at(&self.modules, location.module)?;
            self.locations.push(names.location(Location {
                module,
                address: location.address,
                lines: lines.into(),
            })?);
        }
        for (parent, location) in new.stack_parent.iter().zip(&new.stack_location) {
            let node = Node {
                parent: at_plus_one(&self.nodes, *parent)?,
                location: at(&self.locations, *location)?,
            };
            self.nodes.push(names.node(node)?);
        }
        for subject in &new.subjects {
            let own = self.own_labels(names, subject)?;
            self.subjects.push(names.series(Series { host, own })?);
        }
        Ok(())
    }

    /// The label set of a subject. What it may not call itself by is left out: the host is who says hello.
    fn own_labels(&self, names: &mut Tables, subject: &Subject) -> Result<u32, StoreError> {
        let (process, thread, host) =
            (names.string("process")?, names.string("thread")?, names.string("host")?);
        let empty = names.string("")?;
        let mut pairs = Vec::with_capacity(2 + subject.labels.len() / 2);
        for pair in subject.labels.chunks_exact(2) {
            let (name, value) = (at(&self.strings, pair[0])?, at(&self.strings, pair[1])?);
            if ![process, thread, host].contains(&name) {
                pairs.push((name, value));
            }
        }
        pairs.push((process, at(&self.strings, subject.process)?));
        pairs.push((thread, at(&self.strings, subject.thread)?));
        names.label_set(of_pairs(pairs, empty))
    }

    fn samples(&self, names: &mut Tables, window: &Window) -> Result<Vec<Sample>, StoreError> {
        let start_unix_ns = signed(window.start_unix_ns).unsigned_abs();
        let mut samples = Vec::new();
        for profile in &window.profiles {
            // A unit that this program does not know is one of its own.
            let kind = names.kind(Kind { name: profile.kind.as_str().into(), unit: profile.unit })?;
            for row in 0..profile.subject.len() {
                samples.push(Sample {
                    kind,
                    series: at(&self.subjects, profile.subject[row])?,
                    class: profile.class.get(row).map_or(Ok(0), |class| at(&self.strings, *class))?,
                    stack: at_plus_one(&self.nodes, profile.stack[row])?,
                    start_unix_ns,
                    count: profile.count[row],
                    weight: profile.weight[row],
                });
            }
        }
        Ok(samples)
    }

    fn readings(&self, names: &mut Tables, host: u32, window: &Window) -> Result<Vec<Reading>, StoreError> {
        let mut readings = Vec::with_capacity(window.signals.len());
        let (instance, empty) = (names.string("instance")?, names.string("")?);
        for signal in &window.signals {
            let of = |number| at(&self.strings, number);
            let own = names.label_set(of_pairs(vec![(instance, of(signal.instance)?)], empty))?;
            let values = [signal.value, signal.p50, signal.p95, signal.p99, signal.p999, signal.max];
            let signal_entry = Signal {
                name: of(signal.name)?,
                resource: of(signal.resource)?,
                kind: of(signal.kind)?,
                unit: of(signal.unit)?,
            };
            readings.push(Reading {
                series: names.series(Series { host, own })?,
                signal: names.signal(signal_entry)?,
                start_unix_ns: signed(window.start_unix_ns).unsigned_abs(),
                windows: 1,
                level: signal.level.min(u32::from(u8::MAX)) as u8,
                values,
            });
        }
        Ok(readings)
    }
}

/// What is missing of a window and what the agent cost, as signals of their own: so it is kept, rolled up and deleted as those are.
fn own_readings(names: &mut Tables, host: u32, window: &Window) -> Result<Vec<Reading>, StoreError> {
    let told = agent_signals(window);
    let mut readings = Vec::with_capacity(told.len());
    for AgentSignal { name, instance, kind, unit, value } in told {
        let own = label_set(names, &[("instance", instance)])?;
        let signal = Signal {
            name: names.string(name)?,
            resource: names.string(RESOURCE)?,
            kind: names.string(kind)?,
            unit: names.string(unit)?,
        };
        readings.push(Reading {
            series: names.series(Series { host, own })?,
            signal: names.signal(signal)?,
            start_unix_ns: signed(window.start_unix_ns).unsigned_abs(),
            windows: 1,
            level: 0,
            values: [value; VALUES],
        });
    }
    Ok(readings)
}

fn json(sentences: &[String]) -> String {
    serde_json::to_string(sentences).expect("texts are JSON")
}

fn new_verdict(verdict: &Verdict) -> Result<NewVerdict, StoreError> {
    Ok(NewVerdict {
        code: verdict.code.clone(),
        confidence: verdict.confidence,
        severity: verdict.severity,
        share: verdict.share,
        summary: verdict.summary.clone(),
        diagnosis: fresh::compress(verdict.diagnosis.as_bytes())?,
    })
}

fn label_set(names: &mut Tables, labels: &[(&str, &str)]) -> Result<u32, StoreError> {
    let mut pairs = Vec::with_capacity(labels.len());
    for (name, value) in labels {
        pairs.push((names.string(name)?, names.string(value)?));
    }
    let empty = names.string("")?;
    names.label_set(of_pairs(pairs, empty))
}

/// A label set: without labels of empty values, which are absent, and of labels of one name the last.
fn of_pairs(mut pairs: Vec<(u32, u32)>, empty: u32) -> LabelSet {
    pairs.reverse();
    pairs.sort_by_key(|(name, _)| *name);
    pairs.dedup_by_key(|(name, _)| *name);
    let mut labels = Vec::with_capacity(pairs.len() * 6);
    for (name, value) in pairs.into_iter().filter(|(_, value)| *value != empty) {
        varint::put(&mut labels, u64::from(name));
        varint::put(&mut labels, u64::from(value));
    }
    LabelSet { labels: labels.into() }
}

/// The store's number of a stream's number.
fn at(numbers: &[u32], number: u32) -> Result<u32, StoreError> {
    let missing = || failed(|| "cannot store a window".to_owned())("it refers to what was not named");
    numbers.get(number as usize).copied().ok_or_else(missing)
}

/// The same where the stream's numbers are one more, and 0 is none.
fn at_plus_one(numbers: &[u32], plus_one: u32) -> Result<u32, StoreError> {
    plus_one.checked_sub(1).map_or(Ok(0), |number| at(numbers, number))
}
