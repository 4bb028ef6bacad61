//! Programs with known functions and lines, and where in them a marked instruction is.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use chokepoint::address::{FileOffset, VirtualOffset};
use chokepoint::symbolize::{BinarySymbols, Options, Symbolizer};
use tempfile::TempDir;

/// Three functions inlined into each other and into `outer`. `marker` labels one instruction of `inner`.
pub const C: &str = r#"static inline __attribute__((always_inline)) int inner(int x) {
    __asm__ volatile(".globl marker\nmarker: nop");
    return x * 3;
}
static inline __attribute__((always_inline)) int middle(int x) {
    x += 5;
    return inner(x) + 1;
}
__attribute__((noinline)) int outer(int x) {
    x ^= 9;
    return middle(x) + 2;
}
int main(int argc, char **argv) {
    (void)argv;
    return outer(argc);
}
"#;

/// What `marker` in [`C`] is, innermost first, as (function, line).
pub const C_LINES: [(&str, u32); 3] = [("inner", 2), ("middle", 7), ("outer", 11)];

/// A directory with programs in it.
pub struct Workshop {
    dir: TempDir,
}

/// A compiled file and the addresses of its labels.
pub struct Program {
    pub path: PathBuf,
    labels: Vec<(String, u64)>,
    segments: Vec<(u64, u64, u64)>,
}

impl Workshop {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compiles [`C`] with gcc.
    pub fn c(&self, name: &str, flags: &[&str]) -> Program {
        self.compile("gcc", &format!("{name}.c"), C, name, flags)
    }

    pub fn compile(
        &self,
        compiler: &str,
        source_name: &str,
        source: &str,
        name: &str,
        flags: &[&str],
    ) -> Program {
        let source_path = self.path(source_name);
        fs::write(&source_path, source).unwrap();
        let path = self.path(name);
        let mut arguments: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        arguments.extend([source_path.as_os_str(), "-o".as_ref(), path.as_os_str()]);
        run(compiler, &arguments);
        Program::of(path)
    }
}

impl Program {
    fn of(path: PathBuf) -> Self {
        let labels = run("nm", &[path.as_os_str()]);
        let labels = labels.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            Some((fields.nth(1)?.to_owned(), address))
        });
        let segments = run("readelf", &["-lW".as_ref(), path.as_os_str()]);
        let segments = segments.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next()? == "LOAD").then_some(())?;
            let number = |text: Option<&str>| u64::from_str_radix(text?.strip_prefix("0x")?, 16).ok();
            let (offset, address) = (number(fields.next())?, number(fields.next())?);
            Some((offset, address, number(fields.nth(1))?))
        });
        Self { labels: labels.collect(), segments: segments.collect(), path }
    }

    pub fn address(&self, label: &str) -> VirtualOffset {
        let found = self.labels.iter().find(|(name, _)| name == label);
        VirtualOffset(found.unwrap_or_else(|| panic!("{label} is not in {}", self.path.display())).1)
    }

    pub fn offset(&self, label: &str) -> FileOffset {
        let address = self.address(label).0;
        let segment = self.segments.iter().find(|(_, start, size)| (*start..start + size).contains(&address));
        let (offset, start, _) = segment.expect("a label in a loaded segment");
        FileOffset(address - start + offset)
    }

    /// A stripped copy without any section that tells functions; the labels stay known.
    pub fn stripped(&self, to: &Path) -> Self {
        run("strip", &["-o".as_ref(), to.as_os_str(), self.path.as_os_str()]);
        self.at(to)
    }

    /// What is known of this program, of a copy at another path.
    pub fn at(&self, path: &Path) -> Self {
        Self { path: path.to_owned(), labels: self.labels.clone(), segments: self.segments.clone() }
    }

    /// The debug information alone.
    pub fn debug_file(&self, to: &Path) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run("objcopy", &["--only-keep-debug".as_ref(), self.path.as_os_str(), to.as_os_str()]);
    }

    pub fn objcopy(&self, flags: &[&str]) {
        let mut arguments: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        arguments.push(self.path.as_os_str());
        run("objcopy", &arguments);
    }

    /// The GNU build id in hexadecimal.
    pub fn build_id(&self) -> String {
        let notes = run("readelf", &["-nW".as_ref(), self.path.as_os_str()]);
        notes.split("Build ID: ").nth(1).expect("a build id").split_whitespace().next().unwrap().to_owned()
    }

    pub fn open(&self) -> File {
        File::open(&self.path).unwrap()
    }

    /// Symbolizes `marker` with a new symbolizer, from the file at its path.
    pub fn symbolize(&self, options: Options) -> BinarySymbols {
        let mut symbolizer = Symbolizer::new(options);
        let offsets = [self.offset("marker")];
        symbolizer.binary(&self.open(), &self.path, Path::new("/"), &offsets).unwrap()
    }
}

/// Options that look for debug files in `dir` only.
pub fn debug_dir(dir: PathBuf) -> Options {
    Options { debug_dirs: vec![dir], ..Options::default() }
}

/// Asserts the (function, line) pairs of the only address, all in the source file of this name.
#[track_caller]
pub fn check(symbols: &BinarySymbols, file: &str, expected: &[(&str, u32)]) {
    let lines = &symbols.symbols[0].lines;
    let found: Vec<_> = lines.iter().map(|line| (line.function.as_str(), line.line)).collect();
    assert_eq!(found, expected, "{symbols:?}");
    for line in lines {
        let name = Path::new(&line.file).file_name().unwrap_or_default();
        assert_eq!(name, OsStr::new(file), "{symbols:?}");
        // Recorded with its directory.
        assert_eq!(Path::new(&line.file).is_absolute(), !file.is_empty(), "{symbols:?}");
    }
}

/// Runs a tool of the machine's tool chain; its output.
#[track_caller]
pub fn run(tool: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(tool).args(arguments).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}; it comes with gcc and binutils"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
