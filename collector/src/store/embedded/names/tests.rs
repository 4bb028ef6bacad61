//! What of names is in memory is bounded, by number and by bytes, whatever the disk does.

use super::super::schema;
use super::*;

const MIB: usize = 1 << 20;

/// The names of a catalogue in memory, and that catalogue for who writes.
fn names(directory: &tempfile::TempDir) -> (Names, Connection) {
    let open = || Connection::open(directory.path().join("catalogue.sqlite")).expect("a catalogue");
    let mut writer = open();
    writer.pragma_update(None, "journal_mode", "wal").expect("it is taken");
    schema::migrate(&mut writer).expect("a schema");
    (Names::new(open(), u64::MAX).expect("names"), writer)
}

/// Text of a mebibyte.
fn long(number: usize) -> String {
    let mut text = format!("{number:08}");
    text.extend(std::iter::repeat_n('x', MIB - text.len()));
    text
}

fn write(names: &Names, catalogue: &mut Connection) {
    let transaction = catalogue.transaction().expect("a transaction");
    names.write(&transaction).expect("they are written");
    transaction.commit().expect("it is committed");
    names.end(true);
}

#[test]
fn bytes_that_wait_for_the_disk_are_bounded_until_it_takes_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let (names, mut catalogue) = names(&directory);
    let most = MAX_UNWRITTEN_BYTES / MIB;
    let numbers: Vec<u32> =
        (0..most).map(|number| names.lock().string(&long(number)).expect("there is room")).collect();
    let refuses = |names: &Names| {
        let error = names.lock().string("one more").expect_err("there is no room");
        let source = std::error::Error::source(&error).expect("a reason").to_string();
        assert!(source.contains("wait for the disk"), "{source}");
    };
    refuses(&names);
    // A transaction that fails frees nothing, nor does one that is under way.
    let transaction = catalogue.transaction().expect("a transaction");
    names.write(&transaction).expect("they are written");
    refuses(&names);
    drop(transaction);
    names.end(false);
    refuses(&names);
    assert_eq!(names.lock().string(&long(3)).expect("it has a number"), numbers[3]);
    write(&names, &mut catalogue);
    let tables = &mut *names.lock();
    assert_eq!((tables.strings.unwritten.len(), tables.strings.unwritten_bytes), (0, 0));
    // What is in memory of those that are written is bounded, too; the others are looked up.
    assert!(tables.strings.cached_bytes <= MAX_CACHED_BYTES && tables.strings.cached.len() < most);
    for (number, known) in numbers.iter().enumerate() {
        assert_eq!(tables.string(&long(number)).expect("it is found"), *known);
        assert!(tables.strings.cached_bytes <= MAX_CACHED_BYTES);
    }
    tables.string("one more").expect("there is room again");
}

#[test]
fn names_are_bounded_by_their_number_however_short() {
    let directory = tempfile::tempdir().expect("a directory");
    let (names, _) = names(&directory);
    let tables = &mut *names.lock();
    let node = |number| Node { parent: number, location: 1 };
    for number in 0..2 * MAX_CACHED as u32 {
        tables.nodes.cache(node(number), number);
        assert!(tables.nodes.cached.len() <= MAX_CACHED);
    }
    tables.nodes.forget_cached();
    // As if so many had come: each is looked up, which takes its time.
    tables.nodes.unwritten = (0..MAX_UNWRITTEN as u32 - 1).map(|number| (node(number), number)).collect();
    assert!(tables.node(node(u32::MAX)).is_ok(), "there is room for one");
    assert!(tables.node(node(u32::MAX - 1)).is_err());
    assert!(tables.node(node(u32::MAX)).is_ok() && tables.node(node(5)).is_ok(), "these have numbers");
}
