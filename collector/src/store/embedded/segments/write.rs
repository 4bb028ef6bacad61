//! Writes segments.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use rusqlite::{Connection, OptionalExtension};

use super::super::failed;
use super::super::rows::{Reading, Sample, VALUES};
use super::super::series::SeriesIndex;
use super::schema;
use crate::store::StoreError;

/// Rows that are found or passed over together, by the least and greatest series in them; also what is encoded in memory at a time.
const GROUP_ROWS: usize = 1 << 17;
/// What zstd tries: above it, it takes more time than the room is worth.
const ZSTD_LEVEL: i32 = 6;
/// How columns of samples are written for which a dictionary is not best. Stacks as they are: each is there once for each window, and the
/// next host has the same ones, which zstd sees in whole numbers and not in differences of some bits; so they take a third. Weights, which
/// repeat too seldom, as differences, in as many bits as they need. To split their bytes would take 8 % less, but of whole numbers many
/// readers do not know that.
const OF_SAMPLES: Encodings = &[("stack", Encoding::PLAIN), ("weight", Encoding::DELTA_BINARY_PACKED)];
/// Version of the columns, in each file.
const FORMAT: &str = "1";

/// Columns that are not written by a dictionary, and how they are.
pub(in super::super) type Encodings = &'static [(&'static str, Encoding)];

/// The words of the store's numbers, each read once for a segment.
pub(in super::super) struct Words<'a> {
    catalogue: &'a Connection,
    index: &'a SeriesIndex,
    kinds: HashMap<u32, ByteArray>,
    strings: HashMap<u32, ByteArray>,
    signals: HashMap<u32, (ByteArray, ByteArray)>,
    labels: HashMap<(u32, &'static str), ByteArray>,
}

impl<'a> Words<'a> {
    /// The words of this catalogue.
    pub(in super::super) fn new(catalogue: &'a Connection, index: &'a SeriesIndex) -> Self {
        Self {
            catalogue,
            index,
            kinds: HashMap::new(),
            strings: HashMap::new(),
            signals: HashMap::new(),
            labels: HashMap::new(),
        }
    }

    fn kind(&mut self, kind: u32) -> Result<ByteArray, StoreError> {
        look_up(&mut self.kinds, self.catalogue, "SELECT name FROM kinds WHERE id = ?1", kind)
    }

    fn string(&mut self, string: u32) -> Result<ByteArray, StoreError> {
        look_up(&mut self.strings, self.catalogue, "SELECT text FROM strings WHERE id = ?1", string)
    }

    /// The name and the unit of a signal.
    fn signal(&mut self, signal: u32) -> Result<(ByteArray, ByteArray), StoreError> {
        if let Some(words) = self.signals.get(&signal) {
            return Ok(words.clone());
        }
        let (name, unit) = self
            .catalogue
            .query_row("SELECT name, unit FROM signals WHERE id = ?1", [signal], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(failed(|| "cannot look up a signal".to_owned()))?;
        let words = (self.string(name)?, self.string(unit)?);
        self.signals.insert(signal, words.clone());
        Ok(words)
    }

    fn label(&mut self, series: u32, name: &'static str) -> ByteArray {
        let index = self.index;
        let text = || if name == "service" { index.service(series) } else { index.label(series, name) };
        self.labels.entry((series, name)).or_insert_with(|| text().into()).clone()
    }
}

fn look_up(
    known: &mut HashMap<u32, ByteArray>,
    catalogue: &Connection,
    sql: &str,
    number: u32,
) -> Result<ByteArray, StoreError> {
    if let Some(word) = known.get(&number) {
        return Ok(word.clone());
    }
    let step = || "cannot look up a word".to_owned();
    let mut find = catalogue.prepare_cached(sql).map_err(failed(step))?;
    let text: Option<String> = find.query_row([number], |row| row.get(0)).optional().map_err(failed(step))?;
    let word = ByteArray::from(text.unwrap_or_default().as_str());
    known.insert(number, word.clone());
    Ok(word)
}

/// A segment of samples that is being written: it takes rows in the order of segments, and has those of one group in memory.
pub(in super::super) struct SampleWriter<'a, 'w> {
    writer: SerializedFileWriter<File>,
    words: &'a mut Words<'w>,
    group: Vec<Sample>,
    extent: Extent,
}

/// What of a segment the catalogue tells.
#[derive(Debug, Default)]
pub(in super::super) struct Extent {
    pub(in super::super) rows: usize,
    pub(in super::super) from_unix_ns: u64,
    /// When its last step began.
    pub(in super::super) last_unix_ns: u64,
    /// Its series, by number.
    series: Vec<bool>,
}

impl Extent {
    fn add(&mut self, series: u32, start_unix_ns: u64) {
        if self.rows == 0 {
            (self.from_unix_ns, self.last_unix_ns) = (start_unix_ns, start_unix_ns);
        }
        self.rows += 1;
        self.from_unix_ns = self.from_unix_ns.min(start_unix_ns);
        self.last_unix_ns = self.last_unix_ns.max(start_unix_ns);
        let position = series as usize;
        if self.series.len() <= position {
            self.series.resize(position + 1, false);
        }
        self.series[position] = true;
    }

