//! `chokepoint-collector serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use tokio::signal::unix::{SignalKind, signal};

use super::otlp::OtlpArguments;
use super::place::{Access, Place};
use super::{Failure, Kind};
use crate::access::{Guard, Protection, ProtectionError};
use crate::alerts;
use crate::control::Control;
use crate::ingest::Limits;
use crate::pipeline::{self, BLOCKING_THREADS, DISTRIBUTED_BLOCKING_THREADS, Serve, ServeError};
use crate::protocols::otlp::send::{Outlet, Streams};
use crate::query::limits::Limits as QueryLimits;
use crate::query_command::client::{Address, Credentials};
use crate::store::clickhouse::{self, Keep};
use crate::store::embedded::Options;
use crate::symbols::{self, FleetSymbols};

/// Nanoseconds of an hour.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Hours of a day.
const DAY_HOURS: u64 = 24;
/// Days for which servers keep windows where nothing is said.
const KEEP_DAYS: u64 = 14;
/// Bytes of a gibibyte.
const GIB: u64 = 1 << 30;

/// Takes in what agents send, and keeps it in a directory.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The store: a directory, made where it is not there; or servers, clickhouse://HOST:PORT,HOST:PORT/DATABASE, with TLS clickhouses://
    /// (docs/clickhouse.md)
    #[arg(long, value_name = "DIR|SERVERS", env = "CHOKEPOINT_STORE")]
    store: Place,
    #[command(flatten)]
    access: Access,
    /// For servers, how many days windows are kept as they were, with what limited hosts; today's not counted
    #[arg(long, value_name = "DAYS", default_value_t = KEEP_DAYS)]
    keep_days: u64,
    /// Where agents are listened to (gRPC)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4040", env = "CHOKEPOINT_LISTEN")]
    listen: SocketAddr,
    /// Where queries are listened to (HTTP)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4041", env = "CHOKEPOINT_HTTP")]
    http: SocketAddr,
    /// Without TLS, a name by which browsers may ask for queries, beside localhost and addresses. May be given more than once
    #[arg(long = "http-name", value_name = "NAME", env = "CHOKEPOINT_HTTP_NAMES", value_delimiter = ',')]
    http_names: Vec<String>,
    /// In a directory, how long windows are kept as they were, hours
    #[arg(long, value_name = "HOURS", default_value_t = Options::default().windows_ns / HOUR_NS)]
    keep_windows: u64,
    /// How long sums of minutes are kept, hours; on servers, whole days of it
    #[arg(long, value_name = "HOURS", default_value_t = Options::default().minutes_ns / HOUR_NS)]
    keep_minutes: u64,
    /// How long sums of hours are kept, hours, and in a directory what limited hosts; on servers, whole weeks of it
    #[arg(long, value_name = "HOURS", default_value_t = Options::default().hours_ns / HOUR_NS)]
    keep_hours: u64,
    /// Bytes of history at most, GiB: where there would be more, the oldest goes
    #[arg(long, value_name = "GIB", default_value_t = Options::default().max_bytes / GIB)]
    max_gib: u64,
    /// Bytes of names in the catalogue at most, GiB: the oldest history goes before there are as many
    #[arg(long, value_name = "GIB", default_value_t = Options::default().max_name_bytes / GIB)]
    max_names_gib: u64,
    /// Whom to tell when a constraint crosses its level, and whether a profile is made then (TOML; docs/alerts.md)
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_ALERTS")]
    alerts: Option<PathBuf>,
    #[command(flatten)]
    symbols: SymbolArguments,
    #[command(flatten)]
    protection: ProtectionArguments,
    #[command(flatten)]
    otlp: OtlpArguments,
}

