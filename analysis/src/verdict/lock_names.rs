//! What the functions in which a thread waits say of the lock: the standard names of C libraries and runtimes. Where none of them is
//! known, who waits and who ends the waits tells a lock from a queue.

/// A kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One holder.
    Mutex,
    /// A Java monitor.
    Monitor,
    /// One thread of the runtime runs at a time.
    Runtime,
    /// A semaphore or a condition: as many holders as somebody has set.
    Counted,
}

/// The first is no name of what Debian's Python has: there, those who take it are known by what they are called through.
const RUNTIME: &[&str] = &[
    "take_gil",
    "PyEval_RestoreThread",
    "PyEval_AcquireThread",
    "PyGILState_Ensure",
    "gvl_acquire",
    "thread_sched_to_running",
];
const MONITOR: &[&str] =
    &["ObjectMonitor::enter", "ObjectMonitor::EnterI", "ObjectSynchronizer::enter", "monitorenter"];
const MUTEX: &[&str] = &[
    "mutex_lock",
    "lll_lock_wait",
    "rwlock_rdlock",
    "rwlock_wrlock",
    "rwlock_write",
    "rwlock_read",
    "lock_contended",
    "lockSlow",
    "lock_slow",
];
const COUNTED: &[&str] = &[
    "sem_wait",
    "sem_timedwait",
    "sem_clockwait",
    "new_sem_wait",
    "Semaphore",
    "semacquire",
    "cond_wait",
    "cond_timedwait",
    "Condvar",
    "condition_variable",
];

/// The kind, by the functions of a waiting stack; `None` where none of them is known.
pub(super) fn kind<'a>(functions: impl Iterator<Item = &'a str>) -> Option<Kind> {
    let functions: Vec<&str> = functions.collect();
    let has =
        |names: &[&str]| functions.iter().any(|function| names.iter().any(|name| function.contains(name)));
    if has(RUNTIME) {
        Some(Kind::Runtime)
    } else if has(MONITOR) {
        Some(Kind::Monitor)
    } else if has(MUTEX) {
        // A condition takes its mutex again, and waits for that then.
        Some(Kind::Mutex)
    } else if has(COUNTED) {
        Some(Kind::Counted)
    } else {
        None
    }
}
