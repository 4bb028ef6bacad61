//! Whom to tell, and when: the file that `--alerts` names.

use std::fs;
use std::path::{Path, PathBuf};

use chokepoint_tls::ClientFiles;
use serde::Deserialize;
use thiserror::Error;

use crate::query::time;
use crate::query_command::client::{Address, Credentials};

/// Bytes of the file at most.
const MAX_BYTES: u64 = 64 << 10;
/// The silence where nobody says any.
const USUAL_SILENCE: &str = "1h";

/// Whom to tell, and when.
#[derive(Clone)]
pub struct Config {
    /// Where alerts are sent.
    pub address: Address,
    /// The severity from which on: 1 low, 2 warning, 3 critical.
    pub level: u8,
    /// How long the same constraint of a host is not told again, milliseconds.
    pub silence_ms: u64,
    /// Where people reach this collector.
    pub link: Option<String>,
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
    webhook: Webhook,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Webhook {
    url: String,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    level: Level,
    silence: Option<String>,
    link: Option<String>,
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
        let Webhook { url, token_file, ca, level, silence, link } = file.webhook;
        let credentials = Credentials { files: ClientFiles { ca, ..ClientFiles::default() }, token_file };
        let address = Address::new(&url, &credentials).map_err(|error| says(error.reason()))?;
        let silence = silence.as_deref().unwrap_or(USUAL_SILENCE);
        let silence_ns = time::duration_ns(silence).map_err(|error| says(format!("silence: {error}")))?;
        Ok(Self { address, level: level as u8, silence_ms: silence_ns / 1_000_000, link })
    }
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
    fn files_say_whom_to_tell_or_what_is_wrong() {
        let config =
            read("[webhook]\nurl = \"http://127.0.0.1:1/hook\"\nlevel = \"warning\"\nsilence = \"30m\"\n");
        let config = config.expect("a configuration");
        assert_eq!((config.level, config.silence_ms, config.link), (2, 1_800_000, None));
        assert_eq!(read("[webhook]\nurl = \"http://127.0.0.1:1\"\n").expect("a configuration").level, 3);
        for (bad, part) in [
            ("", "webhook"),
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
