//! The guest's file system: one archive that the kernel unpacks into memory, holding the tests, the programs
//! they run and what those need, at the paths they have here.
//!
//! Sharing this machine's own file system would hold everything without packing anything, but Debian's cloud
//! kernels have no 9p, and a disk needs drivers that differ between them. An archive needs nothing of the
//! kernel, and costs 0.7 s of emulated boot for every 100 MB.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::cpio;
use crate::workspace::run;

/// What a guest will find at boot.
#[derive(Default)]
pub struct Image {
    /// Ordered by path, so that directories come before what they hold.
    entries: BTreeMap<PathBuf, Entry>,
}

enum Entry {
    Directory,
    Symlink(PathBuf),
    /// A file with the contents of one of this machine's.
    HostFile {
        permissions: u32,
        source: PathBuf,
    },
    Contents {
        permissions: u32,
        contents: Vec<u8>,
    },
}

impl Image {
    /// Adds an empty directory.
    pub fn directory(&mut self, path: impl AsRef<Path>) {
        for ancestor in path.as_ref().ancestors().filter(|ancestor| ancestor.parent().is_some()) {
            self.entries.entry(ancestor.to_owned()).or_insert(Entry::Directory);
        }
    }

    /// Adds a file that this machine does not have.
    pub fn contents(&mut self, path: impl AsRef<Path>, permissions: u32, contents: impl Into<Vec<u8>>) {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entries.insert(path.to_owned(), Entry::Contents { permissions, contents: contents.into() });
    }

    /// Adds a file of this machine's at another path.
    pub fn host_file_as(&mut self, source: &Path, path: &Path) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entries
            .insert(path.to_owned(), Entry::HostFile { permissions: 0o644, source: source.to_owned() });
    }

    /// Adds a file of this machine's, and if it is a program then the shared libraries it is linked with.
    pub fn program(&mut self, path: &Path) -> Result<()> {
        self.host_path(path)?;
        if path.is_file() && is_elf(path)? {
            for library in libraries(path)? {
                self.host_path(&library)?;
            }
        }
        Ok(())
    }

    /// Adds a program of this machine's without what only debuggers read, by way of a copy in `directory`.
    pub fn stripped_program(&mut self, path: &Path, directory: &Path) -> Result<()> {
        self.program(path)?;
        let copy = directory.join(path.file_name().context("it has no name")?);
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&copy).arg(path))?;
        self.entries.insert(path.to_owned(), Entry::HostFile { permissions: 0o755, source: copy });
        Ok(())
    }

    /// Adds a directory of this machine's with all that it holds, programs with their libraries.
    pub fn tree(&mut self, directory: &Path) -> Result<()> {
        self.host_path(directory)?;
        for entry in
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.tree(&entry.path())?;
            } else {
                self.program(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the archive, and returns its size in bytes.
    pub fn write(&self, path: &Path) -> Result<u64> {
        self.write_to(path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_to(&self, path: &Path) -> Result<u64> {
        let mut archive = cpio::Archive::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory => archive.directory(path, 0o755)?,
                Entry::Symlink(target) => archive.symlink(path, target)?,
                Entry::Contents { permissions, contents } => {
                    archive.contents(path, *permissions, contents)?
                }
                Entry::HostFile { permissions, source } => {
                    let file =
                        File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
                    archive.file(path, *permissions, file.metadata()?.len(), file)?;
                }
            }
        }
        let file = archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(file.metadata()?.len())
    }

    /// Adds what lies at `path` on this machine, with every directory and symbolic link on the way to it.
    fn host_path(&mut self, path: &Path) -> Result<()> {
        self.walk(path).with_context(|| format!("cannot pack {} for the guest", path.display()))
    }

    fn walk(&mut self, path: &Path) -> Result<()> {
        ensure!(path.is_absolute(), "it is not an absolute path");
        // What is still to go, backwards; at each symbolic link, its target is put before it.
        let mut rest = backwards(path);
        let mut links = 0;
        let mut at = PathBuf::new();
        while let Some(part) = rest.pop() {
            if part == Path::new("/") {
                at = part;
                continue;
            } else if part == Path::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(part);
            let metadata =
                fs::symlink_metadata(&next).with_context(|| format!("cannot read {}", next.display()))?;
            let permissions = metadata.permissions().mode() & 0o7777;
            if metadata.is_symlink() {
                links += 1;
                ensure!(links <= MAX_LINKS, "its symbolic links run in circles");
                let target = fs::read_link(&next)?;
                rest.extend(backwards(&target));
                self.entries.insert(next, Entry::Symlink(target));
                continue;
            } else if metadata.is_dir() {
                self.entries.insert(next.clone(), Entry::Directory);
            } else if metadata.is_file() {
                self.entries.insert(next.clone(), Entry::HostFile { permissions, source: next.clone() });
            } else {
                bail!("it is neither a file nor a directory");
            }
            at = next;
        }
        Ok(())
    }
}

fn backwards(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("cannot run ldd")?;
    // It fails on programs without libraries, and on objects that are no programs.
    loaded(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} cannot run in the guest", program.display()))
}

/// The files that `ldd` names.
fn loaded(ldd: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in ldd.lines().map(str::trim) {
        let found = line.split_once(" => ").map_or(line, |(_, found)| found);
        if found == "not found" {
            bail!("it needs {line}");
        }
        let file = found.split_once(" (0x").map_or(found, |(file, _)| file);
        if file.starts_with('/') {
            files.push(PathBuf::from(file));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn ldd_is_understood() {
        let files = loaded(
            "\tlinux-vdso.so.1 (0x00007fefeefc6000)\n\
             \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fefeea1e000)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007fefeefc8000)\n",
        );
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(files.unwrap(), expected);
        assert_eq!(loaded("\tstatically linked\n").unwrap(), [] as [PathBuf; 0]);
        assert_eq!(loaded("").unwrap(), [] as [PathBuf; 0]);
        let error = loaded("\tlibmissing.so.1 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "it needs libmissing.so.1 => not found");
    }

    #[test]
    fn links_on_the_way_are_packed_with_what_they_lead_to() {
        let root = std::env::temp_dir().join(format!("chokepoint-image-{}", std::process::id()));
        let root = root.as_path();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/deep/file"), "x").unwrap();
        symlink("real/deep", root.join("relative")).unwrap();
        symlink(root.join("relative/../deep"), root.join("absolute")).unwrap();
        symlink("circle", root.join("circle")).unwrap();

        let mut image = Image::default();
        image.program(&root.join("absolute/file")).unwrap();
        let packed: Vec<_> = image.entries.keys().filter_map(|path| path.strip_prefix(root).ok()).collect();
        let expected = ["", "absolute", "real", "real/deep", "real/deep/file", "relative"].map(Path::new);
        assert_eq!(packed, expected);
        assert!(image.host_path(&root.join("circle")).is_err());
        assert!(image.host_path(&root.join("missing")).is_err());
        fs::remove_dir_all(root).unwrap();
    }
}
