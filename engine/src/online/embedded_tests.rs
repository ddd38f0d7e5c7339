use super::super::conformance;
use super::*;

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_path_buf();
    let open = move |name: &str| {
        let path = folder.join(format!("{name}.redb"));
        async move { EmbeddedStore::open(path) }
    };
    conformance::run(open).await.unwrap();
}

/// What a crash leaves: the file as the disk has it, while the store is still open.
fn crash(store: &EmbeddedStore, to: &Path) -> EmbeddedStore {
    std::fs::copy(store.path.as_ref(), to).unwrap();
    EmbeddedStore::open(to).unwrap()
}

#[tokio::test]
async fn a_crash_keeps_what_was_flushed_and_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path().join("store.redb")).unwrap();
    let view = ViewId { name: "v".into(), fingerprint: "f".into() };
    let key = EntityKey::from("k".to_owned());
    let mut expected = None;
    let mut flushed = 0;
    for i in 0..60i64 {
        let write = PieceWrite {
            key: key.clone(),
            partition: 0,
            expected,
            absorbed: i,
            head: Bytes::from(i.to_string()),
            chunks: vec![(i as u32 % 7, Bytes::from(vec![i as u8; 3000]))],
            removed: Vec::new(),
            whole: false,
            idle_after: None,
        };
        assert_eq!(store.write(Session::default(), &view, vec![write]).await.unwrap(), [WriteOutcome::Written]);
        store.set_progress(Session::default(), &view, 0, expected.map(|_| i), i + 1).await.unwrap();
        expected = Some(i);
        if i % 10 == 4 {
            store.flush().await.unwrap();
            flushed = i;
        }
        if i % 5 == 4 {
            let after = crash(&store, &dir.path().join(format!("crash{i}.redb")));
            let piece = after.read(&view, std::slice::from_ref(&key)).await.unwrap().remove(0).remove(0);
            assert!(piece.absorbed >= flushed, "flushed {flushed}, found {}", piece.absorbed);
            assert_eq!(piece.head, piece.absorbed.to_string());
            let chunk = (piece.absorbed % 7) as u32;
            let newest = piece.chunks.iter().find(|(n, _)| *n == chunk).unwrap();
            assert_eq!(newest.1[0], piece.absorbed as u8);
            assert!(after.progress(&view).await.unwrap()[&0] <= piece.absorbed + 1);
        }
    }
}
