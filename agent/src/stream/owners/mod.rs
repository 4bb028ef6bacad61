//! Whose a thread is: the labels of its subject, by its control group and what the container runtime knows of it.
//!
//! [`labels`] decides, and needs nothing but what it is told; here is where that is looked up and remembered. The runtime is asked by
//! [`known`](crate::containers::known) beside everything else: until it has answered, a container has its id for a name.

pub mod labels;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::containers::known::Containers;
use crate::host::cgroups::{Hierarchy, hierarchies};
use crate::process::place::{ENDED, ProcessKey, Processes};
use crate::thread_times::ThreadTimes;
use labels::{Group, group, service};

/// Label names with their values, in the order of the names.
pub type Labels = Arc<[(&'static str, String)]>;

/// Paths of groups that are remembered by their ids, for processes that end before anybody can ask; 100 bytes each. Of more, all are
/// forgotten and learnt again.
const MAX_GROUPS: usize = 20_000;
/// Between two walks through all groups for ids that no living process has told: a walk takes up to 200 ms.
const WALK_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of the owners of threads, from window to window.
pub struct Owners {
    containers: Containers,
    processes: Processes,
    paths: HashMap<u64, Arc<str>>,
    walked: Option<Instant>,
    /// Of this window's processes, the path of their group.
    of_process: HashMap<u32, Arc<str>>,
    groups: HashMap<Arc<str>, Arc<Group>>,
    /// Labels of this window's threads, by the path of their group and the name of their process: most threads share theirs with others.
    made: HashMap<Option<Arc<str>>, HashMap<String, Labels>>,
    /// As the operator calls the service of this whole host; it comes before all that is found.
    service: Option<String>,
}

impl Owners {
    /// With what is asked of the runtime by `containers`.
    #[must_use]
    pub fn new(containers: Containers, service: Option<String>) -> Self {
        Self {
            containers,
            processes: Processes::default(),
            paths: HashMap::new(),
            walked: None,
            of_process: HashMap::new(),
            groups: HashMap::new(),
            made: HashMap::new(),
            service,
        }
    }

    /// Looks up the processes of a window that has ended.
    pub fn begin_window(&mut self, times: Option<&ThreadTimes>) {
        self.of_process.clear();
        self.groups.clear();
        self.made.clear();
        if self.paths.len() > MAX_GROUPS {
            self.paths.clear();
        }
        let mut unseen: Vec<(u32, u64)> = Vec::new();
        for (key, time) in times.into_iter().flat_map(ThreadTimes::iter) {
            if self.of_process.contains_key(&key.tgid) {
                continue;
            }
            // Of a process that is over /proc tells nothing. Where only its first thread has ended, another one is met.
            if time.ended && key.tid == key.tgid {
                unseen.extend((time.cgroup_id > 0).then_some((key.tgid, time.cgroup_id)));
                continue;
            }
            let process = ProcessKey { pid: key.tgid, start_ns: key.process_start_ns };
            let path = Arc::clone(&self.processes.look_up(process).cgroup);
            if *path != *ENDED {
                self.paths.insert(time.cgroup_id, Arc::clone(&path));
                self.of_process.insert(key.tgid, path);
            } else if time.cgroup_id > 0 {
                unseen.push((key.tgid, time.cgroup_id));
            }
        }
        self.processes.end_window();
        self.walk(&unseen);
        for (tgid, id) in unseen {
            if let Some(path) = self.paths.get(&id) {
                self.of_process.entry(tgid).or_insert_with(|| Arc::clone(path));
            }
        }
    }

    /// Learns the paths of groups that only processes were in which have ended.
    fn walk(&mut self, unseen: &[(u32, u64)]) {
        let ids = unseen.iter().map(|(_, id)| *id).filter(|id| !self.paths.contains_key(id));
        let ids: HashSet<u64> = ids.collect();
        let is_due = self.walked.is_none_or(|walked| walked.elapsed() >= WALK_INTERVAL);
        if ids.is_empty() || !is_due {
            return;
        }
        self.walked = Some(Instant::now());
        let version_2 = hierarchies().unwrap_or_default().into_iter().find(|found| !found.is_version_1());
        let found = version_2.map(|hierarchy: Hierarchy| hierarchy.paths(&ids)).unwrap_or_default();
        self.paths.extend(found.into_iter().map(|(id, path)| (id, path.into())));
    }

    /// The labels of a process's threads.
    pub fn labels(&mut self, pid: u32, process_name: &str) -> Labels {
        let path = self.of_process.get(&pid);
        if let Some(made) = self.made.get(&path.cloned()).and_then(|made| made.get(process_name)) {
            return Arc::clone(made);
        }
        let path = path.cloned();
        let group = path.clone().map(|path| {
            let containers = &self.containers;
            let made = self.groups.entry(path);
            Arc::clone(made.or_insert_with_key(|path| Arc::new(group(path, |id| containers.look_up(id)))))
        });
        let service = service(group.as_deref(), process_name, self.service.as_deref());
        let mut labels = group.map(|group| group.labels.clone()).unwrap_or_default();
        labels.push(("service", service));
        labels.sort_unstable();
        let labels: Labels = labels.into();
        self.made.entry(path).or_default().insert(process_name.to_owned(), Arc::clone(&labels));
        labels
    }

    /// As the operator calls the service of this host from now on.
    pub fn set_service(&mut self, service: Option<String>) {
        self.service = service;
        self.made.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_the_labels_of_its_group_and_one_that_nobody_knows_has_its_name() {
        let mut owners = Owners::new(Containers::none(), None);
        owners.of_process.insert(7, "/system.slice/cron.service".into());
        let of = |owners: &mut Owners, pid| {
            let labels = owners.labels(pid, "sh");
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(&mut owners, 7), "cgroup=/system.slice/cron.service service=cron unit=cron.service");
        assert_eq!(of(&mut owners, 8), "service=sh");
        owners.set_service(Some("shop".to_owned()));
        assert!(of(&mut owners, 8).contains("service=shop"));
    }
}
