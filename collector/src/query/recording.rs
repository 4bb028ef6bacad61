//! A recording that was made on demand: as a flame graph, of all of it or of a stretch; as a time line of its threads; and how its time is
//! spread within seconds. No store is asked: all of it is in the recording.

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::moments::{self, Stretch};
use chokepoint_analysis::part;
use chokepoint_analysis::profile::Profile;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::decomposition::ClassShown;
use super::flame::{FlameGraph, of_recording};
use super::profile_type::ProfileType;
use super::question::{MS_NS, Subject};

/// Parts of a second that time is told by: 20 ms, two samples a CPU at the usual rate.
const ROWS: usize = 50;
/// What time is told by beside these.
const COLUMN_NS: u64 = 1_000 * MS_NS;
/// Seconds that are told at most: more than a profile on demand may take.
const MAX_COLUMNS: usize = 3_600;
/// Pieces of a time line in one answer: some 6 MB of JSON.
const MAX_PIECES: usize = 200_000;

/// What threads did, and when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Length of the recording.
    pub duration_ns: u64,
    /// The classes that pieces are of.
    pub classes: Vec<ClassShown>,
    /// The threads of which most is known first.
    pub threads: Vec<Thread>,
    /// How many threads there are beside these.
    pub left_out: u64,
    /// Samples that have no time, because there was no room for them: the end of the recording lacks them.
    pub missing: u64,
    /// When the last piece ended.
    pub last_ns: u64,
}

/// A thread, and what it did: a column for each thing that is known of its pieces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Its process.
    pub pid: u32,
    /// Its own id.
    pub tid: u32,
    /// The process's name.
    pub process: String,
    /// Its own name.
    pub thread: String,
    /// When each piece ended, nanoseconds since the recording's start.
    pub end_ns: Vec<u64>,
    /// How long it lasted; 0 of a sample of the running thread.
    pub length_ns: Vec<u64>,
    /// Its class, a position in the classes.
    pub class: Vec<u32>,
}

/// How time is spread within seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bursts {
    /// Length of the recording.
    pub duration_ns: u64,
    /// What a column is of: a second.
    pub column_ns: u64,
    /// The time in each part of each column, nanoseconds: divided by the length of such a part it is threads at a time.
    pub columns: Vec<Vec<u64>>,
    /// Samples that have no time, because there was no room for them.
    pub missing: u64,
}

/// The flame graph of a type of time; `stretch` is a part of the recording, of which the samples alone are told.
///
/// # Errors
/// The recording has no times of its samples, and a stretch was asked for.
pub fn flame(
    profile: Profile,
    asked: &ProfileType,
    stretch: Option<Stretch>,
    max_nodes: usize,
) -> Result<FlameGraph, QueryError> {
    let start_ms = profile.header.start_unix_ns / MS_NS;
    let all = Stretch { from_ns: 0, until_ns: profile.header.duration_ns };
    let Stretch { from_ns, until_ns } = stretch.unwrap_or(all);
    let query = profile.header.target.clone();
    let profile = match stretch {
        Some(stretch) => moments::within(with_times(profile)?, stretch),
        None => profile,
    };
    let profile = part::of_classes(profile, &asked.name, &asked.title, |class| asked.has(class));
    let subject = Subject {
        query: format!("{} of {query}", asked.name),
        title: asked.title.clone(),
        unit: "ns".to_owned(),
        from_unix_ms: start_ms + from_ns / MS_NS,
        until_unix_ms: start_ms + until_ns / MS_NS,
    };
    Ok(of_recording(subject, &profile, max_nodes))
}

/// What the threads did in a type of time.
///
/// # Errors
/// The recording has no times of its samples.
pub fn timeline(profile: Profile, asked: &ProfileType, max_threads: usize) -> Result<Timeline, QueryError> {
    let profile = with_times(profile)?;
    let has = |class| asked.has(class);
    let lines = moments::lines(&profile, has);
    let count = lines.len();
    let mut classes: Vec<Class> =
        lines.iter().flat_map(|line| line.pieces.iter().map(|piece| piece.class)).collect();
    classes.sort_unstable_by_key(|class| *class as usize);
    classes.dedup();
    let mut room = MAX_PIECES;
    let mut threads = Vec::new();
    for line in lines.into_iter().take(max_threads) {
        let Some(left) = room.checked_sub(line.pieces.len()) else { break };
        room = left;
        let of = profile.thread(line.thread);
        let place =
            |class: Class| classes.iter().position(|known| *known == class).unwrap_or_default() as u32;
        threads.push(Thread {
            pid: of.pid,
            tid: of.tid,
            process: of.process_name.clone(),
            thread: of.thread_name.clone(),
            end_ns: line.pieces.iter().map(|piece| piece.end_ns).collect(),
            length_ns: line.pieces.iter().map(|piece| piece.length_ns).collect(),
            class: line.pieces.iter().map(|piece| place(piece.class)).collect(),
        });
    }
    Ok(Timeline {
        duration_ns: profile.header.duration_ns,
        classes: classes.iter().map(|class| ClassShown::of(class.name())).collect(),
        left_out: (count - threads.len()) as u64,
        threads,
        missing: moments::missing(&profile, has),
        last_ns: profile.timeline.last().map_or(0, |moment| moment.offset_ns),
    })
}

/// How a type of time is spread within seconds.
///
/// # Errors
/// As for [`timeline`].
pub fn bursts(profile: Profile, asked: &ProfileType) -> Result<Bursts, QueryError> {
    let profile = with_times(profile)?;
    let has = |class| asked.has(class);
    let duration_ns = profile.header.duration_ns;
    let columns = usize::try_from(duration_ns.div_ceil(COLUMN_NS)).unwrap_or(MAX_COLUMNS).min(MAX_COLUMNS);
    Ok(Bursts {
        duration_ns,
        column_ns: COLUMN_NS,
        columns: moments::spread(&profile, COLUMN_NS, columns, ROWS, has),
        missing: moments::missing(&profile, has),
    })
}

fn with_times(profile: Profile) -> Result<Profile, QueryError> {
    if profile.timeline.is_empty() && !profile.samples.is_empty() {
        return Err(QueryError::NotFound(
            "this recording has no times of its samples: its agent is older than this collector".to_owned(),
        ));
    }
    Ok(profile)
}
