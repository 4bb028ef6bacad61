//! What is made of a device for a case, and undone after it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Missing;

/// A device that memory is swapped out to; no longer when dropped.
pub(super) struct Swap {
    device: String,
}

impl Swap {
    pub(super) fn on(device: String) -> Result<Self, Missing> {
        run("mkswap", &[&device])?;
        run("swapon", &[&device])?;
        Ok(Self { device })
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.device).status();
    }
}

/// A mounted file system; no longer when dropped.
pub(super) struct Mount {
    path: PathBuf,
}

impl Mount {
    pub(super) fn new(device: &str, path: PathBuf) -> Result<Self, Missing> {
        fs::create_dir(&path).expect("a directory can be made");
        run("mkfs.ext4", &["-q", device])?;
        run("mount", &[OsStr::new(device), path.as_os_str()])?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

/// How much may be dirty in memory for a device. What it was comes back when dropped: a loop device's next user has its limits.
pub(super) struct DirtyLimits {
    directory: PathBuf,
    before: [(&'static str, String); 2],
}

impl DirtyLimits {
    pub(super) fn set(device_numbers: &str, bytes: u64) -> Result<Self, Missing> {
        let directory = Path::new("/sys/class/bdi").join(device_numbers);
        let missing = |_| Missing("limits of dirty memory for a device".to_owned());
        let before = |limit| Ok((limit, fs::read_to_string(directory.join(limit)).map_err(missing)?));
        let before = [before("max_ratio_fine")?, before("strict_limit")?];
        fs::write(directory.join("max_bytes"), bytes.to_string()).map_err(missing)?;
        let limits = Self { directory, before };
        fs::write(limits.directory.join("strict_limit"), "1").map_err(missing)?;
        Ok(limits)
    }
}

impl Drop for DirtyLimits {
    fn drop(&mut self) {
        for (limit, value) in &self.before {
            let _ = fs::write(self.directory.join(limit), value);
        }
    }
}

/// Runs a program of the system to its end.
fn run(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<(), Missing> {
    let done = Command::new(program).args(arguments).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(Missing(format!("{program}: {}", reason.trim())))
        }
        Err(error) => Err(Missing(format!("{program}: {error}"))),
    }
}
