//! Files that tell other programs what the numbers in segments mean. The store's own queries read the catalogue.
//!
//! Each has what is new since the one before, so all of them together have each number once. They are written when segments were,
//! and anew when names were deleted.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::schema::parser::parse_message_type;
use rusqlite::{OptionalExtension, params};

use super::directory::Folder;
use super::readers::Access;
use super::segments::{write_column, writer};
use super::{Shared, failed, frames};
use crate::store::{FrameLocation, Frames, StoreError};

/// Nodes or labels of a file at most, or little more: what is held in memory, with some 300 bytes each.
const MAX_ROWS: usize = 1 << 17;

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

/// The number of the next file.
const NEXT: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'names'), 0) + 1";
/// Lists a file.
const ADD: &str = "INSERT INTO names (content, file, last, after_segment) VALUES (?1, ?2, ?3, ?4)";

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
    let stacks = Stacks::read(&access, last_stack, u32::MAX)?;
    let series = Labels::read(&access, last_series, u32::MAX);
    // With more to come, the segments are not told of yet.
    let after = if stacks.has_more || series.has_more { 0 } else { newest };
    let next = number(NEXT)?;
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
            transaction.execute(ADD, params![content, file, last, after]).map_err(failed(reading))?;
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

/// Numbers that differ in so many low bits are one range: by these is told which files lack some.
pub(super) const RANGE_BITS: u32 = 16;

/// Writes the next file after this one anew, without what is no more, if it had numbers of these ranges of stacks or of series. Which it
/// was; `None`: there are no more.
///
/// # Errors
/// Where the disk does not take it. The file stays as it is then: it tells too much.
pub(super) fn renew(
    shared: &Shared,
    (after, until): (i64, i64),
    ranges: [&[u32]; 2],
) -> Result<Option<i64>, StoreError> {
    let access = shared.read()?;
    let sql =
        "SELECT id, content, last, after_segment, (SELECT coalesce(max(other.last), 0) FROM names AS other
               WHERE other.content = names.content AND other.last < names.last),
               last = (SELECT max(last) FROM names AS other WHERE other.content = names.content)
               FROM names WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1";
    let listed = access.catalogue().query_row(sql, [after, until], |row| {
        Ok(Listed {
            id: row.get(0)?,
            content: row.get(1)?,
            last: row.get(2)?,
            after_segment: row.get(3)?,
            before: row.get(4)?,
            is_newest: row.get(5)?,
        })
    });
    let Some(listed) = listed.optional().map_err(failed(reading))? else { return Ok(None) };
    let is_of_stacks = listed.content == "stacks";
    let own = (listed.before >> RANGE_BITS)..=(listed.last >> RANGE_BITS);
    if ranges[usize::from(!is_of_stacks)].iter().any(|range| own.contains(range)) {
        if is_of_stacks {
            let stacks = Stacks::read(&access, listed.before, listed.last)?;
            listed.replace(shared, &access, stacks.numbers[0].is_empty(), |file| stacks.write(file))?;
        } else {
            let series = Labels::read(&access, listed.before, listed.last);
            listed.replace(shared, &access, series.series.is_empty(), |file| series.write(file))?;
        }
    }
    Ok(Some(listed.id))
}

/// A file of names, as the catalogue lists it.
struct Listed {
    id: i64,
    content: String,
    last: u32,
    after_segment: i64,
    /// Its numbers are above this one.
    before: u32,
    /// The newest stays even if it is empty: it says up to where numbers were told.
    is_newest: bool,
}

