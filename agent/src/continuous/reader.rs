//! The thread that names windows, diagnoses them, and hands them on as messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chokepoint_analysis::coverage::{Coverage, Loss};
use chokepoint_analysis::signals::reading::Reading;
use chokepoint_analysis::signals::{Levels, evaluate};
use chokepoint_analysis::verdict::diagnose_with_peers;
use chokepoint_analysis::verdict::peers::Peer;
use chokepoint_proto::stream::Cost;

use super::counts::Counts;
use crate::failure::Failure;
use crate::record::event::Event;
use crate::stream::connection::SharedSpool;
use crate::stream::connection::recode::compress;
use crate::stream::encode::{Limits, Observed, counted, encode, process_name};
use crate::stream::owners::Owners;
use crate::stream::symbols;
use crate::symbolize::{self, Symbolizer};
use crate::symbolized::{self, Names, Wanted};
use crate::window::Window;

/// Windows that wait to be read, 15 MB each at most. Of more, the newest is given up.
const QUEUE: usize = 2;
/// How long the readings of a window are waited for: one takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A window, with what was known when it ended.
pub(super) struct Taken {
    pub(super) window: Window,
    pub(super) readings: Receiver<Vec<Reading>>,
    /// What the agent cost meanwhile, but for what the window tells.
    pub(super) cost: Cost,
    /// Whether the times of threads were taken, without which nothing can be diagnosed.
    pub(super) has_times: bool,
    /// Whether faults, losses of connections and requests of block devices were looked at.
    pub(super) has_events: bool,
    /// What is missing, each a sentence.
    pub(super) notes: Vec<String>,
}

enum Asked {
    Window(Box<Taken>),
    /// Another session begins: files have other numbers.
    NewSession,
    /// As the operator calls the service of this host now.
    Service(Option<String>),
}

/// What the thread works with.
pub(super) struct Work {
    pub(super) spool: Arc<SharedSpool>,
    pub(super) counts: Arc<Counts>,
    pub(super) owners: Owners,
    /// CPUs of the host.
    pub(super) cpus: usize,
    /// Whether windows are kept for a collector, now.
    pub(super) keeps: Arc<std::sync::atomic::AtomicBool>,
    /// When the agent began.
    pub(super) start: Instant,
    /// Who is told of builds, where the collector names their functions.
    pub(super) symbols: Option<Arc<symbols::Shared>>,
}

/// The thread.
pub(super) struct Reader {
    asked: SyncSender<Asked>,
    thread: JoinHandle<()>,
    counts: Arc<Counts>,
    /// Windows given up since the last that was taken.
    given_up: u64,
}

