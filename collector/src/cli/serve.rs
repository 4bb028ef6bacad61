//! `chokepoint-collector serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Kind};
use crate::ingest::Limits;
use crate::pipeline::{self, BLOCKING_THREADS, Serve, ServeError};
use crate::query::limits::Limits as QueryLimits;
use crate::store::embedded::Options;

/// Nanoseconds of an hour.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Bytes of a gibibyte.
const GIB: u64 = 1 << 30;

/// Takes in what agents send, and keeps it in a directory.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Directory of the store; made where it is not there
    #[arg(long, value_name = "DIR", env = "CHOKEPOINT_STORE")]
    store: PathBuf,
    /// Where agents are listened to (gRPC, not encrypted)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4040", env = "CHOKEPOINT_LISTEN")]
    listen: SocketAddr,
    /// Where queries are listened to (HTTP, not encrypted; whoever reaches it reads everything)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4041", env = "CHOKEPOINT_HTTP")]
    http: SocketAddr,
    /// A name by which browsers may ask for queries, beside localhost and addresses. May be given more than once
    #[arg(long = "http-name", value_name = "NAME", env = "CHOKEPOINT_HTTP_NAMES", value_delimiter = ',')]
    http_names: Vec<String>,
    /// How long windows are kept as they were, hours
    #[arg(long, value_name = "HOURS", default_value_t = Options::default().windows_ns / HOUR_NS)]
    keep_windows: u64,
    /// How long sums of minutes are kept, hours
    #[arg(long, value_name = "HOURS", default_value_t = Options::default().minutes_ns / HOUR_NS)]
    keep_minutes: u64,
    /// How long sums of hours and constraints are kept, hours
    #[arg(long, value_name = "HOURS", default_value_t = Options::default().hours_ns / HOUR_NS)]
    keep_hours: u64,
    /// Bytes of history at most, GiB: where there would be more, the oldest goes
    #[arg(long, value_name = "GIB", default_value_t = Options::default().max_bytes / GIB)]
    max_gib: u64,
    /// Bytes of names in the catalogue at most, GiB: the oldest history goes before there are as many
    #[arg(long, value_name = "GIB", default_value_t = Options::default().max_name_bytes / GIB)]
    max_names_gib: u64,
}

/// Serves until a signal ends it.
pub(super) fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure { kind: Kind::Unexpected, message: error.to_string() })?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: ServeArguments) -> Result<(), Failure> {
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
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unexpected)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unexpected)?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    };
    let serve =
        Serve { store: arguments.store, options, listen: arguments.listen, limits: Limits::default() };
    let queries = pipeline::listen_on(arguments.http).await.map_err(failed)?;
    let http = queries.local_addr().map_err(unexpected)?;
    // Tests and scripts that let the kernel choose ports read them here.
    let ready = |address| {
        tracing::info!(%address, %http, "listening");
        // Nobody may read it.
        let _ = writeln!(std::io::stdout(), "listening on {address}\nqueries on http://{http}");
    };
    let companions = vec![pipeline::queries(queries, QueryLimits::default(), arguments.http_names)];
    pipeline::serve(serve, companions, ready, stop).await.map_err(failed)
}

fn failed(error: ServeError) -> Failure {
    let kind = match &error {
        ServeError::Open(_) => Kind::Store,
        ServeError::Listen { .. } => Kind::Listen,
        ServeError::Transport(_) | ServeError::Companion(_) | ServeError::Part(_) => Kind::Unexpected,
    };
    Failure { kind, message: error.to_string() }
}
