//! What every online store must do, as a suite that any implementation runs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;

use super::{Believed, EmbeddedStore, OnlineStore, PieceWrite, StoreError, StoredPiece, ViewId, WriteOutcome};
use crate::kernel::EntityKey;

mod hooked;
mod lasting;

pub use hooked::{Hook, Hooked};

/// Runs the suite; the error says which promise is broken. `open(name)` opens the store of that name: an empty
/// one at first, and after the previous handle was flushed and dropped, the same one again.
pub async fn run<S, F>(open: impl Fn(&str) -> F) -> Result<(), String>
where
    S: OnlineStore,
    F: Future<Output = Result<S, StoreError>>,
{
    fencing(&open("fencing").await.map_err(text)?).await.map_err(|e| format!("fencing: {e}"))?;
    chunks(&open("chunks").await.map_err(text)?).await.map_err(|e| format!("chunks: {e}"))?;
    many(&open("many").await.map_err(text)?).await.map_err(|e| format!("many writes: {e}"))?;
    odd_keys(&open("odd_keys").await.map_err(text)?).await.map_err(|e| format!("odd keys: {e}"))?;
    paging(&open("paging").await.map_err(text)?).await.map_err(|e| format!("paging: {e}"))?;
    views(&open("views").await.map_err(text)?).await.map_err(|e| format!("views: {e}"))?;
    progress(&open("progress").await.map_err(text)?).await.map_err(|e| format!("progress: {e}"))?;
    partitions(&open("partitions").await.map_err(text)?).await.map_err(|e| format!("partitions: {e}"))?;
    lasting::durability(&open).await.map_err(|e| format!("durability: {e}"))?;
    lasting::concurrency(&open("concurrency").await.map_err(text)?).await.map_err(|e| format!("concurrency: {e}"))
}

