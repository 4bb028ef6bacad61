//! `chokepoint agent`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{print, runtime};
use crate::amounts::{parse_bytes, parse_duration, parse_share};
use crate::continuous::config::{Config, Namer, Settings, parse_label};
use crate::continuous::run as follow;
use crate::failure::Failure;

/// Arguments of `chokepoint agent`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint agent --collector https://collector:4040          send windows of this host to a collector
  chokepoint agent --metrics 127.0.0.1:9464                    tell of itself on this host
  chokepoint agent --label zone=a --print-config               what it would go by

Each option may also be in a file, by its name (spool-size = \"1GB\"; labels in a table [labels]), or in the environment. An option comes
before the environment, that before the file. SIGHUP reads the file again.")]
pub struct Arguments {
    /// The collector: https://HOST:PORT, or http:// without encryption; of several collectors of one store all, with commas between them.
    /// Without one nothing leaves this host.
    #[arg(long, value_name = "URL", env = "CHOKEPOINT_COLLECTOR")]
    collector: Option<String>,
    /// Authorities (PEM) of which the collector's certificate is one [default: those that this host trusts]
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_CA")]
    ca: Option<PathBuf>,
    /// A certificate (PEM) to show the collector
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_CERT")]
    cert: Option<PathBuf>,
    /// Its key (PEM), which only its owner may read
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_KEY")]
    key: Option<PathBuf>,
    /// The name in the collector's certificate, where it is not the one in the URL
    #[arg(long, value_name = "NAME", env = "CHOKEPOINT_SERVER_NAME")]
    server_name: Option<String>,
    /// A file that has a token for the collector and nothing else, which only its owner may read
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The configuration file [default: /etc/chokepoint/agent.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_CONFIG")]
    config: Option<PathBuf>,
    /// Where batches wait and the agent's identity is kept [default: /var/lib/chokepoint]
    #[arg(long, value_name = "DIR", env = "CHOKEPOINT_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// What waiting batches may take on disk [default: 256MB]
    #[arg(long, value_name = "BYTES", env = "CHOKEPOINT_SPOOL_SIZE", value_parser = parse_bytes)]
    spool_size: Option<u64>,
    /// Samples a second on each CPU [default: 19]
    #[arg(short = 'F', long, value_name = "HZ", env = "CHOKEPOINT_FREQUENCY")]
    frequency: Option<u32>,
    /// Share of all of the host's CPUs that the agent may use, kernel programs included [default: 1%]
    #[arg(long, value_name = "PERCENT", env = "CHOKEPOINT_MAX_OVERHEAD", value_parser = parse_share)]
    max_overhead: Option<f64>,
    /// Serve /metrics and /healthz at this address: 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS", env = "CHOKEPOINT_METRICS")]
    metrics: Option<SocketAddr>,
    /// A label of this host: zone=a. May be given more than once; the environment has them with commas between.
    #[arg(long = "label", value_name = "NAME=VALUE", env = "CHOKEPOINT_LABELS", value_delimiter = ',', value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Socket of the container runtime [default: the first of the usual ones that answers]
    #[arg(long, value_name = "SOCKET", env = "CHOKEPOINT_CRI_SOCKET")]
    cri_socket: Option<PathBuf>,
    /// The node's kubelet, which is asked for pods where no container runtime answers: http://127.0.0.1:10255, https://NODE:10250
    #[arg(long, value_name = "URL", env = "CHOKEPOINT_KUBELET")]
    kubelet: Option<String>,
    /// A file that has a token for the kubelet, and nothing else
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_KUBELET_TOKEN_FILE")]
    kubelet_token_file: Option<PathBuf>,
    /// Authorities (PEM) of which the kubelet's certificate is one [default: those that this host trusts]
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_KUBELET_CA")]
    kubelet_ca: Option<PathBuf>,
    /// The name in the kubelet's certificate, where it is not the one in the URL
    #[arg(long, value_name = "NAME", env = "CHOKEPOINT_KUBELET_SERVER_NAME")]
    kubelet_server_name: Option<String>,
    /// Whether profiles are recorded when the collector's operators ask for them [default: true]
    #[arg(long, value_name = "BOOL", env = "CHOKEPOINT_COMMANDS")]
    commands: Option<bool>,
    /// The most samples a second on each CPU of a profile on demand [default: 999]
    #[arg(long, value_name = "HZ", env = "CHOKEPOINT_COMMAND_FREQUENCY")]
    command_frequency: Option<u32>,
    /// The longest profile on demand [default: 5m]
    #[arg(long, value_name = "TIME", env = "CHOKEPOINT_COMMAND_DURATION", value_parser = parse_duration)]
    command_duration: Option<Duration>,
    /// Profiles on demand at once, 1 to 4 [default: 1]
    #[arg(long, value_name = "NUMBER", env = "CHOKEPOINT_COMMANDS_AT_ONCE")]
    commands_at_once: Option<usize>,
    /// Profiles on demand that may begin within a minute [default: 6]
    #[arg(long, value_name = "NUMBER", env = "CHOKEPOINT_COMMANDS_PER_MINUTE")]
    commands_per_minute: Option<usize>,
    /// Who names functions of binaries: with `collector` this host sends addresses, and symbols only of builds that the collector lacks
    /// (docs/symbols.md) [default: host]
    #[arg(long, value_name = "WHO", env = "CHOKEPOINT_SYMBOLS")]
    symbols: Option<Namer>,
    /// How long a window is, 1s to 60s [default: 10s]
    #[arg(long, value_name = "TIME", env = "CHOKEPOINT_WINDOW", value_parser = parse_duration, hide = true)]
    window: Option<Duration>,
    /// Print the configuration that comes of all of these, and end.
    #[arg(long)]
    print_config: bool,
}

impl Arguments {
    fn settings(&self) -> Settings {
        Settings {
            collector: self.collector.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            server_name: self.server_name.clone(),
            token_file: self.token_file.clone(),
            state_dir: self.state_dir.clone(),
            spool_size: self.spool_size,
            window: self.window,
            frequency: self.frequency,
            max_overhead: self.max_overhead,
            metrics: self.metrics,
            cri_socket: self.cri_socket.clone(),
            kubelet: self.kubelet.clone(),
            kubelet_token_file: self.kubelet_token_file.clone(),
            kubelet_ca: self.kubelet_ca.clone(),
            kubelet_server_name: self.kubelet_server_name.clone(),
            commands: self.commands,
            command_frequency: self.command_frequency,
            command_duration: self.command_duration,
            commands_at_once: self.commands_at_once,
            commands_per_minute: self.commands_per_minute,
            symbols: self.symbols,
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        }
    }

    fn effective(&self) -> Result<Config, Failure> {
        self.settings().or(Settings::read(self.config.as_deref())?).config()
    }
}

/// Follows this host until it is told to end.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(arguments: &Arguments, kernel_log: bool) -> Result<ExitCode, Failure> {
    let config = arguments.effective()?;
    if arguments.print_config {
        print(&config.to_toml())?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime()?.block_on(follow(config, || arguments.effective(), kernel_log))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn an_option_comes_before_the_file_and_the_file_before_the_default() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("agent.toml");
        std::fs::write(&file, "frequency = 49\nwindow = '5s'\n[labels]\nzone = 'a'")
            .expect("it can be written");
        let file = file.to_string_lossy();
        let line = ["x", "--config", &file, "-F", "9", "--label", "zone=b", "--label", "rack=1"];
        let arguments = Program::try_parse_from(line).expect("a command line").arguments;
        let config = arguments.effective().expect("it makes sense");
        assert_eq!((config.frequency_hz, config.window.as_secs(), config.max_overhead), (9, 5, 0.01));
        assert_eq!(config.labels.into_values().collect::<Vec<_>>(), ["1", "b"]);
        let missing = Program::try_parse_from(["x", "--config", "/nowhere/x.toml"]).expect("a command line");
        assert!(missing.arguments.effective().is_err());
    }
}
