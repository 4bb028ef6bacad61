//! Names of block devices, by the kernel's numbers.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use chokepoint_analysis::block::Device;
use chokepoint_ebpf::block::MINOR_BITS;

/// What was looked up so far; as many as the keys of the kernel programs' sums at most.
#[derive(Debug, Default)]
pub struct Devices {
    known: HashMap<(u32, u32), Device>,
}

impl Devices {
    /// A whole device and a partition of it, or the device twice, in the kernel's own numbers.
    pub fn get(&mut self, device: u32, partition: u32) -> Device {
        self.known.entry((device, partition)).or_insert_with(|| look_up(device, partition)).clone()
    }
}

fn look_up(device: u32, partition: u32) -> Device {
    if device == 0 {
        return Device::default();
    }
    let directory = directory(device);
    let name = directory.as_deref().and_then(name_of).unwrap_or_else(|| numbers(device));
    let partition = if partition == device {
        String::new()
    } else {
        self::directory(partition).as_deref().and_then(name_of).unwrap_or_else(|| numbers(partition))
    };
    let backing = directory.map(|directory| backing(&directory)).unwrap_or_default();
    Device { name, partition, backing }
}

fn numbers(device: u32) -> String {
    format!("{}:{}", device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

fn directory(device: u32) -> Option<PathBuf> {
    fs::canonicalize(Path::new("/sys/dev/block").join(numbers(device))).ok()
}

fn name_of(directory: &Path) -> Option<String> {
    Some(directory.file_name()?.to_string_lossy().into_owned())
}

/// The file of a loop device, or the name that a mapped device was given.
fn backing(directory: &Path) -> String {
    ["loop/backing_file", "dm/name"]
        .into_iter()
        .find_map(|file| fs::read_to_string(directory.join(file)).ok())
        .map(|text| text.trim_end_matches('\n').to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_of_this_host_have_their_names() {
        let mut devices = Devices::default();
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let Ok(text) = fs::read_to_string(entry.path().join("dev")) else { continue };
            let (major, minor) = text.trim().split_once(':').expect("two numbers");
            let number = major.parse::<u32>().unwrap() << MINOR_BITS | minor.parse::<u32>().unwrap();
            let device = devices.get(number, number);
            assert_eq!(device.name, entry.file_name().to_string_lossy());
            assert_eq!(device.partition, "");
        }
    }

    #[test]
    fn what_is_gone_keeps_its_numbers() {
        let gone = Devices::default().get(4000 << MINOR_BITS | 7, 4000 << MINOR_BITS | 8);
        assert_eq!((gone.name.as_str(), gone.partition.as_str()), ("4000:7", "4000:8"));
        assert_eq!(Devices::default().get(0, 0), Device::default());
    }
}
