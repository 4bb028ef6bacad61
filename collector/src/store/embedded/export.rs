//! Files that tell other programs what the numbers in segments mean. The store's own queries read the catalogue.
//!
//! Each has what is new since the one before, so all of them together have each number once. They are written when segments were, and stay
//! as long as names do.

use std::fs::File;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::schema::parser::parse_message_type;
use rusqlite::params;

use super::answers::FrameReader;
use super::directory::Folder;
use super::readers::Access;
use super::segments::{write_column, writer};
use super::{Shared, failed};
use crate::store::StoreError;

/// Nodes or labels of a file at most, or little more: what is held in memory, with some 200 bytes each.
const MAX_ROWS: usize = 1 << 18;

/// Nodes of the tree of stacks: a row for each function there, for inlined ones have one place with who calls them. `caller` is the node
/// below which this one is; 0: none, it is a thread's outermost frame.
const STACKS: &str = "
message stacks {
  required int32 stack (INTEGER(32, false));
  required int32 caller (INTEGER(32, false));
  required int32 inlined (INTEGER(32, false));
  required int32 line (INTEGER(32, false));
  required int64 address (INTEGER(64, false));
  required binary function (STRING);
  required binary file (STRING);
  required binary module (STRING);
  required binary build_id (STRING);
}";

/// Labels of series: a row for each.
const SERIES: &str = "
message series {
  required int32 series (INTEGER(32, false));
  required binary name (STRING);
  required binary value (STRING);
}";

/// Writes the names that came since the last files, if segments came, too. Whether there were any.
///
/// # Errors
/// Where the disk does not take them.
pub(super) fn names(shared: &Shared) -> Result<bool, StoreError> {
    let access = shared.read()?;
    let number = |sql: &str| -> Result<u32, StoreError> {
        access.catalogue().query_row(sql, (), |row| row.get(0)).map_err(failed(reading))
    };
    let newest = number("SELECT coalesce(max(id), 0) FROM segments")?;
    if newest <= number("SELECT coalesce(max(after_segment), 0) FROM names")? {
        return Ok(false);
    }
    let last_stack = number("SELECT coalesce(max(last), 0) FROM names WHERE content = 'stacks'")?;
    let last_series = number("SELECT coalesce(max(last), 0) FROM names WHERE content = 'series'")?;
    access.let_go()?;
    let stacks = Stacks::read(&access, last_stack)?;
    let series = Labels::read(&access, last_series);
    // With more to come, the segments are not told of yet.
    let after = if stacks.has_more || series.has_more { 0 } else { newest };
    let next = number("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'names'), 0) + 1")?;
    let files = [
        ("stacks", format!("stacks-{next:010}.parquet"), stacks.last),
        ("series", format!("series-{:010}.parquet", next + 1), series.last),
    ];
    let attempt = || {
        shared.directory.write(Folder::Names, &files[0].1, |file| stacks.write(file))?;
        shared.directory.write(Folder::Names, &files[1].1, |file| series.write(file))?;
        let mut catalogue = shared.catalogue();
        let transaction = catalogue.transaction().map_err(failed(reading))?;
        for (content, file, last) in &files {
            let sql = "INSERT INTO names (content, file, last, after_segment) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, params![content, file, last, after]).map_err(failed(reading))?;
        }
        transaction.commit().map_err(failed(reading))
    };
    let result = attempt();
    if result.is_err() {
        for (_, file, _) in &files {
            // What cannot be removed now is removed at the next start.
            let _ = shared.directory.remove(Folder::Names, file);
        }
    }
    result.map(|()| true)
}

/// Columns of the tree of stacks.
#[derive(Default)]
struct Stacks {
    last: u32,
    has_more: bool,
    numbers: [Vec<i32>; 4],
    addresses: Vec<i64>,
    words: [Vec<ByteArray>; 4],
}

