//! Which rows a query reads: fresh windows, and of history the coarsest segments that say the same.
//!
//! Every row of a fresh window goes into one segment of windows, whose sums by the minute are a segment that is written with it, its parent;
//! sums by the hour come later. So the rows of a level are: its segments, the finer ones that have no parent yet, and the coarser ones
//! below which everything was deleted already. None is counted twice.

use std::path::PathBuf;

use super::directory::Folder;
use super::readers::Access;
use super::rows::{Reading, Sample};
use super::segments::{Content, Level, Wanted, readings, samples};
use super::writer::signed;
use super::{Shared, failed, fresh, varint};
use crate::store::{Asker, StoreError};

/// A part of a query's time, and the level that it is read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Part {
    pub(in crate::store) level: Level,
    pub(in crate::store) from_unix_ns: u64,
    pub(in crate::store) until_unix_ns: u64,
}

/// Cuts a time into parts: what is whole hours is read by the hour, of the rest what is whole minutes by the minute. Steps that are not
/// whole hours or minutes forbid that.
pub(in crate::store) fn plan(from_unix_ns: u64, until_unix_ns: u64, step_ns: Option<u64>) -> Vec<Part> {
    let mut parts = Vec::new();
    cut(from_unix_ns, until_unix_ns, step_ns, Level::Hours, &mut parts);
    parts
}

fn cut(from: u64, until: u64, step_ns: Option<u64>, level: Level, parts: &mut Vec<Part>) {
    if from >= until {
        return;
    }
    let finer = match level {
        Level::Hours => Level::Minutes,
        Level::Minutes => Level::Windows,
        Level::Windows => {
            parts.push(Part { level, from_unix_ns: from, until_unix_ns: until });
            return;
        }
    };
    let step = level.step_ns();
    let first = from.checked_next_multiple_of(step).unwrap_or(until);
    let last = level.floor(until);
    let is_allowed = step_ns.is_none_or(|own| own > 0 && own % step == 0);
    if !is_allowed || first >= last {
        cut(from, until, step_ns, finer, parts);
        return;
    }
    cut(from, first, step_ns, finer, parts);
    parts.push(Part { level, from_unix_ns: first, until_unix_ns: last });
    cut(last, until, step_ns, finer, parts);
}

/// All rows, for who reads segments to make others of them.
pub(super) struct Every {
    series: Vec<bool>,
    asker: Asker,
}

impl Every {
    /// Of so many series.
    pub(super) fn new(series: usize) -> Self {
        Self { series: vec![true; series], asker: Asker::default() }
    }

    /// As readers of segments are told.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let Self { series, asker } = self;
        Wanted { from_unix_ns: 0, until_unix_ns: u64::MAX, kind: None, series, asker }
    }
}

/// A file of history.
struct Segment {
    path: PathBuf,
    /// Those that it has rows of.
    series: Vec<u32>,
    /// From where on its rows begin,
    from_unix_ns: u64,
    /// and up to where.
    until_unix_ns: u64,
}

/// What is read.
pub(super) struct Scan<'a> {
    pub(super) shared: &'a Shared,
    pub(super) access: &'a Access<'a>,
    /// When, and at which levels.
    pub(super) parts: Vec<Part>,
    /// The kind of samples, or the signal; `None`: all.
    pub(super) kind: Option<u32>,
    /// The series, by number.
    pub(super) series: &'a [bool],
    /// For whom.
    pub(super) asker: &'a Asker,
}

