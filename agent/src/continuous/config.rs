//! What the continuous mode is told: on the command line, by the environment, in a file, or not at all, in that order.
//!
//! [`Settings`] are what one of these says, [`Config`] is what comes of all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chokepoint_tls::ClientFiles;
use serde::{Deserialize, Deserializer, Serialize};

use crate::amounts::{parse_bytes, parse_duration, parse_share};
use crate::containers::kubelet::Kubelet;
use crate::demand;
use crate::failure::{Failure, Kind};
use crate::pipeline::highest_frequency_hz;
use crate::stream::connection::collectors;
use crate::stream::connection::credentials::Credentials;

/// Where the file is, unless told otherwise.
pub const USUAL_FILE: &str = "/etc/chokepoint/agent.toml";
/// The shortest and the longest window: a shorter one costs more, of a longer one too much would have to wait in memory.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// Recordings on demand at once: each may take as much memory as the agent itself.
const MOST_AT_ONCE: usize = 4;
/// Samples a second on each CPU of a recording on demand: a tenth of a millisecond between them.
const MOST_HZ: u32 = 10_000;
/// Recordings on demand a minute: each loads the kernel programs anew.
const MOST_A_MINUTE: usize = 60;
/// The longest recording on demand that may be allowed: it is one window, whose sums are in memory.
const LONGEST_COMMAND: Duration = Duration::from_secs(3600);
/// Labels of a host: those that people give, not a place for facts.
const MAX_LABELS: usize = 64;
/// Longest name and value of a label.
const MAX_LABEL_BYTES: usize = 256;
/// Labels that the agent and the collector give: an operator's would be in their way. `service` is the operator's to say.
const RESERVED: [&str; 12] = [
    "host",
    "agent",
    "process",
    "thread",
    "class",
    "instance",
    "cgroup",
    "unit",
    "container",
    "container_id",
    "pod",
    "namespace",
];

/// Who names the functions of binaries. Those of the kernel, and of code that runtimes compiled, are named on the host in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Namer {
    /// This host, by the files on it
    #[default]
    Host,
    /// The collector, which asks one host of each build for its symbols
    Collector,
}

