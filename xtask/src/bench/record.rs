//! `chokepoint record` against `perf record` and `perf script`.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use anyhow::Result;

use super::{
    machine::{Machine, load_average},
    report::{Table, verdict},
    sides::{Outcome, Profiling, Sides, perf_version},
    stats::Readings,
    workload::Load,
};
use crate::workspace::step;

/// Rate at which the sides are compared: the agent's default.
const FREQUENCY_HZ: u32 = 99;
/// The window after which the result should be there soon.
const SHORT_WINDOW: Duration = Duration::from_secs(1);
/// From this rate on, interrupts rise above the noise.
const MIN_SCALED_HZ: u32 = 900;
/// Enough for a first sample.
const START_WINDOW: Duration = Duration::from_millis(200);
/// A first sample "after about 300 ms" comes no later.
const START_BAR_MS: f64 = 330.0;
/// Resident memory, in MB of 10^6 bytes.
const MEMORY_BAR_MB: f64 = 80.0;
/// Cost of sampling the busy host, in per cent of one CPU.
const COST_BAR_PCT: f64 = 1.0;

/// How thoroughly to measure.
pub struct Plan {
    /// Turns of both sides in the short measurements.
    pub turns: usize,
    /// Turns of both sides in the long recording.
    pub cost_turns: usize,
    /// Length of the long recording.
    pub cost_window: Duration,
    /// Rates at which the interrupts are measured.
    pub gauge_frequencies_hz: Vec<u32>,
    /// Length of one measurement of the interrupts.
    pub gauge_window: Duration,
}

impl Plan {
    /// About nine minutes.
    pub fn full() -> Self {
        Self {
            turns: 5,
            cost_turns: 3,
            cost_window: Duration::from_secs(30),
            gauge_frequencies_hz: vec![FREQUENCY_HZ, 999, 4_000],
            gauge_window: Duration::from_secs(2),
        }
    }

    /// About a minute.
    pub fn quick() -> Self {
        Self {
            turns: 2,
            cost_turns: 1,
            cost_window: Duration::from_secs(10),
            gauge_frequencies_hz: vec![FREQUENCY_HZ, 4_000],
            gauge_window: Duration::from_millis(500),
        }
    }
}

/// Readings of both sides.
#[derive(Default)]
struct Pair {
    chokepoint: Readings,
    perf: Readings,
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, plan: &Plan) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", Machine::this())?;
    writeln!(
        text,
        "Peer: {}. Medians, with the range in parentheses; the sides took turns.\n",
        perf_version()?
    )?;

    // What a first run reads from the disk, later ones do not.
    let short = Profiling { duration: SHORT_WINDOW, frequency_hz: FREQUENCY_HZ };
    sides.chokepoint(short)?;
    sides.perf(short)?;

    let mut bars = Table::new(["bar", "chokepoint", "perf", ""]);
    let mut details = String::new();
    measure_host(sides, plan, "quiet", &mut bars, &mut details)?;
    let load = Load::start()?;
    measure_host(sides, plan, "busy", &mut bars, &mut details)?;
    measure_cost(sides, plan, &mut bars, &mut details)?;
    drop(load);
    write!(text, "{bars}\n{details}")?;
    Ok(text)
}

/// Finish and start on a host in some state.
fn measure_host(
    sides: &Sides,
    plan: &Plan,
    host: &str,
    bars: &mut Table,
    details: &mut String,
) -> Result<()> {
    let load_before = load_average();
    step(&format!("finish, {host} host: {} turns, load average {load_before}", plan.turns));
    let short = Profiling { duration: SHORT_WINDOW, frequency_hz: FREQUENCY_HZ };
    let mut finish = Pair::default();
    for _ in 0..plan.turns {
        finish.chokepoint.push(ms(sides.chokepoint(short)?.finish));
        finish.perf.push(ms(sides.perf(short)?.finish));
    }
    bars.row([
        format!("readable result after a window of 1 s, {host} host: sooner than perf"),
        finish.chokepoint.show(0, "ms").to_string(),
        finish.perf.show(0, "ms").to_string(),
        verdict(finish.chokepoint.median() < finish.perf.median()),
    ]);

    step(&format!("start, {host} host: {} turns, load average {}", plan.turns, load_average()));
    let window = Profiling { duration: START_WINDOW, frequency_hz: FREQUENCY_HZ };
    let mut start = Pair::default();
    for _ in 0..plan.turns {
        start.chokepoint.push(ms(sides.chokepoint_start(window)?));
        start.perf.push(ms(sides.perf_start(window)?));
    }
    bars.row([
        format!("first sample after the start, {host} host: about 300 ms"),
        start.chokepoint.show(0, "ms").to_string(),
        start.perf.show(0, "ms").to_string(),
        verdict(start.chokepoint.median() <= START_BAR_MS),
    ]);
    writeln!(
        details,
        "Load average before the {host} host's turns: {load_before}, after them: {}.\n",
        load_average()
    )?;
    Ok(())
}