/// A store whose last handle was dropped: what a fill was just writing has it open until it is written.
pub async fn reopened(path: &Path) -> EmbeddedStore {
    loop {
        match EmbeddedStore::open(path) {
            Ok(store) => return store,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn text(e: StoreError) -> String {
    e.to_string()
}

fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn view(name: &str) -> ViewId {
    ViewId { name: name.into(), fingerprint: "f1".into() }
}

fn key(text: &str) -> EntityKey {
    EntityKey::from(text.to_owned())
}

fn put(key: &EntityKey, partition: i32, expected: Option<i64>, absorbed: i64) -> PieceWrite {
    let head = Bytes::from(format!("head {absorbed}"));
    PieceWrite {
        key: key.clone(),
        partition,
        expected,
        absorbed,
        head,
        chunks: Vec::new(),
        removed: Vec::new(),
        whole: false,
        idle_after: None,
    }
}

fn piece(partition: i32, absorbed: i64, chunks: &[(u32, &'static str)]) -> StoredPiece {
    let chunks = chunks.iter().map(|(n, bytes)| (*n, Bytes::from_static(bytes.as_bytes()))).collect();
    StoredPiece { partition, absorbed, head: Bytes::from(format!("head {absorbed}")), chunks }
}

async fn read_one(store: &impl OnlineStore, view: &ViewId, key: &EntityKey) -> Result<Vec<StoredPiece>, String> {
    let mut read = store.read(view, std::slice::from_ref(key)).await.map_err(text)?;
    same("number of results", read.len(), 1)?;
    Ok(read.remove(0))
}

async fn write(store: &impl OnlineStore, view: &ViewId, writes: Vec<PieceWrite>) -> Result<Vec<WriteOutcome>, String> {
    let session = store.session().await.map_err(text)?;
    store.write(session, view, writes).await.map_err(text)
}

async fn advance(
    store: &impl OnlineStore,
    view: &ViewId,
    partition: i32,
    expected: Option<i64>,
    next: i64,
) -> Result<WriteOutcome, String> {
    let session = store.session().await.map_err(text)?;
    store.set_progress(session, view, partition, expected, next).await.map_err(text)
}

async fn fencing(store: &impl OnlineStore) -> Result<(), String> {
    use WriteOutcome::{Fenced, Written};
    let (view, a, b) = (view("v"), key("a"), key("b"));
    let write = |writes: Vec<PieceWrite>| write(store, &view, writes);
    same("a missing key", read_one(store, &view, &a).await?, vec![])?;
    same("no writes", write(vec![]).await?, vec![])?;
    same("a first write", write(vec![put(&a, 0, None, 5)]).await?, vec![Written])?;
    let outcomes = write(vec![
        PieceWrite { chunks: vec![(0, Bytes::from_static(b"stale"))], ..put(&a, 0, None, 9) },
        put(&b, 0, Some(3), 9),
        put(&b, 0, None, 0),
        PieceWrite { removed: vec![0], ..put(&a, 0, Some(4), 9) },
        put(&a, 1, None, -1),
    ]);
    let expected = vec![Fenced { holds: Some(5) }, Fenced { holds: None }, Written, Fenced { holds: Some(5) }, Written];
    same("outcomes", outcomes.await?, expected)?;
    same("a fenced piece", read_one(store, &view, &a).await?, vec![piece(0, 5, &[]), piece(1, -1, &[])])?;
    same("its neighbour", read_one(store, &view, &b).await?, vec![piece(0, 0, &[])])?;
    let c = key("c");
    let whole = |key: &EntityKey, absorbed| PieceWrite { whole: true, ..put(key, 0, None, absorbed) };
    let outcomes = write(vec![whole(&a, 9), whole(&c, 3), put(&c, 0, Some(3), 4), whole(&c, 5)]).await?;
    let fenced = outcomes.iter().map(|outcome| matches!(outcome, Fenced { .. })).collect::<Vec<_>>();
    same("whole pieces", fenced, vec![true, false, false, true])?;
    same("one that was not in the way", read_one(store, &view, &c).await?, vec![piece(0, 4, &[])])?;
    let back = write(vec![put(&a, 0, Some(5), 4)]).await?;
    same("going back", back, vec![Fenced { holds: Some(5) }])?;
    let twice = write(vec![put(&a, 0, Some(5), 6), put(&a, 0, Some(6), 7), put(&a, 0, Some(7), 7)]);
    same("in order within a batch", twice.await?, vec![Written; 3])?;
    same("the last one", read_one(store, &view, &a).await?, vec![piece(0, 7, &[]), piece(1, -1, &[])])
}

async fn chunks(store: &impl OnlineStore) -> Result<(), String> {
    let (view, a) = (view("v"), key("a"));
    let with = |expected, absorbed, chunks: &[(u32, &'static str)], removed: &[u32]| {
        let chunks = chunks.iter().map(|(n, bytes)| (*n, Bytes::from_static(bytes.as_bytes()))).collect();
        PieceWrite { chunks, removed: removed.to_vec(), ..put(&a, 4, expected, absorbed) }
    };
    let first = with(None, 1, &[(7, "seven"), (0, "zero"), (u32::MAX, "last")], &[]);
    write(store, &view, vec![first]).await?;
    let stored = piece(4, 1, &[(0, "zero"), (7, "seven"), (u32::MAX, "last")]);
    same("added", read_one(store, &view, &a).await?, vec![stored])?;
    let second = with(Some(1), 2, &[(7, "VII"), (8, ""), (9, "again")], &[0, 9, 1000]);
    write(store, &view, vec![second]).await?;
    let stored = piece(4, 2, &[(7, "VII"), (8, ""), (9, "again"), (u32::MAX, "last")]);
    same("replaced and removed", read_one(store, &view, &a).await?, vec![stored])?;
    let wanted = [(a.clone(), vec![u32::MAX, 7, 1000]), (key("absent"), vec![7]), (a.clone(), vec![])];
    let fetched = store.fetch(&view, 4, &wanted).await.map_err(text)?;
    let some = piece(4, 2, &[(u32::MAX, "last"), (7, "VII")]);
    same("some of a piece", fetched, vec![Some(some), None, Some(piece(4, 2, &[]))])?;
    let elsewhere = store.fetch(&view, 5, &[(a.clone(), vec![7])]).await.map_err(text)?;
    same("another partition's piece", elsewhere, vec![None])?;
    let large = Bytes::from(vec![0xAB; 5 << 20]);
    let third = PieceWrite {
        head: large.clone(),
        chunks: vec![(1, large.clone())],
        removed: vec![7, 8, 9, u32::MAX],
        ..put(&a, 4, Some(2), 3)
    };
    write(store, &view, vec![third]).await?;
    let stored = read_one(store, &view, &a).await?;
    let intact = matches!(stored.as_slice(), [p] if p.head == large && p.chunks == [(1, large.clone())]);
    same("values of 5 MiB are intact", intact, true)
}

/// Hundreds of writes in one call, some of them fenced and some with chunks: each has its own outcome, in order.
async fn many(store: &impl OnlineStore) -> Result<(), String> {
    use WriteOutcome::{Fenced, Written};
    let view = view("v");
    let keys: Vec<EntityKey> = (0..300).map(|i| key(&i.to_string())).collect();
    let there: Vec<PieceWrite> = keys.iter().step_by(7).map(|key| put(key, 0, None, 3)).collect();
    same("those that are there", write(store, &view, there.clone()).await?, vec![Written; there.len()])?;
    let chunk = |i: u32| (i, Bytes::from(vec![b'x'; 40_000]));
    let all = keys.iter().enumerate().map(|(i, key)| PieceWrite {
        chunks: if i.is_multiple_of(5) { (0..1 + i as u32 % 3).map(chunk).collect() } else { vec![] },
        ..put(key, 0, (i % 14 == 7).then_some(3), 5)
    });
    let stale = |i: usize| i.is_multiple_of(14);
    let outcome = |i: usize| if stale(i) { Fenced { holds: Some(3) } } else { Written };
    same("outcomes", write(store, &view, all.collect()).await?, (0..300).map(outcome).collect())?;
    let read = store.read(&view, &keys).await.map_err(text)?;
    for (i, pieces) in read.iter().enumerate() {
        let chunks = if i.is_multiple_of(5) && !stale(i) { 1 + i % 3 } else { 0 };
        let found: Vec<(i64, usize)> = pieces.iter().map(|piece| (piece.absorbed, piece.chunks.len())).collect();
        same(&format!("key {i}"), found, vec![(if stale(i) { 3 } else { 5 }, chunks)])?;
    }
    Ok(())
}

async fn odd_keys(store: &impl OnlineStore) -> Result<(), String> {
    let long = "k".repeat(10_000);
    let texts = ["", " ", "a", "a|b", "a%7Cb", "é", "日本", "\u{10FFFF}", "{x}", "a:b", long.as_str(), "a\u{0}b"];
    let keys: Vec<EntityKey> = texts.iter().map(|text| key(text)).collect();
    let view = ViewId { name: "vue é:{}".into(), fingerprint: String::new() };
    let writes = keys.iter().zip(0..).map(|(key, i)| put(key, 0, None, i)).collect();
    write(store, &view, writes).await?;
    let mut asked: Vec<EntityKey> = keys.iter().rev().cloned().collect();
    asked.push(key("absent"));
    asked.push(key("a"));
    let read = store.read(&view, &asked).await.map_err(text)?;
    let mut expected: Vec<Vec<StoredPiece>> = (0..keys.len() as i64).rev().map(|i| vec![piece(0, i, &[])]).collect();
    expected.extend([vec![], vec![piece(0, 2, &[])]]);
    same("each key has its own state, in the order asked", read, expected)?;
    let mut sorted = keys.clone();
    sorted.sort();
    same("listed", store.keys(&view, None, 100).await.map_err(text)?, sorted)
}

async fn paging(store: &impl OnlineStore) -> Result<(), String> {
    let view = view("v");
    let keys: Vec<EntityKey> = (0..25).map(|i| key(&format!("{i:02}"))).collect();
    let writes = keys.iter().flat_map(|k| [-3, 0, 9].map(|partition| put(k, partition, None, 1))).collect();
    write(store, &view, writes).await?;
    let mut found = Vec::new();
    loop {
        let page = store.keys(&view, found.last(), 7).await.map_err(text)?;
        same("a page's length", page.len(), 7.min(keys.len() - found.len()))?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    same("all pages", found, keys)?;
    same("no page", store.keys(&view, None, 0).await.map_err(text)?, vec![])?;
    let between = store.keys(&view, Some(&key("03x")), 1).await.map_err(text)?;
    same("after a key that is not there", between, vec![key("04")])
}

async fn views(store: &impl OnlineStore) -> Result<(), String> {
    let a = key("a");
    let ids: Vec<ViewId> = [("v", "f1"), ("v", "f2"), ("w", "f1")]
        .map(|(name, fingerprint)| ViewId { name: name.into(), fingerprint: fingerprint.into() })
        .into();
    same("at first", store.views().await.map_err(text)?, vec![])?;
    for (id, i) in ids.iter().zip(0..) {
        write(store, id, vec![put(&a, 0, None, i)]).await?;
        advance(store, id, 0, None, i + 1).await?;
    }
    let mut listed = store.views().await.map_err(text)?;
    listed.sort();
    same("listed", listed, ids.clone())?;
    let used = store.usage().await.map_err(text)?;
    same("what is used", used.keys().cloned().collect::<Vec<_>>(), ids.clone())?;
    same("one key each", used.values().all(|usage| usage.keys == 1 && usage.bytes >= 6), true)?;
    let [first, dropped, last] = ids.as_slice() else {
        return Err("three views".into());
    };
    store.drop_view(dropped).await.map_err(text)?;
    store.drop_view(dropped).await.map_err(text)?;
    same("dropped state", read_one(store, dropped, &a).await?, vec![])?;
    same("dropped keys", store.keys(dropped, None, 9).await.map_err(text)?, vec![])?;
    same("dropped progress", store.progress(dropped).await.map_err(text)?, BTreeMap::new())?;
    same("views left", store.views().await.map_err(text)?.len(), 2)?;
    same("before it", read_one(store, first, &a).await?, vec![piece(0, 0, &[])])?;
    same("after it", read_one(store, last, &a).await?, vec![piece(0, 2, &[])])?;
    let again = write(store, dropped, vec![put(&a, 0, None, 8)]).await?;
    same("written anew", again, vec![WriteOutcome::Written])?;
    same("kept apart", read_one(store, last, &a).await?, vec![piece(0, 2, &[])])
}

async fn progress(store: &impl OnlineStore) -> Result<(), String> {
    use WriteOutcome::{Fenced, Written};
    let view = view("v");
    same("at first", store.progress(&view).await.map_err(text)?, BTreeMap::new())?;
    for (partition, expected, next, outcome) in [
        (3, None, 10, Written),
        (0, None, 1, Written),
        (3, Some(10), 12, Written),
        (-1, None, i64::MAX, Written),
        (3, Some(11), 12, Written),
        (3, Some(12), 11, Fenced { holds: Some(12) }),
        (3, Some(13), 14, Fenced { holds: Some(12) }),
        (3, None, 13, Fenced { holds: Some(12) }),
        (4, Some(1), 2, Fenced { holds: None }),
    ] {
        let what = format!("partition {partition}, {expected:?} to {next}");
        same(&what, advance(store, &view, partition, expected, next).await?, outcome)?;
    }
    let expected = BTreeMap::from([(-1, i64::MAX), (0, 1), (3, 12)]);
    same("kept per partition", store.progress(&view).await.map_err(text)?, expected)
}

async fn partitions(store: &impl OnlineStore) -> Result<(), String> {
    let (view, other, a, b) = (view("v"), view("w"), key("a"), key("b"));
    let third = ViewId { name: "x".into(), fingerprint: "f".into() };
    let of = |view: &ViewId, believed: &[(i32, Option<i64>)]| (view.clone(), believed.iter().copied().collect());
    let drop = async |dropped: Vec<(ViewId, Believed)>| store.drop_partitions(&dropped.into_iter().collect()).await;
    drop(vec![]).await.map_err(text)?;
    drop(vec![of(&view, &[])]).await.map_err(text)?;
    drop(vec![of(&view, &[(0, None)])]).await.map_err(text)?;
    for view in [&view, &other, &third] {
        let chunk = |write: PieceWrite| PieceWrite { chunks: vec![(7, Bytes::from_static(b"chunk"))], ..write };
        let writes = [0, 1, 2].map(|p| chunk(put(&a, p, None, 5))).into_iter().chain([put(&b, 1, None, 6)]);
        write(store, view, writes.collect()).await?;
        for partition in [0, 1, 2] {
            advance(store, view, partition, None, 9).await?;
        }
    }
    for taken in [(1, None), (1, Some(8)), (3, Some(9))] {
        let refused = drop(vec![of(&view, &[taken])]).await;
        same("another's progress", matches!(refused, Err(StoreError::TakenUp { .. })), true)?;
    }
    same("what another took up", read_one(store, &view, &a).await?.len(), 3)?;
    let both = vec![of(&view, &[(1, Some(9)), (2, Some(9)), (3, None)]), of(&third, &[(2, Some(9))])];
    drop(both).await.map_err(text)?;
    let left: Vec<i32> = read_one(store, &third, &a).await?.iter().map(|piece| piece.partition).collect();
    same("what is left of the other that was dropped too", left, vec![0, 1])?;
    same("and of its progress", store.progress(&third).await.map_err(text)?, BTreeMap::from([(0, 9), (1, 9)]))?;
    same("what is left", read_one(store, &view, &a).await?, vec![piece(0, 5, &[(7, "chunk")])])?;
    same("a key of nothing else", read_one(store, &view, &b).await?, vec![])?;
    same("keys", store.keys(&view, None, 9).await.map_err(text)?, vec![a.clone()])?;
    same("progress", store.progress(&view).await.map_err(text)?, BTreeMap::from([(0, 9)]))?;
    same("another view", read_one(store, &other, &a).await?.len(), 3)?;
    same("its progress", store.progress(&other).await.map_err(text)?.len(), 3)?;
    same("begun anew", write(store, &view, vec![put(&a, 1, None, 0)]).await?, vec![WriteOutcome::Written])?;
    same("progress anew", advance(store, &view, 1, None, 0).await?, WriteOutcome::Written)
}
