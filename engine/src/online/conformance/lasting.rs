//! What outlasts a restart, and what holds while others write.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::{OnlineStore, PieceWrite, StoreError, WriteOutcome};
use super::{advance, key, piece, put, read_one, same, text, view, write};

pub(super) async fn durability<S, F>(open: &impl Fn(&str) -> F) -> Result<(), String>
where
    S: OnlineStore,
    F: Future<Output = Result<S, StoreError>>,
{
    let (view, a) = (view("v"), key("a"));
    for round in 0..3i64 {
        let store = open("durability").await.map_err(text)?;
        let held = read_one(&store, &view, &a).await?;
        let expected = if round == 0 { vec![] } else { vec![piece(0, round - 1, &[(round as u32 - 1, "chunk")])] };
        same("state after opening again", held, expected)?;
        let progress: BTreeMap<i32, i64> = (round > 0).then_some((0, round)).into_iter().collect();
        same("progress after opening again", store.progress(&view).await.map_err(text)?, progress)?;
        let next = PieceWrite {
            chunks: vec![(round as u32, Bytes::from_static(b"chunk"))],
            removed: round.checked_sub(1).and_then(|n| u32::try_from(n).ok()).into_iter().collect(),
            ..put(&a, 0, (round > 0).then_some(round - 1), round)
        };
        same("written", write(&store, &view, vec![next]).await?, vec![WriteOutcome::Written])?;
        advance(&store, &view, 0, (round > 0).then_some(round), round + 1).await?;
        store.flush().await.map_err(text)?;
    }
    Ok(())
}

/// Readers beside a writer see whole pieces only: head and chunk always of the same write.
pub(super) async fn concurrency(store: &impl OnlineStore) -> Result<(), String> {
    let (view, a) = (view("v"), key("a"));
    let writer = async {
        for i in 0..200i64 {
            let chunk = (0, Bytes::from(format!("head {i}")));
            let next = PieceWrite { chunks: vec![chunk], ..put(&a, 0, (i > 0).then_some(i - 1), i) };
            same("written", write(store, &view, vec![next]).await?, vec![WriteOutcome::Written])?;
        }
        Ok::<(), String>(())
    };
    let reader = async {
        let mut last = -1;
        while last < 199 {
            if let [piece] = read_one(store, &view, &a).await?.as_slice() {
                same("a whole piece", piece.chunks.clone(), vec![(0, piece.head.clone())])?;
                same("never back", piece.absorbed >= last, true)?;
                last = piece.absorbed;
            }
            tokio::task::yield_now().await;
        }
        Ok::<(), String>(())
    };
    futures::future::try_join(writer, reader).await.map(|_| ())
}
