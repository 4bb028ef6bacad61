//! Locks whose holder waits for work.
//!
//! Where threads or processes take turns at accepting connections, the one whose turn it is holds a lock, and the others wait for that lock.
//! They wait for work as it does: nobody wants their wait shorter. It is told by three things: those who accept are those who take the lock,
//! they do both in the same functions, and for a good part of the window there is one of them that accepts, never two.

use std::collections::{HashMap, HashSet};

use super::account::{Account, Ender, Wait};
use crate::activity::Class;
use crate::profile::ThreadId;

/// Part of the window in which one accepts, from which on that is what the lock is held for.
const HELD: f64 = 0.5;
/// Turns follow each other: more than the window, but for what measuring is off, are two at once.
const ONE_AT_A_TIME: f64 = 1.05;
/// Threads that accept and also take the lock in the window; where nothing happens in it, none of those that wait does.
const IN_TURNS: usize = 2;

/// The parts of the window in which the holders of programs' locks waited for work.
#[derive(Debug, Default)]
pub(super) struct Leaders<'p> {
    /// By the program's name: the functions in which its threads accept, and the part of the window.
    programs: HashMap<String, (HashSet<&'p str>, f64)>,
}

/// What a program's threads do to accept.
#[derive(Default)]
struct Accepting<'p> {
    threads: HashSet<ThreadId>,
    functions: HashSet<&'p str>,
    ns: u64,
}

/// Who waits for locks in those functions, and who ends the waits.
#[derive(Default)]
struct Users {
    all: HashSet<ThreadId>,
    enders: usize,
}

impl<'p> Leaders<'p> {
    pub(super) fn of(account: &Account<'p>) -> Self {
        let mut accepting: HashMap<&str, Accepting<'p>> = HashMap::new();
        for wait in account.waits.iter().filter(|wait| wait.class == Class::NetAccept) {
            let of_program = accepting.entry(&account.nodes[wait.node].process).or_default();
            of_program.threads.insert(wait.thread);
            of_program.functions.extend(account.own_functions(wait.stack));
            of_program.ns += wait.ns;
        }
        let window = account.window_ns as f64;
        let is_in_turns = |ns: u64| (HELD * window..=ONE_AT_A_TIME * window).contains(&(ns as f64));
        accepting.retain(|_, of| is_in_turns(of.ns));
        if accepting.is_empty() {
            return Self::default();
        }
        let mut users: HashMap<&str, Users> = HashMap::new();
        for wait in account.waits.iter().filter(|wait| may_be_lock(wait)) {
            let process = account.nodes[wait.node].process.as_str();
            let Some(of) = accepting.get(process) else { continue };
            if account.own_functions(wait.stack).any(|name| of.functions.contains(name)) {
                let users = users.entry(process).or_default();
                users.all.insert(wait.thread);
                for end in &wait.ends {
                    if let Ender::Thread(_, by) = end.by {
                        users.all.insert(by);
                        users.enders += 1;
                    }
                }
            }
        }
        let led = accepting.into_iter().filter(|(process, of)| {
            users.get(process).is_some_and(|users| {
                users.enders == 0 || users.all.intersection(&of.threads).count() >= IN_TURNS
            })
        });
        let programs = led.map(|(process, of)| {
            let part = (of.ns as f64 / window).min(1.0);
            (process.to_owned(), (of.functions, part))
        });
        Self { programs: programs.collect() }
    }

    /// The part of a wait for a lock in which its holder waited for work, 0 to 1.
    pub(super) fn part_of(&self, account: &Account<'p>, wait: &Wait<'p>) -> f64 {
        let known = self.programs.get(&account.nodes[wait.node].process);
        let led = known.filter(|(functions, _)| {
            may_be_lock(wait) && account.own_functions(wait.stack).any(|name| functions.contains(name))
        });
        led.map_or(0.0, |(_, part)| *part)
    }
}

fn may_be_lock(wait: &Wait<'_>) -> bool {
    matches!(wait.class, Class::Futex | Class::Ipc | Class::LockFile)
}
