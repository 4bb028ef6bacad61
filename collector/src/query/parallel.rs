//! Parts of a question that do not depend on each other, on several CPUs.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Threads of one question: others are asked at the same time.
const MAX_THREADS: usize = 4;

/// Does the same with each of them, and returns what came of it in their order.
///
/// # Errors
/// The first that is met; what was not begun by then is left.
pub fn in_parallel<I: Sync, O: Send, E: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<O, E> + Sync,
) -> Result<Vec<O>, E> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS).min(items.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::with_capacity(items.len()), None));
    let turns = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = work(item);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(output) => done.0.push((at, output)),
                Err(error) => {
                    done.1.get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(turns);
        }
        turns();
    });
    let (mut done, failed) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failed {
        Some(error) => Err(error),
        None => {
            done.sort_by_key(|(at, _)| *at);
            Ok(done.into_iter().map(|(_, output)| output).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_in_order_and_the_first_failure_ends_it() {
        let items: Vec<u32> = (0..1_000).collect();
        assert_eq!(
            in_parallel(&items, |item| Ok::<_, ()>(item * 2)),
            Ok((0..1_000).map(|item| item * 2).collect())
        );
        assert_eq!(in_parallel(&[] as &[u32], |item| Ok::<_, ()>(*item)), Ok(vec![]));
        let begun = AtomicUsize::new(0);
        let failed = in_parallel(&items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err("three") } else { Ok(()) }
        });
        assert_eq!(failed, Err("three"));
        // Some may be under way on other threads, and some done before it was begun.
        assert!(begun.load(Ordering::Relaxed) <= items.len());
    }
}
