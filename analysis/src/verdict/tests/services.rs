//! What real services do: databases whose processes wait for each other, runtimes with a lock or a collector, and proxies.

use std::net::SocketAddr;

use super::*;
use crate::connections::Connection;

const LATCH: &[&str] = &["WaitLatch", "ProcSleep", "UpdateRow"];
const BY_SIGNAL: &[&str] = &["__x64_sys_kill_[k]", "SetLatch"];
const BY_DATA: &[&str] = &["sock_def_readable_[k]", "send"];

/// Four processes of a database; each waits for the others in turns, and spends the rest in a class.
fn backends(by: &[&str], of_holder: Class) -> Diagnosis {
    let mut r = Recording::new();
    let all: Vec<Who> = (1..5).map(|pid| r.thread(pid, pid, "database")).collect();
    for (n, who) in all.iter().enumerate() {
        r.spends(*who, of_holder, None, &["UpdateRow"], WINDOW / 5);
        let next = all[(n + 1) % all.len()];
        let ends = [(next, 4 * WINDOW / 5)];
        r.waits_until(*who, Class::Event, Some("epoll"), LATCH, 4 * WINDOW / 5, (by, &ends));
    }
    diagnose(&r.finish())
}

#[test]
fn processes_that_signal_each_other_in_turns_have_a_lock() {
    let verdict = backends(BY_SIGNAL, Class::CpuUser).verdict;
    assert_eq!(verdict.code, Code::LockDb, "{verdict:#?}");
    assert!((verdict.share - 0.8).abs() < 1e-9, "{}", verdict.share);
    assert!(verdict.functions.contains(&"ProcSleep".to_owned()) && verdict.processes == ["database"]);
    // Who gets data from its like waits for what it says, not for a lock.
    assert_ne!(backends(BY_DATA, Class::CpuUser).verdict.code, Code::LockDb);
}

#[test]
fn behind_a_lock_of_a_database_is_what_its_holder_waits_for() {
    assert_eq!(backends(BY_SIGNAL, Class::IoSync).verdict.code, Code::IoSyncWrite);
}

#[test]
fn who_has_another_process_do_something_does_not_wait_for_a_lock() {
    let mut r = Recording::new();
    let (client, writer) = (r.thread(1, 1, "database"), r.thread(2, 2, "database"));
    r.spends(client, Class::CpuUser, None, &["Query"], WINDOW / 10);
    let (long, short) = (9 * WINDOW / 10, WINDOW / 10);
    r.waits_until(
        client,
        Class::Event,
        Some("epoll"),
        &["WaitLatch", "RequestCheckpoint"],
        long,
        (BY_SIGNAL, &[(writer, long)]),
    );
    r.spends(writer, Class::IoSync, None, &["Checkpoint"], long);
    r.waits_until(
        writer,
        Class::Event,
        Some("epoll"),
        &["WaitLatch", "CheckpointerMain"],
        short,
        (BY_SIGNAL, &[(client, short)]),
    );
    let diagnosis = diagnose(&r.finish());
    assert_eq!(diagnosis.verdict.code, Code::IoSyncWrite);
    assert!(diagnosis.ranked.iter().all(|finding| finding.code != Code::LockDb), "{diagnosis:#?}");
}

/// Threads that take turns at an interpreter's lock, by one of the two futexes of its condition. Its name is on half of the stacks.
fn interpreter(r: &mut Recording) -> Vec<Who> {
    let threads: Vec<Who> = (0..4).map(|n| r.thread(1, 10 + n, "python")).collect();
    for (n, who) in threads.iter().enumerate() {
        r.spends(*who, Class::CpuUser, None, &["EvalFrame"], WINDOW / 4);
        let next = threads[(n + 1) % 4];
        let (object, asks) = match n % 2 {
            0 => ("futex 0x10", "PyEval_RestoreThread"),
            _ => ("futex 0x14", "EvalFrame"),
        };
        let functions = ["pthread_cond_timedwait", asks];
        r.waits(*who, Class::Futex, Some(object), &functions, WINDOW / 2, &[(next, WINDOW / 2)]);
    }
    threads
}

