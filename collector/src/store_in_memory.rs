//! A store without a disk, for tests: all rows in a list, every query a walk through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use chokepoint_analysis::profile::{Function, Module, Unit};
use chokepoint_proto::stream::{self, Batch, Dictionary, Hello, Window};

use crate::labels::Labels;
use crate::store::{
    AgentStatus, Appended, Appender, FrameLocation, FrameNode, Frames, Holdings, Selection, SignalQuery,
    SignalSeries, SignalValue, StackId, Store, StoreError, Sum, SumQuery, Sums, VerdictSpan, module_kind,
};

/// A frame by what it is: module, address, functions with their lines.
type Frame = (Module, u64, Vec<(Function, u32)>);

struct Row {
    labels: Labels,
    start_unix_ns: u64,
    kind: String,
    unit: Unit,
    class: String,
    stack: Option<StackId>,
    count: u64,
    weight: u64,
}

#[derive(Default)]
struct Kept {
    rows: Vec<Row>,
    stacks: Vec<Vec<Frame>>,
    signals: Vec<(String, Labels, String, SignalValue)>,
    verdicts: Vec<VerdictSpan>,
    agents: BTreeMap<String, AgentStatus>,
    sequences: BTreeSet<(String, u64)>,
}

#[derive(Default)]
pub(crate) struct InMemory(Arc<Mutex<Kept>>);

fn selects(selection: &Selection, labels: &Labels, start_unix_ns: u64) -> bool {
    (selection.from_unix_ns..selection.until_unix_ns).contains(&start_unix_ns)
        && selection.matchers.iter().all(|matcher| matcher.admits(labels))
}

impl Store for InMemory {
    fn appender(&self, hello: &Hello, identity: Option<&str>) -> Result<Box<dyn Appender>, StoreError> {
        let agent: String = hello.agent.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut labels: Labels =
            hello.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
        labels.insert("host".to_owned(), hello.host.clone());
        let status = AgentStatus {
            agent: agent.clone(),
            labels: labels.clone(),
            kernel: hello.kernel.clone(),
            program: hello.program.clone(),
            owner: identity.unwrap_or_default().to_owned(),
            ..AgentStatus::default()
        };
        self.0.lock().unwrap().agents.entry(agent.clone()).or_insert(status);
        Ok(Box::new(Stream { kept: Arc::clone(&self.0), agent, labels }))
    }

