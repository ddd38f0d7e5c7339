//! What holds of every location: one suite, for a folder and for a real S3 API (`S3_ENDPOINT` says where, `infra/services start
//! s3` starts one).

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use futures::future::join_all;
use parquet::arrow::ArrowWriter;

use super::*;

/// A place in the S3 that `S3_ENDPOINT` names.
fn s3(name: &str) -> Storage {
    let endpoint = std::env::var("S3_ENDPOINT").unwrap_or_else(|_| {
        panic!("S3_ENDPOINT is not set; hint: infra/services start s3, then eval \"$(infra/services env)\"")
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let own = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.to_owned(), "test".to_owned()));
    let at = [("AWS_ENDPOINT".to_owned(), endpoint), ("AWS_ALLOW_HTTP".to_owned(), "true".to_owned())];
    Storage::open_with(&format!("s3://tidemark/conformance/{name}-{now}"), own.into_iter().chain(at)).unwrap()
}

fn parquet(rows: i64) -> Bytes {
    let column: ArrayRef = Arc::new((0..rows).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

async fn conforms(storage: Storage) {
    // Names as they come, and what is written last is what is there.
    let path = storage.path(&["archive", "odd name é", "a=1", "0-1.parquet"]);
    storage.put(&path, Bytes::from_static(b"one")).await.unwrap();
    storage.put(&path, Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(storage.get(&path).await.unwrap(), "two");

    // What is there is never replaced by who creates it, and is whole.
    let refused = storage.create(&path, Bytes::from_static(b"three")).await;
    assert!(matches!(refused, Err(OfflineError::Conflict { .. })), "{refused:?}");
    let once = storage.path(&["archive", "once.csv"]);
    storage.create(&once, Bytes::from_static(b"first")).await.unwrap();
    let refused = storage.create(&once, Bytes::from_static(b"second")).await;
    assert!(matches!(refused, Err(OfflineError::Conflict { .. })), "{refused:?}");
    assert_eq!(storage.get(&path).await.unwrap(), "two");
    assert_eq!(storage.get(&once).await.unwrap(), "first");

    // A listing has what is under a path, by extension, and no neighbour's.
    storage.put(&storage.path(&["archive", "note.txt"]), Bytes::new()).await.unwrap();
    storage.put(&storage.path(&["archive2", "0-1.parquet"]), Bytes::new()).await.unwrap();
    let listed = storage.list(&storage.path(&["archive"]), "parquet").await.unwrap();
    assert_eq!(listed.iter().map(|f| (&f.location, f.size)).collect::<Vec<_>>(), [(&path, 3)]);
    assert_eq!(storage.list(&storage.path(&["nothing"]), "parquet").await.unwrap(), []);
    // More than a page of S3's listings.
    for i in 0..1_001 {
        storage.put(&storage.path(&["many", &format!("{i}.parquet")]), Bytes::new()).await.unwrap();
    }
    assert_eq!(storage.list(&storage.path(&["many"]), "parquet").await.unwrap().len(), 1_001);

    // Footers that fit into the first look, and that don't; and files of some megabytes.
    let path = storage.path(&["archive", "0-2.parquet"]);
    for rows in [3, 1_000_000] {
        let bytes = parquet(rows);
        storage.put(&path, bytes.clone()).await.unwrap();
        let listed = storage.list(&storage.path(&["archive"]), "parquet").await.unwrap();
        let file = listed.into_iter().find(|file| file.location == path).unwrap();
        assert_eq!(storage.footer(&file).await.unwrap().file_metadata().num_rows(), rows);
        assert_eq!(storage.get(&path).await.unwrap(), bytes);
    }

    // What is removed is not there, which is an error that names it, and is removed once more for nothing.
    let listed = storage.list(&storage.path(&["archive"]), "parquet").await.unwrap();
    storage.remove(&path).await.unwrap();
    storage.remove(&path).await.unwrap();
    assert_eq!(storage.list(&storage.path(&["archive"]), "parquet").await.unwrap().len(), listed.len() - 1);
    let gone = listed.into_iter().find(|file| file.location == path).unwrap();
    for error in [storage.get(&path).await.unwrap_err(), storage.footer(&gone).await.unwrap_err()] {
        assert!(matches!(error, OfflineError::Gone { .. }), "{error}");
        assert!(error.to_string().contains("archive/0-2.parquet: the file is gone"), "{error}");
    }
    storage.create(&path, Bytes::from_static(b"again")).await.unwrap();
}

#[tokio::test]
async fn a_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().join("new/folder").to_string_lossy()).unwrap();
    conforms(storage.clone()).await;
    let url = Storage::open(&format!("file://{}", dir.path().display())).unwrap();
    assert_eq!(url.get(&url.path(&["new", "folder", "archive", "note.txt"])).await.unwrap(), "");

    // Of several who create a file at once one succeeds, and its bytes are what is there.
    for round in 0..20 {
        let path = storage.path(&["race", &format!("{round}.parquet")]);
        let tries = (0..8u8).map(|i| storage.create(&path, Bytes::from(vec![i; 1000])));
        let tries = join_all(tries).await;
        let won: Vec<u8> = (0..8).filter(|i| tries[usize::from(*i)].is_ok()).collect();
        assert_eq!(won.len(), 1, "{tries:?}");
        assert_eq!(storage.get(&path).await.unwrap(), vec![won[0]; 1000]);
    }
}

#[tokio::test]
async fn s3_conforms() {
    conforms(s3("whole")).await;
}

#[tokio::test]
async fn what_crashed_writers_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let (old, new) = ("archive/a=1/.0-1.parquet.7-1.tmp", "archive/a=1/.0-2.parquet.7-2.tmp");
    for name in [old, new, "archive/a=1/0-1.parquet", "archive/notes.tmp"] {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        let file = File::create_new(dir.path().join(name)).unwrap();
        if name != new {
            file.set_modified(std::time::SystemTime::now() - ABANDONED - Duration::from_secs(9)).unwrap();
        }
    }
    storage.sweep(&storage.path(&["archive"])).await.unwrap();
    storage.sweep(&storage.path(&["nothing"])).await.unwrap();
    let there = |name: &str| dir.path().join(name).exists();
    assert!(!there(old) && there(new) && there("archive/a=1/0-1.parquet") && there("archive/notes.tmp"));
}

#[test]
fn what_is_no_location_is_refused() {
    for location in ["gopher://there", "http://[", "s3://", "memory://x"] {
        let error = Storage::open(location).unwrap_err().to_string();
        assert!(error.contains("expected a folder, or a URL"), "{error}");
    }
}
