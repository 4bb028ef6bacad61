//! `chokepoint-collector query`: asks a running collector, and shows the answer to people, or writes it for tools.

pub mod client;
pub mod failure;
mod of_fleet;
mod tables;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use chokepoint_analysis::export::Format;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use self::client::{Address, Credentials};
use self::failure::{Failure, Kind};
use crate::api::BASE;
use crate::query::fleet::regressions::Regressions;
use crate::query::{
    catalogue, constraints, decomposition, diff, flame, fleet, latencies, retransmits, series, signals, table,
};

/// Where a collector listens unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:4041";

/// What to ask a collector.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Where the collector is.
    #[arg(
        long,
        visible_alias = "collector",
        global = true,
        value_name = "URL",
        default_value = DEFAULT_URL,
        env = "CHOKEPOINT_URL"
    )]
    url: String,
    /// Print the collector's answer as it is.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    security: Security,
}

/// What is trusted, and what is shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct Security {
    /// Authorities (PEM) of which the collector's certificate is one. Default: those that this host trusts.
    #[arg(long, global = true, value_name = "FILE", env = "CHOKEPOINT_CA")]
    ca: Option<PathBuf>,
    /// A certificate (PEM) to show, where the collector asks for one.
    #[arg(long, global = true, value_name = "FILE", env = "CHOKEPOINT_CERT")]
    cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "CHOKEPOINT_KEY")]
    key: Option<PathBuf>,
    /// The name in the collector's certificate, where it is not the one in the URL.
    #[arg(long, global = true, value_name = "NAME", env = "CHOKEPOINT_SERVER_NAME")]
    server_name: Option<String>,
    /// A file that has a token, and nothing else.
    #[arg(long, global = true, value_name = "FILE", env = "CHOKEPOINT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Security {
    pub(crate) fn credentials(&self) -> Credentials {
        let Self { ca, cert, key, server_name, token_file } = self.clone();
        let files = chokepoint_tls::ClientFiles { ca, cert, key, server_name };
        Credentials { files, token_file }
    }
}

/// Whose, and when.
#[derive(Clone, Debug, Args)]
struct Time {
    /// From when: now-1h, 2026-01-31T12:00:00Z, or Unix seconds.
    #[arg(long, value_name = "TIME", default_value = "now-1h")]
    from: String,
    /// Up to when.
    #[arg(long, value_name = "TIME", default_value = "now")]
    until: String,
}

#[derive(Clone, Debug, Args)]
struct Profile {
    /// What of: a type of profile with matchers of labels, as in PromQL: 'cpu{service="web", pod=~"web-.*"}'.
    query: String,
    #[command(flatten)]
    time: Time,
}

