//! Where `chokepoint-collector serve` sends profiles on to.

use std::path::PathBuf;

use chokepoint_tls::ClientFiles;
use clap::{Args, ValueEnum};

use crate::protocols::otlp::send::{Options, Protocol, Types};
use crate::query_command::client::Credentials;

/// Where what is stored is sent, too (docs/protocols.md). Files are read anew with each connection.
#[derive(Debug, Args)]
#[command(next_help_heading = "OTLP")]
pub(super) struct OtlpArguments {
    /// Sends profiles on, by OTLP: http://HOST:PORT, or https://HOST:PORT
    #[arg(long, value_name = "URL", env = "CHOKEPOINT_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// How: over gRPC (mostly port 4317), or over HTTP (mostly 4318)
    #[arg(
        long,
        value_enum,
        default_value_t = ProtocolArgument::Grpc,
        env = "CHOKEPOINT_OTLP_PROTOCOL",
        requires = "otlp_endpoint"
    )]
    otlp_protocol: ProtocolArgument,
    /// Which profiles, by the names that queries have for them, with commas between them
    #[arg(
        long,
        value_name = "TYPES",
        default_value = "cpu,offcpu",
        env = "CHOKEPOINT_OTLP_PROFILES",
        requires = "otlp_endpoint"
    )]
    otlp_profiles: Types,
    /// The file of the token that is sent there as a bearer's, which only its owner may read
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_OTLP_TOKEN_FILE", requires = "otlp_endpoint")]
    otlp_token_file: Option<PathBuf>,
    /// Authorities of its certificate (PEM), where they are not those that this host trusts
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_OTLP_CA", requires = "otlp_endpoint")]
    otlp_ca: Option<PathBuf>,
    /// The certificate that is shown there (PEM)
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_OTLP_CERT", requires = "otlp_key")]
    otlp_cert: Option<PathBuf>,
    /// Its key (PEM), which only its owner may read
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_OTLP_KEY", requires = "otlp_cert")]
    otlp_key: Option<PathBuf>,
    /// The name in its certificate, where it is not that of the URL
    #[arg(long, value_name = "NAME", env = "CHOKEPOINT_OTLP_SERVER_NAME", requires = "otlp_endpoint")]
    otlp_server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArgument {
    Grpc,
    Http,
}

impl OtlpArguments {
    /// What was asked for; `None`: nothing is sent on.
    ///
    /// # Errors
    /// It makes no sense, or a file is of no use.
    pub(super) fn options(self) -> Result<Option<Options>, String> {
        let Some(endpoint) = self.otlp_endpoint else { return Ok(None) };
        let files = ClientFiles {
            ca: self.otlp_ca,
            cert: self.otlp_cert,
            key: self.otlp_key,
            server_name: self.otlp_server_name,
        };
        let options = Options {
            endpoint,
            protocol: match self.otlp_protocol {
                ProtocolArgument::Grpc => Protocol::Grpc,
                ProtocolArgument::Http => Protocol::Http,
            },
            credentials: Credentials { files, token_file: self.otlp_token_file },
            types: self.otlp_profiles,
        };
        options.check().map_err(|message| format!("--otlp-endpoint: {message}"))?;
        Ok(Some(options))
    }
}