/// What one source says; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The collector: `https://host:port`, or `http://host:port`.
    pub collector: Option<String>,
    /// Authorities of which the collector's certificate is one.
    pub ca: Option<PathBuf>,
    /// The agent's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name in the collector's certificate.
    pub server_name: Option<String>,
    /// The file that has the agent's token.
    pub token_file: Option<PathBuf>,
    /// Where the spool and the agent's identity are.
    pub state_dir: Option<PathBuf>,
    /// What the spool may take on disk.
    #[serde(default, deserialize_with = "size")]
    pub spool_size: Option<u64>,
    /// How long a window is.
    #[serde(default, deserialize_with = "time")]
    pub window: Option<Duration>,
    /// Samples a second on each CPU.
    pub frequency: Option<u32>,
    /// Share of all of the host's CPUs that the agent may use.
    #[serde(default, deserialize_with = "share")]
    pub max_overhead: Option<f64>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The container runtime's socket.
    pub cri_socket: Option<PathBuf>,
    /// The node's kubelet.
    pub kubelet: Option<String>,
    /// The file that has the token that the kubelet is asked with.
    pub kubelet_token_file: Option<PathBuf>,
    /// Authorities that the kubelet's certificate may be of.
    pub kubelet_ca: Option<PathBuf>,
    /// The name in the kubelet's certificate.
    pub kubelet_server_name: Option<String>,
    /// Whether the collector's commands are taken.
    pub commands: Option<bool>,
    /// The most samples a second on each CPU that a command may ask for.
    pub command_frequency: Option<u32>,
    /// The longest recording that a command may ask for.
    #[serde(default, deserialize_with = "time")]
    pub command_duration: Option<Duration>,
    /// Recordings on demand at once.
    pub commands_at_once: Option<usize>,
    /// Recordings on demand that may begin within a minute.
    pub commands_per_minute: Option<usize>,
    /// Who names functions of binaries.
    pub symbols: Option<Namer>,
    /// What the operator calls this host.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map(Some).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    parsed(deserializer, parse_bytes)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed(deserializer, parse_duration)
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    parsed(deserializer, parse_share)
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The collector; `None`: nothing leaves this host.
    pub collector: Option<String>,
    /// What of it is trusted, and what it is shown.
    pub credentials: Credentials,
    /// Where the spool and the agent's identity are.
    pub state_dir: PathBuf,
    /// What the spool may take on disk, bytes.
    pub spool_bytes: u64,
    /// How long a window is.
    pub window: Duration,
    /// Samples a second on each CPU.
    pub frequency_hz: u32,
    /// Share of all of the host's CPUs that the agent may use.
    pub max_overhead: f64,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The container runtime's socket; `None`: the first of the usual ones that answers.
    pub cri_socket: Option<PathBuf>,
    /// The node's kubelet, which is asked where no container runtime answers; `None`: it is not.
    pub kubelet: Option<Kubelet>,
    /// What the collector's commands may ask for.
    pub commands: demand::Limits,
    /// Who names functions of binaries.
    pub symbols: Namer,
    /// What the operator calls this host.
    pub labels: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            collector: None,
            credentials: Credentials::default(),
            state_dir: PathBuf::from("/var/lib/chokepoint"),
            spool_bytes: 256_000_000,
            window: Duration::from_secs(10),
            // Does not beat with timers of 10, 20 or 50 ms.
            frequency_hz: 19,
            max_overhead: 0.01,
            metrics: None,
            cri_socket: None,
            kubelet: None,
            commands: demand::Limits::default(),
            symbols: Namer::default(),
            labels: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// What a file says.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure that names the file and the key or the place in it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| {
                let line = text[..span.start.min(text.len())].lines().count().max(1);
                format!(", line {line}")
            });
            let message =
                format!("{}{}: {}", path.display(), place.unwrap_or_default(), error.message().trim());
            Failure::new(Kind::Usage, message)
        })
    }

    /// What the file says: that of the path, which must be there, or the usual one, if it is.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure that says which file cannot be read, or what in it makes no sense.
    pub fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let (path, is_asked) = path.map_or((Path::new(USUAL_FILE), false), |path| (path, true));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_asked => Ok(Self::default()),
            Err(error) => Err(Failure::new(Kind::Usage, format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// These, and where they say nothing, the others. Labels are put together.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for (name, value) in other.labels {
            self.labels.entry(name).or_insert(value);
        }
        Self {
            collector: self.collector.or(other.collector),
            ca: self.ca.or(other.ca),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            server_name: self.server_name.or(other.server_name),
            token_file: self.token_file.or(other.token_file),
            state_dir: self.state_dir.or(other.state_dir),
            spool_size: self.spool_size.or(other.spool_size),
            window: self.window.or(other.window),
            frequency: self.frequency.or(other.frequency),
            max_overhead: self.max_overhead.or(other.max_overhead),
            metrics: self.metrics.or(other.metrics),
            cri_socket: self.cri_socket.or(other.cri_socket),
            kubelet: self.kubelet.or(other.kubelet),
            kubelet_token_file: self.kubelet_token_file.or(other.kubelet_token_file),
            kubelet_ca: self.kubelet_ca.or(other.kubelet_ca),
            kubelet_server_name: self.kubelet_server_name.or(other.kubelet_server_name),
            commands: self.commands.or(other.commands),
            command_frequency: self.command_frequency.or(other.command_frequency),
            command_duration: self.command_duration.or(other.command_duration),
            commands_at_once: self.commands_at_once.or(other.commands_at_once),
            commands_per_minute: self.commands_per_minute.or(other.commands_per_minute),
            symbols: self.symbols.or(other.symbols),
            labels: self.labels,
        }
    }

    /// What is done, with defaults for what nobody says.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure that names the setting which makes no sense.
    pub fn config(self) -> Result<Config, Failure> {
        let usual = Config::default();
        // Nothing said in so many words turns off what a file says.
        let said = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        let config = Config {
            collector: self.collector.filter(|collector| !collector.is_empty()),
            credentials: Credentials {
                files: ClientFiles {
                    ca: said(self.ca),
                    cert: said(self.cert),
                    key: said(self.key),
                    server_name: self.server_name.filter(|name| !name.is_empty()),
                },
                token_file: said(self.token_file),
            },
            state_dir: self.state_dir.unwrap_or(usual.state_dir),
            spool_bytes: self.spool_size.unwrap_or(usual.spool_bytes),
            window: self.window.unwrap_or(usual.window),
            frequency_hz: self.frequency.unwrap_or(usual.frequency_hz),
            max_overhead: self.max_overhead.unwrap_or(usual.max_overhead),
            metrics: self.metrics,
            cri_socket: self.cri_socket,
            kubelet: self.kubelet.filter(|url| !url.is_empty()).map(|url| Kubelet {
                url,
                token_file: said(self.kubelet_token_file),
                ca: said(self.kubelet_ca),
                server_name: self.kubelet_server_name.filter(|name| !name.is_empty()),
            }),
            commands: demand::Limits {
                takes_any: self.commands.unwrap_or(usual.commands.takes_any),
                frequency_hz: self.command_frequency.unwrap_or(usual.commands.frequency_hz),
                duration: self.command_duration.unwrap_or(usual.commands.duration),
                at_once: self.commands_at_once.unwrap_or(usual.commands.at_once),
                per_minute: self.commands_per_minute.unwrap_or(usual.commands.per_minute),
            },
            symbols: self.symbols.unwrap_or(usual.symbols),
            labels: self.labels,
        };
        config.check().map_err(|message| Failure::new(Kind::Usage, message))?;
        Ok(config)
    }
}

