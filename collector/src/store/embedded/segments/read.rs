//! Reads segments: of each group of rows only the columns and, by the least and greatest values, only where something may be wanted.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::statistics::Statistics;

use super::super::failed;
use super::super::rows::{Reading, Sample, VALUES};
use super::schema::{sample_column, signal_column};
use crate::store::{Asker, StoreError};

/// Rows that are decoded at a time.
const CHUNK_ROWS: usize = 1 << 12;

/// Which rows.
pub(in super::super) struct Wanted<'a> {
    /// From here, inclusive.
    pub(in super::super) from_unix_ns: u64,
    /// Up to here, exclusive.
    pub(in super::super) until_unix_ns: u64,
    /// Of this kind of samples, or this signal; `None`: of all.
    pub(in super::super) kind: Option<u32>,
    /// Of these series, by number.
    pub(in super::super) series: &'a [bool],
    /// For whom.
    pub(in super::super) asker: &'a Asker,
}

impl Wanted<'_> {
    fn has_series(&self, series: u32) -> bool {
        self.series.get(series as usize).copied().unwrap_or(false)
    }

    fn has_time(&self, start_unix_ns: u64) -> bool {
        (self.from_unix_ns..self.until_unix_ns).contains(&start_unix_ns)
    }

    fn has_kind(&self, kind: u32) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }

    /// Whether some row of a group may be wanted.
    fn admits(&self, group: &RowGroupMetaData, kind: usize, series: usize, start: usize) -> bool {
        let wants_kind = range_u32(group, kind).is_none_or(|(least, greatest)| {
            self.kind.is_none_or(|wanted| (least..=greatest).contains(&wanted))
        });
        let wants_time = range_u64(group, start)
            .is_none_or(|(least, greatest)| least < self.until_unix_ns && greatest >= self.from_unix_ns);
        let wants_series = || {
            let Some((least, greatest)) = range_u32(group, series) else { return true };
            let until = (greatest as usize + 1).min(self.series.len());
            self.series.get(least as usize..until).is_some_and(|series| series.contains(&true))
        };
        wants_kind && wants_time && wants_series()
    }
}