    fn sums(&self, query: &SumQuery) -> Result<Sums, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut sums: BTreeMap<Sum, (u64, u64)> = BTreeMap::new();
        let mut unit = None;
        for row in &kept.rows {
            if row.kind != query.kind
                || !(query.classes.is_empty() || query.classes.contains(&row.class))
                || !selects(&query.selection, &row.labels, row.start_unix_ns)
            {
                continue;
            }
            unit = Some(row.unit);
            let value = |name: &String| row.labels.get(name).cloned().unwrap_or_default();
            let key = Sum {
                group: query.group_by.iter().map(value).collect(),
                start_unix_ns: query.step_ns.map_or(0, |step| row.start_unix_ns - row.start_unix_ns % step),
                class: if query.by_class { row.class.clone() } else { String::new() },
                stack: row.stack.filter(|_| query.by_stack),
                count: 0,
                weight: 0,
            };
            let sum = sums.entry(key).or_default();
            *sum = (sum.0 + row.count, sum.1 + row.weight);
        }
        if sums.len() > query.max_sums {
            return Err(StoreError::TooLarge { what: "sums", limit: query.max_sums });
        }
        let sums = sums.into_iter().map(|(key, (count, weight))| Sum { count, weight, ..key }).collect();
        Ok(Sums { sums, unit })
    }

    fn frames(&self, stacks: &[StackId]) -> Result<Frames, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut frames = Frames::default();
        for StackId(number) in stacks {
            let stack = usize::try_from(*number).ok().and_then(|at| kept.stacks.get(at));
            let stack = stack.ok_or(StoreError::NoStack(*number))?;
            let mut caller = None;
            for (module, address, lines) in stack.iter().rev() {
                let location = FrameLocation {
                    module: position(&mut frames.modules, module),
                    address: *address,
                    lines: lines
                        .iter()
                        .map(|(function, line)| (position(&mut frames.functions, function), *line))
                        .collect(),
                };
                let location = position(&mut frames.locations, &location);
                caller = Some(position(&mut frames.nodes, &FrameNode { caller, location }));
            }
            frames.leaves.push(caller.ok_or(StoreError::NoStack(*number))?);
        }
        Ok(frames)
    }

    fn signals(&self, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut found: BTreeMap<(String, Labels), SignalSeries> = BTreeMap::new();
        let mut values = 0;
        for (name, labels, unit, value) in &kept.signals {
            if !(query.name.is_empty() || query.name == *name)
                || !selects(&query.selection, labels, value.start_unix_ns)
            {
                continue;
            }
            values += 1;
            let series = found.entry((name.clone(), labels.clone())).or_default();
            (series.name, series.labels, series.unit) = (name.clone(), labels.clone(), unit.clone());
            series.values.push(*value);
        }
        if values > query.max_values {
            return Err(StoreError::TooLarge { what: "values", limit: query.max_values });
        }
        Ok(found.into_values().collect())
    }

    fn verdicts(&self, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut windows: Vec<VerdictSpan> = kept
            .verdicts
            .iter()
            .filter(|window| selects(selection, &window.labels, window.from_unix_ns))
            .cloned()
            .collect();
        windows.sort_by(|a, b| (&a.labels, a.from_unix_ns).cmp(&(&b.labels, b.from_unix_ns)));
        let mut spans: Vec<VerdictSpan> = Vec::new();
        for window in windows {
            match spans.last_mut().filter(|span| (&span.labels, &span.code) == (&window.labels, &window.code))
            {
                Some(span) => {
                    let (from_unix_ns, windows) = (span.from_unix_ns, span.windows + window.windows);
                    *span = VerdictSpan { from_unix_ns, windows, ..window };
                }
                None => spans.push(window),
            }
        }
        Ok(spans)
    }

    fn labels(
        &self,
        selection: &Selection,
        max_values: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let kept = self.0.lock().unwrap();
        let mut found: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for row in kept.rows.iter().filter(|row| selects(selection, &row.labels, row.start_unix_ns)) {
            for (name, value) in &row.labels {
                found.entry(name).or_default().insert(value);
            }
        }
        let values = |values: BTreeSet<&String>| values.into_iter().take(max_values).cloned().collect();
        Ok(found.into_iter().map(|(name, set)| (name.clone(), values(set))).collect())
    }

    fn kinds(&self) -> Result<Vec<(String, Unit)>, StoreError> {
        let kept = self.0.lock().unwrap();
        let kinds: BTreeMap<String, Unit> =
            kept.rows.iter().map(|row| (row.kind.clone(), row.unit)).collect();
        Ok(kinds.into_iter().collect())
    }

    fn agents(&self) -> Result<Vec<AgentStatus>, StoreError> {
        Ok(self.0.lock().unwrap().agents.values().cloned().collect())
    }

    fn holdings(&self) -> Result<Holdings, StoreError> {
        let rows = self.0.lock().unwrap().rows.len() as u64;
        Ok(Holdings { fresh_rows: rows, ..Holdings::default() })
    }

    fn maintain(&self, _: u64) -> Result<bool, StoreError> {
        Ok(false)
    }
}

fn position<T: Clone + PartialEq>(list: &mut Vec<T>, wanted: &T) -> usize {
    list.iter().position(|known| known == wanted).unwrap_or_else(|| {
        list.push(wanted.clone());
        list.len() - 1
    })
}