/// What sampling the busy host costs, in user space and in the kernel.
fn measure_cost(sides: &Sides, plan: &Plan, bars: &mut Table, details: &mut String) -> Result<()> {
    let seconds = plan.cost_window.as_secs_f64();
    step(&format!(
        "cost: {} recordings of {seconds} s, load average {}",
        2 * plan.cost_turns,
        load_average()
    ));
    let long = Profiling { duration: plan.cost_window, frequency_hz: FREQUENCY_HZ };
    let (mut chokepoint, mut perf) = (Vec::new(), Vec::new());
    for _ in 0..plan.cost_turns {
        chokepoint.push(sides.chokepoint(long)?);
        perf.push(sides.perf(long)?);
    }
    let interrupts = Interrupts::measure(sides, plan)?;

    let chokepoint_interrupts = interrupts.host_ms(seconds, |rate| &rate.chokepoint);
    let perf_interrupts = interrupts.host_ms(seconds, |rate| &rate.perf);
    let cpu =
        |outcomes: &[Outcome]| outcomes.iter().map(|outcome| ms(outcome.usage.cpu())).collect::<Readings>();
    let (chokepoint_cpu, perf_cpu) = (cpu(&chokepoint), cpu(&perf));
    let scripts: Readings = perf.iter().map(|outcome| ms(outcome.script.cpu())).collect();
    let chokepoint_total = chokepoint_cpu.median() + chokepoint_interrupts.median();
    let perf_total = perf_cpu.median() + perf_interrupts.median();
    let share = |total_ms: f64| total_ms / 10.0 / seconds;

    bars.row([
        format!("CPU of sampling the busy host for {seconds} s at {FREQUENCY_HZ} Hz, all told: less than perf record"),
        format!("{chokepoint_total:.0} ms, into a flame graph"),
        format!("{perf_total:.0} ms; {:.0} ms with perf script", perf_total + scripts.median()),
        verdict(chokepoint_total < perf_total),
    ]);
    bars.row([
        format!("the same in per cent of one CPU: under {COST_BAR_PCT}"),
        format!("{:.2} %", share(chokepoint_total)),
        format!("{:.2} %; {:.2} % with perf script", share(perf_total), share(perf_total + scripts.median())),
        verdict(share(chokepoint_total) < COST_BAR_PCT),
    ]);
    let peak =
        |usages: &mut dyn Iterator<Item = u64>| usages.map(|bytes| bytes as f64 / 1e6).collect::<Readings>();
    let chokepoint_peak = peak(&mut chokepoint.iter().map(|outcome| outcome.usage.peak_resident_bytes));
    let perf_peak = peak(&mut perf.iter().map(|outcome| outcome.usage.peak_resident_bytes));
    let script_peak = peak(&mut perf.iter().map(|outcome| outcome.script.peak_resident_bytes));
    bars.row([
        format!("peak resident memory meanwhile: under {MEMORY_BAR_MB} MB"),
        chokepoint_peak.show(0, "MB").to_string(),
        format!("{}; perf script {}", perf_peak.show(0, "MB"), script_peak.show(0, "MB")),
        verdict(chokepoint_peak.max() < MEMORY_BAR_MB),
    ]);

    writeln!(details, "Where the CPU time of those {seconds} s goes:\n")?;
    let mut table = Table::new(["part", "chokepoint", "perf"]);
    let phase = |measure: &dyn Fn(&Outcome) -> f64| chokepoint.iter().map(measure).collect::<Readings>();
    let from =
        |outcome: &Outcome, start: &str, end: &str| ms(outcome.cpu_at(end)) - ms(outcome.cpu_at(start));
    let loading = phase(&|outcome| ms(outcome.cpu_at("loaded")));
    let kernel_symbols = phase(&|outcome| ms(outcome.cpu_at("kernel symbols")));
    let sampling = phase(&|outcome| from(outcome, "loaded", "sampled")).less(&kernel_symbols);
    let symbolizing = phase(&|outcome| from(outcome, "sampled", "symbolized"));
    let rest = phase(&|outcome| ms(outcome.usage.cpu()) - ms(outcome.cpu_at("symbolized")));
    for (part, readings) in [
        ("loading the programs", loading),
        ("reading the kernel's symbols", kernel_symbols),
        ("draining and summing samples", sampling),
        ("symbolizing", symbolizing),
        ("writing the flame graph, and the end", rest),
    ] {
        table.row([part.to_owned(), readings.show(0, "ms").to_string(), String::new()]);
    }
    for (part, chokepoint, perf) in [
        ("the process, all told", &chokepoint_cpu, &perf_cpu),
        ("perf script", &Readings::default(), &scripts),
        ("interrupts, from the gauge", &chokepoint_interrupts, &perf_interrupts),
    ] {
        let cell = |readings: &Readings| {
            if *readings == Readings::default() { String::new() } else { readings.show(0, "ms").to_string() }
        };
        table.row([part.to_owned(), cell(chokepoint), cell(perf)]);
    }
    let programs: Readings = chokepoint.iter().map(|outcome| ms(outcome.programs)).collect();
    table.row([
        "of these the BPF program, as the kernel counts".to_owned(),
        programs.show(0, "ms").to_string(),
        String::new(),
    ]);
    writeln!(details, "{table}")?;
    details.push_str(&interrupts.describe()?);
    Ok(())
}

