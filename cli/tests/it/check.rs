//! `tidemark check`, and what is wrong usage.

use crate::support::{Project, shop_project, text};

#[test]
fn five_mistakes_are_all_reported_with_carets() {
    let project = shop_project(1);
    let view = |name: &str, body: &str| {
        format!(
            "CREATE FEATURE VIEW {name} AS\nSELECT user_id, {body}\nFROM payments\nWINDOW w AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);\n"
        )
    };
    project.write(
        "features/a_option.sql",
        "CREATE SOURCE refunds WITH (schema = 'payments.v1', timestmap = 'at', timestamp = 'at');\n",
    );
    project.write("features/b_column.sql", view("b", "SUM(amuont) OVER w AS spend"));
    project.write("features/c_bare.sql", view("c", "shop, COUNT(*) OVER w AS n"));
    project.write("features/d_join.sql", "CREATE FEATURE SERVICE d (user_id BIGINT) AS\nSELECT s.spend_1h FROM request LEFT JOIN user_spnd s ON s.user_id = request.user_id;\n");
    project.write("features/e_syntax.sql", "CREATE FEATURE VEIW e AS SELECT 1;\n");

    let output = project.run(&["check"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let places = ["a_option.sql:1:", "b_column.sql:2:", "c_bare.sql:2:", "d_join.sql:2:", "e_syntax.sql:1:"];
    for place in places {
        assert!(said.contains(&format!("--> features/{place}")), "no error at {place}:\n{said}");
    }
    let carets = said.lines().filter(|line| line.trim_start().starts_with('|') && line.contains('^')).count();
    assert_eq!(carets, 5, "{said}");
    for near in ["`timestamp`", "amount", "LAST_VALUE", "`user_spend`", "VIEW"] {
        assert!(said.contains(near), "nothing hints at {near}:\n{said}");
    }
    assert!(said.trim_end().ends_with("error: 5 errors in 5 files"), "{said}");
    assert_eq!(said.matches("error: error").count(), 0, "{said}");

    let output = project.run(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &false.into()));
    let files: Vec<&str> = report["errors"].as_array().unwrap().iter().map(|e| e["file"].as_str().unwrap()).collect();
    assert_eq!(files.len(), 5, "{report}");
}

#[test]
fn right_definitions_are_one_line() {
    let project = shop_project(1);
    assert_eq!(project.ok(&["check"]), "1 source, 4 feature views, 1 service … ok\n");
    let report = project.json(&["check", "--json"]);
    assert_eq!(report["definitions"]["services"], serde_json::json!(["score"]));
}

#[test]
fn the_shipped_definitions_are_right() {
    let features = concat!(env!("CARGO_MANIFEST_DIR"), "/../features");
    let said = Project::new(&[]).ok(&["check", "--features", features]);
    assert!(said.ends_with("… ok\n"), "{said}");
}

#[test]
fn wrong_usage_is_2_and_a_missing_folder_1() {
    let project = Project::new(&[]);
    assert_eq!(project.run(&["chekc"]).status.code(), Some(2));
    assert_eq!(project.run(&["stream", "--memory-limit", "1 TB"]).status.code(), Some(2));
    let project = Project::new(&[("features/none.sql", "")]);
    let output = project.run(&["stream"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("expected --kafka-brokers, KAFKA_BROKERS"), "{}", text(&output.stderr));
    let project = Project::new(&[]);
    let output = project.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("features") && said.contains("--features"), "{said}");
}

#[test]
fn flags_win_over_environment_and_environment_over_the_file() {
    let project = shop_project(1);
    let check = |flags: &[&str], environment: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command
            .current_dir(project.path(""))
            .arg("check")
            .args(flags)
            .env_remove("TIDEMARK_DATA")
            .env_remove("TIDEMARK_FEATURES");
        if let Some(folder) = environment {
            command.env("TIDEMARK_FEATURES", folder);
        }
        command.output().unwrap().status.success()
    };
    project.write("tidemark.toml", "features = 'nowhere'\n");
    assert!(!check(&[], None));
    assert!(check(&[], Some("features")));
    assert!(!check(&[], Some("elsewhere")));
    assert!(check(&["--features", "features"], Some("elsewhere")));
}