#[derive(Clone, Debug, Args)]
struct Anything {
    /// Whose: matchers of labels, '{zone="z1"}'. Of signals: 'cpu.utilization{host="a"}'.
    #[arg(default_value = "{}")]
    query: String,
    #[command(flatten)]
    time: Time,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Show the paths that most of the time is on, or write a flame graph or a profile.
    Flame {
        #[command(flatten)]
        of: Profile,
        /// Labels to keep apart by, separated by commas.
        #[arg(long, value_name = "LABELS", default_value = "")]
        by: String,
        /// Write a file; its end says what: .svg, .folded, .pb.gz, .speedscope.json, .json.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the functions that most of the time goes to.
    Top {
        #[command(flatten)]
        of: Profile,
        /// How many functions.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: usize,
    },
    /// Show how much there was over time.
    Series {
        #[command(flatten)]
        of: Profile,
        /// Labels to keep apart by, separated by commas.
        #[arg(long, value_name = "LABELS", default_value = "")]
        by: String,
        /// Length of a step: 1m. Default: a round part of the time.
        #[arg(long, value_name = "DURATION", default_value = "")]
        step: String,
    },
    /// Show what the time of threads goes into.
    Decomposition {
        /// What of: 'wall{service="web"}'.
        #[arg(default_value = "wall")]
        query: String,
        #[command(flatten)]
        time: Time,
        /// Labels to keep apart by, separated by commas.
        #[arg(long, value_name = "LABELS", default_value = "")]
        by: String,
    },
    /// Show what limits hosts or services: how bad, on how many hosts, since when.
    Constraints {
        #[command(flatten)]
        of: Anything,
        /// Labels to keep apart by, separated by commas.
        #[arg(long, value_name = "LABELS", default_value = "host")]
        by: String,
    },
    /// Show what limits services: on which of their hosts, since when, behind which other service; and hosts that differ from their peers.
    Fleet {
        /// Whose: matchers of labels, '{zone="z1"}'.
        #[arg(default_value = "{}")]
        query: String,
        /// From when: now-10m, 2026-01-31T12:00:00Z, or Unix seconds.
        #[arg(long, value_name = "TIME", default_value = "now-10m")]
        from: String,
        /// Up to when.
        #[arg(long, value_name = "TIME", default_value = "now")]
        until: String,
        /// Labels that make a service, separated by commas.
        #[arg(long, value_name = "LABELS", default_value = "service")]
        by: String,
    },
    /// Show what was rolled out, by the labels version and image, and the functions that take more or less time since.
    Regressions {
        #[command(flatten)]
        of: Anything,
        /// Labels that make a service, separated by commas.
        #[arg(long, value_name = "LABELS", default_value = "service")]
        by: String,
    },
    /// Show saturation signals.
    Signals {
        #[command(flatten)]
        of: Anything,
        /// Show those without a warning, too.
        #[arg(long)]
        all: bool,
    },
    /// Show how long threads queued, or requests of block devices took.
    Latencies {
        #[command(flatten)]
        of: Anything,
        /// Of what.
        #[arg(long = "of", value_name = "WHAT", value_parser = ["run-queue", "disk"], default_value = "disk")]
        what: String,
    },
    /// Show what TCP connections sent again, by peer.
    Retransmits {
        #[command(flatten)]
        of: Anything,
    },
    /// List labels, or the values of one.
    Labels {
        #[command(flatten)]
        of: Anything,
        /// The values of this label.
        #[arg(long, value_name = "NAME")]
        values: Option<String>,
    },
    /// List the agents that are known.
    Agents,
    /// Show what changed: from one time to another, or from one selection to another.
    Diff {
        #[command(flatten)]
        of: Profile,
        /// What to compare with. Default: the same query.
        #[arg(long, value_name = "QUERY", default_value = "")]
        before: String,
        /// From when to compare with. Default: as --from.
        #[arg(long, value_name = "TIME", default_value = "")]
        before_from: String,
        /// Up to when to compare with. Default: as --until.
        #[arg(long, value_name = "TIME", default_value = "")]
        before_until: String,
        /// How many functions.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: usize,
    },
}

/// Asks, and prints or writes the answer.
///
/// # Errors
/// There is no answer, or no place for it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Unexpected, error.to_string()))?;
    let output = runtime.block_on(answer(arguments))?;
    match output.file {
        Some(path) => write_whole(&path, &output.bytes),
        None => print(&output.bytes),
    }
}

/// What is to be printed, or written into a file.
#[derive(Debug)]
struct Output {
    bytes: Vec<u8>,
    file: Option<PathBuf>,
}

