//! Whom to tell, and when: the file that `--alerts` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chokepoint_analysis::signals::definition;
use chokepoint_tls::ClientFiles;
use serde::Deserialize;
use thiserror::Error;

use crate::query::time;
use crate::query_command::client::{Address, Credentials};

/// Bytes of the file at most.
const MAX_BYTES: u64 = 64 << 10;
/// The silence where nobody says any.
const USUAL_SILENCE: &str = "1h";
/// Profiles an hour, and samples a second, where nobody says any.
const USUAL_BUDGET: usize = 10;
const USUAL_HZ: u32 = 99;

/// Whom to tell, and when.
#[derive(Clone)]
pub struct Config {
    /// Where alerts are sent; `None`: nowhere.
    pub address: Option<Address>,
    /// The severity from which on: 1 low, 2 warning, 3 critical.
    pub level: u8,
    /// What is told of.
    pub about: Vec<About>,
    /// How long the same constraint of a host or service is not told again, milliseconds.
    pub silence_ms: u64,
    /// Where people reach this collector.
    pub link: Option<String>,
    /// When profiles are made by themselves; `None`: never.
    pub profile: Option<Profiling>,
}

/// When profiles of hosts are made by themselves, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiling {
    /// The severity of constraints from which on: 1 low, 2 warning, 3 critical.
    pub level: u8,
    /// Signals that are a reason when they are critical.
    pub signals: Vec<String>,
    /// How long after one of a host none of it is begun, milliseconds.
    pub silence_ms: u64,
    /// So many in an hour at most, of all hosts together.
    pub budget: usize,
    /// How long is recorded.
    pub duration: Duration,
    /// Samples a second on each CPU.
    pub frequency_hz: u32,
}

