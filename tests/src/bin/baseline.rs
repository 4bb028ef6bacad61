//! Samples processes with the programs that the agent's are compared with, and says as JSON what that cost.
//! usage: baseline OBJECT walk|send|count FREQUENCY SECONDS PID...

use std::time::Duration;
use std::{env, fs, thread};

use aya::maps::{HashMap, PerCpuArray, StackTraceMap};
use aya::programs::PerfEvent;
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::sys::{Stats, enable_stats};
use aya::util::online_cpus;
use aya::{Ebpf, EbpfLoader};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [object, what, frequency, seconds, pids @ ..] = &arguments[..] else {
        panic!("usage: baseline OBJECT walk|send|count FREQUENCY SECONDS PID...");
    };
    let number = |text: &String| text.parse::<u32>().unwrap_or_else(|error| panic!("{text}: {error}"));
    let object = fs::read(object).unwrap_or_else(|error| panic!("{object}: {error}"));
    let walk: u8 = match what.as_str() {
        "walk" => 1,
        "send" => 2,
        _ => 0,
    };
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .override_global("WALK", &walk, true)
        .load(&object)
        .expect("the programs can be loaded");
    let mut targets: HashMap<_, u32, u8> =
        HashMap::try_from(ebpf.map_mut("TARGETS").expect("the map is there")).expect("it is a hash map");
    for pid in pids {
        targets.insert(number(pid), 1, 0).expect("a target can be added");
    }

    let _statistics = enable_stats(Stats::RunTime).expect("the kernel measures run time");
    let program: &mut PerfEvent =
        ebpf.program_mut("baseline").expect("the program is there").try_into().expect("it is a perf event's");
    program.load().expect("the kernel accepts the program");
    let policy = SamplePolicy::Frequency(number(frequency).into());
    // As the agent does it.
    let cycles = PerfEventConfig::Hardware(HardwareEvent::CpuCycles);
    let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
    for cpu in online_cpus().expect("the CPUs are listed") {
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        if program.attach(cycles, scope, policy, false).is_err() {
            program.attach(clock, scope, policy, false).expect("an event can be opened");
        }
    }
    thread::sleep(Duration::from_secs_f64(seconds.parse().expect("seconds are a number")));

    let program: &mut PerfEvent = ebpf.program_mut("baseline").unwrap().try_into().unwrap();
    let facts = program.info().expect("the program can be asked");
    let (samples, failed) = counts(&ebpf);
    println!(
        "{}",
        serde_json::json!({
            "run_time_ns": facts.run_time().as_nanos() as u64,
            "runs": facts.run_count(),
            "samples": samples,
            "failed": failed,
            "mean_depth": mean_depth(&ebpf),
        })
    );
}

fn counts(ebpf: &Ebpf) -> (u64, u64) {
    let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(ebpf.map("COUNTS").unwrap()).unwrap();
    let sum = |index: u32| counts.get(&index, 0).expect("counts can be read").iter().sum();
    (sum(0), sum(1))
}

/// Frames of the stacks, each stack taken once.
fn mean_depth(ebpf: &Ebpf) -> f64 {
    let stacks = StackTraceMap::try_from(ebpf.map("STACKS").unwrap()).unwrap();
    let depths: Vec<usize> = stacks.iter().flatten().map(|(_, stack)| stack.frames().len()).collect();
    depths.iter().sum::<usize>() as f64 / depths.len().max(1) as f64
}