/// How code of agents is named that send addresses alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Symbols")]
struct SymbolArguments {
    /// Where symbols of builds are kept (docs/symbols.md). For collectors of one store on servers a directory that all of them have; without one
    /// they take no symbols [default: symbols/ in the store's directory]
    #[arg(long = "symbols-dir", value_name = "DIR", env = "CHOKEPOINT_SYMBOLS_DIR")]
    directory: Option<PathBuf>,
    /// Bytes of symbols at most, MiB: where there would be more, those needed longest ago go
    #[arg(long, value_name = "MIB", default_value_t = 2_048)]
    max_symbols_mib: u64,
    /// A debuginfod server that is asked for symbols of builds: http://HOST:PORT or https://HOST. May be given more than once
    #[arg(long = "debuginfod", value_name = "URL", env = "CHOKEPOINT_DEBUGINFOD", value_delimiter = ',')]
    debuginfod: Vec<String>,
}

impl SymbolArguments {
    /// Opens the symbols. They are kept for as long as any rows are.
    fn open(&self, store: &Place, keep: Duration) -> Result<Option<Arc<FleetSymbols>>, Failure> {
        let directory = match (&self.directory, store) {
            (Some(directory), _) => directory.clone(),
            (None, Place::Directory(store)) => store.join("symbols"),
            (None, Place::Servers(_)) if self.debuginfod.is_empty() => return Ok(None),
            (None, Place::Servers(_)) => {
                let message = "--debuginfod: symbols need a directory: say --symbols-dir".to_owned();
                return Err(Failure { kind: Kind::Usage, message });
            }
        };
        let address = |url: &String| {
            Address::new(url, &Credentials::default()).map(Arc::new).map_err(|error| Failure {
                kind: Kind::Usage,
                message: format!("--debuginfod: {}", error.reason()),
            })
        };
        let debuginfod = self.debuginfod.iter().map(address).collect::<Result<_, _>>()?;
        let max_bytes = self.max_symbols_mib.saturating_mul(1 << 20);
        let shown = directory.display().to_string();
        let opened = FleetSymbols::open(symbols::Options { directory, max_bytes, keep, debuginfod });
        opened.map(Some).map_err(|error| Failure {
            kind: Kind::Store,
            message: format!("cannot keep symbols in {shown}: {error}"),
        })
    }
}

/// Who is let in. All files are read again when they change, and at once with SIGHUP.
#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
struct ProtectionArguments {
    /// The collector's certificate with its chain (PEM): TLS is spoken at both addresses
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM), which only its owner may read
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Agents must show a certificate of one of these authorities (PEM)
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_CLIENT_CA")]
    client_ca: Option<PathBuf>,
    /// Whoever asks queries must show a certificate of one of these authorities (PEM)
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_HTTP_CLIENT_CA")]
    http_client_ca: Option<PathBuf>,
    /// Tokens are asked for: those of this file (TOML, made by `chokepoint-collector token new`)
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_TOKENS")]
    tokens: Option<PathBuf>,
    /// An agent's host must have the name of its certificate or token
    #[arg(long, env = "CHOKEPOINT_BIND_HOSTS", value_parser = FalseyValueParser::new())]
    bind_hosts: bool,
    /// Listen to other hosts although what is sent is not encrypted, or nobody is asked who they are
    #[arg(long, env = "CHOKEPOINT_TRUST_NETWORK", value_parser = FalseyValueParser::new())]
    trust_network: bool,
}

impl ProtectionArguments {
    fn protection(&self) -> Protection {
        Protection {
            certificate: self.tls_cert.clone().zip(self.tls_key.clone()),
            client_ca: self.client_ca.clone(),
            http_client_ca: self.http_client_ca.clone(),
            tokens: self.tokens.clone(),
            binds_hosts: self.bind_hosts,
            trusts_network: self.trust_network,
        }
    }
}

/// Serves until a signal ends it.
pub(super) fn run(arguments: ServeArguments, give_back: fn()) -> Result<(), Failure> {
    let threads = match arguments.store {
        Place::Directory(_) => BLOCKING_THREADS,
        Place::Servers(_) => DISTRIBUTED_BLOCKING_THREADS,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure { kind: Kind::Unexpected, message: error.to_string() })?;
    runtime.block_on(serve(arguments, give_back))
}

