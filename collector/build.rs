//! Lists the files of the page for `src/page.rs`, which has them in the program. `cargo xtask build` makes them, of what is in `ui/`; where
//! that was not done the list is empty.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let ui = variable("CARGO_MANIFEST_DIR").join("ui");
    let made = ui.join("dist");
    let is_made = made.join("index.html").is_file();
    // What is not there would count as changed, each time.
    println!("cargo:rerun-if-changed={}", if is_made { &made } else { &ui }.display());
    let mut files = Vec::new();
    if is_made {
        list(&made, &mut files)?;
        files.sort();
    }
    let mut text = "const FILES: &[File] = &[\n".to_owned();
    for file in files.iter().filter(|file| file.extension().is_none_or(|end| end != "gz")) {
        let path = file.strip_prefix(&made).map_err(io::Error::other)?.display().to_string();
        let packed = PathBuf::from(format!("{}.gz", file.display()));
        let gzip = if files.contains(&packed) {
            format!("Some(include_bytes!({packed:?}))")
        } else {
            "None".to_owned()
        };
        let _ =
            writeln!(text, "    File {{ path: {path:?}, plain: include_bytes!({file:?}), gzip: {gzip} }},");
    }
    text.push_str("];\n");
    fs::write(variable("OUT_DIR").join("page_files.rs"), text)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