struct Stream {
    kept: Arc<Mutex<Kept>>,
    agent: String,
    labels: Labels,
}

impl Appender for Stream {
    fn append(
        &mut self,
        batch: &Batch,
        window: &Window,
        known: &Dictionary,
        _: bool,
    ) -> Result<Appended, StoreError> {
        let mut kept = self.kept.lock().unwrap();
        if !kept.sequences.insert((self.agent.clone(), batch.sequence)) {
            return Ok(Appended::Known);
        }
        let start_unix_ns = window.start_unix_ns;
        let until_unix_ns = start_unix_ns + window.duration_ns;
        let text = |number: u32| known.strings[number as usize].clone();
        for profile in &window.profiles {
            for row in 0..profile.subject.len() {
                let subject = &known.subjects[profile.subject[row] as usize];
                let mut labels = self.labels.clone();
                labels.insert("process".to_owned(), text(subject.process));
                labels.insert("thread".to_owned(), text(subject.thread));
                labels.extend(subject.labels.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))));
                labels.retain(|_, value| !value.is_empty());
                let stack = profile.stack[row].checked_sub(1).map(|leaf| stack(known, leaf));
                let stack = stack.map(|stack| StackId(position(&mut kept.stacks, &stack) as u64));
                kept.rows.push(Row {
                    labels,
                    start_unix_ns,
                    kind: profile.kind.clone(),
                    unit: match profile.unit() {
                        stream::Unit::Nanoseconds => Unit::Nanoseconds,
                        stream::Unit::Count => Unit::Count,
                    },
                    class: profile.class.get(row).map_or_else(String::new, |class| text(*class)),
                    stack,
                    count: profile.count[row],
                    weight: profile.weight[row],
                });
            }
        }
        for signal in &window.signals {
            let mut labels = self.labels.clone();
            labels.insert("instance".to_owned(), text(signal.instance));
            labels.retain(|_, value| !value.is_empty());
            let level = u8::try_from(signal.level).unwrap_or(u8::MAX);
            let value = SignalValue { start_unix_ns, value: signal.value, max: signal.max, level };
            kept.signals.push((text(signal.name), labels, text(signal.unit), value));
        }
        if let Some(verdict) = &window.verdict {
            kept.verdicts.push(VerdictSpan {
                labels: self.labels.clone(),
                code: verdict.code.clone(),
                from_unix_ns: start_unix_ns,
                until_unix_ns,
                windows: 1,
                confidence: verdict.confidence,
                severity: u8::try_from(verdict.severity).unwrap_or(u8::MAX),
                share: verdict.share,
                summary: verdict.summary.clone(),
                diagnosis: verdict.diagnosis.clone(),
            });
        }
        let status = kept.agents.get_mut(&self.agent).expect("its appender was made");
        status.last_window_unix_ns = status.last_window_unix_ns.max(until_unix_ns);
        status.batches += 1;
        status.dropped_batches = batch.dropped_batches;
        status.notes = window.losses.as_ref().map_or_else(Vec::new, |losses| losses.notes.clone());
        status.given_up = window.cost.as_ref().map_or_else(Vec::new, |cost| cost.given_up.clone());
        Ok(Appended::New)
    }
}

/// Leaf first.
fn stack(known: &Dictionary, leaf: u32) -> Vec<Frame> {
    let text = |number: u32| known.strings[number as usize].clone();
    let mut frames = Vec::new();
    let mut node = Some(leaf as usize);
    while let Some(at) = node {
        let location = &known.locations[known.stack_location[at] as usize];
        let module = &known.modules[location.module as usize];
        let kind = module_kind(module.kind);
        let lines = location.lines.iter().map(|line| {
            let function = &known.functions[line.function as usize];
            (Function { name: text(function.name), file: text(function.file) }, line.line)
        });
        frames.push((
            Module { kind, path: text(module.path), build_id: module.build_id.clone() },
            location.address,
            lines.collect(),
        ));
        node = known.stack_parent[at].checked_sub(1).map(|parent| parent as usize);
    }
    frames
}

