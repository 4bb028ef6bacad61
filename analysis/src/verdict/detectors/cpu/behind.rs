//! Whose turn it was while the target's threads queued.

use crate::names;
use crate::run_queue::Runner;
use crate::verdict::account::Account;
use std::collections::HashMap;

/// Where less of a thread's queueing is behind others, it is its own process's doing.
pub(in crate::verdict) const BEHIND_OTHERS: f64 = 0.5;

/// Whose turn it was while the target's threads queued.
pub(in crate::verdict) struct Behind {
    /// Whether it was recorded; else nothing is behind anybody here.
    pub is_known: bool,
    /// The part that is behind its own threads.
    pub own: f64,
    /// The part that is behind others.
    pub others: f64,
    /// The others, the most first.
    pub names: Vec<String>,
}

impl Behind {
    pub(in crate::verdict) fn of(account: &Account<'_>) -> Self {
        let (mut own, mut total, mut others) = (0, 0, HashMap::new());
        let queues = account.profile.run_queue.iter().flat_map(|queues| &queues.processes);
        for queue in queues.filter(|queue| u32::try_from(queue.id).is_ok_and(|pid| account.has_process(pid)))
        {
            for (runner, ns) in &queue.behind {
                total += ns;
                match runner {
                    Runner::One { id, .. }
                        if u32::try_from(*id).is_ok_and(|pid| account.has_process(pid)) =>
                    {
                        own += ns;
                    }
                    Runner::One { name, .. } => *others.entry(names::printable(name)).or_insert(0) += ns,
                    Runner::Idle | Runner::Unknown => {}
                }
            }
        }
        let whole = total.max(1) as f64;
        let mut others: Vec<(String, u64)> = others.into_iter().collect();
        others.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self {
            is_known: total > 0,
            own: own as f64 / whole,
            others: others.iter().map(|(_, ns)| ns).sum::<u64>() as f64 / whole,
            names: others.into_iter().take(3).map(|(name, _)| name).collect(),
        }
    }
}