impl Config {
    fn check(&self) -> Result<(), String> {
        if let Some(collector) = &self.collector {
            collectors::each(collector).try_for_each(|collector| self.credentials.check_for(collector))?;
        }
        if let Some(kubelet) = &self.kubelet {
            kubelet.check_address().map_err(|error| format!("kubelet: {error}"))?;
        }
        if !WINDOWS.contains(&self.window) {
            return Err("window: a window takes 1s to 60s".to_owned());
        }
        let highest = highest_frequency_hz();
        if self.frequency_hz == 0 || self.frequency_hz > highest {
            return Err(format!("frequency: {} is not from 1 to {highest}", self.frequency_hz));
        }
        let commands = &self.commands;
        // The kernel's own limit may be lower, and change: a recording that exceeds it says so.
        if !(1..=MOST_HZ).contains(&commands.frequency_hz) {
            return Err(format!("command-frequency: {} is not from 1 to {MOST_HZ}", commands.frequency_hz));
        }
        if commands.duration > LONGEST_COMMAND {
            return Err("command-duration: a recording on demand takes an hour at most".to_owned());
        }
        if !(1..=MOST_AT_ONCE).contains(&commands.at_once) {
            return Err(format!("commands-at-once: {} is not from 1 to {MOST_AT_ONCE}", commands.at_once));
        }
        if !(1..=MOST_A_MINUTE).contains(&commands.per_minute) {
            return Err(format!(
                "commands-per-minute: {} is not from 1 to {MOST_A_MINUTE}",
                commands.per_minute
            ));
        }
        if self.labels.len() > MAX_LABELS {
            return Err(format!("labels: there may be {MAX_LABELS} at most"));
        }
        self.labels.iter().try_for_each(|(name, value)| check_label(name, value))
    }

    /// As a file that says all of it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let size = format!("{}B", self.spool_bytes);
        let window = format!("{}ms", self.window.as_millis());
        let command_duration = format!("{}ms", self.commands.duration.as_millis());
        // Without what binary fractions leave behind the digits that were given.
        let share = format!("{}%", (self.max_overhead * 1e8).round() / 1e6);
        let shown = Shown {
            collector: self.collector.as_deref(),
            ca: self.credentials.files.ca.as_deref(),
            cert: self.credentials.files.cert.as_deref(),
            key: self.credentials.files.key.as_deref(),
            server_name: self.credentials.files.server_name.as_deref(),
            token_file: self.credentials.token_file.as_deref(),
            state_dir: &self.state_dir,
            spool_size: &size,
            window: &window,
            frequency: self.frequency_hz,
            max_overhead: &share,
            metrics: self.metrics,
            cri_socket: self.cri_socket.as_deref(),
            kubelet: self.kubelet.as_ref().map(|kubelet| kubelet.url.as_str()),
            kubelet_token_file: self.kubelet.as_ref().and_then(|kubelet| kubelet.token_file.as_deref()),
            kubelet_ca: self.kubelet.as_ref().and_then(|kubelet| kubelet.ca.as_deref()),
            kubelet_server_name: self.kubelet.as_ref().and_then(|kubelet| kubelet.server_name.as_deref()),
            commands: self.commands.takes_any,
            command_frequency: self.commands.frequency_hz,
            command_duration: &command_duration,
            commands_at_once: self.commands.at_once,
            commands_per_minute: self.commands.per_minute,
            symbols: self.symbols,
            labels: &self.labels,
        };
        toml::to_string(&shown).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// The settings of another configuration that only count from the next start on.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let changed = [
            ("state-dir", self.state_dir != other.state_dir),
            ("window", self.window != other.window),
            ("metrics", self.metrics != other.metrics),
            ("cri-socket", self.cri_socket != other.cri_socket),
            ("kubelet", self.kubelet != other.kubelet),
            ("symbols", self.symbols != other.symbols),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}

/// As [`Settings`] in a file.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    collector: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<&'a Path>,
    state_dir: &'a Path,
    spool_size: &'a str,
    window: &'a str,
    frequency: u32,
    max_overhead: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cri_socket: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubelet: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubelet_token_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubelet_ca: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubelet_server_name: Option<&'a str>,
    commands: bool,
    command_frequency: u32,
    command_duration: &'a str,
    commands_at_once: usize,
    commands_per_minute: usize,
    symbols: Namer,
    labels: &'a BTreeMap<String, String>,
}

