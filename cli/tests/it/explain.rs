//! `tidemark explain`.

use crate::support::{Project, shop_project, text};

#[test]
fn a_view_is_explained_in_words_and_as_json() {
    let features = concat!(env!("CARGO_MANIFEST_DIR"), "/../features");
    let project = Project::new(&[]);
    let said = project.ok(&["explain", "user_spend", "--features", features]);
    for word in ["user_spend", "txn_count_1h", "spend_burst", "the last hour", "30 days", "transactions"] {
        assert!(said.contains(word), "{word} is not mentioned:\n{said}");
    }
    let json = project.json(&["explain", "user_spend", "--features", features, "--json"]);
    assert!(json.is_object(), "{json}");
    let service = project.ok(&["explain", "fraud_v1", "--features", features]);
    assert!(service.contains("merchant_risk"), "{service}");
    let set = project.ok(&["explain", "fraud_training", "--features", features]);
    assert!(set.contains("fraud_v1") && set.contains("label_time"), "{set}");
}

#[test]
fn an_unknown_name_has_a_hint() {
    let output = shop_project(1).run(&["explain", "user_spnd"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("user_spnd") && said.contains("user_spend"), "{said}");
}
