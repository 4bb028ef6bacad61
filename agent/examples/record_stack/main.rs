//! Records the stack of a live thread as a case for `tests/stacks`: `cargo xtask stack --help`.
//!
//! The process is stopped, its registers, mappings and memory are read from outside, and the walk of the kernel programs
//! runs here. What it reads is kept, with the call-frame information of the code it meets. gdb, asked for the same stack
//! of the same stopped thread, says whether it is right.

#[path = "../../tests/stacks/case.rs"]
mod case;
mod excerpt;
#[path = "../../tests/stacks/replay.rs"]
mod replay;
mod stopped;
mod truth;
mod world;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use case::Case;
use replay::Replay;
use stopped::Stopped;
use truth::{Agreement, Backtrace};
use world::World;

/// Records the stack of a thread, and what unwinding it takes, as a case for agent/tests/stacks
#[derive(Debug, Parser)]
#[command(name = "cargo xtask stack", bin_name = "cargo xtask stack")]
struct Args {
    /// Process
    #[arg(long)]
    pid: u32,
    /// Thread; where it is not given, one after the other is stopped until one is met as asked for
    #[arg(long)]
    tid: Option<u32>,
    /// Stop again and again until the innermost frame's line has this in it
    #[arg(long)]
    leaf: Option<String>,
    /// Stop again and again until some frame's line has this in it; may be given several times
    #[arg(long)]
    until: Vec<String>,
    /// What the case shows, in a sentence
    #[arg(long)]
    about: String,
    /// Who says that the walk's frames are right where gdb gives up or goes astray, as in code that a runtime compiled
    #[arg(long)]
    truth: Option<String>,
    /// Where to write the case
    #[arg(short, long)]
    output: PathBuf,
}

/// Stops before it gives up to meet what was asked for.
const MAX_STOPS: u32 = 3000;

fn main() -> ExitCode {
    match record(&Args::parse()) {
        Ok(is_right) => ExitCode::from(u8::from(!is_right)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether the walk gives what the truth says.
fn record(args: &Args) -> Result<bool, Box<dyn Error>> {
    let mut world = World::new(args.pid);
    for stop in 0..MAX_STOPS {
        let threads = args.tid.map_or_else(|| stopped::threads(args.pid), |tid| Ok(vec![tid]))?;
        let stopped = Stopped::stop(args.pid, threads[stop as usize % threads.len()])?;
        world.look(&stopped)?;
        let walked = world.walk(&stopped);
        let lines = world.lines(&walked.frames);
        let has = |word: &String| lines.iter().any(|line| line.contains(word));
        let leaf = lines.first().map(String::as_str).unwrap_or_default();
        if args.leaf.as_ref().is_none_or(|word| leaf.contains(word)) && args.until.iter().all(has) {
            return keep(args, &mut world, &stopped, &walked, lines);
        }
        drop(stopped);
        // Not in step with whatever the program does regularly.
        std::thread::sleep(Duration::from_micros(500 + u64::from(stop) * 7919 % 3001));
    }
    Err(format!("not met in {MAX_STOPS} stops").into())
}

fn keep(
    args: &Args,
    world: &mut World,
    stopped: &Stopped,
    walked: &world::Walked,
    lines: Vec<String>,
) -> Result<bool, Box<dyn Error>> {
    let theirs = Backtrace::by_gdb(stopped.pid, stopped.tid)?;
    // By place: a file may be mapped twice, as V8 does with its builtins.
    let right: Vec<_> = theirs.addresses().map(|address| world.place(address)).collect();
    let agreement = theirs.compare(&right, &walked.frames);
    let by = &theirs.by;
    let mut end = format!("{:?}", walked.end);
    let mut places = walked.frames.clone();
    let (frames, truth) = match (agreement, &args.truth) {
        (Agreement::Whole, _) => (lines, format!("{by}: all frames")),
        (Agreement::Part(count), Some(who)) => {
            (lines, format!("{by}: the first {count} frames, then {}; the rest: {who}", theirs.end))
        }
        (Agreement::Part(count), None) => {
            return Err(format!(
                "{by} gives up after {count} of {} frames ({}): pass --truth and say who says that the rest is right:\n{}",
                walked.frames.len(),
                theirs.end,
                lines.join("\n")
            )
            .into());
        }
        (Agreement::Not(count), Some(who)) => {
            (lines, format!("{by}: the first {count} frames, then it leaves the path; the rest: {who}"))
        }
        (Agreement::Not(_), None) => {
            // What is right needs more than what was read on the wrong way.
            world.read_stack(stopped, theirs.outermost_stack_pointer());
            end = "Complete".to_owned();
            places.extend(&right);
            (
                world.lines(&right),
                format!("{by}: all frames, which the walk did not find when this was recorded"),
            )
        }
    };
    let (files, anonymous) = world.excerpts(&places)?;
    let mut case = Case {
        about: args.about.clone(),
        recorded: format!("{} on Linux {}, {}", today(), kernel(), distribution()),
        truth,
        frames,
        end,
        registers: stopped.registers.clone(),
        anonymous,
        files,
        memory: world.memory_lines(),
    };
    case.frames.iter_mut().for_each(|line| *line = line.trim_end().to_owned());
    let replay = Replay::new(&case)?;
    world.check(&replay, &case, &places)?;
    fs::write(&args.output, serde_json::to_string_pretty(&case)? + "\n")?;
    println!("{}\n  {}", case.frames.join("\n"), case.truth);
    let (replayed, replayed_end) = replay.run();
    let is_right = replayed_end == case.end
        && replayed.len() == case.frames.len()
        && replayed.iter().zip(&case.frames).all(|(own, line)| line.split(' ').next() == Some(own));
    if !is_right {
        println!("the walk gives, ending {replayed_end}:\n{}", replayed.join("\n"));
    }
    Ok(is_right)
}

fn today() -> String {
    let mut text = [0_u8; 16];
    // SAFETY: the buffer is larger than what the format makes, and both calls only write to what they are given.
    let bytes = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts = std::mem::zeroed();
        libc::gmtime_r(&now, &mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), c"%F".as_ptr(), &parts)
    };
    String::from_utf8_lossy(&text[..bytes]).into_owned()
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows is the builder's.
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "an unknown distribution".to_owned(), |name| name.trim_matches('"').to_owned())
}
