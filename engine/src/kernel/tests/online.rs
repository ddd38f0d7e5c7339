//! Events folded in any batches, stored and read back at any point, against one timeline of all rows.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

use super::random::Case;
use super::values::same;
use crate::kernel::*;

/// A piece as a store keeps it.
#[derive(Default)]
struct Stored {
    head: Vec<u8>,
    chunks: BTreeMap<u32, Vec<u8>>,
}

impl Stored {
    fn write(&mut self, delta: PieceDelta) {
        self.head = delta.head;
        self.chunks.extend(delta.chunks);
        for id in delta.removed {
            self.chunks.remove(&id);
        }
    }

    fn read(&self, kernel: &Kernel, partition: i32) -> Piece {
        let chunks = self.chunks.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
        kernel.decode_piece(partition, &self.head, chunks).unwrap()
    }

    /// Loads what the rows need, and nothing else.
    fn load(&self, kernel: &Kernel, piece: &mut Piece, rows: &EventRows) {
        loop {
            let needs = kernel.needs(piece, rows);
            if needs.is_empty() {
                return;
            }
            for id in needs {
                kernel.supply(piece, id, &self.chunks[&id]).unwrap();
            }
        }
    }
}

/// Folds one partition in random batches, some rows twice, with writes and reads of the stored form between.
fn fold_in_batches(kernel: &Kernel, rows: &EventRows, random: &mut ChaCha8Rng) -> (Piece, FoldCounts) {
    let mut piece = kernel.empty_piece(rows.partition);
    let mut stored = Stored::default();
    let mut total = FoldCounts::default();
    let most = [2, 10, 60, 1000][random.random_range(0..4)];
    let mut done = 0;
    while done < rows.len() {
        let again = random.random_range(0..=done.min(5));
        let length = random.random_range(1..most);
        let batch = rows.slice(done - again, again + length);
        stored.load(kernel, &mut piece, &batch);
        let counts = kernel.fold(&mut piece, &batch).unwrap();
        done = (done + length).min(rows.len());
        assert_eq!(counts.skipped, again);
        assert_eq!(piece.absorbed(), Some(rows.offsets.value(done - 1)));
        total.folded += counts.folded;
        total.late += counts.late;
        total.duplicate += counts.duplicate;
        if random.random_range(0..3) == 0 {
            let delta = kernel.encode_changes(&mut piece).unwrap();
            stored.write(delta);
            match random.random_range(0..3) {
                0 => {}
                1 => piece = kernel.decode_head(rows.partition, &stored.head).unwrap(),
                _ => piece = stored.read(kernel, rows.partition),
            }
        }
    }
    stored.write(kernel.encode_changes(&mut piece).unwrap());
    let again = kernel.encode_changes(&mut piece).unwrap();
    assert!(again.chunks.is_empty() && again.removed.is_empty(), "a second write writes the head only");
    // What reads get.
    (stored.read(kernel, rows.partition), total)
}

fn check(seed: u64) -> (usize, usize) {
    let mut case = Case::new(seed);
    let kernel = Kernel::new(case.spec.clone()).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{:?}", case.spec));
    let offline = kernel.evaluate(&case.offline(&kernel), &case.instants).unwrap();
    let mut evaluations = Vec::new();
    for _ in 0..2 {
        let mut random = ChaCha8Rng::seed_from_u64(case.random.next_u64());
        let pieces: Vec<Piece> = case
            .partitions
            .iter()
            .map(|rows| {
                let (piece, counts) = fold_in_batches(&kernel, rows, &mut random);
                assert_eq!(counts.folded + counts.late + counts.duplicate, rows.len(), "seed {seed}");
                piece
            })
            .collect();
        let timeline = kernel.timeline(&pieces).unwrap();
        evaluations.push(kernel.evaluate(&timeline, &case.instants).unwrap());
    }
    let newest = case.partitions.iter().filter_map(|rows| rows.times.values().iter().max()).max();
    let (mut exact, mut outside) = (0, 0);
    for (row, t) in case.instants.iter().enumerate() {
        let place = format!("seed {seed}, instant {t}, newest {newest:?}\n{:#?}", Fewer(&case.spec));
        let [first, second] = evaluations.as_slice() else { panic!() };
        assert_eq!(first.status[row], second.status[row], "status depends on batches: {place}");
        assert_eq!(first.newest[row], second.newest[row], "newest depends on batches: {place}");
        for evaluation in &evaluations {
            for (index, (online, offline)) in evaluation.columns.iter().zip(&offline.columns).enumerate() {
                let (online, offline) = (online.slice(row, 1), offline.slice(row, 1));
                if evaluation.status[row] == Status::OutsideRetention {
                    assert!(online.is_null(0), "{place}");
                } else {
                    assert!(same(&online, &offline), "column {index}: online {online:?}, offline {offline:?}, {place}");
                }
            }
            if evaluation.status[row] == Status::OutsideRetention {
                assert!(
                    newest.is_some_and(|newest| *t < newest - case.spec.ahead),
                    "a read at now is outside retention: {place}"
                );
                outside += 1;
            } else {
                assert_eq!(evaluation.status[row], offline.status[row], "{place}");
                exact += 1;
            }
            if newest.is_none_or(|newest| t >= newest) {
                assert_eq!(evaluation.newest[row], newest.copied(), "{place}");
            }
        }
    }
    (exact, outside)
}

