//! Block devices made for a test, and what the kernel itself counts of them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::in_vm;

/// What reads and writes past the page cache are aligned to.
const ALIGNMENT: usize = 4096;

/// A loop device over a file of its own; both are gone when it is dropped.
pub struct LoopDevice {
    path: PathBuf,
    directory: TempDir,
}

impl LoopDevice {
    /// Makes one of this size; `None` where this machine has no loop devices.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        // Not in the memory that /tmp may be.
        let directory = tempfile::tempdir_in("/var/tmp").ok()?;
        let file = File::create(directory.path().join("image")).ok()?;
        // Written, so that no hole is read without a device.
        for at in (0..bytes).step_by(1 << 20) {
            file.write_all_at(&vec![0x5a; (bytes - at).min(1 << 20) as usize], at).ok()?;
        }
        file.sync_all().ok()?;
        // Files in the guests' memory have no direct I/O.
        let direct_io = if in_vm() { "--direct-io=off" } else { "--direct-io=on" };
        let output = Command::new("losetup")
            .args(["--find", "--show", direct_io])
            .arg(directory.path().join("image"))
            .output()
            .ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        output.status.success().then_some(Self { path, directory })
    }

    /// Its node in /dev.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().expect("it has one").to_string_lossy().into_owned()
    }

    /// The file that is behind it.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Its numbers, as limits of groups name it.
    #[must_use]
    pub fn numbers(&self) -> String {
        let text = fs::read_to_string(format!("/sys/block/{}/dev", self.name()));
        text.expect("the kernel tells its numbers").trim().to_owned()
    }

    /// Opens it, past the page cache.
    #[must_use]
    pub fn open(&self) -> Direct {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&self.path);
        Direct(file.expect("the device can be opened"))
    }

    /// What the kernel counts of it in `/proc/diskstats`.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let text = fs::read_to_string("/proc/diskstats").expect("the kernel tells its disks");
        let name = self.name();
        let line = text.lines().find(|line| line.split_ascii_whitespace().nth(2) == Some(&name));
        let numbers: Vec<u64> = line
            .expect("the device is among them")
            .split_ascii_whitespace()
            .skip(3)
            .map_while(|number| number.parse().ok())
            .collect();
        Statistics {
            reads: numbers[0],
            read_sectors: numbers[2],
            writes: numbers[4],
            written_sectors: numbers[6],
            discards: numbers[11],
            discarded_sectors: numbers[13],
            flushes: numbers[15],
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// A device of the device mapper over all of another; gone when it is dropped.
pub struct Mapped {
    name: String,
    path: PathBuf,
}

impl Mapped {
    /// Makes one that treats what it passes on as `target` says, with the target's own `arguments` behind the place on the device; `None`
    /// where this machine has no device mapper.
    #[must_use]
    pub fn new(device: &LoopDevice, target: &str, arguments: &str) -> Option<Self> {
        let name = format!("chokepoint-{target}-{}", std::process::id());
        let sectors = fs::read_to_string(format!("/sys/block/{}/size", device.name())).ok()?;
        let table = format!("0 {} {target} {} 0 {arguments}", sectors.trim(), device.path().display());
        let output = dmsetup(&["create", &name, "--table", table.trim_end()]).ok()?;
        if !output.status.success() {
            eprintln!("dmsetup: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        let path = Path::new("/dev/mapper").join(&name);
        Some(Self { name, path })
    }

    /// Its node in /dev.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Whoever had it open may still be on its way out.
        let _ = dmsetup(&["remove", "--retry", &self.name]);
    }
}

/// Without udev, which guests do not have.
fn dmsetup(arguments: &[&str]) -> io::Result<Output> {
    Command::new("dmsetup").args(arguments).env("DM_DISABLE_UDEV", "1").output()
}

/// A group whose use of devices can be limited.
pub struct IoGroup {
    group: Cgroup,
    is_version_2: bool,
}

impl IoGroup {
    /// Makes one in the hierarchy of the controller of block devices; `None` where no group can be made.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if let Some(group) = Cgroup::new(Path::new("/sys/fs/cgroup/blkio"), name) {
            return Some(Self { group, is_version_2: false });
        }
        let mount = Cgroup::v2_mount()?;
        let _ = fs::write(mount.join("cgroup.subtree_control"), "+io +memory");
        Some(Self { group: Cgroup::new(&mount, name)?, is_version_2: true })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.group.path()
    }

    /// Its path in its hierarchy.
    #[must_use]
    pub fn name(&self) -> String {
        format!("/{}", self.path().file_name().expect("it has a name").to_string_lossy())
    }

    /// Whether what its processes dirty is charged to it when it is written: where memory and devices are controlled by version 2.
    #[must_use]
    pub fn is_charged_with_writeback(&self) -> bool {
        self.is_version_2 && ["io.stat", "memory.stat"].iter().all(|file| self.path().join(file).exists())
    }

    /// A limit of it for a device; none until it is set.
    #[must_use]
    pub fn limit(&self, device: &LoopDevice, limited: Limited) -> Limit {
        let (version_1, kind) = match limited {
            Limited::ReadsPerSecond => ("blkio.throttle.read_iops_device", "riops"),
            Limited::ReadBytesPerSecond => ("blkio.throttle.read_bps_device", "rbps"),
        };
        Limit {
            file: self.path().join(if self.is_version_2 { "io.max" } else { version_1 }),
            device: device.numbers(),
            is_version_2: self.is_version_2,
            kind,
        }
    }
}

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Requests.
    ReadsPerSecond,
    /// What they read.
    ReadBytesPerSecond,
}

/// A limit of a group for a device; removed when dropped.
pub struct Limit {
    file: PathBuf,
    device: String,
    is_version_2: bool,
    kind: &'static str,
}

impl Limit {
    /// Whether the kernel has it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.file.exists()
    }

    /// Sets it; 0 removes it.
    pub fn set(&self, number: u64) {
        let text = match (self.is_version_2, number) {
            (false, number) => format!("{} {number}", self.device),
            (true, 0) => format!("{} {}=max", self.device, self.kind),
            (true, number) => format!("{} {}={number}", self.device, self.kind),
        };
        fs::write(&self.file, text).expect("a limit can be set");
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Or what is held would keep its process from ending.
        if self.is_there() {
            self.set(0);
        }
    }
}

/// Requests that have completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Reads.
    pub reads: u64,
    /// What they read, in 512 bytes.
    pub read_sectors: u64,
    /// Writes, and the frames around flushes.
    pub writes: u64,
    /// What they wrote.
    pub written_sectors: u64,
    /// Discards.
    pub discards: u64,
    /// What they discarded.
    pub discarded_sectors: u64,
    /// Flushes.
    pub flushes: u64,
}

/// A device that is read and written without the page cache.
pub struct Direct(File);

impl Direct {
    /// Reads so many bytes, a multiple of 4096.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, at: u64, bytes: usize) -> io::Result<()> {
        let mut memory = vec![0; bytes + ALIGNMENT];
        let aligned = memory.as_ptr().align_offset(ALIGNMENT);
        self.0.read_exact_at(&mut memory[aligned..aligned + bytes], at)
    }

    /// Writes so many bytes, a multiple of 4096.
    ///
    /// # Errors
    /// The device's.
    pub fn write(&self, at: u64, bytes: usize) -> io::Result<()> {
        let memory = vec![0xa5; bytes + ALIGNMENT];
        let aligned = memory.as_ptr().align_offset(ALIGNMENT);
        self.0.write_all_at(&memory[aligned..aligned + bytes], at)
    }

    /// Has the device flush its cache.
    ///
    /// # Errors
    /// The device's.
    pub fn flush(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