impl Scan<'_> {
    /// Shows all samples.
    ///
    /// # Errors
    /// Where they cannot be read, and what `visit` says.
    pub(super) fn samples(
        &self,
        mut visit: impl FnMut(&Sample) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_window("samples", |blob, start_unix_ns| {
            for sample in fresh::samples(blob, start_unix_ns)? {
                let is_wanted = self.kind.is_none_or(|kind| kind == sample.kind) && self.has(sample.series);
                if is_wanted {
                    visit(&sample)?;
                }
            }
            Ok(())
        })?;
        self.each_segment(Content::Samples, |path, wanted| samples(path, wanted, &mut visit))
    }

    /// Shows all signals.
    ///
    /// # Errors
    /// Where they cannot be read, and what `visit` says.
    pub(super) fn readings(
        &self,
        mut visit: impl FnMut(&Reading) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_window("signals", |blob, start_unix_ns| {
            for reading in fresh::readings(blob, start_unix_ns)? {
                let is_wanted =
                    self.kind.is_none_or(|kind| kind == reading.signal) && self.has(reading.series);
                if is_wanted {
                    visit(&reading)?;
                }
            }
            Ok(())
        })?;
        self.each_segment(Content::Signals, |path, wanted| readings(path, wanted, &mut visit))
    }

    /// The series that there are rows of, by number.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) fn series(&self) -> Result<Vec<bool>, StoreError> {
        let mut found = vec![false; self.series.len()];
        let mut mark = |series: u32| {
            if self.has(series) {
                found[series as usize] = true;
            }
        };
        self.each_window("samples", |blob, start_unix_ns| {
            fresh::samples(blob, start_unix_ns)?.iter().for_each(|row| mark(row.series));
            Ok(())
        })?;
        self.each_window("signals", |blob, start_unix_ns| {
            fresh::readings(blob, start_unix_ns)?.iter().for_each(|row| mark(row.series));
            Ok(())
        })?;
        // Those that begin before the time asked for, or end after it, may have their series at other times.
        let mut of_edges = Vec::new();
        for content in [Content::Samples, Content::Signals] {
            for part in &self.parts {
                self.asker.check()?;
                for segment in self.segments(content, part)? {
                    if part.from_unix_ns <= segment.from_unix_ns
                        && segment.until_unix_ns <= part.until_unix_ns
                    {
                        segment.series.into_iter().for_each(&mut mark);
                    } else {
                        of_edges.push((content, part, segment));
                    }
                }
            }
        }
        for (content, part, Segment { path, series, .. }) in of_edges {
            let mut unseen = vec![false; self.series.len()];
            for series in series.into_iter().filter(|series| self.has(*series)) {
                unseen[series as usize] = !found[series as usize];
            }
            if !unseen.contains(&true) {
                continue;
            }
            let wanted = Wanted { series: &unseen, ..self.wanted(part) };
            let mut mark = |series: u32| -> Result<(), StoreError> {
                found[series as usize] = true;
                Ok(())
            };
            match content {
                Content::Samples => samples(&path, &wanted, &mut |sample| mark(sample.series))?,
                Content::Signals => readings(&path, &wanted, &mut |reading| mark(reading.series))?,
            }
        }
        Ok(found)
    }

    fn has(&self, series: u32) -> bool {
        self.series.get(series as usize).copied().unwrap_or(false)
    }

    fn each_window(
        &self,
        column: &str,
        mut visit: impl FnMut(&[u8], u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let step = || "cannot read fresh windows".to_owned();
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else { return Ok(()) };
        let sql = format!(
            "SELECT start_unix_ns, {column} FROM windows WHERE start_unix_ns >= ?1 AND start_unix_ns < ?2"
        );
        let mut windows = self.access.catalogue().prepare_cached(&sql).map_err(failed(step))?;
        let mut rows =
            windows.query([signed(first.from_unix_ns), signed(last.until_unix_ns)]).map_err(failed(step))?;
        while let Some(row) = rows.next().map_err(failed(step))? {
            self.asker.check()?;
            let start: i64 = row.get(0).map_err(failed(step))?;
            let blob = row.get_ref(1).and_then(|blob| Ok(blob.as_blob()?)).map_err(failed(step))?;
            if !blob.is_empty() {
                visit(blob, start.unsigned_abs())?;
            }
        }
        Ok(())
    }

    fn each_segment(
        &self,
        content: Content,
        mut visit: impl FnMut(&std::path::Path, &Wanted<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for part in &self.parts {
            let wanted = self.wanted(part);
            for Segment { path, series, .. } in self.segments(content, part)? {
                if series.iter().any(|series| self.has(*series)) {
                    visit(&path, &wanted)?;
                }
            }
        }
        Ok(())
    }

    /// Which rows of a part's segments.
    fn wanted(&self, part: &Part) -> Wanted<'_> {
        Wanted {
            from_unix_ns: part.from_unix_ns,
            until_unix_ns: part.until_unix_ns,
            kind: self.kind,
            series: self.series,
            asker: self.asker,
        }
    }

    /// The segments of a part.
    fn segments(&self, content: Content, part: &Part) -> Result<Vec<Segment>, StoreError> {
        let step = || "cannot list segments".to_owned();
        let mut list = self
            .access
            .catalogue()
            .prepare_cached(
                "SELECT file, series, from_unix_ns, until_unix_ns FROM segments WHERE content = ?1 AND from_unix_ns < ?4 AND until_unix_ns > ?3
                 AND (level = ?2 OR (level < ?2 AND parent = 0) OR (level > ?2 AND is_finest = 1)) ORDER BY id",
            )
            .map_err(failed(step))?;
        let (from, until) = (signed(part.from_unix_ns), signed(part.until_unix_ns));
        let mut rows = list.query((content as i64, part.level as i64, from, until)).map_err(failed(step))?;
        let mut segments = Vec::new();
        while let Some(row) = rows.next().map_err(failed(step))? {
            let file: String = row.get(0).map_err(failed(step))?;
            let series: Vec<u8> = row.get(1).map_err(failed(step))?;
            let series =
                varint::ascending(&series).ok_or_else(|| failed(step)("a list of series is damaged"))?;
            let time = |column| Ok(row.get::<_, i64>(column).map_err(failed(step))?.unsigned_abs());
            segments.push(Segment {
                path: self.shared.directory.file(Folder::Segments, &file),
                series,
                from_unix_ns: time(2)?,
                until_unix_ns: time(3)?,
            });
        }
        Ok(segments)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HOUR_NS, MINUTE_NS};
    use super::*;

    #[test]
    fn times_are_cut_where_hours_and_minutes_begin() {
        let parts = |from, until, step| {
            plan(from, until, step)
                .into_iter()
                .map(|part| (part.level, part.from_unix_ns, part.until_unix_ns))
                .collect::<Vec<_>>()
        };
        let (minute, hour) = (MINUTE_NS, HOUR_NS);
        assert_eq!(parts(hour, 3 * hour, None), [(Level::Hours, hour, 3 * hour)]);
        assert_eq!(
            parts(hour - 2 * minute - 1, 2 * hour + 90_000_000_000, Some(hour)),
            [
                (Level::Windows, hour - 2 * minute - 1, hour - 2 * minute),
                (Level::Minutes, hour - 2 * minute, hour),
                (Level::Hours, hour, 2 * hour),
                (Level::Minutes, 2 * hour, 2 * hour + minute),
                (Level::Windows, 2 * hour + minute, 2 * hour + 90_000_000_000),
            ]
        );
        // Steps of five minutes are not in hours, those of ten seconds not in minutes.
        assert_eq!(parts(0, hour, Some(5 * minute)), [(Level::Minutes, 0, hour)]);
        assert_eq!(parts(0, hour, Some(minute / 6)), [(Level::Windows, 0, hour)]);
        assert_eq!(parts(5, 5, None), []);
        assert_eq!(parts(u64::MAX - 1, u64::MAX, None), [(Level::Windows, u64::MAX - 1, u64::MAX)]);
    }
}