impl Stacks {
    /// The nodes after this one.
    fn read(access: &Access<'_>, last: u32) -> Result<Self, StoreError> {
        let mut stacks = Self { last, ..Self::default() };
        let mut frames = FrameReader::new(access.catalogue());
        let mut nodes = access
            .catalogue()
            .prepare_cached("SELECT id, parent, location FROM nodes WHERE id > ?1 ORDER BY id LIMIT ?2")
            .map_err(failed(reading))?;
        let mut nodes = nodes.query((last, MAX_ROWS)).map_err(failed(reading))?;
        let mut count = 0;
        while let Some(node) = nodes.next().map_err(failed(reading))? {
            let read = || Ok::<_, rusqlite::Error>((node.get(0)?, node.get(1)?, node.get(2)?));
            let (node, caller, location): (u32, u32, u32) = read().map_err(failed(reading))?;
            let location = frames.location(location)?;
            // What has no symbol has a row all the same.
            let lines = location.lines.iter().map(|(function, line)| (Some(*function), *line));
            let unnamed = location.lines.is_empty().then_some((None, 0));
            for (inlined, (function, line)) in lines.chain(unnamed).enumerate() {
                let module = &frames.frames.modules[location.module];
                let function = function.map(|function| &frames.frames.functions[function]);
                let numbers = [node, caller, inlined as u32, line];
                for (column, number) in stacks.numbers.iter_mut().zip(numbers) {
                    column.push(number.cast_signed());
                }
                stacks.addresses.push(location.address.cast_signed());
                let build_id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
                let words = [
                    function.map_or("", |function| &function.name),
                    function.map_or("", |function| &function.file),
                    &module.path,
                    &build_id,
                ];
                for (column, word) in stacks.words.iter_mut().zip(words) {
                    column.push(ByteArray::from(word));
                }
            }
            stacks.last = node;
            count += 1;
        }
        stacks.has_more = count == MAX_ROWS;
        Ok(stacks)
    }

    fn write(&self, file: &File) -> Result<(), StoreError> {
        let columns = Arc::new(parse_message_type(STACKS).expect("the text above is a schema"));
        let mut writer = writer(file, columns)?;
        let mut write = || {
            let mut group = writer.next_row_group()?;
            for column in &self.numbers {
                write_column::<Int32Type>(&mut group, column)?;
            }
            write_column::<Int64Type>(&mut group, &self.addresses)?;
            for column in &self.words {
                write_column::<ByteArrayType>(&mut group, column)?;
            }
            group.close().map(drop)
        };
        write().and_then(|()| writer.close()).map(drop).map_err(failed(writing))
    }
}

/// Columns of the labels of series.
#[derive(Default)]
struct Labels {
    last: u32,
    has_more: bool,
    series: Vec<i32>,
    words: [Vec<ByteArray>; 2],
}

impl Labels {
    /// The labels of the series after this one.
    fn read(access: &Access<'_>, last: u32) -> Self {
        let mut labels = Self { last, ..Self::default() };
        for series in last + 1..access.index.len().max(1) as u32 {
            if labels.series.len() >= MAX_ROWS {
                labels.has_more = true;
                break;
            }
            for (name, value) in access.index.labels(series) {
                labels.series.push(series.cast_signed());
                labels.words[0].push(ByteArray::from(name.as_str()));
                labels.words[1].push(ByteArray::from(value.as_str()));
            }
            labels.last = series;
        }
        labels
    }

    fn write(&self, file: &File) -> Result<(), StoreError> {
        let columns = Arc::new(parse_message_type(SERIES).expect("the text above is a schema"));
        let mut writer = writer(file, columns)?;
        let mut write = || -> Result<(), ParquetError> {
            let mut group = writer.next_row_group()?;
            write_column::<Int32Type>(&mut group, &self.series)?;
            for column in &self.words {
                write_column::<ByteArrayType>(&mut group, column)?;
            }
            group.close().map(drop)
        };
        write().and_then(|()| writer.close()).map(drop).map_err(failed(writing))
    }
}

fn reading() -> String {
    "cannot tell names to other programs".to_owned()
}

fn writing() -> String {
    "cannot write names".to_owned()
}
