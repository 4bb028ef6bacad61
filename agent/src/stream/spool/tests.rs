use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn open(directory: &TempDir) -> Spool {
    let (spool, remarks) = Spool::open(directory.path(), Limits::default()).expect("it can be opened");
    assert_eq!(remarks, [""; 0]);
    spool
}

fn waiting(spool: &mut Spool) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut last = 0;
    while let Some(next) = spool.next_after(last) {
        found.extend(spool.read(next).map(|batch| (batch.sequence, batch.window)));
        last = next;
    }
    found
}

#[test]
fn what_waits_survives_and_numbers_go_on() {
    let directory = directory();
    let mut spool = open(&directory);
    let identity = spool.identity();
    assert_eq!([b"one", b"two", b"tri"].map(|window| spool.append(window.to_vec(), 9)), [1, 2, 3].map(Some));
    spool.remove(2);
    // As after kill -9: nothing is closed in order.
    drop(spool);
    let mut spool = open(&directory);
    assert_eq!(waiting(&mut spool), [(1, b"one".to_vec()), (3, b"tri".to_vec())]);
    assert_eq!(spool.read(1).map(|batch| batch.window_bytes), Some(9));
    spool.remove(1);
    spool.remove(3);
    drop(spool);
    let mut spool = open(&directory);
    assert_eq!((spool.identity(), spool.fill()), (identity, Fill::default()));
    assert_eq!(spool.append(b"four".to_vec(), 9), Some(4));
}

#[test]
fn a_number_is_not_used_again_where_the_ledger_was_not_written() {
    let directory = directory();
    drop(open(&directory));
    // Killed between the batch and the ledger.
    batch_file::write(&batch_file::path(&directory.path().join("spool"), 1), 1, 3, b"one").expect("it can");
    fs::write(directory.path().join("spool/00000000000000000002.unfinished"), b"tw").expect("it can");
    let mut spool = open(&directory);
    assert_eq!(waiting(&mut spool), [(1, b"one".to_vec())]);
    assert_eq!(spool.append(b"two".to_vec(), 3), Some(2));
    assert_eq!(fs::read_dir(directory.path().join("spool")).expect("it is there").count(), 2);
}

#[test]
fn the_oldest_goes_where_there_is_no_room_and_is_counted_for_good() {
    let directory = directory();
    let limits = Limits { disk_bytes: 3 * (FILE_OVERHEAD + 100), memory_bytes: 0 };
    let (mut spool, _) = Spool::open(directory.path(), limits).expect("it can be opened");
    for _ in 0..5 {
        assert!(spool.append(vec![0; 100], 100).is_some());
    }
    let numbers =
        |spool: &mut Spool| waiting(spool).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
    assert_eq!(numbers(&mut spool), [3, 4, 5]);
    // Larger than everything.
    assert_eq!(spool.append(vec![0; 100_000], 100_000), None);
    spool.set_disk_bytes(2 * (FILE_OVERHEAD + 100));
    assert_eq!((numbers(&mut spool), spool.fill().dropped), (vec![4, 5], 4));
    drop(spool);
    let mut spool = open(&directory);
    assert_eq!((numbers(&mut spool), spool.fill().dropped), (vec![4, 5], 4));
    assert_eq!(spool.append(vec![1], 1), Some(7));
}

#[test]
fn a_batch_that_was_damaged_is_dropped_and_counted() {
    let directory = directory();
    let mut spool = open(&directory);
    for window in [b"one", b"two", b"tri"] {
        spool.append(window.to_vec(), 3);
    }
    let path = |number| batch_file::path(&directory.path().join("spool"), number);
    let file = fs::File::options().write(true).open(path(1)).expect("it is there");
    file.write_all_at(b"X", 33).expect("it can be written");
    fs::write(path(3), b"short").expect("it can be written");
    assert_eq!(waiting(&mut spool), [(2, b"two".to_vec())]);
    drop(spool);
    let mut spool = open(&directory);
    assert_eq!((waiting(&mut spool).len(), spool.fill().dropped), (1, 2));
}

#[test]
fn a_torn_write_leaves_the_ledger_of_before_and_a_damaged_one_is_another_agent() {
    let directory = directory();
    let path = directory.path().join("agent.ledger");
    let mut spool = open(&directory);
    let identity = spool.identity();
    for _ in 0..3 {
        spool.append(vec![0], 1);
    }
    for number in 1..=3 {
        spool.remove(number);
    }
    drop(spool);
    let mut torn = fs::read(&path).expect("it is there");
    // The fourth time it was written: the first place.
    torn[40] ^= 1;
    fs::write(&path, &torn).expect("it can be written");
    let mut spool = open(&directory);
    assert_eq!(spool.identity(), identity);
    // The third has been answered and is nowhere any more; its number does not come again.
    assert_eq!(spool.append(vec![0], 1), Some(4));
    drop(spool);
    fs::write(&path, vec![7; 1024]).expect("it can be written");
    let (spool, remarks) = Spool::open(directory.path(), Limits::default()).expect("it can be opened");
    assert_ne!(spool.identity(), identity);
    assert!(remarks[0].contains("new identity"), "{remarks:?}");
}

#[test]
fn without_a_directory_a_few_batches_wait_in_memory() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, b"").expect("it can be written");
    let limits = Limits { memory_bytes: 10, ..Limits::default() };
    let (mut spool, remarks) = Spool::open(&file, limits).expect("it works all the same");
    assert!(remarks[0].contains("cannot be written") && remarks[0].contains("in memory"), "{remarks:?}");
    assert!(spool.is_in_memory());
    for number in 1..=3 {
        assert_eq!(spool.append(vec![number as u8; 4], 4), Some(number));
    }
    assert_eq!(waiting(&mut spool), [(2, vec![2; 4]), (3, vec![3; 4])]);
    assert_eq!(spool.fill(), Fill { batches: 2, bytes: 8, dropped: 1 });
    assert_eq!(spool.append(vec![0; 11], 11), None);
}

#[test]
fn a_batch_in_memory_is_counted_if_the_agent_dies() {
    let directory = directory();
    let mut spool = open(&directory);
    assert_eq!(spool.append(b"one".to_vec(), 3), Some(1));
    // The directory cannot be written any more, the ledger can: as on a full disk.
    fs::rename(directory.path().join("spool"), directory.path().join("elsewhere")).expect("it can");
    assert_eq!(spool.append(b"two".to_vec(), 3), Some(2));
    assert!(spool.is_in_memory());
    assert_eq!(spool.read(2).map(|batch| batch.window), Some(b"two".to_vec()));
    fs::rename(directory.path().join("elsewhere"), directory.path().join("spool")).expect("it can");
    drop(spool);
    let mut spool = open(&directory);
    assert_eq!((waiting(&mut spool).len(), spool.fill().dropped), (1, 1));
    assert_eq!(spool.append(b"tri".to_vec(), 3), Some(3));
}

#[test]
fn two_agents_do_not_share_a_directory() {
    let directory = directory();
    let _first = open(&directory);
    let second = Spool::open(directory.path(), Limits::default());
    assert!(matches!(second, Err(SpoolError::InUse(_))));
}