/// A fleet that tests ask about: two hosts, two windows of 10 s each from 1,000,000 s on, sums that can be added up by hand.
///
/// | host | service | process | class | stack, root first | window 1 | window 2 |
/// |---|---|---|---|---|---|---|
/// | a | web | nginx | cpu.user | main, handle (inlines parse) | 3 s, 30 samples | 1 s, 10 samples |
/// | a | web | nginx | cpu.kernel | main, handle, sys_read | 1 s, 10 samples | - |
/// | a | web | nginx | futex | main, lock | 6 s, 6 samples | 9 s, 9 samples |
/// | b | web | nginx | cpu.user | main, handle (inlines parse) | 2 s, 20 samples | 2 s, 20 samples |
/// | b | db | `<img onerror>` ESC | cpu.user | no symbol | 4 s, 40 samples | - |
/// | b | db | `<img onerror>` ESC | idle | not known | 6 s, none | 10 s, none |
pub(crate) mod fleet {
    use super::*;

    /// Begin of the first window.
    pub(crate) const START_NS: u64 = 1_000_000 * S;
    /// A process that chose a name to do harm.
    pub(crate) const HOSTILE: &str = "<img src=x onerror=alert(1)>\u{1b}[31m;\u{202e}x";
    const S: u64 = 1_000_000_000;

    /// The fleet.
    pub(crate) fn store() -> InMemory {
        let store = InMemory::default();
        append(
            &store,
            "a",
            1,
            &window(1, &[(0, 2, 0, 30, 3), (0, 4, 1, 10, 1), (0, 5, 2, 6, 6)], ("lock.mutex", 2, 0.6)),
        );
        append(&store, "a", 2, &window(2, &[(0, 2, 0, 10, 1), (0, 5, 2, 9, 9)], ("lock.mutex", 3, 0.9)));
        let idle = [(0, 2, 0, 20, 2), (1, 6, 0, 40, 4), (1, 0, 3, 0, 6)];
        append(&store, "b", 1, &window(1, &idle, ("cpu.quota", 2, 0.4)));
        append(&store, "b", 2, &window(2, &[(0, 2, 0, 20, 2), (1, 0, 3, 0, 10)], ("none.healthy", 0, 0.0)));
        store
    }

    /// One host whose threads take so many seconds of CPU time and of waiting for a lock in each of its windows.
    pub(crate) fn store_of(windows: &[(u64, u64)]) -> InMemory {
        let store = InMemory::default();
        for (number, (running_s, waiting_s)) in (1..).zip(windows) {
            let rows = [(0, 2, 0, 10, *running_s), (0, 5, 2, 1, *waiting_s)];
            append(&store, "a", number, &window(number, &rows, ("none.healthy", 0, 0.0)));
        }
        store
    }

    fn append(store: &InMemory, host: &str, sequence: u64, window: &Window) {
        let hello = Hello {
            agent: vec![host.as_bytes()[0]; 16],
            host: host.to_owned(),
            kernel: "6.1.0".to_owned(),
            program: "0.1.0".to_owned(),
            labels: vec![stream::Label { name: "zone".to_owned(), value: "z1".to_owned() }],
            ..Hello::default()
        };
        let mut appender = store.appender(&hello, None).expect("an appender");
        let batch = Batch { sequence, ..Batch::default() };
        for appended in [Appended::New, Appended::Known] {
            assert_eq!(appender.append(&batch, window, &dictionary(), true).expect("a batch"), appended);
        }
    }