/// A spec without its columns.
struct Fewer<'a>(&'a TimelineSpec);
impl std::fmt::Debug for Fewer<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spec = self.0;
        writeln!(
            formatter,
            "tile {:?} lateness {} ahead {} id {:?}\n{:?}",
            spec.tile,
            spec.lateness,
            spec.ahead,
            spec.event_id.is_some(),
            spec.frames
        )?;
        spec.aggregates.iter().try_for_each(|aggregate| {
            let name = match &aggregate.function {
                Function::Udaf(function) => function.name().to_owned(),
                other => format!("{other:?}"),
            };
            let Aggregate { args, filter, distinct, ignore_nulls, frame, .. } = aggregate;
            writeln!(
                formatter,
                "{name} {args:?} filter {filter:?} distinct {distinct} ignore_nulls {ignore_nulls} frame {frame}"
            )
        })
    }
}

#[test]
fn online_equals_offline_whatever_the_batches() {
    let (mut exact, mut outside) = (0, 0);
    for seed in 0..super::cases(150) {
        let counts = check(seed);
        exact += counts.0;
        outside += counts.1;
    }
    // The cases are worth something only if both happen, and often.
    assert!(exact > outside && outside > exact / 50, "{exact} exact, {outside} outside retention");
}

/// A piece with few kinds of columns, as a store keeps it, and the same rows appended to its bytes.
fn appended(seed: u64) -> (usize, usize) {
    let mut case = Case::new(seed);
    let kernel = Kernel::new(case.spec.clone()).unwrap();
    let (mut tried, mut taken) = (0, 0);
    for rows in &case.partitions {
        let random = &mut case.random;
        let mut stored = Stored::default();
        // Most streams are in order, and a batch has few rows of a key.
        let sorted = random.random_range(0..4) > 0;
        let times: Vec<i64> = if sorted {
            let mut times = rows.times.values().to_vec();
            times.sort_unstable();
            times
        } else {
            rows.times.values().to_vec()
        };
        let rows = EventRows { times: times.into(), ..rows.clone() };
        kernel.check_batch(&rows).unwrap();
        let mut done = 0;
        while done < rows.len() {
            let again = if random.random_range(0..10) == 0 { random.random_range(0..=done.min(5)) } else { 0 };
            let range = done - again..(done + random.random_range(1..5)).min(rows.len());
            done = range.end;
            let head = (!stored.head.is_empty()).then_some(stored.head.as_slice());
            let appended = kernel.append(head, &rows, range.clone()).unwrap();
            let mut piece = match head {
                Some(head) => kernel.decode_head(rows.partition, head).unwrap(),
                None => kernel.empty_piece(rows.partition),
            };
            let before = piece.absorbed();
            let batch = rows.slice(range.start, range.len());
            stored.load(&kernel, &mut piece, &batch);
            let counts = kernel.fold(&mut piece, &batch).unwrap();
            let delta = kernel.encode_changes(&mut piece).unwrap();
            tried += 1;
            if let Some(appended) = appended {
                taken += 1;
                let place = format!("seed {seed}, rows {range:?}\n{:#?}", Fewer(&case.spec));
                assert!(delta.chunks.is_empty() && delta.removed.is_empty(), "more than the head changes: {place}");
                assert_eq!(appended.head, delta.head, "{place}");
                assert_eq!((appended.counts, appended.before), (counts, before), "{place}");
                assert_eq!(Some(appended.absorbed), piece.absorbed(), "{place}");
            }
            stored.write(delta);
        }
    }
    (tried, taken)
}

#[test]
fn appending_to_a_head_gives_the_bytes_of_a_fold() {
    let (mut tried, mut taken) = (0, 0);
    for seed in 0..super::cases(400) {
        let (more, of_them) = appended(seed);
        tried += more;
        taken += of_them;
    }
    assert!(taken * 8 > tried, "{taken} of {tried} folds were appended");
}