async fn serve(arguments: ServeArguments, give_back: fn()) -> Result<(), Failure> {
    let hours = |hours: u64| hours.saturating_mul(HOUR_NS);
    let options = Options {
        windows_ns: hours(arguments.keep_windows),
        minutes_ns: hours(arguments.keep_minutes),
        hours_ns: hours(arguments.keep_hours),
        max_bytes: arguments.max_gib.saturating_mul(GIB),
        max_name_bytes: arguments.max_names_gib.saturating_mul(GIB),
        ..Options::default()
    };
    let unexpected = |error: std::io::Error| Failure { kind: Kind::Unexpected, message: error.to_string() };
    let protection = arguments.protection.protection();
    protection.check(arguments.listen, arguments.http).map_err(unprotected)?;
    let guard = Guard::new(&protection).map_err(unprotected)?;
    let alerts = arguments.alerts.as_deref().map(alerts::Config::read).transpose();
    let alerts = alerts.map_err(|error| Failure { kind: Kind::Usage, message: error.to_string() })?;
    let otlp = arguments.otlp.options().map_err(|message| Failure { kind: Kind::Usage, message })?;
    let (outlet, sends) = otlp.map(Outlet::new).unzip();
    let hangup = signal(SignalKind::hangup()).map_err(unexpected)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unexpected)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unexpected)?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    };
    let days = |hours: u64| hours.div_ceil(DAY_HOURS);
    let keep = Keep::new(arguments.keep_days, days(arguments.keep_minutes), days(arguments.keep_hours));
    let on_servers = clickhouse::Options { keep: Some(keep), ..clickhouse::Options::default() };
    let trusts_network = arguments.protection.trust_network;
    // Symbols are kept for as long as any rows are.
    let longest_h = match &arguments.store {
        Place::Directory(_) => arguments.keep_windows.max(arguments.keep_minutes).max(arguments.keep_hours),
        Place::Servers(_) => arguments
            .keep_days
            .saturating_add(1)
            .saturating_mul(DAY_HOURS)
            .max(arguments.keep_minutes)
            .max(arguments.keep_hours),
    };
    let symbols =
        arguments.symbols.open(&arguments.store, Duration::from_secs(longest_h.saturating_mul(3_600)))?;
    let store = arguments.store.home(options, on_servers, arguments.access, trusts_network)?;
    let control = Arc::new(Control::default());
    let serve = Serve {
        store,
        listen: arguments.listen,
        limits: Limits::default(),
        guard: guard.clone(),
        control: Arc::clone(&control),
        symbols: symbols.clone(),
        tap: outlet.map(|outlet| Arc::new(Streams(outlet)) as _),
    };
    let queries = pipeline::listen_on(arguments.http).await.map_err(failed)?;
    let http = queries.local_addr().map_err(unexpected)?;
    let scheme = if protection.certificate.is_some() { "https" } else { "http" };
    // Tests and scripts that let the kernel choose ports read them here.
    let ready = |address| {
        tracing::info!(%address, %http, "listening");
        // Nobody may read it.
        let _ = writeln!(std::io::stdout(), "listening on {address}\nqueries on {scheme}://{http}");
    };
    let mut companions = vec![
        pipeline::queries(
            queries,
            Arc::clone(&control),
            QueryLimits::default(),
            arguments.http_names,
            &guard,
        ),
        pipeline::refresh(guard, hangup),
        pipeline::give_back(give_back),
    ];
    companions.extend(symbols.map(symbols::keep_up));
    companions.extend(sends);
    companions.extend(alerts.map(|alerts| alerts::tell(alerts, control)));
    pipeline::serve(serve, companions, ready, stop).await.map_err(failed)
}

fn unprotected(error: ProtectionError) -> Failure {
    Failure { kind: Kind::Usage, message: error.to_string() }
}

fn failed(error: ServeError) -> Failure {
    let kind = match &error {
        ServeError::Open(_) => Kind::Store,
        ServeError::Listen { .. } => Kind::Listen,
        ServeError::Transport(_) | ServeError::Companion(_) | ServeError::Part(_) | ServeError::Upkeep(_) => {
            Kind::Unexpected
        }
    };
    Failure { kind, message: error.to_string() }
}