#[test]
fn both_futexes_of_a_condition_are_one_lock_with_the_name_of_either() {
    let mut r = Recording::new();
    interpreter(&mut r);
    let verdict = diagnose(&r.finish()).verdict;
    assert_eq!(verdict.code, Code::LockRuntime, "{verdict:#?}");
    assert!((verdict.share - 2.0 / 3.0).abs() < 1e-9, "{}", verdict.share);
}

#[test]
fn a_semaphore_that_is_waited_for_longer_does_not_hide_a_lock() {
    let mut r = Recording::new();
    let threads = interpreter(&mut r);
    for (n, who) in threads.iter().enumerate() {
        let next = threads[(n + 1) % 4];
        let ns = WINDOW / 5;
        r.waits(*who, Class::Futex, Some("futex 0x20"), &["sem_wait", "get_job"], ns, &[(next, ns)]);
    }
    let diagnosis = diagnose(&r.finish());
    assert!(diagnosis.ranked.iter().any(|finding| finding.code == Code::LockRuntime), "{diagnosis:#?}");
}

#[test]
fn who_waits_for_work_does_not_hold_a_monitor() {
    let mut r = Recording::new();
    let threads: Vec<Who> = (0..8).map(|n| r.thread(1, 10 + n, "handler")).collect();
    for (n, who) in threads.iter().enumerate() {
        r.spends(*who, Class::CpuUser, None, &["price"], WINDOW / 8);
        let next = threads[(n + 1) % 8];
        let ns = WINDOW / 2;
        r.waits(*who, Class::Futex, None, &["pthread_cond_wait", "ObjectMonitor::enter"], ns, &[(next, ns)]);
        // For a request, of which there is none.
        r.spends(*who, Class::Futex, Some("futex 0x90"), &["pthread_cond_wait", "take"], 3 * WINDOW / 8);
    }
    let verdict = diagnose(&r.finish()).verdict;
    assert_eq!((verdict.code, &verdict.counter_evidence[..]), (Code::LockMonitor, &[][..]));
}

#[test]
fn a_pool_whose_members_are_taken_again_at_once_is_too_small_for_those_who_wait() {
    let mut r = Recording::new();
    let threads: Vec<Who> = (0..16).map(|n| r.thread(1, 10 + n, "handler")).collect();
    let service = r.outsider(2, "service");
    // Two never wait for a connection: they have theirs back before who was woken for it runs.
    for who in &threads[..2] {
        let answer = Some("tcp 127.0.0.1:40000-127.0.0.1:5432");
        r.waits(*who, Class::Event, answer, &["poll", "ask"], WINDOW, &[(service, WINDOW)]);
    }
    for who in &threads[2..] {
        let functions = ["sem_wait", "borrow_connection"];
        let ends = [(threads[0], WINDOW / 2), (threads[1], WINDOW / 2)];
        r.waits(*who, Class::Futex, Some("futex 0x10"), &functions, WINDOW, &ends);
    }
    let verdict = diagnose(&r.finish()).verdict;
    assert_eq!(verdict.code, Code::PoolConnections, "{verdict:#?}");
    let size = verdict.evidence.iter().find(|fact| fact.what == "in use at a time").unwrap();
    assert!((size.value - 2.0).abs() < 1e-9, "{size:?}");
}

#[test]
fn the_collection_of_garbage_is_told_as_that() {
    let mut r = Recording::new();
    let collector = r.thread(1, 9, "GC Thread#0");
    r.spends(collector, Class::CpuUser, None, &["mark", "G1EvacuateRegionsTask::work"], 3 * WINDOW / 4);
    r.spends(collector, Class::Futex, None, &["sem_wait", "GangWorker::loop"], WINDOW / 4);
    for tid in 10..14 {
        let who = r.thread(1, tid, "handler");
        r.spends(who, Class::CpuUser, None, &["handle"], WINDOW / 16);
        let ns = 3 * WINDOW / 4;
        r.waits(who, Class::Futex, Some("futex 0x10"), &["sem_wait", "allocate"], ns, &[(collector, ns)]);
    }
    let verdict = diagnose(&r.finish()).verdict;
    assert_eq!(verdict.code, Code::MemGc, "{verdict:#?}");
    // All that is waited for, and what it runs itself, of that and the handlers' own work.
    let all = 3.0 + 0.75;
    assert!((verdict.share - all / (all + 0.25)).abs() < 1e-9, "{}", verdict.share);
}