/// The file is of no use.
#[derive(Debug, Error)]
pub enum BadConfig {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It says what makes no sense.
    #[error("{path}: {message}")]
    Says {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    webhook: Option<Webhook>,
    profile: Option<ProfileTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ProfileTable {
    #[serde(default)]
    level: Level,
    #[serde(default)]
    signals: Vec<String>,
    silence: Option<String>,
    budget: Option<usize>,
    duration: Option<String>,
    frequency: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Webhook {
    url: String,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    level: Level,
    #[serde(default = "about_all")]
    about: Vec<About>,
    silence: Option<String>,
    link: Option<String>,
}

/// What a constraint is of.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// Hosts.
    Hosts,
    /// Services.
    Services,
}

fn about_all() -> Vec<About> {
    vec![About::Hosts, About::Services]
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Low = 1,
    Warning = 2,
    #[default]
    Critical = 3,
}

impl Config {
    /// Reads the file, and those that it names.
    ///
    /// # Errors
    /// One cannot be read, or makes no sense.
    pub fn read(path: &Path) -> Result<Self, BadConfig> {
        let read = |source| BadConfig::Read { path: path.to_owned(), source };
        let says = |message: String| BadConfig::Says { path: path.to_owned(), message };
        let length = fs::metadata(path).map_err(read)?.len();
        if length > MAX_BYTES {
            return Err(says(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let file: File = toml::from_str(&text).map_err(|error| says(error.to_string()))?;
        if file.webhook.is_none() && file.profile.is_none() {
            return Err(says(
                "it has neither a table [webhook] nor [profile]: nothing is to be done".to_owned(),
            ));
        }
        let profile = file.profile.map(Profiling::new).transpose().map_err(says)?;
        let Some(Webhook { url, token_file, ca, level, about, silence, link }) = file.webhook else {
            let about = Vec::new();
            return Ok(Self { address: None, level: 0, about, silence_ms: 0, link: None, profile });
        };
        if about.is_empty() {
            return Err(says("about: name hosts, services, or both".to_owned()));
        }
        let credentials = Credentials { files: ClientFiles { ca, ..ClientFiles::default() }, token_file };
        let address = Address::new(&url, &credentials).map_err(|error| says(error.reason()))?;
        let silence_ms = length_ms("silence", silence.as_deref().unwrap_or(USUAL_SILENCE)).map_err(says)?;
        Ok(Self { address: Some(address), level: level as u8, about, silence_ms, link, profile })
    }
}

impl Profiling {
    fn new(table: ProfileTable) -> Result<Self, String> {
        let ProfileTable { level, signals, silence, budget, duration, frequency } = table;
        if let Some(unknown) = signals.iter().find(|name| definition(name).is_none()) {
            return Err(format!("signals: there is no signal {unknown:?}: docs/signals.md lists them"));
        }
        let limits = crate::control::Limits::default();
        let duration = Duration::from_millis(length_ms("duration", duration.as_deref().unwrap_or("10s"))?);
        if duration.is_zero() || duration > limits.duration {
            return Err(format!("duration: up to {} s", limits.duration.as_secs()));
        }
        let frequency_hz = frequency.unwrap_or(USUAL_HZ);
        if !(1..=limits.frequency_hz).contains(&frequency_hz) {
            return Err(format!("frequency: 1 to {} samples a second", limits.frequency_hz));
        }
        Ok(Self {
            level: level as u8,
            signals,
            silence_ms: length_ms("silence", silence.as_deref().unwrap_or(USUAL_SILENCE))?,
            budget: budget.unwrap_or(USUAL_BUDGET),
            duration,
            frequency_hz,
        })
    }
}

fn length_ms(name: &str, text: &str) -> Result<u64, String> {
    let length_ns = time::duration_ns(text).map_err(|error| format!("{name}: {error}"))?;
    Ok(length_ns / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("it can be written");
        Config::read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn profiles_are_made_by_themselves_where_the_file_says_so() {
        assert_eq!(read("[webhook]\nurl = \"http://127.0.0.1:1\"\n").expect("a configuration").profile, None);
        let config = read("[profile]\nlevel = \"warning\"\nsignals = [\"cpu.utilization\"]\nbudget = 3\n");
        let config = config.expect("a configuration");
        assert!(config.address.is_none());
        let expected = Profiling {
            level: 2,
            signals: vec!["cpu.utilization".to_owned()],
            silence_ms: 3_600_000,
            budget: 3,
            duration: Duration::from_secs(10),
            frequency_hz: 99,
        };
        assert_eq!(config.profile, Some(expected));
    }

    #[test]
    fn files_say_whom_to_tell_or_what_is_wrong() {
        let config =
            read("[webhook]\nurl = \"http://127.0.0.1:1/hook\"\nlevel = \"warning\"\nsilence = \"30m\"\n");
        let config = config.expect("a configuration");
        assert_eq!((config.level, config.silence_ms, config.link), (2, 1_800_000, None));
        assert_eq!(read("[webhook]\nurl = \"http://127.0.0.1:1\"\n").expect("a configuration").level, 3);
        for (bad, part) in [
            ("", "neither a table [webhook] nor [profile]"),
            ("[profile]\nsignals = [\"cpu.utilization\", \"cpu.loud\"]\n", "cpu.loud"),
            ("[webhook]\nurl = \"http://127.0.0.1:1\"\nabout = []\n", "about"),
            ("[webhook]\nurl = \"http://127.0.0.1:1\"\nabout = [\"pods\"]\n", "pods"),
            ("[profile]\nduration = \"1d\"\n", "up to 600 s"),
            ("[profile]\nfrequency = 0\n", "1 to 10000"),
            ("[webhook]\nurl = \"nowhere\"\n", "nowhere"),
            ("[webhook]\nurl = \"http://127.0.0.1:1\"\nlevel = \"loud\"\n", "loud"),
            ("[webhook]\nurl = \"http://127.0.0.1:1\"\nsilence = \"long\"\n", "silence"),
            ("[webhook]\nurl = \"http://127.0.0.1:1\"\ntoken = \"x\"\n", "token"),
            ("[webhook]\nurl = \"http://127.0.0.1:1\"\ntoken-file = \"/nowhere\"\n", "/nowhere"),
        ] {
            let error = read(bad).err().expect(bad);
            assert!(error.contains(part), "{error}");
        }
    }
}
