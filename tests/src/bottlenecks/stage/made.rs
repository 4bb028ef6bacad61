//! What is made for a case: groups with limits, devices, a file system, a wire between two hosts, files and ports. It is gone with the stage.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::storage::{DirtyLimits, Mount, Swap};
use super::{HIERARCHIES, Missing, Stage, Target, text};
use crate::block::LoopDevice;
use crate::cgroup::Cgroup;
use crate::net::Wire;
use crate::workload;

impl Stage {
    /// Makes a group of the CPU controller; with a quota, its threads may have so many milliseconds of each 100.
    ///
    /// # Errors
    /// The controller's version 1 hierarchy, if it is not there.
    pub fn cpu_group(&mut self, name: &str, quota_ms: Option<u32>) -> Result<PathBuf, Missing> {
        let programs =
            self.groups.get(1).ok_or_else(|| Missing("the version 1 cpu controller".to_owned()))?;
        let group = programs.child(name);
        if let Some(milliseconds) = quota_ms {
            set(&group, "cpu.cfs_quota_us", &(milliseconds * 1_000).to_string());
        }
        Ok(self.keep(group))
    }

    /// Makes a group whose processes may have this much memory.
    ///
    /// # Errors
    /// The controller's version 1 hierarchy, if it is not there.
    pub fn memory_group(&mut self, bytes: u64) -> Result<PathBuf, Missing> {
        self.limited("memory", "memory.limit_in_bytes", &bytes.to_string())
    }

    /// Makes a group that may have so many processes.
    ///
    /// # Errors
    /// The controller's version 1 hierarchy, if it is not there.
    pub fn pids_group(&mut self, most: u32) -> Result<PathBuf, Missing> {
        self.limited("pids", "pids.max", &most.to_string())
    }

    /// Makes a group that may read so often a second from a device.
    ///
    /// # Errors
    /// The controller's version 1 hierarchy, if it is not there.
    pub fn read_group(&mut self, device_numbers: &str, reads_per_s: u32) -> Result<PathBuf, Missing> {
        self.limited("blkio", "blkio.throttle.read_iops_device", &format!("{device_numbers} {reads_per_s}"))
    }

    fn limited(&mut self, controller: &str, limit: &str, value: &str) -> Result<PathBuf, Missing> {
        let group = Cgroup::new(&Path::new(HIERARCHIES).join(controller), "chokepoint-stage")
            .ok_or_else(|| Missing(format!("the version 1 {controller} controller")))?;
        set(&group, limit, value);
        Ok(self.keep(group))
    }

    fn keep(&mut self, group: Cgroup) -> PathBuf {
        let path = group.path().to_owned();
        self.groups.push(group);
        path
    }

    /// Makes a loop device, and tells its path and its numbers.
    ///
    /// # Errors
    /// Loop devices, if there are none.
    pub fn loop_device(&mut self, bytes: u64) -> Result<(String, String), Missing> {
        let device = LoopDevice::new(bytes).ok_or_else(|| Missing("loop devices".to_owned()))?;
        let named = (text(device.path()), device.numbers());
        self.devices.push(device);
        Ok(named)
    }

    /// Makes room for so many bytes to be swapped out to.
    ///
    /// # Errors
    /// Loop devices or swapping, if there is none.
    pub fn swap(&mut self, bytes: u64) -> Result<(), Missing> {
        let (device, _) = self.loop_device(bytes)?;
        self.swap = Some(Swap::on(device)?);
        Ok(())
    }

    /// Makes a file system on a device of its own, for which so many bytes may be dirty in memory, and tells where it is.
    ///
    /// # Errors
    /// Loop devices or limits of dirty memory for a device, if there are none.
    pub fn file_system(&mut self, bytes: u64, dirty_bytes: u64) -> Result<String, Missing> {
        let (device, numbers) = self.loop_device(bytes)?;
        let mount = Mount::new(&device, self.directory.path().join("mount"))?;
        let directory = text(mount.path());
        self.mount = Some(mount);
        self.dirty_limits = Some(DirtyLimits::set(&numbers, dirty_bytes)?);
        Ok(directory)
    }

    /// Starts a server and its client on two hosts; the wire between them loses so many per cent of the packets that carry data. The
    /// client's work is counted, and the agent is asked about it.
    ///
    /// # Errors
    /// Network namespaces and what else a wire takes, if it is not there.
    pub fn ends_of_wire(
        &mut self,
        lost_pct: u32,
        program: &str,
        [server, client]: [&[&str]; 2],
    ) -> Result<(), Missing> {
        let wire = Wire::new().ok_or_else(|| Missing("network namespaces with a wire".to_owned()))?;
        if lost_pct > 0 {
            // No port of this case is 1 or 2.
            wire.lose(lost_pct, 1, 2);
        }
        let program = workload::path(program);
        let mut server_command = wire.server(&program);
        server_command.args(server);
        let mut client_command = wire.client(&program);
        client_command.args(client);
        self.wire = Some(wire);
        self.start(server_command, &[]);
        let client = self.start(client_command, &[]);
        self.measure_last();
        self.ask_about(Target::Pids(vec![client]));
        Ok(())
    }

    /// A path for a file on a disk that is not there yet.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        text(&self.directory.path().join(name))
    }

    /// A file of this size on a disk, written there.
    #[must_use]
    pub fn file(&self, bytes: usize) -> String {
        let path = self.directory.path().join("pages");
        fs::write(&path, vec![0x5a; bytes]).expect("a file can be written");
        fs::File::open(&path).and_then(|file| file.sync_all()).expect("it can be flushed");
        text(&path)
    }

    /// A directory on a disk that servers of another user can use.
    #[must_use]
    pub fn open_directory(&mut self) -> PathBuf {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a temporary directory can be made");
        let open = fs::set_permissions(directory.path(), Permissions::from_mode(0o777));
        open.expect("its permissions can be set");
        let path = directory.path().to_owned();
        self.open_directories.push(directory);
        path
    }

    /// A directory on a disk.
    #[must_use]
    pub fn directory(&self) -> String {
        text(self.directory.path())
    }

    /// A port that nobody listens on.
    #[must_use]
    pub fn port(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there are ports");
        listener.local_addr().expect("it has an address").port().to_string()
    }
}

fn set(group: &Cgroup, limit: &str, value: &str) {
    let path = group.path().join(limit);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