/// What the gauge says of each side at each rate.
struct Interrupts {
    rates: BTreeMap<u32, Rate>,
}

/// Readings of the gauge at one rate.
#[derive(Default)]
struct Rate {
    alone: GaugeReadings,
    chokepoint: GaugeReadings,
    perf: GaugeReadings,
}

#[derive(Default)]
struct GaugeReadings {
    /// Microseconds a second.
    interrupted: Readings,
    /// Turns of the loop in a second.
    work: Readings,
}

impl GaugeReadings {
    fn push(&mut self, reading: &super::gauge::Reading) {
        self.interrupted.push(reading.interrupted_ppm());
        self.work.push(reading.turns_per_s());
    }
}

impl Interrupts {
    fn measure(sides: &Sides, plan: &Plan) -> Result<Self> {
        let mut rates = BTreeMap::new();
        for &frequency_hz in &plan.gauge_frequencies_hz {
            step(&format!(
                "interrupts at {frequency_hz} Hz: {} turns, load average {}",
                plan.turns,
                load_average()
            ));
            let rate: &mut Rate = rates.entry(frequency_hz).or_default();
            for _ in 0..plan.turns {
                rate.alone.push(&sides.gauge(plan.gauge_window)?);
                rate.chokepoint.push(&sides.gauge_with_chokepoint(frequency_hz, plan.gauge_window)?);
                rate.perf.push(&sides.gauge_with_perf(frequency_hz, plan.gauge_window)?);
            }
        }
        Ok(Self { rates })
    }

    /// What a side's interrupts take on all CPUs at [`FREQUENCY_HZ`], in milliseconds. At that rate itself they drown in
    /// the noise of a busy host, so it follows from the lowest rate above [`MIN_SCALED_HZ`].
    fn host_ms(&self, seconds: f64, side: impl Fn(&Rate) -> &GaugeReadings) -> Readings {
        let Some((&measured_hz, rate)) = self.rates.range(MIN_SCALED_HZ..).next() else {
            return Readings::default();
        };
        // The gauge ran on one CPU; every other one is interrupted as often.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let scale = f64::from(FREQUENCY_HZ) / f64::from(measured_hz) * cpus * seconds / 1e3;
        side(rate).interrupted.less(&rate.alone.interrupted).map(|ppm| ppm * scale)
    }

    fn describe(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "Interrupts, as a program with a stack of 30 frames feels them, in µs of each second on its CPU, and the work it loses:\n"
        )?;
        let mut table = Table::new([
            "rate",
            "no profiler",
            "chokepoint adds",
            "perf adds",
            "chokepoint, each",
            "perf, each",
            "work lost to chokepoint",
            "to perf",
            "noise of the work",
        ]);
        for (frequency_hz, rate) in &self.rates {
            let added = |side: &GaugeReadings| side.interrupted.less(&rate.alone.interrupted);
            let each =
                |side: &GaugeReadings| format!("{:.1} µs", added(side).median() / f64::from(*frequency_hz));
            let base = rate.alone.work.median();
            let lost = |side: &GaugeReadings| format!("{:.2} %", (1.0 - side.work.median() / base) * 100.0);
            let noise = (rate.alone.work.max() - rate.alone.work.min()) / base * 100.0;
            table.row([
                format!("{frequency_hz} Hz"),
                rate.alone.interrupted.show(0, "µs").to_string(),
                added(&rate.chokepoint).show(0, "µs").to_string(),
                added(&rate.perf).show(0, "µs").to_string(),
                each(&rate.chokepoint),
                each(&rate.perf),
                lost(&rate.chokepoint),
                lost(&rate.perf),
                format!("{noise:.1} %"),
            ]);
        }
        writeln!(text, "{table}")?;
        Ok(text)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
