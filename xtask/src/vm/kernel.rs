//! The kernels that the tests run on: Debian's own packages, fetched once and kept.

use std::{
    env, fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::apt::{self, Archive};
use crate::workspace::{run, step};

/// A line of kernels that the project is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Series {
    /// The oldest that is supported: no `bpf_loop`, memory of maps counted against a limit.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V5_10, Self::V6_1, Self::V6_12];

    /// As a user names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// Where its packages are, best first. Suites of security updates have small indexes and the newest
    /// builds.
    fn archives(self) -> Vec<Archive> {
        match self {
            Self::V5_10 => vec![Archive::security("bullseye-security"), Archive::main("bullseye")],
            Self::V6_1 => vec![Archive::security("bookworm-security"), Archive::main("bookworm")],
            Self::V6_12 => vec![
                Archive::security("bookworm-security"),
                Archive::main("bookworm-backports"),
                Archive::security("trixie-security"),
                Archive::main("trixie"),
            ],
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A kernel to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The line it belongs to.
    pub series: Series,
    /// What `uname -r` says in it.
    pub release: String,
    /// Its bootable image.
    pub image: PathBuf,
    /// Modules that guests load, in this order.
    pub modules: Vec<PathBuf>,
}

/// Drivers of block devices that need no hardware, each after those that it needs.
const MODULES: [&str; 3] = ["block/loop.ko", "md/dm-mod.ko", "md/dm-delay.ko"];

impl Kernel {
    /// Finds a kernel among the ones fetched before, or else fetches the newest of its series.
    pub fn obtain(series: Series, refresh: bool) -> Result<Self> {
        let directory = cache_directory()?;
        let image = directory.join(format!("vmlinuz-{series}"));
        if !refresh && let Ok(kernel) = Self::open(series, &image, &directory) {
            return Ok(kernel);
        }
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        step(&format!("fetching the newest Linux {series} of Debian's"));
        fetch(series, &directory, &image).with_context(|| format!("cannot fetch Linux {series}"))?;
        Self::open(series, &image, &directory)
    }

    /// The kernel in a file, with its modules in the directory that they were fetched to.
    fn open(series: Series, image: &Path, directory: &Path) -> Result<Self> {
        let release = checked_release(series, image)?;
        let modules = MODULES.map(|module| directory.join(modules_of(&release)).join(name_of(module)));
        for module in &modules {
            ensure!(module.is_file(), "there is no {}", module.display());
        }
        Ok(Self { series, release, image: image.to_owned(), modules: modules.into() })
    }
}

/// The release of the kernel in a file, which is to be whole and of its series.
fn checked_release(series: Series, image: &Path) -> Result<String> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let release = release(&bytes).with_context(|| format!("{} is no complete kernel", image.display()))?;
    ensure!(belongs(release, series), "{} is {release}, not {series}", image.display());
    Ok(release.to_owned())
}

/// Where the modules of a kernel are kept.
fn modules_of(release: &str) -> String {
    format!("modules-{release}")
}

/// The name of a module's file.
fn name_of(module: &str) -> &str {
    module.rsplit('/').next().unwrap_or(module)
}

fn cache_directory() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("chokepoint/kernels"))
}

