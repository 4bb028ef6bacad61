//! The loop of the continuous mode.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chokepoint_analysis::units;
use chokepoint_ebpf::run_queue::QueueDetail;
use chokepoint_proto::stream::{Cost as SentCost, Hello, Label};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::calendar::end_of_window;
use super::config::{Config, Namer};
use super::counts::Counts;
use super::governor::{Governor, Rates, Sources};
use super::pages::Pages;
use super::reader::{Reader, Taken, Work};
use super::service::{Service, Talks, listen};
use crate::containers::known::{Containers, Source};
use crate::demand::OnDemand;
use crate::failure::{Failure, Kind};
use crate::host;
use crate::host::clock::ClockTie;
use crate::host::cost::{Cost, resident_bytes};
use crate::pipeline::{Sampling, Session};
use crate::record::Options;
use crate::record::event::Event;
use crate::signals::{sparing_step, watch::Watch};
use crate::stream::connection::collectors;
use crate::stream::connection::exchange::PROTOCOL;
use crate::stream::connection::{SharedSpool, Status, Target};
use crate::stream::owners::Owners;
use crate::stream::spool::{self, Spool};
use crate::stream::symbols::uploads::Uploads;
use crate::stream::symbols::{self, maker};
use crate::target;
use crate::unwind;

/// A last window is not worth its looks below this.
const SHORTEST_WINDOW: Duration = Duration::from_millis(200);
/// How long the last windows may take to be stored. systemd waits 90 s for a service to stop, people wait less.
const GRACE: Duration = Duration::from_secs(3);
/// The time of day and the session's clock differ by more only where somebody set the time.
const SET_CLOCK: Duration = Duration::from_millis(100);
/// One in so many windows looks at each process for how near it is to its limits: with 2,000 processes that takes a tenth of a second.
const WINDOWS_WITH_PROCESSES: u32 = 6;
/// Windows without which the agent is ill.
const MISSED_WINDOWS: u32 = 6;

/// Runs until it is told to end. `reload` reads the configuration anew.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub async fn run(
    config: Config,
    reload: impl Fn() -> Result<Config, Failure>,
    kernel_log: bool,
) -> Result<(), Failure> {
    host::heap::share_arenas();
    let mut signals = Signals::listen()?;
    let mut agent = Agent::begin(config, kernel_log)?;
    let mut sampling = agent.session(agent.governor.rates())?;
    tell_systemd(&[NotifyState::Ready]);
    let ended = agent.follow(&mut sampling, &mut signals, &reload).await;
    tell_systemd(&[NotifyState::Stopping]);
    if ended.is_ok() && agent.window_start.elapsed() >= SHORTEST_WINDOW {
        agent.close_window(&mut sampling)?;
    }
    // The kernel programs end here, and not when the last window has its names.
    drop(sampling);
    agent.end().await;
    ended
}

/// What ends the agent, or has it read its configuration.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

