//! The one list of Debian packages that the project uses, by what they are for.

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Compiles the kernel programs, where rustup has no toolchain that can.
    Compiler,
    /// Builds `bpf-linker`, once.
    Linker,
    /// Builds the collector's page.
    Page,
    /// Workloads, consumers and machines of the tests.
    Test,
    /// Checks of style.
    Lint,
    /// The peers that benchmarks compare with.
    Bench,
    /// Servers of the collector's distributed home, for the tests that start some.
    ClickHouse,
}

/// A Debian package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: Purpose,
    /// An executable that does as well if it is on the search path, wherever it came from.
    pub command: Option<&'static str>,
}

/// All packages.
pub const PACKAGES: &[Package] = &[
    package("rustc-web", Purpose::Compiler),
    package("cargo-web", Purpose::Compiler),
    package("rust-web-src", Purpose::Compiler),
    package("llvm-22-dev", Purpose::Linker),
    package("libpolly-22-dev", Purpose::Linker),
    package("libzstd-dev", Purpose::Linker),
    package("zlib1g-dev", Purpose::Linker),
    package("libxml2-dev", Purpose::Linker),
    command("g++", Purpose::Linker, "c++"),
    command("nodejs", Purpose::Page, "node"),
    command("npm", Purpose::Page, "npm"),
    command("gcc", Purpose::Test, "gcc"),
    command("g++", Purpose::Test, "g++"),
    command("golang-go", Purpose::Test, "go"),
    command("nodejs", Purpose::Test, "node"),
    command("python3", Purpose::Test, "python3"),
    command("default-jdk-headless", Purpose::Test, "javac"),
    command("tmux", Purpose::Test, "tmux"),
    command("chromium", Purpose::Test, "chromium"),
    command("qemu-system-x86", Purpose::Test, "qemu-system-x86_64"),
    package("busybox-static", Purpose::Test),
    command("dmsetup", Purpose::Test, "dmsetup"),
    command("xz-utils", Purpose::Test, "xz"),
    package("debian-archive-keyring", Purpose::Test),
    // Also beside rustup's: the kernel programs need the clippy of the compiler that compiles them.
    package("rust-web-clippy", Purpose::Lint),
    command("rustfmt-web", Purpose::Lint, "cargo-fmt"),
    command("linux-perf", Purpose::Bench, "perf"),
    command("bpftrace", Purpose::Bench, "bpftrace"),
    package("libbpf-tools", Purpose::Bench),
    command("clickhouse-server", Purpose::ClickHouse, "clickhouse-server"),
];

/// The packages for a purpose.
pub fn packages_for(purpose: Purpose) -> impl Iterator<Item = Package> {
    PACKAGES.iter().copied().filter(move |package| package.purpose == purpose)
}

const fn package(name: &'static str, purpose: Purpose) -> Package {
    Package { name, purpose, command: None }
}

const fn command(name: &'static str, purpose: Purpose, command: &'static str) -> Package {
    Package { name, purpose, command: Some(command) }
}
