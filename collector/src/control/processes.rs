//! The processes that an agent told of last, for who wants one of them profiled. They are gone with the agent's stream.

use chokepoint_proto::stream::{self, Window};
use prost::Message;
use serde::{Deserialize, Serialize};

/// Processes of an agent that are kept: more than agents tell.
const MAX_PROCESSES: usize = 128;
/// Bytes of a name that are kept: a kernel's are 15, a pod's 253 and its namespace's 63.
const MAX_NAME_BYTES: usize = 320;

/// What is kept of a window's processes: as the message that it was, for of two thousand agents it is a tenth of what it is unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    message: Vec<u8>,
    until_unix_ns: u64,
    window_ns: u64,
}

/// The processes of a host that ran most in its agent's last window, and lived at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// The host.
    pub host: String,
    /// When the window ended; 0 where the agent has told of none since its stream began.
    pub until_unix_ms: u64,
    /// How long it was.
    pub window_ms: u64,
    /// Those that ran or queued longest first.
    pub processes: Vec<Process>,
    /// How many more there were.
    pub left_out: u64,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its id on the host.
    pub pid: u32,
    /// Its name, as it chose it.
    pub name: String,
    /// CPUs that it used, on average over the window.
    pub cpus: f64,
    /// Its pod, `namespace/name`; empty where none is known.
    pub pod: String,
    /// Its container; empty where none is known.
    pub container: String,
}

impl Heard {
    /// Takes the processes out of a window that is about to be stored.
    pub fn take(window: &mut Window) -> Option<Self> {
        let mut processes = window.processes.take()?;
        let told = processes.processes.len();
        processes.processes.truncate(MAX_PROCESSES);
        let cut = u32::try_from(told - processes.processes.len()).unwrap_or(u32::MAX);
        processes.left_out = processes.left_out.saturating_add(cut);
        for process in &mut processes.processes {
            for name in [&mut process.name, &mut process.pod, &mut process.container] {
                name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
            }
        }
        Some(Self {
            message: processes.encode_to_vec(),
            until_unix_ns: window.start_unix_ns.saturating_add(window.duration_ns),
            window_ns: window.duration_ns,
        })
    }

    /// As those who asked see them.
    #[must_use]
    pub fn shown(&self, host: &str) -> Processes {
        // It was encoded here.
        let stream::Processes { processes, left_out } =
            stream::Processes::decode(self.message.as_slice()).unwrap_or_default();
        let shown = |process: stream::Process| Process {
            pid: process.pid,
            name: process.name,
            cpus: process.cpu_ns as f64 / self.window_ns.max(1) as f64,
            pod: process.pod,
            container: process.container,
        };
        Processes {
            host: host.to_owned(),
            until_unix_ms: self.until_unix_ns / 1_000_000,
            window_ms: self.window_ns / 1_000_000,
            processes: processes.into_iter().map(shown).collect(),
            left_out: u64::from(left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(processes: Vec<stream::Process>) -> Window {
        Window {
            start_unix_ns: 5_000_000_000,
            duration_ns: 10_000_000_000,
            processes: Some(stream::Processes { processes, left_out: 2 }),
            ..Window::default()
        }
    }

    #[test]
    fn processes_are_taken_out_of_the_window_and_told_with_their_share() {
        let process = stream::Process {
            pid: 7,
            name: "web".to_owned(),
            cpu_ns: 5_000_000_000,
            pod: "shop/web-0".to_owned(),
            container: "server".to_owned(),
        };
        let mut window = window(vec![process]);
        let heard = Heard::take(&mut window).expect("there are some");
        assert_eq!(window.processes, None);
        let shown = heard.shown("a");
        assert_eq!((shown.until_unix_ms, shown.window_ms, shown.left_out), (15_000, 10_000, 2));
        let [process] = &shown.processes[..] else { panic!("{shown:?}") };
        assert_eq!((process.pid, process.name.as_str(), process.cpus), (7, "web", 0.5));
        assert_eq!((process.pod.as_str(), process.container.as_str()), ("shop/web-0", "server"));
        assert_eq!(Heard::take(&mut window), None);
    }

    #[test]
    fn what_an_agent_tells_too_much_of_is_cut() {
        let process = stream::Process { name: "é".repeat(10_000), ..stream::Process::default() };
        let heard = Heard::take(&mut window(vec![process; 1_000])).expect("there are some");
        let shown = heard.shown("a");
        assert_eq!(
            (shown.processes.len(), shown.left_out),
            (MAX_PROCESSES, 2 + 1_000 - MAX_PROCESSES as u64)
        );
        assert_eq!(shown.processes[0].name.len(), MAX_NAME_BYTES);
    }
}