async fn answer(arguments: &Arguments) -> Result<Output, Failure> {
    let asking = Asking {
        address: Address::new(&arguments.url, &arguments.security.credentials())?,
        json: arguments.json,
    };
    match &arguments.what {
        What::Flame { of, by, output: Some(path) } => {
            let mut parameters = of.parameters();
            parameters.push(("by", by));
            let bytes =
                asking.address.get(&format!("{BASE}{}", made_by(path, &ENDPOINTS)?), &parameters).await?;
            let file = (path.as_os_str() != "-").then(|| path.clone());
            Ok(Output { bytes: bytes.to_vec(), file })
        }
        What::Flame { of, by, output: None } => {
            let mut parameters = of.parameters();
            parameters.push(("by", by));
            asking.shown::<flame::FlameGraph>("/flamegraph", &parameters, tree::page).await
        }
        What::Top { of, limit } => {
            let limit = limit.to_string();
            let mut parameters = of.parameters();
            parameters.push(("limit", &limit));
            asking.shown::<table::Table>("/top", &parameters, tables::top).await
        }
        What::Series { of, by, step } => {
            let mut parameters = of.parameters();
            parameters.extend([("by", by.as_str()), ("step", step)]);
            asking.shown::<series::SeriesSet>("/series", &parameters, tables::series).await
        }
        What::Decomposition { query, time, by } => {
            let parameters =
                [("query", query.as_str()), ("from", &time.from), ("until", &time.until), ("by", by)];
            asking
                .shown::<decomposition::Decomposition>("/decomposition", &parameters, tables::decomposition)
                .await
        }
        What::Constraints { of, by } => {
            let mut parameters = of.parameters();
            parameters.push(("by", by));
            asking.shown::<constraints::Constraints>("/constraints", &parameters, tables::constraints).await
        }
        What::Fleet { query, from, until, by } => {
            let parameters = [("query", query.as_str()), ("from", from), ("until", until), ("by", by)];
            asking.shown::<fleet::Fleet>("/fleet", &parameters, of_fleet::services).await
        }
        What::Regressions { of, by } => {
            let mut parameters = of.parameters();
            parameters.push(("by", by));
            asking.shown::<Regressions>("/regressions", &parameters, of_fleet::regressions).await
        }
        What::Signals { of, all } => {
            let page = if *all { tables::signals } else { tables::urgent_signals };
            asking.shown::<signals::Signals>("/signals", &of.parameters(), page).await
        }
        What::Latencies { of, what } => {
            let mut parameters = of.parameters();
            parameters.push(("of", what));
            asking.shown::<latencies::Latencies>("/latencies", &parameters, tables::latencies).await
        }
        What::Retransmits { of } => {
            let page = tables::retransmits;
            asking.shown::<retransmits::Retransmits>("/retransmits", &of.parameters(), page).await
        }
        What::Labels { of, values: None } => {
            asking.shown::<catalogue::LabelNames>("/labels", &of.parameters(), tables::labels).await
        }
        What::Labels { of, values: Some(name) } => {
            let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            // In a path a plus is a plus.
            let path = format!("/label/{}/values", name.replace('+', "%20"));
            asking.shown::<catalogue::LabelValues>(&path, &of.parameters(), tables::values).await
        }
        What::Agents => asking.shown::<catalogue::Agents>("/agents", &[], tables::agents).await,
        What::Diff { of, before, before_from, before_until, limit } => {
            let limit = limit.to_string();
            let mut parameters = of.parameters();
            parameters.extend([
                ("before_query", before.as_str()),
                ("before_from", before_from),
                ("before_until", before_until),
                ("limit", &limit),
            ]);
            asking.shown::<diff::Diff>("/diff", &parameters, tables::diff).await
        }
    }
}

impl Profile {
    fn parameters(&self) -> Vec<(&str, &str)> {
        vec![("query", &self.query), ("from", &self.time.from), ("until", &self.time.until)]
    }
}

impl Anything {
    fn parameters(&self) -> Vec<(&str, &str)> {
        vec![("query", &self.query), ("from", &self.time.from), ("until", &self.time.until)]
    }
}

struct Asking {
    address: Address,
    json: bool,
}

impl Asking {
    /// The answer as a page for people, or as it came.
    async fn shown<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        page: fn(&T) -> String,
    ) -> Result<Output, Failure> {
        let mut bytes = self.address.get(&format!("{BASE}{path}"), parameters).await?.to_vec();
        if self.json {
            bytes.push(b'\n');
            return Ok(Output { bytes, file: None });
        }
        let answer: T = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(Kind::Target, format!("the collector answers what is not understood here: {error}"))
        })?;
        Ok(Output { bytes: page(&answer).into_bytes(), file: None })
    }
}

/// What makes each kind of file that can be written; its name's end says of which kind one is.
const ENDPOINTS: [(Format, &str); 5] = [
    (Format::Svg, "/svg"),
    (Format::Folded, "/folded"),
    (Format::Pprof, "/pprof"),
    (Format::Speedscope, "/speedscope"),
    (Format::Json, "/flamegraph"),
];

/// Which of these makes a file of this name; `-` is folded stacks.
pub(crate) fn made_by(path: &Path, makers: &[(Format, &'static str)]) -> Result<&'static str, Failure> {
    let is_printed = path.as_os_str() == "-";
    let format = if is_printed { Some(Format::Folded) } else { Format::from_path(path).ok() };
    let maker = makers.iter().find(|(made, _)| format == Some(*made));
    maker.map(|(_, maker)| *maker).ok_or_else(|| {
        Failure::new(
            Kind::Usage,
            "a file's name ends in .svg, .folded, .pb.gz, .speedscope.json or .json: that says what is written",
        )
    })
}

/// A file appears under its name only when all of it is on the disk.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Kind::Output, format!("cannot write {}: {error}", path.display()))
    };
    // A pipe or a device such as /dev/null is written in place.
    if std::fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir()) {
        return std::fs::write(path, bytes).map_err(failed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".chokepoint-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Prints to standard output, as far as anybody reads it.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Output, format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}
