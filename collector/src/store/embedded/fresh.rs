//! The columns of a window that is not in a segment yet: compressed with zstd, with a checksum; a column after the other.
//!
//! Samples: differences of kind, series and stack to the row before, class, count and weight, as varints. Signals: differences of series
//! and signal, level, then the six values, each 8 bytes, little-endian. Both begin with the number of rows. A window's rows are read
//! all together and few windows are fresh, so they are blobs and not rows of SQLite's, which would take ten times the time and room.

use super::rows::{Reading, Sample, VALUES};
use super::{failed, varint};
use crate::compression;
use crate::store::StoreError;

/// The blob of a window's samples, which get into order.
///
/// # Errors
/// Where there is no memory to compress with.
pub(super) fn of_samples(rows: &mut Vec<Sample>) -> Result<Vec<u8>, StoreError> {
    rows.sort_unstable();
    rows.dedup_by(|row, kept| {
        let is_same = row.is_same(kept);
        if is_same {
            kept.add(row);
        }
        is_same
    });
    let mut bytes = Vec::with_capacity(rows.len() * 12);
    varint::put(&mut bytes, rows.len() as u64);
    let columns: [fn(&Sample) -> u32; 3] = [|row| row.kind, |row| row.series, |row| row.stack];
    for column in columns {
        let mut before = 0;
        for row in rows.iter() {
            let value = u64::from(column(row));
            varint::put_difference(&mut bytes, before, value);
            before = value;
        }
    }
    let columns: [fn(&Sample) -> u64; 3] = [|row| u64::from(row.class), |row| row.count, |row| row.weight];
    for column in columns {
        rows.iter().for_each(|row| varint::put(&mut bytes, column(row)));
    }
    compress(&bytes)
}

/// The samples of a window that began then.
///
/// # Errors
/// Where the blob is damaged.
pub(super) fn samples(blob: &[u8], start_unix_ns: u64) -> Result<Vec<Sample>, StoreError> {
    let bytes = decompress(blob)?;
    let read = || {
        let mut bytes = bytes.as_slice();
        let rows = rows_of(&mut bytes)?;
        let mut samples = vec![Sample { start_unix_ns, ..Sample::default() }; rows];
        let columns: [fn(&mut Sample, u32); 3] =
            [|row, value| row.kind = value, |row, value| row.series = value, |row, value| row.stack = value];
        for column in columns {
            let mut before = 0;
            for row in &mut samples {
                before = varint::take_difference(&mut bytes, before)?;
                column(row, u32::try_from(before).ok()?);
            }
        }
        for row in &mut samples {
            row.class = varint::take_u32(&mut bytes)?;
        }
        for row in &mut samples {
            row.count = varint::take(&mut bytes)?;
        }
        for row in &mut samples {
            row.weight = varint::take(&mut bytes)?;
        }
        bytes.is_empty().then_some(samples)
    };
    read().ok_or_else(damaged)
}

/// The blob of a window's signals, which get into order.
///
/// # Errors
/// Where there is no memory to compress with.
pub(super) fn of_readings(rows: &mut [Reading]) -> Result<Vec<u8>, StoreError> {
    rows.sort_unstable_by_key(Reading::key);
    let mut bytes = Vec::with_capacity(rows.len() * 12 * VALUES);
    varint::put(&mut bytes, rows.len() as u64);
    let columns: [fn(&Reading) -> u32; 2] = [|row| row.series, |row| row.signal];
    for column in columns {
        let mut before = 0;
        for row in rows.iter() {
            let value = u64::from(column(row));
            varint::put_difference(&mut bytes, before, value);
            before = value;
        }
    }
    bytes.extend(rows.iter().map(|row| row.level));
    for position in 0..VALUES {
        rows.iter().for_each(|row| bytes.extend(row.values[position].to_le_bytes()));
    }
    compress(&bytes)
}

/// The signals of a window that began then.
///
/// # Errors
/// Where the blob is damaged.
pub(super) fn readings(blob: &[u8], start_unix_ns: u64) -> Result<Vec<Reading>, StoreError> {
    let bytes = decompress(blob)?;
    let read = || {
        let mut bytes = bytes.as_slice();
        let rows = rows_of(&mut bytes)?;
        let mut readings = vec![Reading { start_unix_ns, windows: 1, ..Reading::default() }; rows];
        let columns: [fn(&mut Reading, u32); 2] =
            [|row, value| row.series = value, |row, value| row.signal = value];
        for column in columns {
            let mut before = 0;
            for row in &mut readings {
                before = varint::take_difference(&mut bytes, before)?;
                column(row, u32::try_from(before).ok()?);
            }
        }
        for row in &mut readings {
            (row.level, bytes) = bytes.split_first().map(|(level, rest)| (*level, rest))?;
        }
        for position in 0..VALUES {
            for row in &mut readings {
                let (value, rest) = bytes.split_first_chunk()?;
                row.values[position] = f64::from_le_bytes(*value);
                bytes = rest;
            }
        }
        bytes.is_empty().then_some(readings)
    };
    read().ok_or_else(damaged)
}

/// The number of rows, each of which takes bytes.
fn rows_of(bytes: &mut &[u8]) -> Option<usize> {
    let rows = usize::try_from(varint::take(bytes)?).ok()?;
    (rows <= bytes.len()).then_some(rows)
}

/// Compresses, with a checksum.
pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    compression::compress(bytes).map_err(failed(|| "cannot compress".to_owned()))
}

/// What [`compress`] made.
pub(super) fn decompress(blob: &[u8]) -> Result<Vec<u8>, StoreError> {
    compression::decompress_own(blob).map_err(failed(|| "what the store holds is damaged".to_owned()))
}

fn damaged() -> StoreError {
    failed(|| "cannot read a window".to_owned())("its columns are damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_in_order_with_equal_rows_added_up() {
        let row = |series, stack, weight| Sample {
            kind: 2,
            series,
            class: 7,
            stack,
            start_unix_ns: 9,
            count: 1,
            weight,
        };
        let mut rows = vec![row(5, 100, 1), row(3, 70, u64::MAX), row(5, 100, 4)];
        let blob = of_samples(&mut rows).expect("a blob");
        let expected = vec![row(3, 70, u64::MAX), Sample { count: 2, ..row(5, 100, 5) }];
        assert_eq!(samples(&blob, 9).expect("rows"), expected);

        let reading = |series, value| Reading {
            series,
            signal: 4,
            start_unix_ns: 9,
            windows: 1,
            level: 2,
            values: [value, 1.0, 2.0, 3.0, 4.0, 5.0],
        };
        let blob = of_readings(&mut [reading(8, 0.5), reading(1, -2.0)]).expect("a blob");
        assert_eq!(readings(&blob, 9).expect("rows"), [reading(1, -2.0), reading(8, 0.5)]);
    }

    #[test]
    fn damage_is_an_error() {
        let blob = of_samples(&mut vec![Sample { kind: 1, ..Sample::default() }; 3]).expect("a blob");
        for position in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[position] ^= 0x55;
            assert!(samples(&damaged, 0).is_err(), "{position}");
            assert!(samples(&blob[..position], 0).is_err(), "{position}");
        }
    }
}