    /// Rows are: subject, stack's leaf plus one, class, samples, seconds.
    fn window(number: u64, rows: &[(u32, u32, u32, u64, u64)], verdict: (&str, u32, f64)) -> Window {
        const CLASSES: [u32; 4] = [1, 2, 3, 4];
        let (code, severity, share) = verdict;
        Window {
            start_unix_ns: START_NS + (number - 1) * 10 * S,
            duration_ns: 10 * S,
            profiles: vec![
                stream::Profile {
                    kind: "wall".to_owned(),
                    unit: stream::Unit::Nanoseconds.into(),
                    subject: rows.iter().map(|row| row.0).collect(),
                    stack: rows.iter().map(|row| row.1).collect(),
                    class: rows.iter().map(|row| CLASSES[row.2 as usize]).collect(),
                    count: rows.iter().map(|row| row.3).collect(),
                    weight: rows.iter().map(|row| row.4 * S).collect(),
                },
                stream::Profile {
                    kind: "faults".to_owned(),
                    unit: stream::Unit::Count.into(),
                    subject: vec![0],
                    stack: vec![2],
                    class: Vec::new(),
                    count: vec![1],
                    weight: vec![100],
                },
            ],
            signals: vec![stream::Signal {
                name: 5,
                instance: 6,
                resource: 0,
                kind: 0,
                unit: 7,
                value: 40.0 + number as f64,
                max: 80.0 + number as f64,
                level: u32::try_from(number - 1).unwrap(),
                ..stream::Signal::default()
            }],
            verdict: Some(stream::Verdict {
                code: code.to_owned(),
                confidence: 0.8,
                severity,
                share,
                summary: format!("{code} in window {number}"),
                diagnosis: format!("{{\"window\":{number}}}"),
            }),
            ..Window::default()
        }
    }

    fn dictionary() -> Dictionary {
        let strings = [
            "",
            "cpu.user",
            "cpu.kernel",
            "futex",
            "idle",
            "cpu.utilization",
            "vda",
            "%",
            "nginx",
            "worker",
            HOSTILE,
            "service",
            "web",
            "db",
            "main",
            "handle",
            "parse",
            "sys_read",
            "lock",
            "/usr/bin/nginx",
            "[kernel]",
            "nginx.c",
        ];
        let number =
            |text: &str| u32::try_from(strings.iter().position(|known| *known == text).unwrap()).unwrap();
        let function = |name: &str| stream::Function { name: number(name), file: number("nginx.c") };
        let line = |function| stream::Line { function, line: 7 };
        let location =
            |module, address, lines| stream::Location { module, address, lines, is_spin_wait: false };
        Dictionary {
            reset: true,
            strings: strings.map(str::to_owned).to_vec(),
            functions: ["main", "handle", "parse", "sys_read", "lock"].map(function).to_vec(),
            modules: vec![
                stream::Module {
                    kind: stream::ModuleKind::Binary.into(),
                    path: number("/usr/bin/nginx"),
                    build_id: vec![0xab; 20],
                },
                stream::Module {
                    kind: stream::ModuleKind::Kernel.into(),
                    path: number("[kernel]"),
                    build_id: Vec::new(),
                },
            ],
            locations: vec![
                location(0, 0x1000, vec![line(0)]),
                // `parse` is inlined into `handle`.
                location(0, 0x2000, vec![line(2), line(1)]),
                location(0, 0x2800, vec![line(1)]),
                location(1, 0xffff_0000, vec![line(3)]),
                location(0, 0x3000, vec![line(4)]),
                location(0, 0x4242, Vec::new()),
            ],
            // 1: main; 2: main, handle(parse); 3: main, handle; 4: main, handle, sys_read; 5: main, lock; 6: no symbol.
            stack_parent: vec![0, 1, 1, 3, 1, 0],
            stack_location: vec![0, 1, 2, 3, 4, 5],
            subjects: vec![
                stream::Subject {
                    process: number("nginx"),
                    thread: number("worker"),
                    labels: vec![number("service"), number("web")],
                },
                stream::Subject {
                    process: number(HOSTILE),
                    thread: number("worker"),
                    labels: vec![number("service"), number("db")],
                },
            ],
        }
    }
}