/// Names are those of Prometheus' labels, so that queries can be written.
fn check_label(name: &str, value: &str) -> Result<(), String> {
    let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
        && name.len() <= MAX_LABEL_BYTES;
    if !is_name {
        return Err(format!("labels: {name:?} is no name: letters, digits and _, and no digit first"));
    }
    if RESERVED.contains(&name) {
        return Err(format!("labels: {name} is found by the agent itself"));
    }
    if value.len() > MAX_LABEL_BYTES {
        return Err(format!("labels: the value of {name} is longer than {MAX_LABEL_BYTES} bytes"));
    }
    Ok(())
}

/// A label as a command line has it: `name=value`.
///
/// # Errors
/// What to give, in words.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give a label as name=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Config, String> {
        let settings = Settings::parse(text, Path::new("agent.toml")).map_err(|failure| failure.message)?;
        settings.config().map_err(|failure| failure.message)
    }

    #[test]
    fn a_file_says_everything_and_nothing_is_the_default() {
        assert_eq!(of(""), Ok(Config::default()));
        let config = of("
collector = 'https://collector:4040'
ca = '/etc/chokepoint/ca.pem'
cert = '/etc/chokepoint/agent.pem'
key = '/etc/chokepoint/agent.key'
server-name = 'collector.example'
token-file = '/etc/chokepoint/token'
state-dir = '/var/lib/other'
spool-size = '1GB'
window = '5s'
frequency = 49
max-overhead = '0.5%'
metrics = '127.0.0.1:9464'
cri-socket = '/run/x.sock'
kubelet = 'https://node:10250'
kubelet-token-file = '/var/run/secrets/token'
kubelet-ca = '/var/run/secrets/ca.crt'
kubelet-server-name = 'node'
commands = false
command-frequency = 499
command-duration = '90s'
commands-at-once = 2
commands-per-minute = 3
[labels]
zone = 'a'
service = 'shop'
")
        .expect("it makes sense");
        assert_eq!((config.spool_bytes, config.frequency_hz), (1_000_000_000, 49));
        assert_eq!((config.window.as_secs(), config.max_overhead), (5, 0.005));
        assert_eq!(config.labels.len(), 2);
        let commands = demand::Limits {
            takes_any: false,
            frequency_hz: 499,
            duration: Duration::from_secs(90),
            at_once: 2,
            per_minute: 3,
        };
        assert_eq!(config.commands, commands);
        assert_eq!(of(&config.to_toml()), Ok(config));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("colector = 'http://x'", "colector"),
            ("window = '5s'\nfrequency = 'fast'", "agent.toml, line 2"),
            ("window = '100s'", "window"),
            ("frequency = 0", "frequency"),
            ("command-frequency = 0", "command-frequency"),
            ("command-duration = '2h'", "command-duration"),
            ("commands-at-once = 5", "commands-at-once"),
            ("commands-per-minute = 0", "commands-per-minute"),
            ("commands = 'yes'", "agent.toml, line 1"),
            ("max-overhead = '2'", "per cent"),
            ("collector = 'collector:4040'", "http://HOST:PORT"),
            ("collector = 'http://'", "http://HOST:PORT"),
            ("collector = 'ftp://x'", "https://HOST:PORT"),
            ("collector = 'http://x'\ntoken-file = 't'", "for all to read"),
            ("collector = 'http://127.0.0.1.example'\ntoken-file = 't'", "for all to read"),
            ("collector = 'http://x'\nca = 't'", "ca: say https://"),
            ("collector = 'https://x'\ncert = 't'", "both cert and key"),
            ("token = 't'", "token"),
            ("kubelet = 'node'", "kubelet: \"node\" is no address"),
            ("kubelet = 'http://10.0.0.1'\nkubelet-token-file = 't'", "kubelet's token"),
            ("[labels]\n1a = 'x'", "1a"),
            ("[labels]\nhost = 'x'", "host"),
        ] {
            let error = of(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_nearer_source_wins_and_labels_are_put_together() {
        let near = Settings::parse("frequency = 9\n[labels]\na = '1'", Path::new("x")).expect("it is one");
        let far = Settings::parse("frequency = 5\nwindow = '2s'\n[labels]\na = '2'\nb = '3'", Path::new("x"))
            .expect("it is");
        let config = near.or(far).config().expect("it makes sense");
        assert_eq!((config.frequency_hz, config.window.as_secs()), (9, 2));
        assert_eq!(config.labels.into_values().collect::<Vec<_>>(), ["1", "3"]);
    }

    #[test]
    fn some_settings_wait_for_the_next_start() {
        let other = Config { window: Duration::from_secs(1), frequency_hz: 1, ..Config::default() };
        assert_eq!(Config::default().needs_restart(&other), ["window"]);
    }
}