    /// Its series, ascending.
    pub(in super::super) fn series(&self) -> Vec<u32> {
        (0..).zip(&self.series).filter(|(_, is_there)| **is_there).map(|(series, _)| series).collect()
    }
}

impl<'a, 'w> SampleWriter<'a, 'w> {
    /// Begins it.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub(in super::super) fn new(file: &File, words: &'a mut Words<'w>) -> Result<Self, StoreError> {
        let writer = writer(file, schema::of_samples(), OF_SAMPLES)?;
        Ok(Self { writer, words, group: Vec::with_capacity(GROUP_ROWS), extent: Extent::default() })
    }

    /// Takes the next row; one of the same as the last is added to it.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub(in super::super) fn push(&mut self, row: Sample) -> Result<(), StoreError> {
        match self.group.last_mut() {
            Some(last) if last.is_same(&row) => last.add(&row),
            _ => {
                if self.group.len() == GROUP_ROWS {
                    self.write_group()?;
                }
                self.group.push(row);
            }
        }
        Ok(())
    }

    /// Ends it. What was written.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub(in super::super) fn finish(mut self) -> Result<Extent, StoreError> {
        self.write_group()?;
        self.writer.close().map_err(failed(writing))?;
        Ok(self.extent)
    }

    fn write_group(&mut self) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.group);
        if rows.is_empty() {
            return Ok(());
        }
        rows.iter().for_each(|row| self.extent.add(row.series, row.start_unix_ns));
        let numbers: [fn(&Sample) -> u32; 4] =
            [|row| row.kind, |row| row.series, |row| row.class, |row| row.stack];
        let longs: [fn(&Sample) -> u64; 3] = [|row| row.start_unix_ns, |row| row.count, |row| row.weight];
        let words = &mut *self.words;
        let mut group = self.writer.next_row_group().map_err(failed(writing))?;
        // One column at a time: words take ten times the memory of numbers.
        let mut write = |column: Vec<ByteArray>| {
            write_column::<ByteArrayType>(&mut group, &column).map_err(failed(writing))
        };
        write(rows.iter().map(|row| words.kind(row.kind)).collect::<Result<_, _>>()?)?;
        write(rows.iter().map(|row| words.label(row.series, "service")).collect())?;
        write(rows.iter().map(|row| words.label(row.series, "host")).collect())?;
        write(rows.iter().map(|row| words.string(row.class)).collect::<Result<_, _>>()?)?;
        let write = || {
            for column in numbers {
                write_column::<Int32Type>(&mut group, &column_of(&rows, |row| column(row).cast_signed()))?;
            }
            for column in longs {
                write_column::<Int64Type>(&mut group, &column_of(&rows, |row| column(row).cast_signed()))?;
            }
            group.close().map(drop)
        };
        write().map_err(failed(writing))?;
        self.group = rows;
        self.group.clear();
        Ok(())
    }
}