/// Shows the wanted samples of a segment.
///
/// # Errors
/// Where the file cannot be read, and what `visit` says.
pub(in super::super) fn samples(
    path: &Path,
    wanted: &Wanted<'_>,
    visit: &mut impl FnMut(&Sample) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    use sample_column::{CLASS, COUNT, KIND, SERIES, STACK, START, WEIGHT};
    let step = || format!("cannot read the segment {}", path.display());
    let file = open(path)?;
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(failed(step))?;
        if !wanted.admits(group.metadata(), KIND, SERIES, START) {
            continue;
        }
        let columns = || {
            let [kind, series, class, stack] =
                [KIND, SERIES, CLASS, STACK].map(|column| Column::<Int32Type>::new(group.as_ref(), column));
            let [start, count, weight] =
                [START, COUNT, WEIGHT].map(|column| Column::<Int64Type>::new(group.as_ref(), column));
            Ok::<_, ParquetError>((kind?, series?, class?, stack?, start?, count?, weight?))
        };
        let (mut kind, mut series, mut class, mut stack, mut start, mut count, mut weight) =
            columns().map_err(failed(step))?;
        let mut left = group.metadata().num_rows() as usize;
        while left > 0 {
            wanted.asker.check()?;
            let rows = left.min(CHUNK_ROWS);
            left -= rows;
            series.next(rows).map_err(failed(step))?;
            if !series.any(|series| wanted.has_series(series.cast_unsigned())) {
                [&mut kind, &mut class, &mut stack].into_iter().for_each(|column| column.pass_over(rows));
                [&mut start, &mut count, &mut weight].into_iter().for_each(|column| column.pass_over(rows));
                continue;
            }
            for column in [&mut kind, &mut class, &mut stack] {
                column.next(rows).map_err(failed(step))?;
            }
            for column in [&mut start, &mut count, &mut weight] {
                column.next(rows).map_err(failed(step))?;
            }
            for row in 0..rows {
                let of = series.at(row).cast_unsigned();
                let sample = || Sample {
                    kind: kind.at(row).cast_unsigned(),
                    series: of,
                    class: class.at(row).cast_unsigned(),
                    stack: stack.at(row).cast_unsigned(),
                    start_unix_ns: start.at(row).cast_unsigned(),
                    count: count.at(row).cast_unsigned(),
                    weight: weight.at(row).cast_unsigned(),
                };
                if wanted.has_series(of) {
                    let sample = sample();
                    if wanted.has_kind(sample.kind) && wanted.has_time(sample.start_unix_ns) {
                        visit(&sample)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// All samples of a segment, one after the other, of which a chunk is in memory.
pub(in super::super) struct SampleCursor {
    path: PathBuf,
    file: SerializedFileReader<File>,
    next_group: usize,
    /// Columns of the group that is read, and the rows that are left of it.
    numbers: Vec<Column<Int32Type>>,
    longs: Vec<Column<Int64Type>>,
    left: usize,
    at: usize,
    chunk: usize,
}

impl SampleCursor {
    /// Begins with the first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(in super::super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = open(&path)?;
        Ok(Self {
            path,
            file,
            next_group: 0,
            numbers: Vec::new(),
            longs: Vec::new(),
            left: 0,
            at: 0,
            chunk: 0,
        })
    }

    /// The next; `None`: there are no more.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(in super::super) fn next(&mut self) -> Result<Option<Sample>, StoreError> {
        while self.at == self.chunk {
            let is_any = self.decode();
            if !is_any.map_err(failed(|| format!("cannot read the segment {}", self.path.display())))? {
                return Ok(None);
            }
        }
        let row = self.at;
        self.at += 1;
        let number = |column: usize| self.numbers[column].at(row).cast_unsigned();
        let long = |column: usize| self.longs[column].at(row).cast_unsigned();
        Ok(Some(Sample {
            kind: number(0),
            series: number(1),
            class: number(2),
            stack: number(3),
            start_unix_ns: long(0),
            count: long(1),
            weight: long(2),
        }))
    }

    /// Decodes the next chunk. Whether there is any.
    fn decode(&mut self) -> Result<bool, ParquetError> {
        use sample_column::{CLASS, COUNT, KIND, SERIES, STACK, START, WEIGHT};
        if self.left == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.next_group)?;
            let numbers = [KIND, SERIES, CLASS, STACK].map(|column| Column::new(group.as_ref(), column));
            let longs = [START, COUNT, WEIGHT].map(|column| Column::new(group.as_ref(), column));
            self.numbers = numbers.into_iter().collect::<Result<_, _>>()?;
            self.longs = longs.into_iter().collect::<Result<_, _>>()?;
            self.left = group.metadata().num_rows() as usize;
            self.next_group += 1;
        }
        let rows = self.left.min(CHUNK_ROWS);
        self.numbers.iter_mut().try_for_each(|column| column.next(rows))?;
        self.longs.iter_mut().try_for_each(|column| column.next(rows))?;
        self.left -= rows;
        (self.at, self.chunk) = (0, rows);
        Ok(true)
    }
}

/// Shows the wanted signals of a segment.
///
/// # Errors
/// Where the file cannot be read, and what `visit` says.
pub(in super::super) fn readings(
    path: &Path,
    wanted: &Wanted<'_>,
    visit: &mut impl FnMut(&Reading) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    use signal_column::{LEVEL, SERIES, SIGNAL, START, VALUES as FIRST_VALUE, WINDOWS};
    let step = || format!("cannot read the segment {}", path.display());
    let file = open(path)?;
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(failed(step))?;
        wanted.asker.check()?;
        if !wanted.admits(group.metadata(), SIGNAL, SERIES, START) {
            continue;
        }
        let read = || {
            let rows = group.metadata().num_rows() as usize;
            let mut readings = vec![Reading::default(); rows];
            let mut numbers = |column: usize, set: fn(&mut Reading, i32)| -> Result<(), ParquetError> {
                let mut column = Column::<Int32Type>::new(group.as_ref(), column)?;
                column.next(rows)?;
                readings.iter_mut().enumerate().for_each(|(row, reading)| set(reading, column.at(row)));
                Ok(())
            };
            numbers(SIGNAL, |reading, value| reading.signal = value.cast_unsigned())?;
            numbers(SERIES, |reading, value| reading.series = value.cast_unsigned())?;
            numbers(WINDOWS, |reading, value| reading.windows = value.cast_unsigned())?;
            numbers(LEVEL, |reading, value| reading.level = value as u8)?;
            let mut start = Column::<Int64Type>::new(group.as_ref(), START)?;
            start.next(rows)?;
            for (row, reading) in readings.iter_mut().enumerate() {
                reading.start_unix_ns = start.at(row).cast_unsigned();
            }
            for position in 0..VALUES {
                let mut values = Column::<DoubleType>::new(group.as_ref(), FIRST_VALUE + position)?;
                values.next(rows)?;
                for (row, reading) in readings.iter_mut().enumerate() {
                    reading.values[position] = values.at(row);
                }
            }
            Ok::<_, ParquetError>(readings)
        };
        for reading in read().map_err(failed(step))? {
            let is_wanted = wanted.has_series(reading.series)
                && wanted.has_kind(reading.signal)
                && wanted.has_time(reading.start_unix_ns);
            if is_wanted {
                visit(&reading)?;
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, StoreError> {
    let step = || format!("cannot read the segment {}", path.display());
    let file = File::open(path).map_err(failed(step))?;
    SerializedFileReader::new(file).map_err(failed(step))
}

/// A type of columns, and the one value that a column has in all rows, where its least and greatest say so.
trait Values: DataType {
    fn only(_: &Statistics) -> Option<Self::T> {
        None
    }
}

impl Values for DoubleType {}

impl Values for Int32Type {
    fn only(statistics: &Statistics) -> Option<i32> {
        let Statistics::Int32(range) = statistics else { return None };
        range.min_opt().filter(|least| range.max_opt() == Some(*least)).copied()
    }
}

impl Values for Int64Type {
    fn only(statistics: &Statistics) -> Option<i64> {
        let Statistics::Int64(range) = statistics else { return None };
        range.min_opt().filter(|least| range.max_opt() == Some(*least)).copied()
    }
}

/// A column that is decoded piece by piece; one that has the same value in all rows never is.
struct Column<T: Values> {
    only: Option<T::T>,
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    /// Rows before the next that need not be decoded.
    passed_over: usize,
}

impl<T: Values> Column<T>
where
    T::T: Copy,
{
    fn new(group: &dyn RowGroupReader, column: usize) -> Result<Self, ParquetError> {
        let reader: ColumnReader = group.get_column_reader(column)?;
        let only = group.metadata().column(column).statistics().and_then(T::only);
        Ok(Self { only, reader: get_typed_column_reader(reader), values: Vec::new(), passed_over: 0 })
    }

    /// Leaves out rows. What is never decoded after them costs nothing.
    fn pass_over(&mut self, rows: usize) {
        self.passed_over += rows;
    }

    /// Decodes the next rows.
    fn next(&mut self, rows: usize) -> Result<(), ParquetError> {
        if self.only.is_some() {
            return Ok(());
        }
        self.values.clear();
        self.reader.skip_records(std::mem::take(&mut self.passed_over))?;
        let (records, ..) = self.reader.read_records(rows, None, None, &mut self.values)?;
        if records == rows {
            Ok(())
        } else {
            Err(ParquetError::General(format!("a column has {records} of {rows} rows")))
        }
    }

    fn at(&self, row: usize) -> T::T {
        self.only.unwrap_or_else(|| self.values[row])
    }

    /// Whether any of the rows that were decoded last is so.
    fn any(&self, is_so: impl Fn(T::T) -> bool) -> bool {
        self.only.map_or_else(|| self.values.iter().any(|value| is_so(*value)), &is_so)
    }
}

fn range_u32(group: &RowGroupMetaData, column: usize) -> Option<(u32, u32)> {
    match group.column(column).statistics()? {
        Statistics::Int32(range) => {
            Some((range.min_opt()?.cast_unsigned(), range.max_opt()?.cast_unsigned()))
        }
        _ => None,
    }
}

fn range_u64(group: &RowGroupMetaData, column: usize) -> Option<(u64, u64)> {
    match group.column(column).statistics()? {
        Statistics::Int64(range) => {
            Some((range.min_opt()?.cast_unsigned(), range.max_opt()?.cast_unsigned()))
        }
        _ => None,
    }
}
