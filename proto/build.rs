//! Generates the message types from the `.proto` files, without `protoc`.

use std::error::Error;

const FILES: &[&str] = &["pprof.proto", "cri.proto", "stream.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        // prost leaves these out where a list of messages is inside.
        .type_attribute("chokepoint.stream.v1.Location", "#[derive(Eq, Hash)]")
        .compile_fds(descriptors)?;
    Ok(())
}
