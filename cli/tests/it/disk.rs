//! A fill that needs temporary files and finds no room for them.

use tidemark_engine::online::{EmbeddedStore, OnlineStore};
use tidemark_engine::plan;

use crate::past::{files, payments, served, shop};
use crate::support::text;

#[test]
fn a_fill_without_room_says_so_and_advances_nothing() {
    let project = shop("past/*.parquet");
    files(&project.path("past"), &payments(30_000));
    let room = project.path("room");
    let project = project.with_environment(vec![("TMPDIR".to_owned(), room.to_string_lossy().into_owned())]);
    // So little that it needs files.
    let load = ["backfill", "--view", "user_ever", "--online", "--memory-limit", "1MB"];
    let failed = project.run(&load);
    let said = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("temporary files") && said.contains("room"), "{said}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let compiled = plan::Project::open(&project.path(""), &project.path("features")).await.unwrap();
        let store = EmbeddedStore::open(project.path("data/online.redb")).unwrap();
        let progress = store.progress(&compiled.views["user_ever"].id()).await.unwrap();
        assert!(progress.values().all(|next| *next == 0), "{progress:?}");
    });
    std::fs::create_dir(&room).unwrap();
    project.ok(&load);
    assert_eq!(std::fs::read_dir(&room).unwrap().count(), 0, "what it left behind");
    let calm = shop("past/*.parquet");
    files(&calm.path("past"), &payments(30_000));
    calm.ok(&["backfill", "--view", "user_ever", "--online"]);
    assert_eq!(served(&project), served(&calm));
}
