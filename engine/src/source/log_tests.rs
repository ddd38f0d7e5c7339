use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::source::Contract;

fn payload(i: i64) -> Bytes {
    Bytes::from(format!("message {i}"))
}

fn records(range: std::ops::Range<i64>) -> Vec<(i64, Bytes)> {
    range.map(|i| (i * 10, payload(i))).collect()
}

fn open(dir: &tempfile::TempDir) -> EventLog {
    EventLog::open(dir.path().join("log.redb")).unwrap()
}

#[tokio::test]
async fn messages_come_back_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    assert_eq!(log.partitions("t").unwrap(), Vec::<i32>::new());
    assert_eq!((log.start_offset("t", 0).unwrap(), log.end_offset("t", 0).unwrap()), (0, 0));
    assert_eq!(log.append("t", 0, records(0..3)).await.unwrap(), 0);
    assert_eq!(log.append("t", 0, records(3..10)).await.unwrap(), 3);
    assert_eq!(log.append("t", 2, records(0..1)).await.unwrap(), 0);
    assert_eq!(log.append("t2", 0, records(5..6)).await.unwrap(), 0);
    assert_eq!(log.append("t", 0, Vec::new()).await.unwrap(), 10);
    assert_eq!(log.append("t", 7, Vec::new()).await.unwrap(), 0);
    drop(log);
    let log = open(&dir);
    assert_eq!(log.partitions("t").unwrap(), [0, 2]);
    assert_eq!(log.end_offset("t", 0).unwrap(), 10);
    for from in 0..=10 {
        let read = log.read("t", 0, from, 100, usize::MAX).unwrap();
        let expected: Vec<_> =
            (from..10).map(|i| LogRecord { offset: i, timestamp: i * 10, payload: payload(i) }).collect();
        assert_eq!(read, expected, "from {from}");
    }
    assert_eq!(log.read("t2", 0, 0, 9, usize::MAX).unwrap()[0].payload, payload(5));
}

#[tokio::test]
async fn reads_keep_their_limits_but_always_move() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.append("t", 0, records(0..100)).await.unwrap();
    let read = |from, records, bytes| log.read("t", 0, from, records, bytes).unwrap().len();
    assert_eq!(read(0, 7, usize::MAX), 7);
    assert_eq!(read(0, 100, 30), 3);
    assert_eq!(read(5, 100, 0), 1);
    assert_eq!(read(99, 100, usize::MAX), 1);
    assert_eq!(read(100, 100, usize::MAX), 0);
}

#[tokio::test]
async fn a_large_batch_is_cut_into_blocks_that_can_be_entered_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let n = 3 * BLOCK_RECORDS as i64 + 17;
    log.append("t", 0, records(0..n)).await.unwrap();
    log.append("t", 0, records(n..n + 1)).await.unwrap();
    for from in [0, 1, 4095, 4096, 4097, 8192, n - 1, n] {
        let read = log.read("t", 0, from, 5, usize::MAX).unwrap();
        let offsets: Vec<i64> = read.iter().map(|r| r.offset).collect();
        assert_eq!(offsets, (from..(from + 5).min(n + 1)).collect::<Vec<_>>());
        assert!(read.iter().all(|r| r.payload == payload(r.offset)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_share_commits_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(&dir));
    let tasks: Vec<_> = (0..200i64)
        .map(|i| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let batch = vec![(i, payload(i)), (i, payload(i + 1000))];
                (i, log.append("t", (i % 2) as i32, batch).await.unwrap())
            })
        })
        .collect();
    for task in tasks {
        let (i, offset) = task.await.unwrap();
        let read = log.read("t", (i % 2) as i32, offset, 2, usize::MAX).unwrap();
        assert_eq!([&read[0].payload, &read[1].payload], [&payload(i), &payload(i + 1000)]);
    }
    assert_eq!((log.end_offset("t", 0).unwrap(), log.end_offset("t", 1).unwrap()), (200, 200));
    let commits = *log.commits().borrow();
    assert!(commits < 200, "200 appends made {commits} commits");
}

#[tokio::test]
async fn schemas_are_kept_and_a_silent_change_of_meaning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let schema = |logical: &str, doc: &str| {
        let json = format!(
            r#"{{"type":"record","name":"T","doc":"{doc}","fields":[{{"name":"at","type":{{"type":"long","logicalType":"{logical}"}}}}]}}"#
        );
        Contract::parse("t.v1", &json).unwrap()
    };
    let first = schema("timestamp-micros", "");
    open(&dir).register(&first).unwrap();
    let log = open(&dir);
    assert_eq!(log.schema(WriterId::Rabin(first.fingerprint())).unwrap().as_deref(), Some(first.json()));
    assert_eq!(log.schema(WriterId::Rabin(1)).unwrap(), None);
    assert_eq!(log.schema(WriterId::Registry(1)).unwrap(), None);
    let documented = schema("timestamp-micros", "better words");
    log.register(&documented).unwrap();
    assert_eq!(log.schema(WriterId::Rabin(first.fingerprint())).unwrap().as_deref(), Some(documented.json()));
    let error = log.register(&schema("timestamp-millis", "")).unwrap_err().to_string();
    assert!(error.contains("registered with another meaning"), "{error}");
}

#[tokio::test]
async fn a_second_process_is_told_and_a_closed_log_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(&dir);
    let error = EventLog::open(dir.path().join("log.redb")).unwrap_err().to_string();
    assert!(error.contains("log.redb: another process has it open; hint: is another `tidemark` running"), "{error}");
}

const CHILD: &str = "TIDEMARK_TEST_LOG_CHILD";

/// Not a test of its own: the process that the next one kills. Says what it has appended, for ever.
#[tokio::test]
async fn child_appends_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let log = EventLog::open(path).unwrap();
    let mut next = log.end_offset("t", 0).unwrap();
    loop {
        let size = 1 + next % 37;
        assert_eq!(log.append("t", 0, records(next..next + size)).await.unwrap(), next);
        next += size;
        println!("\nappended {next}");
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.redb");
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "source::log::tests::child_appends_until_it_is_killed"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let acknowledged =
            lines.filter_map(|line| line.strip_prefix("appended ")?.parse::<i64>().ok()).nth(3 + round * 5).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let log = EventLog::open(&path).unwrap();
        let end = log.end_offset("t", 0).unwrap();
        assert!(end >= acknowledged, "round {round}: acknowledged {acknowledged}, found {end}");
        let mut next = 0;
        while next < end {
            let read = log.read("t", 0, next, 1000, usize::MAX).unwrap();
            for record in &read {
                assert_eq!((record.offset, &record.payload), (next, &payload(next)));
                next += 1;
            }
        }
    }
}
