//! Who waits for work, or for another's, and looks as if for something else.

use super::*;

const WAKES_UP: &[&str] = &["hrtimer_wakeup_[k]"];

/// Pauses that a timer ends.
fn pauses(r: &mut Recording, who: Who, object: Option<&str>, ns: u64, count: u64) {
    let stack = r.spends(who, Class::Timer, object, &["nap", "looks"], ns);
    let waker_stack = r.stack(None, None, WAKES_UP);
    r.builder.add_wake(Wake { thread: who.id, stack, waker: None, waker_stack, count, weight: ns });
}

/// Waits that a thread of the target ended.
fn is_given(r: &mut Recording, who: Who, by: Who, ns: u64, count: u64) {
    let stack = r.spends(who, Class::Event, Some("eventfd"), &["read", "takes_work"], ns);
    let waker_stack = r.stack(None, None, &["write"]);
    r.builder.add_wake(Wake { thread: who.id, stack, waker: Some(by.id), waker_stack, count, weight: ns });
}

/// One hands pieces of work to another, and pauses for each.
fn hands_over(object: Option<&str>, pauses_each: u64, is_told: bool) -> Diagnosis {
    let mut r = Recording::new();
    let (asks, works) = (r.thread(1, 1, "worker"), r.thread(1, 2, "worker"));
    let busy = WINDOW / 100;
    r.spends(asks, Class::CpuUser, None, &["looks"], busy);
    pauses(&mut r, asks, object, WINDOW / 2 - busy, 400 * pauses_each);
    let left = WINDOW / 2;
    if is_told {
        is_given(&mut r, asks, works, left, 400);
    } else {
        pauses(&mut r, asks, object, left, 400 * pauses_each);
    }
    r.spends(works, Class::CpuUser, None, &["transfers"], busy);
    is_given(&mut r, works, asks, WINDOW - busy, 800);
    diagnose(&r.finish())
}

#[test]
fn who_hands_work_over_and_pauses_for_each_piece_waits_for_it_by_looking() {
    let diagnosis = hands_over(None, 1, false);
    let verdict = &diagnosis.verdict;
    assert_eq!((verdict.code, verdict.severity), (Code::WaitTimer, Severity::Critical), "{verdict:#?}");
    assert_eq!(verdict.functions[..2], ["nap", "looks"]);
    // That is inferred.
    assert!(verdict.confidence <= 0.6, "{}", verdict.confidence);
    assert!(diagnosis.demand["wait.polling"] > 9.0, "{:?}", diagnosis.demand);
}

#[test]
fn who_keeps_to_a_pace_or_is_told_or_looks_seldom_does_not_poll() {
    for quiet in [
        hands_over(Some("until a set time"), 1, false),
        // Of many pauses a piece, what they are for does not follow.
        hands_over(None, 4, false),
        hands_over(None, 1, true),
    ] {
        assert!(!quiet.verdict.code.is_constraint(), "{:#?}", quiet.verdict);
    }
}

/// Four that take turns at a lock, and accept connections while they have it, for a part of the window.
fn leaders(class: Class, accepting: u64, by: Option<&[&str]>) -> Diagnosis {
    let mut r = Recording::new();
    let is_process = class != Class::Futex;
    let all: Vec<Who> = (1..5).map(|n| r.thread(if is_process { n } else { 1 }, n, "server")).collect();
    for (n, who) in all.iter().enumerate() {
        let works = (WINDOW - accepting) / 4;
        r.spends(*who, Class::CpuUser, None, &["serves"], works);
        r.spends(*who, Class::NetAccept, None, &["accept4", "takes_turn"], accepting / 4);
        let waits = WINDOW - works - accepting / 4;
        let asks = ["pthread_mutex_lock", "takes_turn"];
        match by {
            Some(by) => {
                let next = all[(n + 1) % all.len()];
                r.waits_until(*who, class, Some("futex 0x10"), &asks, waits, (by, &[(next, waits)]));
            }
            None => _ = r.spends(*who, class, Some("futex 0x10"), &asks, waits),
        }
    }
    diagnose(&r.finish())
}

#[test]
fn who_waits_for_a_leader_that_waits_for_work_waits_for_work() {
    for (class, by) in [
        (Class::Futex, Some(&["gives_back"][..])),
        (Class::Futex, None),
        (Class::LockFile, Some(&["gives_back"][..])),
        (Class::LockFile, None),
    ] {
        let quiet = leaders(class, 96 * WINDOW / 100, by);
        assert!(quiet.ranked.iter().all(|found| found.severity <= Severity::Low), "{class:?} {quiet:#?}");
    }
    // Where work is there most of the time, they wait for who does it.
    let busy = leaders(Class::Futex, 20 * WINDOW / 100, Some(&["gives_back"]));
    assert_eq!(busy.verdict.code, Code::LockMutex, "{:#?}", busy.verdict);
}

#[test]
fn who_accepts_elsewhere_holds_no_lock_by_it() {
    let mut r = Recording::new();
    let accepts = r.thread(1, 1, "server");
    r.spends(accepts, Class::NetAccept, None, &["accept4", "listens"], WINDOW);
    let workers: Vec<Who> = (2..6).map(|n| r.thread(1, n, "server")).collect();
    for (n, who) in workers.iter().enumerate() {
        r.spends(*who, Class::CpuUser, None, &["holds"], WINDOW / 4);
        let next = workers[(n + 1) % workers.len()];
        let ns = 3 * WINDOW / 4;
        r.waits(*who, Class::Futex, Some("futex 0x10"), MUTEX, ns, &[(next, ns)]);
    }
    assert_eq!(diagnose(&r.finish()).verdict.code, Code::LockMutex);
}

#[test]
fn a_client_of_a_unix_socket_asks_and_who_listened_does_not() {
    let told = |object: &str| {
        let mut r = Recording::new();
        let (own, other) = (r.thread(1, 1, "own"), r.outsider(2, "other"));
        r.spends(own, Class::CpuUser, None, &["works"], WINDOW / 10);
        let ns = 9 * WINDOW / 10;
        r.waits(own, Class::Event, Some(object), &["poll", "asks"], ns, &[(other, ns)]);
        diagnose(&r.finish()).verdict
    };
    let asks = told("unix -/run/db.sock");
    assert_eq!((asks.code, &asks.culprits[..]), (Code::NetDownstream, &["other".to_owned()][..]));
    assert!(asks.summary.contains("unix /run/db.sock"), "{}", asks.summary);
    assert_eq!(told("unix /run/db.sock").code, Code::NoneHealthy);
    // Of a pair, either may ask.
    assert_eq!(told("unix pair").code, Code::NoneHealthy);
}
