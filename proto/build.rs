//! Generates the message types from the `.proto` files, without `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: &[&str] = &[
    "pprof.proto",
    "cri.proto",
    "stream.proto",
    "pyroscope/types.proto",
    "pyroscope/querier.proto",
    "pyroscope/push.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // For JSON, which is written by the names of fields.
    let path = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(path, descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // By which a message's descriptor is found.
    config.enable_type_names();
    tonic_prost_build::configure()
        // prost leaves these out where a list of messages is inside.
        .type_attribute("chokepoint.stream.v1.Location", "#[derive(Eq, Hash)]")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
