//! Block devices and file systems.

use super::{Definition, Figures, Kind, Part, Resource, Thresholds, Unit, percent};
use crate::signals::reading::Disk;

const fn define(name: &'static str, kind: Kind, unit: Unit) -> Definition {
    Definition::new(name, Resource::Block, kind, unit)
}

static UTILIZATION: Definition = define("block.utilization", Kind::Utilization, Unit::Percent)
    .levels(Thresholds::FULL)
    .means("share of the time in which the device had a request; one that serves several at once may have room left (/proc/diskstats)");
static READS: Definition =
    define("block.reads", Kind::Utilization, Unit::PerSecond).means("reads completed (/proc/diskstats)");
static WRITES: Definition =
    define("block.writes", Kind::Utilization, Unit::PerSecond).means("writes completed (/proc/diskstats)");
static READ_BYTES: Definition =
    define("block.read_bytes", Kind::Utilization, Unit::BytesPerSecond).means("bytes read (/proc/diskstats)");
static WRITTEN_BYTES: Definition = define("block.written_bytes", Kind::Utilization, Unit::BytesPerSecond)
    .means("bytes written (/proc/diskstats)");
static READ_LATENCY: Definition = define("block.read_latency", Kind::Saturation, Unit::Milliseconds)
    .means("time a read took on average, its wait in the queue included (/proc/diskstats)");
static WRITE_LATENCY: Definition = define("block.write_latency", Kind::Saturation, Unit::Milliseconds)
    .means("time a write took on average, its wait in the queue included (/proc/diskstats)");
static QUEUE: Definition = define("block.queue_depth", Kind::Saturation, Unit::Number)
    .means("requests that were waiting or under way, on average (/proc/diskstats)");
static PRESSURE_SOME: Definition = define("block.pressure", Kind::Saturation, Unit::Percent)
    .levels(Thresholds::STALLED)
    .means("share of the time in which some thread waited for a device (PSI io some)");
static PRESSURE_FULL: Definition = define("block.pressure_full", Kind::Saturation, Unit::Percent)
    .levels(Thresholds::STALLED)
    .means("share of the time in which all threads with work waited for a device (PSI io full)");
static SPACE: Definition =
    Definition::new("fs.utilization", Resource::FileSystem, Kind::Utilization, Unit::Percent)
        .gauge()
        .levels(Thresholds::FULL)
        .means("share of the file system's room in use (statvfs)");
static FILES: Definition =
    Definition::new("fs.files", Resource::FileSystem, Kind::Utilization, Unit::Percent)
        .gauge()
        .levels(Thresholds::FULL)
        .means("share of the files (inodes) that the file system may hold (statvfs)");
static ERRORS: Definition = Definition::new("fs.errors", Resource::FileSystem, Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::FATAL)
    .means("errors that the file system has recorded (/sys/fs/ext4/*/errors_count)");

pub const DEFINITIONS: &[&Definition] = &[
    &UTILIZATION,
    &READS,
    &WRITES,
    &READ_BYTES,
    &WRITTEN_BYTES,
    &READ_LATENCY,
    &WRITE_LATENCY,
    &QUEUE,
    &PRESSURE_SOME,
    &PRESSURE_FULL,
    &SPACE,
    &FILES,
    &ERRORS,
];

pub fn derive(figures: &mut Figures<'_>) {
    let (before, after) = (figures.before, figures.after);
    let (old, new) = (before.pressure, after.pressure);
    figures.add(&PRESSURE_SOME, figures.share_of_time(old.io_some, new.io_some));
    figures.add(&PRESSURE_FULL, figures.share_of_time(old.io_full, new.io_full));
    for (name, after) in &after.disks {
        if let Some(before) = before.disks.get(name) {
            derive_disk(figures, name, before, after);
        }
    }
    for (place, now) in &after.filesystems {
        figures.add_of(&SPACE, place, percent(now.bytes.saturating_sub(now.free_bytes), now.bytes));
        figures.add_of(&FILES, place, percent(now.files.saturating_sub(now.free_files), now.files));
        let errors = before.filesystems.get(place).and_then(|before| before.errors);
        figures.add_of(&ERRORS, place, figures.rate(errors, now.errors));
    }
}

fn derive_disk(figures: &mut Figures<'_>, name: &str, before: &Disk, after: &Disk) {
    let rate = |figures: &Figures<'_>, part: Part<Disk>| figures.rate(Some(part(before)), Some(part(after)));
    let busy_ms_per_s = rate(figures, |disk| disk.busy_ms);
    figures.add_of(&UTILIZATION, name, busy_ms_per_s.map(|busy| (busy / 10.0).min(100.0)));
    let rates: [(&'static Definition, Part<Disk>); 4] = [
        (&READS, |disk| disk.reads),
        (&WRITES, |disk| disk.writes),
        (&READ_BYTES, |disk| disk.read_bytes),
        (&WRITTEN_BYTES, |disk| disk.written_bytes),
    ];
    for (definition, part) in rates {
        figures.add_of(definition, name, rate(figures, part));
    }
    let mean = |total_ms: Part<Disk>, number: Part<Disk>| {
        let number = number(after).checked_sub(number(before)).filter(|number| *number > 0)?;
        Some(total_ms(after).checked_sub(total_ms(before))? as f64 / number as f64)
    };
    figures.add_of(&READ_LATENCY, name, mean(|disk| disk.read_ms, |disk| disk.reads));
    figures.add_of(&WRITE_LATENCY, name, mean(|disk| disk.write_ms, |disk| disk.writes));
    figures.add_of(&QUEUE, name, rate(figures, |disk| disk.weighted_ms).map(|ms| ms / 1e3));
}