impl Reader {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub(super) fn start(work: Work) -> Result<Self, Failure> {
        let (asked, received) = sync_channel(QUEUE);
        let counts = Arc::clone(&work.counts);
        let thread = std::thread::Builder::new()
            .name("read windows".to_owned())
            .spawn(move || State::new(work).serve(&received))
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { asked, thread, counts, given_up: 0 })
    }

    /// Takes a window in, unless too many wait already.
    pub(super) fn take(&mut self, mut taken: Taken) {
        if self.given_up > 0 {
            taken.notes.push(format!(
                "{} windows before this one were given up: reading took too long",
                self.given_up
            ));
        }
        match self.asked.try_send(Asked::Window(Box::new(taken))) {
            Ok(()) => self.given_up = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.given_up += 1;
                self.counts.windows_given_up.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells that another session begins.
    pub(super) fn new_session(&self) {
        // Where the thread died there are no windows any more, which is seen.
        let _ = self.asked.send(Asked::NewSession);
    }

    /// Tells what the operator calls the service of this host.
    pub(super) fn set_service(&self, service: Option<String>) {
        let _ = self.asked.send(Asked::Service(service));
    }

    /// Whether the thread still reads.
    pub(super) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits until all that was taken has been read.
    pub(super) fn finish(self) {
        drop(self.asked);
        let _ = self.thread.join();
    }
}

/// Binaries that stay open between windows, up to two descriptors each. Names of frames are kept, so that few are asked for again.
const OPEN_BINARIES: usize = 32;

/// What the thread keeps from window to window.
struct State {
    work: Work,
    symbolizer: Symbolizer,
    names: Names,
}

impl State {
    fn new(work: Work) -> Self {
        // Over weeks, lines and inlined functions cost more than they tell: reading them takes as much memory as there is debug information.
        let options = symbolize::Options {
            inlined: false,
            source_lines: false,
            cache_binaries: OPEN_BINARIES,
            ..symbolize::Options::default()
        };
        let mut symbolizer = match work.symbols.clone() {
            None => Symbolizer::new(options),
            Some(symbols) => Symbolizer::leaving_binaries(options, Box::new(move |met| symbols.meet(met))),
        };
        if let Err(error) = symbolizer.load_kernel() {
            // Waits are of no class then, which the windows say.
            tracing::debug!(%error, "kernel symbols");
        }
        Self { work, symbolizer, names: Names::default() }
    }

    fn serve(mut self, asked: &Receiver<Asked>) {
        while let Ok(asked) = asked.recv() {
            match asked {
                Asked::Window(taken) => self.read(*taken),
                Asked::NewSession => self.names = Names::default(),
                Asked::Service(service) => self.work.owners.set_service(service),
            }
        }
    }

    fn read(&mut self, taken: Taken) {
        let Taken { window, readings, mut cost, has_times, has_events, notes } = taken;
        cost.program_ns = window.program_cost.map_or(0, |cost| cost.run_time.as_nanos() as u64);
        let mut events = vec![Event::All];
        if !window.faults.is_empty() {
            events.push(Event::Fault);
        }
        if window.connections.of_target(true).any(|(_, connection)| connection.counts.retransmits() > 0) {
            events.push(Event::Retransmit);
        }
        let wanted = events.into_iter().map(|event| Wanted {
            event,
            header: window.header(event, cost.frequency_hz.max(1), self.work.cpus, "host"),
            coverage: window.coverage(event),
        });
        let wanted = wanted.collect();
        let named = symbolized::remembering(&window, &mut self.symbolizer, &mut self.names, wanted);
        let signals = readings.recv_timeout(PATIENCE).ok();
        let mut profiles = named.profiles.into_iter();
        let Some((_, mut profile)) = profiles.next() else { return };
        let (mut faults, mut retransmits) = (None, None);
        for (event, of_event) in profiles {
            match event {
                Event::Fault => faults = Some(of_event),
                _ => retransmits = Some(of_event),
            }
        }
        if has_events {
            add_losses(&window, &mut profile.coverage);
        }
        profile.signals = signals.as_ref().map(|readings| evaluate(readings, &Levels::new()));
        let (diagnosis, services) = has_times.then(|| diagnose_with_peers(&profile)).unzip();
        let verdict = diagnosis.as_ref().map(|diagnosis| diagnosis.verdict.code.name().to_owned());
        let lost = profile.coverage.lost.iter().map(|loss| (&*loss.cause, loss.samples));
        let counts = &self.work.counts;
        counts.add_window(profile.coverage.captured, lost, verdict);
        counts.last_window_s.store(self.work.start.elapsed().as_secs(), Ordering::Relaxed);
        counts.program_ns.fetch_add(cost.program_ns, Ordering::Relaxed);
        if !self.work.keeps.load(Ordering::Relaxed) {
            return;
        }
        let owners = &mut self.work.owners;
        owners.begin_window(window.times.as_ref());
        let mut labels = |pid: u32, name: &str| owners.labels(pid, &process_name(name));
        let queues = window.times.iter().flat_map(|times| times.queues().processes());
        let run_queues =
            counted::run_queue(queues.map(|(pid, name, tally)| (labels(pid, name), &tally.counts)));
        let connections = window.connections.of_target(true).map(|(ends, connection)| {
            let owner = connection.owner.as_ref().map(|owner| labels(owner.tgid, &owner.name));
            (ends, connection, owner.unwrap_or_default())
        });
        let peers = counted::peers(connections, window.connections.not_told_apart().retransmits());
        let services: Vec<Peer> = services.unwrap_or_default();
        let services: Vec<_> = services.iter().map(|peer| (peer, labels(peer.pid, &peer.process))).collect();
        let observed = Observed {
            profile: &profile,
            faults: faults.as_ref(),
            retransmits: retransmits.as_ref(),
            run_queues,
            disks: counted::disks(&window.disks),
            peers,
            services: counted::services(services.into_iter()),
            diagnosis: diagnosis.as_ref(),
            notes,
            cost,
        };
        let message = encode(observed, &Limits::default(), |thread| labels(thread.pid, &thread.process_name));
        match compress(&message) {
            Ok((bytes, length)) => {
                let sequence = self.work.spool.append(bytes, length);
                tracing::debug!(sequence, length, "a window is ready");
            }
            Err(error) => tracing::warn!(%error, "a window is dropped: it cannot be compressed"),
        }
    }
}

/// Adds what is missing of faults, of connections and of block devices to what is missing of the time of threads.
fn add_losses(window: &Window, coverage: &mut Coverage) {
    for (of, event) in [("faults", Event::Fault), ("retransmits", Event::Retransmit), ("", Event::Io)] {
        let more = window.coverage(event);
        if !of.is_empty() {
            let lost = more.lost.into_iter();
            coverage
                .lost
                .extend(lost.map(|loss| Loss { cause: format!("{of}: {}", loss.cause).into(), ..loss }));
        }
        let new = more.notes.into_iter().filter(|note| !coverage.notes.contains(note)).collect::<Vec<_>>();
        coverage.notes.extend(new);
    }
}