impl Listed {
    /// Lists another file in its place; none where it would be empty.
    fn replace(
        &self,
        shared: &Shared,
        access: &Access<'_>,
        is_empty: bool,
        write: impl FnOnce(&File) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let next: i64 = access.catalogue().query_row(NEXT, (), |row| row.get(0)).map_err(failed(reading))?;
        let file = format!("{}-{next:010}.parquet", self.content);
        let is_kept = !is_empty || self.is_newest;
        if is_kept {
            shared.directory.write(Folder::Names, &file, write)?;
        }
        let list = || {
            let mut catalogue = shared.catalogue();
            let transaction = catalogue.transaction()?;
            // Files that end at the same number are this one, and empty ones.
            let sql = "DELETE FROM names WHERE content = ?1 AND last = ?2 RETURNING file";
            let files = transaction
                .prepare_cached(sql)?
                .query_map(params![self.content, self.last], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()?;
            if is_kept {
                transaction.execute(ADD, params![self.content, file, self.last, self.after_segment])?;
            }
            transaction.commit()?;
            Ok::<_, rusqlite::Error>(files)
        };
        let listed = list().map_err(failed(reading));
        let superseded = listed.as_ref().map_or_else(|_| vec![file], Clone::clone);
        for file in superseded {
            // What cannot be removed now is removed at the next start.
            let _ = shared.directory.remove(Folder::Names, &file);
        }
        listed.map(drop)
    }
}

/// What frames are called: each text once in memory, however many rows have it.
struct Words {
    /// Name and file.
    functions: Vec<[ByteArray; 2]>,
    /// Path and build id.
    modules: Vec<[ByteArray; 2]>,
    nothing: [ByteArray; 2],
}

impl Words {
    fn new(frames: &Frames) -> Self {
        let pair = |one: &str, other: &str| [one, other].map(ByteArray::from);
        let build_id = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self {
            functions: frames.functions.iter().map(|function| pair(&function.name, &function.file)).collect(),
            modules: frames
                .modules
                .iter()
                .map(|module| pair(&module.path, &build_id(&module.build_id)))
                .collect(),
            nothing: pair("", ""),
        }
    }
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
    /// The nodes after this one, at most up to another.
    fn read(access: &Access<'_>, last: u32, until: u32) -> Result<Self, StoreError> {
        let mut stacks = Self { last, ..Self::default() };
        let mut statement = access
            .catalogue()
            .prepare_cached(
                "SELECT id, parent, location FROM nodes WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
            )
            .map_err(failed(reading))?;
        let nodes = statement
            .query_map((last, until, MAX_ROWS), |node| Ok((node.get(0)?, node.get(1)?, node.get(2)?)))
            .and_then(Iterator::collect::<Result<Vec<(u32, u32, u32)>, _>>)
            .map_err(failed(reading))?;
        let (frames, positions) =
            frames::locations(access.catalogue(), nodes.iter().map(|(_, _, location)| *location))?;
        stacks.has_more = nodes.len() == MAX_ROWS;
        let words = Words::new(&frames);
        for (node, caller, location) in nodes {
            stacks.add(&words, node, caller, &frames.locations[positions[&location]]);
            stacks.last = node;
        }
        Ok(stacks)
    }

    /// Adds the rows of a node.
    fn add(&mut self, words: &Words, node: u32, caller: u32, location: &FrameLocation) {
        let [path, build_id] = &words.modules[location.module];
        // What has no symbol has a row all the same.
        let lines = location.lines.iter().map(|(function, line)| (&words.functions[*function], *line));
        let unnamed = location.lines.is_empty().then_some((&words.nothing, 0));
        for (inlined, ([name, file], line)) in lines.chain(unnamed).enumerate() {
            let numbers = [node, caller, inlined as u32, line];
            for (column, number) in self.numbers.iter_mut().zip(numbers) {
                column.push(number.cast_signed());
            }
            self.addresses.push(location.address.cast_signed());
            for (column, word) in self.words.iter_mut().zip([name, file, path, build_id]) {
                column.push(word.clone());
            }
        }
    }

    fn write(&self, file: &File) -> Result<(), StoreError> {
        let columns = Arc::new(parse_message_type(STACKS).expect("the text above is a schema"));
        // They ascend.
        let mut writer = writer(file, columns, &[("stack", Encoding::DELTA_BINARY_PACKED)])?;
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
    /// The labels of the series after this one, at most up to another.
    fn read(access: &Access<'_>, last: u32, until: u32) -> Self {
        let mut labels = Self { last, ..Self::default() };
        for series in last + 1..(access.index.len().max(1) as u32).min(until.saturating_add(1)) {
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
        let mut writer = writer(file, columns, &[])?;
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
