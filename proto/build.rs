//! Generates the message types from the `.proto` files, without `protoc`.

use std::error::Error;

const FILES: &[&str] = &["pprof.proto", "cri.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