enum Told {
    End,
    Reload,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::unexpected(&error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

struct Agent {
    config: Config,
    kernel_log: bool,
    cpus: usize,
    governor: Governor,
    /// How closely the session looks now.
    rates: Rates,
    reader: Reader,
    service: Service,
    watch: Watch,
    counts: Arc<Counts>,
    status: Arc<Status>,
    spool: Arc<SharedSpool>,
    on_demand: Arc<OnDemand>,
    /// Where the collector names the functions of binaries.
    symbols: Option<Arc<symbols::Shared>>,
    target: watch::Sender<Option<Target>>,
    keeps: Arc<AtomicBool>,
    tie: ClockTie,
    window_start: Instant,
    /// CPU time of the agent when the window began.
    cpu_before: Duration,
    /// The same of the thread that makes symbols.
    symbols_before: Duration,
    /// The same of recordings on demand: their processes and their kernel programs.
    demand_before: (Duration, u64),
    /// What is missing of the window that comes.
    notes: Vec<String>,
}

impl Agent {
    fn begin(config: Config, kernel_log: bool) -> Result<Self, Failure> {
        usable(&config)?;
        let cpus = host::online_cpus().map_err(|error| Failure::unexpected(&error))?.len();
        let start = Instant::now();
        let limits = spool::Limits { disk_bytes: config.spool_bytes, ..spool::Limits::default() };
        let (spool, remarks) = Spool::open(&config.state_dir, limits)
            .map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
        for remark in remarks {
            tracing::warn!("{remark}");
        }
        let spool = Arc::new(SharedSpool::new(spool));
        let (counts, status): (Arc<Counts>, Arc<Status>) = Default::default();
        let on_demand = Arc::new(OnDemand::new(config.commands.clone(), config.cri_socket.clone()));
        let containers = Containers::none();
        let governor = Governor::new(config.max_overhead, config.frequency_hz);
        let keeps = Arc::new(AtomicBool::new(config.collector.is_some()));
        let (target, targets) = watch::channel(wanted_target(&config, &spool, cpus));
        let pages = match config.metrics {
            None => None,
            Some(address) => {
                let pages = Pages {
                    counts: Arc::clone(&counts),
                    status: Arc::clone(&status),
                    on_demand: Arc::clone(&on_demand),
                    spool: Arc::clone(&spool),
                    symbols: None,
                    patience: config.window * MISSED_WINDOWS,
                    start,
                };
                Some((listen(address)?, pages))
            }
        };
        let (symbols, ready) = match config.symbols {
            Namer::Host => None,
            Namer::Collector => Some(maker::start(config.max_overhead * cpus as f64)?),
        }
        .unzip();
        let pages = pages.map(|(listener, pages)| (listener, Pages { symbols: symbols.clone(), ..pages }));
        let uploads = symbols.clone().zip(ready).map(|(symbols, ready)| Uploads::new(symbols, ready));
        let reader = Reader::start(Work {
            symbols: symbols.clone(),
            spool: Arc::clone(&spool),
            counts: Arc::clone(&counts),
            owners: Owners::new(containers.clone(), config.labels.get("service").cloned()),
            cpus,
            keeps: Arc::clone(&keeps),
            start,
        })?;
        let service = Service::start(Talks {
            spool: Arc::clone(&spool),
            status: Arc::clone(&status),
            on_demand: Arc::clone(&on_demand),
            symbols: uploads,
            target: targets,
            containers,
            source: Source { cri_socket: config.cri_socket.clone(), kubelet: config.kubelet.clone() },
            pages,
        })?;
        if config.collector.is_none() {
            eprintln!(
                "chokepoint: no collector is configured (--collector), so windows are read and not kept{}",
                config.metrics.map_or(String::new(), |address| format!("; see http://{address}/metrics"))
            );
        }
        Ok(Self {
            watch: Watch::begin_sparing(sparing_step(config.window), WINDOWS_WITH_PROCESSES)
                .map_err(|error| Failure::unexpected(&error))?,
            rates: governor.rates(),
            governor,
            kernel_log,
            cpus,
            reader,
            service,
            counts,
            status,
            spool,
            on_demand,
            symbols,
            target,
            keeps,
            tie: ClockTie::now(),
            window_start: start,
            cpu_before: Cost::of_this_process().cpu,
            symbols_before: Duration::ZERO,
            demand_before: Default::default(),
            notes: Vec::new(),
            config,
        })
    }

    /// Begins a session that looks this closely.
    fn session(&mut self, rates: Rates) -> Result<Sampling, Failure> {
        let options = Options {
            target: target::Target::Host,
            duration: None,
            events: events(rates.sources),
            frequency_hz: rates.frequency_hz,
            run_queues: QueueDetail::Latencies,
            unwind: unwind::Options::cached(),
            sparing: true,
            inlined: false,
            kernel_log: self.kernel_log,
            ..Options::default()
        };
        let mut sampling = Session::load(options)?.start_windows()?;
        sampling.set_wait_share(rates.wait_share);
        self.window_start = Instant::now();
        self.look_by(rates);
        Ok(sampling)
    }

    /// Takes note of how closely the session looks.
    fn look_by(&mut self, rates: Rates) {
        self.rates = rates;
        self.counts.governor_level.store(self.governor.level() as u64, Ordering::Relaxed);
        self.counts.frequency_hz.store(self.rates.frequency_hz.into(), Ordering::Relaxed);
    }

    /// Window after window, until the agent is told to end.
    async fn follow(
        &mut self,
        sampling: &mut Sampling,
        signals: &mut Signals,
        reload: &impl Fn() -> Result<Config, Failure>,
    ) -> Result<(), Failure> {
        // Twice as often as systemd asks for.
        let mut life = sd_notify::watchdog_enabled().map(|period| tokio::time::interval(period / 2));
        let mut due = end_of_window(unix_ns(), self.config.window);
        loop {
            // Told anew each time: somebody may set the clock.
            let left = Duration::from_nanos(due.saturating_sub(unix_ns())).min(2 * self.config.window);
            tokio::select! {
                stepped = sampling.step() => stepped?,
                () = tokio::time::sleep(left) => {
                    if unix_ns() < due && left < 2 * self.config.window {
                        continue;
                    }
                    self.close_window(sampling)?;
                    self.adjust(sampling)?;
                    due = end_of_window(unix_ns(), self.config.window);
                }
                told = signals.next() => match told {
                    Told::End => return Ok(()),
                    Told::Reload => self.reload(reload()),
                },
                () = tick(life.as_mut()) => tell_systemd(&[NotifyState::Watchdog]),
            }
        }
    }

    fn close_window(&mut self, sampling: &mut Sampling) -> Result<(), Failure> {
        let mut window = sampling.close_window()?;
        let readings = self.watch.cut();
        if !self.reader.is_alive() || !self.service.is_alive() {
            let message = "a thread of the agent died; please report this with --log debug";
            return Err(Failure::new(Kind::Unexpected, message));
        }
        window.start_unix_ns = self.start_unix_ns(window.start_ns);
        self.window_start = Instant::now();
        let cpu = Cost::of_this_process().cpu;
        let own = cpu.saturating_sub(std::mem::replace(&mut self.cpu_before, cpu));
        let programs = window.program_cost.map_or(Duration::ZERO, |cost| cost.run_time);
        // It rests as long as it has worked times the budget's inverse: nothing is to be given up for it.
        let considered = own.saturating_sub(self.symbols_cost()) + programs;
        let used = considered.as_secs_f64() / (window.duration.as_secs_f64() * self.cpus as f64);
        let (demand_cpu, demand_program_ns) = self.demand_cost();
        let cost = SentCost {
            cpu_ns: own.as_nanos() as u64,
            program_ns: 0,
            resident_bytes: resident_bytes(),
            frequency_hz: self.rates.frequency_hz,
            given_up: self.governor.given_up(),
            demand_cpu_ns: demand_cpu.as_nanos() as u64,
            demand_program_ns,
        };
        tracing::debug!(used_pct = 100.0 * used, "a window is over");
        if let Some(step) = self.governor.observe(used) {
            let (used_pct, budget_pct) = (100.0 * used, 100.0 * self.config.max_overhead);
            let given_up = self.governor.given_up().join("; ");
            tracing::warn!(used_pct, budget_pct, given_up, "the governor {step} something");
        }
        let (has_times, has_events) =
            (self.rates.sources != Sources::CpuOnly, self.rates.sources == Sources::All);
        let notes = std::mem::take(&mut self.notes);
        self.reader.take(Taken { window, readings, cost, has_times, has_events, notes });
        Ok(())
    }

    /// What making symbols cost since this was asked last.
    fn symbols_cost(&mut self) -> Duration {
        let cpu_ns = self.symbols.as_ref().map_or(0, |symbols| symbols.counts.cpu_ns.load(Ordering::Relaxed));
        let cpu = Duration::from_nanos(cpu_ns);
        cpu.saturating_sub(std::mem::replace(&mut self.symbols_before, cpu))
    }

    /// What recordings on demand cost since this was asked last. Somebody asked for them: the governor gives nothing up for it.
    fn demand_cost(&mut self) -> (Duration, u64) {
        let (cpu_before, program_before_ns) = self.demand_before;
        let costs = &self.on_demand.costs;
        self.demand_before = (costs.cpu().max(cpu_before), costs.program_ns());
        let (cpu, program_ns) = self.demand_before;
        (cpu.saturating_sub(cpu_before), program_ns.saturating_sub(program_before_ns))
    }

    /// The time of day of a window's begin. Windows follow each other by one clock, unless somebody set the time.
    fn start_unix_ns(&mut self, start_ns: u64) -> u64 {
        let (tied, now) = (self.tie.unix_ns(start_ns), ClockTie::now());
        let set_by = now.unix_ns(start_ns).abs_diff(tied);
        if set_by <= SET_CLOCK.as_nanos() as u64 {
            return tied;
        }
        self.tie = now;
        self.notes.push(format!("the time of day was set by {}", units::duration(set_by)));
        now.unix_ns(start_ns)
    }

    /// Has the session look as closely as the governor allows now. Between two windows.
    fn adjust(&mut self, sampling: &mut Sampling) -> Result<(), Failure> {
        let rates = self.governor.rates();
        if rates == self.rates {
            return Ok(());
        }
        if rates.sources == self.rates.sources && rates.sources != Sources::CpuOnly {
            sampling.set_frequency(rates.frequency_hz)?;
            sampling.set_wait_share(rates.wait_share);
            self.look_by(rates);
            return Ok(());
        }
        let gap = Instant::now();
        match self.session(rates) {
            Ok(session) => *sampling = session,
            Err(failure) => {
                // The old one is still there, and so is the window that it has begun. The next window's end tries again.
                tracing::warn!(%failure, "other sources could not be attached");
                return Ok(());
            }
        }
        self.reader.new_session();
        let gap = units::duration(gap.elapsed().as_nanos() as u64);
        self.notes.push(format!("before this window {gap} are missing: other sources were attached"));
        Ok(())
    }

    /// Goes by another configuration from now on, if it makes sense.
    fn reload(&mut self, config: Result<Config, Failure>) {
        let new = match config.and_then(|new| usable(&new).map(|()| new)) {
            Ok(new) => new,
            Err(failure) => {
                tracing::error!(%failure, "the configuration stays as it was");
                return;
            }
        };
        for name in self.config.needs_restart(&new) {
            tracing::warn!("{name} counts from the next start on");
        }
        self.governor.set(new.max_overhead, new.frequency_hz);
        self.spool.lock().set_disk_bytes(new.spool_bytes);
        self.on_demand.set_limits(new.commands.clone());
        self.reader.set_service(new.labels.get("service").cloned());
        self.keeps.store(new.collector.is_some(), Ordering::Relaxed);
        let wanted = wanted_target(&new, &self.spool, self.cpus);
        self.target.send_if_modified(|target| std::mem::replace(target, wanted.clone()) != wanted);
        // What needs a restart stays what it is.
        let Config { state_dir, window, metrics, cri_socket, kubelet, symbols, .. } = self.config.clone();
        self.config = Config { state_dir, window, metrics, cri_socket, kubelet, symbols, ..new };
        tracing::warn!("the configuration was read anew");
    }

    /// Lets what was taken be read and sent, for a moment.
    async fn end(self) {
        drop(self.watch);
        self.reader.finish();
        let deadline = Instant::now() + GRACE;
        let waits =
            || self.spool.lock().fill().batches > 0 && self.status.is_connected.load(Ordering::Relaxed);
        while waits() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.service.stop();
    }
}

fn events(sources: Sources) -> Vec<Event> {
    match sources {
        // What windows tell: the time of threads with what ended their waits, connections, block devices and faults.
        Sources::All => {
            vec![Event::Wall, Event::OffWake, Event::Net, Event::Io, Event::Fault, Event::Retransmit]
        }
        Sources::WithoutWakers => vec![Event::Wall],
        Sources::CpuOnly => vec![Event::Cpu],
    }
}

/// Reads certificates, keys and tokens, as each stream will.
fn usable(config: &Config) -> Result<(), Failure> {
    let Some(collector) = &config.collector else { return Ok(()) };
    collectors::each(collector)
        .try_for_each(|collector| config.credentials.try_for(collector))
        .map_err(|message| Failure::new(Kind::Usage, message))
}

fn wanted_target(config: &Config, spool: &SharedSpool, cpus: usize) -> Option<Target> {
    let labels = config.labels.iter();
    Some(Target {
        collector: config.collector.clone()?,
        stamp: config.credentials.stamp(),
        credentials: config.credentials.clone(),
        hello: Hello {
            protocol: PROTOCOL,
            agent: spool.lock().identity().to_vec(),
            host: host::name(),
            kernel: host::kernel_release(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            cpus: cpus as u32,
            labels: labels.map(|(name, value)| Label { name: name.clone(), value: value.clone() }).collect(),
        },
    })
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Says something to systemd, where it started the agent.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd");
    }
}

async fn tick(interval: Option<&mut tokio::time::Interval>) {
    match interval {
        Some(interval) => _ = interval.tick().await,
        None => std::future::pending().await,
    }
}