fn fetch(series: Series, directory: &Path, image: &Path) -> Result<()> {
    // On the same file system as the result, and of this process alone: another one may fetch the same.
    let scratch = Scratch::create(directory.join(format!(".fetching-{}", std::process::id())))?;
    let package = apt::download(&series.archives(), &scratch.0, |names| newest(names, series))?;
    let unpacked = apt::unpack(&package, &scratch.0)?;
    let boot = unpacked.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
    let vmlinuz = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .context("the package holds no kernel")?;
    let release = checked_release(series, &vmlinuz)?;
    let modules = scratch.0.join("modules");
    fs::create_dir_all(&modules).with_context(|| format!("cannot create {}", modules.display()))?;
    for module in MODULES {
        take_module(&unpacked, &release, module, &modules)?;
    }
    let kept = directory.join(modules_of(&release));
    // They may be there already: another process may have been faster.
    if !kept.exists() {
        fs::rename(&modules, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    }
    fs::rename(&vmlinuz, image).with_context(|| format!("cannot write {}", image.display()))
}

/// Takes a driver out of an unpacked kernel; later ones are packed with xz each.
fn take_module(unpacked: &Path, release: &str, module: &str, into: &Path) -> Result<()> {
    let target = into.join(name_of(module));
    for library in ["lib", "usr/lib"] {
        let plain = unpacked.join(library).join("modules").join(release).join("kernel/drivers").join(module);
        let mut packed = plain.clone();
        packed.set_extension("ko.xz");
        if plain.is_file() {
            return fs::rename(&plain, &target).with_context(|| format!("cannot write {}", target.display()));
        } else if packed.is_file() {
            let file = File::create(&target).with_context(|| format!("cannot write {}", target.display()))?;
            return run(Command::new("xz").args(["--decompress", "--stdout"]).arg(&packed).stdout(file));
        }
    }
    bail!("the package has no module {module}")
}

/// A directory that goes away again.
struct Scratch(PathBuf);

impl Scratch {
    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over is only disk space.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The package of the newest kernel of `series` among the names of packages. The cloud flavour has all that
/// the tests need and is the smallest.
fn newest(names: &str, series: Series) -> Option<&str> {
    names
        .split_whitespace()
        .filter_map(|name| Some((name.strip_prefix("linux-image-")?.strip_suffix("-cloud-amd64")?, name)))
        .filter(|(version, _)| belongs(version, series))
        .max_by_key(|(version, _)| numbers(version))
        .map(|(_, name)| name)
}

/// Whether `version` is one of the series': `6.1.0-47` belongs to 6.1, `6.12.5` does not, and neither does
/// the bare `6.1` of a package without contents of its own.
fn belongs(version: &str, series: Series) -> bool {
    version.strip_prefix(series.name()).is_some_and(|rest| rest.starts_with('.'))
}

/// The numbers in a version: as lists they compare in the right order.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Reads the release from a bootable x86 image, after checking that the image is whole. The fields are those
/// of the kernel's `Documentation/arch/x86/boot.rst`.
fn release(image: &[u8]) -> Option<&str> {
    const SETUP_SECTORS: usize = 0x1f1;
    const PROTECTED_MODE_SIZE: usize = 0x1f4;
    const MAGIC: usize = 0x202;
    const VERSION_POINTER: usize = 0x20e;
    const SECTOR_BYTES: usize = 512;

    if image.get(MAGIC..)?.get(..4)? != b"HdrS" {
        return None;
    }
    let setup_bytes = (usize::from(image[SETUP_SECTORS]) + 1) * SECTOR_BYTES;
    let units = u32::from_le_bytes(image.get(PROTECTED_MODE_SIZE..)?.get(..4)?.try_into().ok()?);
    if image.len() < setup_bytes + units as usize * 16 {
        return None;
    }
    let pointer = u16::from_le_bytes(image.get(VERSION_POINTER..)?.get(..2)?.try_into().ok()?);
    let text = image.get(usize::from(pointer) + SECTOR_BYTES..)?;
    let end = text.iter().take(256).position(|&byte| byte == b' ' || byte == 0)?;
    std::str::from_utf8(&text[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_of_the_series_is_chosen() {
        let names = "linux-image-5.10.0-9-cloud-amd64\n\
                     linux-image-5.10.0-46-cloud-amd64\n\
                     linux-image-5.10.0-46-amd64\n\
                     linux-image-5.10.0-47-cloud-amd64-unsigned\n\
                     linux-image-5.10.0-48-cloud-arm64\n\
                     linux-image-6.1.0-0.deb11.52-cloud-amd64\n\
                     linux-image-6.1-cloud-amd64\n\
                     linux-image-6.1.0-9-cloud-amd64\n\
                     linux-image-6.12-cloud-amd64\n\
                     linux-image-6.12.9+deb12-cloud-amd64\n\
                     linux-image-6.12.117+deb12-cloud-amd64\n\
                     linux-image-6.12.94+deb13-cloud-amd64\n\
                     linux-image-cloud-amd64\n\
                     linux-headers-5.10.0-99-cloud-amd64\n";
        for (series, expected) in [
            (Series::V5_10, "linux-image-5.10.0-46-cloud-amd64"),
            (Series::V6_1, "linux-image-6.1.0-9-cloud-amd64"),
            (Series::V6_12, "linux-image-6.12.117+deb12-cloud-amd64"),
        ] {
            assert_eq!(newest(names, series), Some(expected));
        }
        assert_eq!(newest("linux-image-6.12.117+deb12-cloud-amd64", Series::V6_1), None);
        assert_eq!(newest("", Series::V6_1), None);
    }

    /// An image whose setup part has one sector more than the first, and whose other part has 64 bytes.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 2 * 512 + 64];
        image[0x1f1] = 1;
        image[0x1f4] = 4;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x40;
        image[0x240..0x25a].copy_from_slice(b"6.1.0-56-cloud-amd64 (deb)");
        image
    }

    #[test]
    fn the_release_is_read_from_a_whole_image() {
        assert_eq!(release(&image()), Some("6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn an_image_that_is_cut_off_or_none_at_all_is_refused() {
        let image = image();
        for length in 0..image.len() {
            assert_eq!(release(&image[..length]), None, "{length} bytes");
        }
        assert_eq!(release(&vec![0xff; 4096]), None);
        let mut lying = image;
        lying[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(release(&lying), None);
    }
}