#[test]
fn a_proxy_waits_for_whom_it_asks_and_not_for_who_asks_it() {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let connection = |is_accepted, local, remote, peer| Connection {
        namespace: 1,
        local: address(local),
        remote: address(remote),
        is_accepted,
        pid: Some(1),
        process_name: "proxy".into(),
        peer_pid: Some(peer),
        open: true,
        rtt_us: 0,
        min_rtt_us: 0,
        congestion_window: 10,
        bytes_sent: 1,
        bytes_received: 1,
        retransmits: 0,
        busy_ns: 0,
        receiver_limited_ns: 0,
        buffer_limited_ns: 0,
    };
    let told = |ender: u32| {
        let mut r = Recording::new();
        let proxy = r.thread(1, 1, "proxy");
        let (service, client) = (r.outsider(2, "service"), r.outsider(3, "client"));
        r.spends(proxy, Class::CpuUser, None, &["forward"], WINDOW / 10);
        let by = if ender == 2 { service } else { client };
        let ns = 9 * WINDOW / 10;
        r.waits(proxy, Class::Event, Some("epoll"), &["epoll_wait"], ns, &[(by, ns)]);
        let mut profile = r.finish();
        profile.connections = vec![connection(true, 80, 40_000, 3), connection(false, 40_001, 81, 2)];
        diagnose(&profile).verdict
    };
    let behind = told(2);
    assert_eq!((behind.code, &behind.culprits[..]), (Code::NetDownstream, &["service".to_owned()][..]));
    assert_eq!(told(3).code, Code::NoneHealthy);
}

#[test]
fn two_that_wait_for_each_other_by_a_pipe_work_in_turns_though_cpus_are_idle() {
    let told = |behind: Runner| {
        let mut r = Recording::new();
        let (producer, consumer) = (r.thread(1, 1, "producer"), r.thread(2, 2, "consumer"));
        for (who, other) in [(producer, consumer), (consumer, producer)] {
            r.spends(who, Class::CpuUser, None, &["works"], 54 * WINDOW / 100);
            r.spends(who, Class::RunQueue, None, &["works"], 2 * WINDOW / 100);
            let ns = 44 * WINDOW / 100;
            r.waits(who, Class::Ipc, Some("pipe 7"), &["pipe_write"], ns, &[(other, ns)]);
        }
        let mut run_queue = queued_behind(1, 2, WINDOW / 100);
        run_queue.processes[0].behind.push((behind, 2 * WINDOW / 100));
        r.run_queue = Some(run_queue);
        diagnose(&r.finish()).verdict.code
    };
    assert_eq!(told(Runner::Idle), Code::WaitIpc);
    assert_ne!(told(Runner::One { id: 9, name: "batch".into() }), Code::WaitIpc);
}

/// A process that flushes: so many tenths of its time it waits for that, and as many it runs and queues for it.
fn commits(waits: u64, runs: u64, queues: u64) -> Diagnosis {
    const FLUSH: &[&str] = &["do_fsync_[k]", "__x64_sys_fdatasync_[k]", "commits"];
    let mut r = Recording::new();
    let all: Vec<Who> = (1..5).map(|pid| r.thread(pid, pid, "database")).collect();
    for who in all {
        for (class, tenths) in [(Class::IoSync, waits), (Class::CpuKernel, runs), (Class::RunQueue, queues)] {
            if tenths > 0 {
                r.spends(who, class, None, FLUSH, tenths * WINDOW / 10);
            }
        }
        let rest = 10 - waits - runs - queues;
        r.spends(who, Class::CpuUser, None, &["plans"], rest * WINDOW / 10);
    }
    diagnose(&r.finish())
}

#[test]
fn what_a_flush_runs_and_queues_is_the_flushs() {
    let verdict = commits(2, 4, 1).verdict;
    assert_eq!(verdict.code, Code::IoSyncWrite, "{verdict:#?}");
    assert!((verdict.share - 0.7).abs() < 1e-9, "{}", verdict.share);
    assert!(verdict.evidence.iter().any(|fact| fact.what.contains("within flushes") && fact.value > 49.9));
    // Where there is nothing to wait for, as in memory, it is a system call like others.
    let call = commits(0, 8, 0).verdict;
    assert_eq!((call.code, &call.functions[0]), (Code::CpuKernel, &"commits".to_owned()), "{call:#?}");
}