/// Writes signals, which get into order; those of the same are added up.
///
/// # Errors
/// Where the disk does not take them.
pub(in super::super) fn write_readings(
    file: &File,
    rows: &mut Vec<Reading>,
    words: &mut Words<'_>,
) -> Result<Extent, StoreError> {
    // Not a sort that keeps equals in order: it takes half as much memory again.
    rows.sort_unstable_by_key(|row| (row.signal, row.series, row.start_unix_ns));
    rows.dedup_by(|row, kept| {
        let is_same = row.key() == kept.key();
        if is_same {
            kept.add(row);
        }
        is_same
    });
    let mut extent = Extent::default();
    rows.iter().for_each(|row| extent.add(row.series, row.start_unix_ns));
    let mut writer = writer(file, schema::of_signals(), &[])?;
    for rows in rows.chunks(GROUP_ROWS) {
        let mut names = Vec::with_capacity(rows.len());
        let mut units = Vec::with_capacity(rows.len());
        for row in rows {
            let (name, unit) = words.signal(row.signal)?;
            names.push(name);
            units.push(unit);
        }
        let hosts: Vec<_> = rows.iter().map(|row| words.label(row.series, "host")).collect();
        let instances: Vec<_> = rows.iter().map(|row| words.label(row.series, "instance")).collect();
        let mut write = || {
            let mut group = writer.next_row_group()?;
            for column in [&names, &units, &hosts, &instances] {
                write_column::<ByteArrayType>(&mut group, column)?;
            }
            write_column::<Int32Type>(&mut group, &column_of(rows, |row| row.signal.cast_signed()))?;
            write_column::<Int32Type>(&mut group, &column_of(rows, |row| row.series.cast_signed()))?;
            write_column::<Int64Type>(&mut group, &column_of(rows, |row| row.start_unix_ns.cast_signed()))?;
            write_column::<Int32Type>(&mut group, &column_of(rows, |row| row.windows.cast_signed()))?;
            write_column::<Int32Type>(&mut group, &column_of(rows, |row| i32::from(row.level)))?;
            for position in 0..VALUES {
                write_column::<DoubleType>(&mut group, &column_of(rows, |row| row.values[position]))?;
            }
            group.close().map(drop)
        };
        write().map_err(failed(writing))?;
    }
    writer.close().map_err(failed(writing))?;
    Ok(extent)
}

/// The order of rows in segments.
pub(in super::super) struct Order {
    /// By the number of a series, its place in the order of services, and below it of series.
    ranks: Vec<u32>,
}

impl Order {
    /// The order of rows of these series.
    pub(in super::super) fn new(index: &SeriesIndex, series: impl Iterator<Item = u32>) -> Self {
        let mut series: Vec<u32> = series.collect();
        series.sort_unstable();
        series.dedup();
        let mut ranks = vec![0; series.last().map_or(0, |last| *last as usize + 1)];
        series.sort_by_key(|series| index.service(*series));
        for (rank, series) in (0..).zip(series) {
            ranks[series as usize] = rank;
        }
        Self { ranks }
    }

    /// What rows are in the order of.
    pub(in super::super) fn key(&self, row: &Sample) -> (u32, u32, u32, u32, u64) {
        (row.kind, self.ranks[row.series as usize], row.class, row.stack, row.start_unix_ns)
    }
}

/// Begins a file of these columns.
///
/// # Errors
/// Where the disk does not take it.
pub(in super::super) fn writer(
    file: &File,
    columns: Arc<parquet::schema::types::Type>,
    encodings: Encodings,
) -> Result<SerializedFileWriter<File>, StoreError> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(failed(writing))?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("chokepoint-collector ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new("chokepoint.format".to_owned(), FORMAT.to_owned())]));
    for (column, encoding) in encodings {
        properties = properties
            .set_column_dictionary_enabled((*column).into(), false)
            .set_column_encoding((*column).into(), *encoding);
    }
    let file = file.try_clone().map_err(failed(writing))?;
    SerializedFileWriter::new(file, columns, Arc::new(properties.build())).map_err(failed(writing))
}

/// Writes the next column of a group.
pub(in super::super) fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("there are more columns than the schema has".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

fn column_of<R, T>(rows: &[R], value: impl FnMut(&R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

fn writing() -> String {
    "cannot write a segment".to_owned()
}
