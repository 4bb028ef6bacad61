//! Who ran while others queued, in each of windows that follow each other. The kernel programs count on from window to window.

use std::collections::HashMap;

use chokepoint_ebpf::run_queue::{Behind, QueuePair};

/// What had been counted when the window began.
#[derive(Debug, Default)]
pub struct QueueWindows {
    before: HashMap<QueuePair, u64>,
}

impl QueueWindows {
    /// Ends a window: turns what was counted in all into what was counted in it, and tells the pairs that may be forgotten: nothing came
    /// to them, and the process that queued `is_gone`, so that nothing will.
    pub fn close(
        &mut self,
        counted: &mut Vec<(QueuePair, Behind)>,
        is_gone: impl Fn(u32) -> bool,
    ) -> Vec<QueuePair> {
        let before = std::mem::take(&mut self.before);
        let (mut gone, mut known) = (Vec::new(), HashMap::<u32, bool>::new());
        counted.retain_mut(|(pair, behind)| {
            let all = behind.ns;
            // Less than before is that of a new entry.
            behind.ns = before.get(pair).and_then(|ns| all.checked_sub(*ns)).unwrap_or(all);
            let is_quiet = behind.ns == 0;
            if is_quiet && *known.entry(pair.queued).or_insert_with(|| is_gone(pair.queued)) {
                gone.push(*pair);
            } else {
                self.before.insert(*pair, all);
            }
            !is_quiet
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(of: &[(u32, u64)]) -> Vec<(QueuePair, Behind)> {
        let pair = |(queued, ns): &(u32, u64)| {
            let pair = QueuePair { queued: *queued, runner: 9, cpu: 0, reserved: 0 };
            (pair, Behind { ns: *ns, runner_cgroup: 0, runner_comm: [0; 16] })
        };
        of.iter().map(pair).collect()
    }

    #[test]
    fn each_window_has_what_came_to_it() {
        let mut windows = QueueWindows::default();
        let mut close = |of: &[(u32, u64)], gone: &[u32]| {
            let mut pairs = counted(of);
            let forgotten = windows.close(&mut pairs, |tgid| gone.contains(&tgid));
            let told: Vec<(u32, u64)> = pairs.iter().map(|(pair, behind)| (pair.queued, behind.ns)).collect();
            (told, forgotten.len())
        };
        assert_eq!(close(&[(1, 50), (2, 10)], &[]), (vec![(1, 50), (2, 10)], 0));
        assert_eq!(close(&[(1, 80), (2, 10)], &[1]), (vec![(1, 30)], 0));
        // What is gone, and quiet for a window, is forgotten; who has its number later begins anew.
        assert_eq!(close(&[(1, 80), (2, 10)], &[1]), (vec![], 1));
        assert_eq!(close(&[(1, 7), (2, 15)], &[]), (vec![(1, 7), (2, 5)], 0));
        assert_eq!(close(&[(1, 3), (2, 15)], &[]), (vec![(1, 3)], 0));
    }
}
