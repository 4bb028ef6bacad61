//! What the figures were measured on.

use std::{fmt, fs, process::Command, thread};

/// The machine and its moment; shown as the sentence that tables begin with.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Model of the CPU, count of CPUs, memory.
    hardware: String,
    /// The kernel's release.
    kernel: String,
    /// The day, in UTC.
    date: String,
    /// The commit that was measured; what was not committed is marked.
    commit: String,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown CPU".to_owned());
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib = memory_kib.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            hardware: format!("{model}, {cpus} CPUs, {} GiB", memory_kib.unwrap_or(0).div_ceil(1 << 20)),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            commit: said("git", &["describe", "--always", "--dirty"]),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, commit, hardware, kernel } = self;
        write!(f, "Measured on {date} at commit {commit}: {hardware}, Linux {kernel}.")
    }
}

/// The load average over the last minute.
pub fn load_average() -> String {
    read("/proc/loadavg").split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(crate::workspace::root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:       24679000 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(field(text, "MemTotal").as_deref(), Some("24679000 kB"));
        assert_eq!(field(text, "model"), None);
    }
}
