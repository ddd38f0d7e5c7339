//! What retention removes, and who reads beside it.

use super::*;

/// Days whose events are all too old go, the newest file of a partition stays, and a later run removes what went.
#[tokio::test]
async fn days_go_when_all_their_events_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    // Two hundred offsets a day, an offset a second, and an event as much as five hundred seconds before.
    let storage = archive(&dir, 25, 40).await;
    let truth = Truth { events: (0..1000).map(|o| ((0, o), true)).collect(), ends: BTreeMap::from([(0, 1000)]) };
    let begins = BTreeMap::from([(0, 0)]);
    let mut wide = how(Utc::now());
    wide.rows_per_file = 1_000;
    let newest = |offsets: std::ops::Range<i64>| {
        let rows = events(0, &offsets.collect::<Vec<_>>(), true);
        rows["at"].as_primitive::<TimestampMicrosecondType>().values().iter().max().copied().unwrap()
    };
    let run = async |how: &Compaction| {
        let mut steps = vec![];
        compact(&storage, "t", how, &mut |step| steps.push(step.clone())).await.unwrap();
        steps
    };
    // To the microsecond: the newest event of the second day keeps it.
    wide.retention = Some(before(newest(200..400)));
    let steps = run(&wide).await;
    assert!(steps.contains(&CompactStep::Retired { before: newest(0..200) + 1, files: 5, events: 200 }), "{steps:?}");
    assert_eq!(holds(&storage, &truth).await.begin(0), 200);
    wide.retention = Some(before(newest(200..400) + 1));
    let steps = run(&wide).await;
    assert!(steps.contains(&CompactStep::Retired { before: newest(200..400) + 1, files: 1, events: 200 }), "{steps:?}");
    assert_eq!(names(&storage).await.len(), 25 + 4, "nothing is removed within the grace period");
    let verified = is_whole(&storage, &truth, &begins).await;
    assert_eq!((verified.partitions[0].removed, verified.below), (400, 11));
    assert_eq!(verified.removed_before, Some(crate::source::instant(newest(200..400) + 1)));

    // However little is to be kept, the last day is, which may go on.
    wide.retention = Some(before(i64::MAX));
    let steps = run(&wide).await;
    assert!(steps.iter().any(|step| matches!(step, CompactStep::Retired { events: 400, .. })), "{steps:?}");
    wide.now = Utc::now() + HOUR * 2;
    run(&wide).await;
    assert_eq!(names(&storage).await, [compacted_name(0, 800, 959), stream_name(0, 960)]);
    let records = storage.list(&storage.path(&["archive", "t", "_retention"]), "json").await.unwrap();
    assert_eq!(records.len(), 1, "what a later one says too is gone");
    assert_eq!(holds(&storage, &truth).await.begin(0), 800);
    assert_eq!(is_whole(&storage, &truth, &begins).await.below, 0);
    assert_eq!(run(&wide).await, [CompactStep::Waiting { files: 0 }]);

    // What retention did not remove is missed as before.
    std::fs::remove_file(dir.path().join("archive/t/ingest_date=1970-01-05").join(compacted_name(0, 800, 959)))
        .unwrap();
    let log = Beside { log: Some(BTreeMap::from([(0, (0, 1000))])), ..Beside::default() };
    let verified = verify(&storage, "t", async || Ok(log.clone())).await.unwrap();
    assert_eq!(verified.faults.iter().map(|fault| fault.offsets).collect::<Vec<_>>(), [Some((800, 959))]);
    // Where no file is left, the archive still ends behind what is gone.
    std::fs::remove_dir_all(dir.path().join("archive/t/ingest_date=1970-01-05")).unwrap();
    assert_eq!(archived_ends(&storage, "t").await.unwrap(), BTreeMap::from([(0, 800)]));
}

/// By another column than the one that events went by, nothing can be said of what is left.
#[tokio::test]
async fn a_horizon_is_of_its_column() {
    let dir = tempfile::tempdir().unwrap();
    let storage = archive(&dir, 11, 40).await;
    let mut all = how(Utc::now());
    all.retention = Some(Retention { timestamp: "nothing".into(), before: i64::MAX });
    let mut steps = vec![];
    compact(&storage, "t", &all, &mut |step| steps.push(step.clone())).await.unwrap();
    assert!(steps.iter().any(|step| matches!(step, CompactStep::Kept { cause, .. } if cause.contains("`nothing`"))));
    assert_eq!(list_archive(&storage, "t").await.unwrap().removed, Removed::default());
    all.retention = Some(before(i64::MAX));
    compact(&storage, "t", &all, &mut |_| ()).await.unwrap();
    let removed = list_archive(&storage, "t").await.unwrap().removed;
    assert!(removed.horizon("at").is_some_and(|horizon| horizon < i64::MAX));
    assert_eq!(removed.horizon("other"), Some(i64::MAX));
    assert_eq!(Removed::default().horizon("at"), None);
}

/// Whoever looks while files go, wherever it is then, has them all, or knows that they are gone, or says which it missed.
#[tokio::test]
async fn a_reader_beside_a_removal_never_has_fewer_rows() {
    let (mut before_it, mut after_it, mut missed) = (0, 0, 0);
    // How often a reader waits is the disk's to say: once more, if a moment was never met.
    for waits in (0..24).cycle().take(24 * 20) {
        if waits == 0 && after_it > 0 && missed > 0 {
            break;
        }
        let dir = tempfile::tempdir().unwrap();
        let storage = archive(&dir, 11, 40).await;
        // Of another partition, so that there is something to wait for between files and records.
        let other = r#"{"before": {"at": -9000000000}, "partitions": {"9": {"begin": 5, "events": 5}}}"#;
        storage.put(&storage.path(&["archive", "t", "_retention", "other.json"]), other.into()).await.unwrap();
        let truth = Truth { events: (0..440).map(|o| ((0, o), true)).collect(), ends: BTreeMap::from([(0, 440)]) };
        let remove = async {
            for now in [Utc::now(), Utc::now() + HOUR * 2] {
                let all = Compaction { retention: Some(before(i64::MAX)), ..how(now) };
                compact(&storage, "t", &all, &mut |_| ()).await.unwrap();
            }
        };
        let look = async {
            let past = archive_table(&storage, "t", &contract(true)).await.map_err(|e| e.to_string())?;
            Ok::<_, String>((table(&past).await, past.removed))
        };
        match paused(waits, look, remove).await {
            Ok((Ok(rows), removed)) => {
                assert!(same(&rows, &truth.rows(0, &removed)), "after {waits} waits: {} rows", rows.num_rows());
                *(if removed.begin(0) < 0 { &mut before_it } else { &mut after_it }) += 1;
            }
            Ok((Err(error), _)) => {
                assert!(gone(&error), "{error}");
                missed += 1;
            }
            Err(error) => {
                assert!(error.contains("the file is gone"), "{error}");
                missed += 1;
            }
        }
    }
    println!("{before_it} before, {after_it} after, {missed} missed a file");
    assert!(after_it > 0 && missed > 0);
}
