//! The thread that looks for the files of builds and makes their symbols.
//!
//! It lets other threads run first, and rests after each build so long that, on average, it stays within the agent's budget.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use chokepoint_proto::stream::SymbolsOffered;
use chokepoint_symbols::Quality;
use chokepoint_symbols::extract::Limits;
use tokio::sync::mpsc;

use super::{Asked, Made, QUEUE, Shared, Wish};
use crate::failure::Failure;
use crate::host::cost::thread_cpu;
use crate::host::heap::return_free_memory;
use crate::symbolize::{Build, Options};

/// Builds whose files are kept open, two descriptors each at most.
pub const MAX_BUILDS: usize = 256;
/// Wishes that wait; of more the oldest is given up, and asked of another agent in time. A collector has one at a time.
const MAX_WISHES: usize = 16;
/// What one build may take while its symbols are made, before it is given back: a table or debug information, and symbols beside it.
const LIMITS: Limits = Limits { table_bytes: 16 << 20, debug_bytes: 8 << 20, symbols_bytes: 20 << 20 };
/// CPU time that debug information of one build may take.
const MAX_CPU: Duration = Duration::from_secs(20);
/// The longest rest after one build.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Symbols that are ready, for the stream.
pub struct Ready(pub(super) mpsc::Receiver<Made>);

/// Starts the thread; it ends with the last [`Shared`]. `budget` is the share of one CPU that it may take on average.
///
/// # Errors
/// Where the kernel refuses a thread.
pub fn start(budget: f64) -> Result<(Arc<Shared>, Ready), Failure> {
    let (asked, received) = sync_channel(QUEUE);
    let (ready, made) = mpsc::channel(1);
    let shared = Arc::new(Shared::new(asked));
    // What it holds of the others must not keep it alive.
    let watched = Arc::downgrade(&shared);
    let maker = Maker { builds: VecDeque::new(), ready, budget: budget.clamp(0.001, 1.0) };
    std::thread::Builder::new()
        .name("symbols".to_owned())
        .spawn(move || {
            give_way();
            maker.serve(&received, &|| watched.upgrade());
        })
        .map_err(|error| Failure::unexpected(&error))?;
    Ok((shared, Ready(made)))
}

/// Has others run first: of a CPU that one other thread wants, too, this one has a tenth. With less it would never end on a host that is busy.
fn give_way() {
    const NICE: libc::c_int = 10;
    // SAFETY: integers alone; 0 is this thread. Refused, it runs as others do, and rests.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

struct Maker {
    /// Those met last at the end, and how much each would tell.
    builds: VecDeque<(Build, Quality)>,
    ready: mpsc::Sender<Made>,
    budget: f64,
}

impl Maker {
    fn serve(mut self, asked: &Receiver<Asked>, shared: &dyn Fn() -> Option<Arc<Shared>>) {
        let mut wishes: VecDeque<Wish> = VecDeque::new();
        let mut rested = Instant::now();
        loop {
            let asked = if wishes.is_empty() {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                asked.recv_timeout(rested.saturating_duration_since(Instant::now()))
            };
            let Some(shared) = shared() else { return };
            match asked {
                // At once: a process that has gone has no root to find files in.
                Ok(Asked::Look(met)) => self.look(met, &shared),
                Ok(Asked::Make(wish)) => {
                    if wishes.len() >= MAX_WISHES {
                        wishes.pop_front();
                        shared.counts.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    wishes.push_back(wish);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let Some(wish) = wishes.pop_front() else { continue };
                    let before = thread_cpu();
                    let symbols = self.make(&wish);
                    let cost = thread_cpu().saturating_sub(before);
                    rested = Instant::now() + cost.div_f64(self.budget).min(LONGEST_REST);
                    self.hand_over(Made { wish, symbols });
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            shared.counts.cpu_ns.store(thread_cpu().as_nanos() as u64, Ordering::Relaxed);
        }
    }

    fn look(&mut self, met: crate::symbolize::Met, shared: &Shared) {
        let Some(build) = Build::find(met, &Options::default().debug_dirs) else { return };
        let Some(quality) = build.quality(&LIMITS) else { return };
        let build_id = build.build_id().as_bytes().to_vec();
        // The same build may be in several files, some of them without what is beside others: the best counts, and of those the last.
        let same = self.builds.iter().position(|(known, _)| known.build_id() == build.build_id());
        if let Some(known) = same.and_then(|at| self.builds.remove(at))
            && known.1 > quality
        {
            self.builds.push_back(known);
            return;
        }
        if self.builds.len() >= MAX_BUILDS {
            self.builds.pop_front();
        }
        self.builds.push_back((build, quality));
        shared.offers().add(SymbolsOffered { build_id, quality: quality as i32 }, MAX_BUILDS);
        shared.counts.offered.fetch_add(1, Ordering::Relaxed);
        shared.offered.notify_one();
    }

    fn make(&self, wish: &Wish) -> Result<Vec<u8>, String> {
        let is_wished = |known: &&(Build, Quality)| known.0.build_id().as_bytes() == wish.build_id;
        let (build, _) = self.builds.iter().find(is_wished).ok_or("its files are not known any more")?;
        let until = thread_cpu() + MAX_CPU;
        let made = build.symbols(&LIMITS, &mut || thread_cpu() > until);
        for remark in &made.remarks {
            tracing::debug!(build_id = %build.build_id(), remark, "symbols are less than they could be");
        }
        let symbols = made.symbols.ok_or("there are no functions in its files")?;
        let written = symbols.write().map_err(|error| error.to_string());
        drop(symbols);
        return_free_memory();
        written
    }

    fn hand_over(&self, made: Made) {
        // Where nobody sends any more the agent ends.
        let _ = self.ready.blocking_send(made);
    }
}
