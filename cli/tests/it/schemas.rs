//! `tidemark schemas`: contracts checked by themselves, against git and against a real registry, and registered.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tidemark_engine::source::{Contract, Decoder, Encoder, Message, SchemaRegistry};

use crate::support::{Project, text};

const ORDERS: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "doc": "One order.", "fields": [
  {"name": "id", "type": "string", "doc": "Which order."},
  {"name": "customer", "type": "int", "doc": "Who ordered."},
  {"name": "total", "type": "float", "doc": "What it costs, in euros."},
  {"name": "gone", "type": "string", "doc": "Not needed for long."},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "When."}
]}
"#;

const VIEW: &str = "CREATE FEATURE VIEW spend AS
SELECT customer, SUM(total) OVER hour AS spend_1h
FROM orders
WINDOW hour AS (PARTITION BY customer ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
";

/// Wider types, one field less, one more with a default: what a reader of it reads of the first version.
fn grown() -> String {
    let more = r#"  {"name": "channel", "type": "string", "default": "web", "doc": "How it came."},"#;
    let lines =
        ORDERS.replace(r#""type": "int""#, r#""type": "long""#).replace(r#""type": "float""#, r#""type": "double""#);
    lines.lines().map(|line| if line.contains("gone") { more } else { line }).collect::<Vec<_>>().join("\n")
}

fn source(name: &str, schema: &str, topic: &str) -> String {
    format!("CREATE SOURCE {name} WITH (schema = '{schema}', topic = '{topic}', timestamp = 'at', event_id = 'id');\n")
}

/// One contract, a source of it and a view over that.
fn shop(topic: &str) -> Project {
    Project::new(&[
        ("schemas/orders.v1.avsc", ORDERS),
        ("features/sources.sql", &source("orders", "orders.v1", topic)),
        ("features/views.sql", VIEW),
    ])
}

/// Where the registry is that these tests talk to.
fn registry() -> String {
    let start = "start it: infra/services start registry, then eval \"$(infra/services env)\"";
    let url = std::env::var("SCHEMA_REGISTRY_URL").unwrap_or_default();
    assert!(!url.is_empty(), "SCHEMA_REGISTRY_URL is not set; {start}");
    SchemaRegistry::new(&url)
        .and_then(|registry| registry.latest("none-value"))
        .unwrap_or_else(|e| panic!("{e}; {start}"));
    url
}

/// A topic that no other run of the tests has used.
fn topic() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("test-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn git(project: &Project, args: &[&str]) {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
    let output = command.current_dir(project.path("")).args(identity).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
}

/// What it complains about; it must.
fn refused(project: &Project, args: &[&str]) -> String {
    let output = project.run(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}{}", text(&output.stdout));
    said
}

fn assert_said(said: &str, all: &[&str]) {
    for part in all {
        assert!(said.contains(part), "nothing says {part}:\n{said}");
    }
}

#[test]
fn good_contracts_are_a_line_each_and_a_summary() {
    let project = shop("shop.orders");
    project.write("schemas/unused.v1.avsc", ORDERS.replace("Order", "Unused"));
    let said = project.ok(&["schemas", "validate"]);
    let expected = "schemas/orders.v1.avsc … ok (shop.orders-value)
schemas/unused.v1.avsc … ok (no source uses it)

contracts  2 files in schemas/ … ok
subjects   shop.orders-value
compared   not compared: git HEAD (the project is in no git repository)
registry   not asked; name it with --registry URL or SCHEMA_REGISTRY_URL
";
    assert_eq!(said, expected);
    let report = project.json(&["schemas", "validate", "--json"]);
    assert_eq!((&report["ok"], &report["errors"]), (&json!(true), &json!([])));
    assert_eq!(report["contracts"][0]["subjects"][0]["subject"], "shop.orders-value");
    assert_eq!(report["contracts"][0]["sources"], json!(["orders"]));
    assert_eq!(report["contracts"][1]["sources"], json!([]));
}

#[test]
fn the_shipped_contracts_are_good() {
    let features = concat!(env!("CARGO_MANIFEST_DIR"), "/../features");
    let said = Project::new(&[]).ok(&["schemas", "validate", "--features", features]);
    assert_said(&said, &["schemas/clicks.v1.avsc … ok (clicks-value)", "schemas/transactions.v1.avsc … ok"]);
}

#[test]
fn all_problems_of_all_files_come_at_once() {
    let project = shop("orders");
    let contract = |name: &str, fields: &str| {
        format!(
            r#"{{"type": "record", "name": "{name}", "namespace": "shop", "doc": "x", "fields": [{{"name": "k", "type": "long", "doc": "x"}}, {fields}]}}"#
        )
    };
    project.write("schemas/broken.v1.avsc", "{\"type\": \"record\",\n oops");
    project.write("schemas/Misnamed.avsc", contract("Misnamed", r#"{"name": "at", "type": "long", "doc": "x"}"#));
    project.write("schemas/text.v1.avsc", contract("Text", r#"{"name": "at", "type": "string"}"#));
    project.write(
        "schemas/twin.v1.avsc",
        contract(
            "Text",
            r#"{"name": "when", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "x"}"#,
        ),
    );
    let union = contract("Union", "\n  {\"name\": \"u\", \"type\": [\"int\", \"string\"], \"doc\": \"x\"}");
    project.write("schemas/union.v1.avsc", union);
    project.write(
        "features/more.sql",
        "CREATE SOURCE a WITH (schema = 'text.v1', timestamp = 'at');
CREATE SOURCE b WITH (schema = 'twin.v1', timestamp = 'whenn', event_id = 'idd');
CREATE SOURCE c WITH (schema = 'broken.v1', timestamp = 'at');
CREATE SOURCE d WITH (schema = 'nowhere.v1', timestamp = 'at');
",
    );
    project.write(
        "features/keys.sql",
        VIEW.replace("spend AS\nSELECT customer", "s2 AS\nSELECT user_id").replace("BY customer", "BY user_id"),
    );
    // Nothing of this is about contracts.
    project.write("features/service.sql", "CREATE FEATURE SERVICE s (x BIGINT) AS SELECT nothing FROM request;");
    project.write(
        "features/files.sql",
        "CREATE SOURCE f WITH (connector = 'files', location = 'no/*.csv', timestamp = 't');",
    );

    let said = refused(&project, &["schemas", "validate"]);
    assert_said(
        &said,
        &[
            "--> schemas/broken.v1.avsc:2:2",
            "not JSON",
            "--> schemas/Misnamed.avsc:1:1",
            "<name>.v<N>.avsc",
            "`at` has no doc",
            "--> schemas/text.v1.avsc:1:",
            "shop.Text is also the record's name in schemas/text.v1.avsc",
            "`u` is a union of several types",
            "--> schemas/union.v1.avsc:2:12",
            "--> features/more.sql:1:",
            "column `at` is VARCHAR",
            "unknown column `whenn`",
            "did you mean `when`?",
            "unknown column `idd`",
            "no contract `schemas/nowhere.v1.avsc`",
            "--> features/keys.sql:",
            "user_id",
        ],
    );
    for silent in ["more.sql:3", "service.sql", "files.sql", "orders.v1"] {
        assert!(!said.contains(&format!("{silent}:")), "{silent} is blamed:\n{said}");
    }
    assert!(said.trim_end().contains("errors in 7 files"), "{said}");
    let output = project.run(&["schemas", "validate", "--json"]);
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &json!(false)));
    let good: Vec<_> = report["contracts"].as_array().unwrap().iter().filter(|c| c["ok"] == true).collect();
    assert_eq!(good.iter().map(|c| &c["contract"]).collect::<Vec<_>>(), ["orders.v1"]);
}

#[test]
fn a_change_is_compared_with_gits_head() {
    let project = shop("orders");
    git(&project, &["init", "-q"]);
    assert_said(&project.ok(&["schemas", "validate"]), &["git HEAD (the repository has no commit)"]);
    git(&project, &["add", "."]);
    git(&project, &["commit", "-qm", "x"]);
    project.write("schemas/orders.v1.avsc", grown());
    project.write("schemas/new.v1.avsc", ORDERS.replace("Order", "New"));
    let said = project.ok(&["schemas", "validate"]);
    assert_said(&said, &["compared   git HEAD: orders.v1; not compared: new.v1 with git HEAD (the file is new)"]);

    let other =
        grown().replace(r#""long", "doc": "Who"#, r#""string", "doc": "Who"#).replace(r#""default": "web", "#, "");
    project.write("schemas/orders.v1.avsc", other);
    let said = refused(&project, &["schemas", "validate"]);
    assert_said(
        &said,
        &[
            "--> schemas/orders.v1.avsc:3:12",
            "`customer` is written as int and can't be read as string (against git HEAD)",
            "--> schemas/orders.v1.avsc:5:12",
            "`channel` was not written, and has no default (against git HEAD)",
            "error: 2 errors in 1 file",
        ],
    );
    assert!(text(&project.run(&["schemas", "validate"]).stdout).starts_with("schemas/new.v1.avsc … ok"));
}

#[test]
fn a_version_is_compared_with_the_one_before() {
    let project = shop("orders");
    project.write("schemas/orders.v3.avsc", grown());
    assert_said(&project.ok(&["schemas", "validate"]), &["the version before: orders.v3"]);
    project.write("schemas/orders.v3.avsc", grown().replace("timestamp-micros", "timestamp-millis"));
    let said = refused(&project, &["schemas", "validate"]);
    assert_said(
        &said,
        &["`at` is written as timestamp-micros and would be read as timestamp-millis (against schemas/orders.v1.avsc)"],
    );
    // Under a topic of its own it is another contract.
    project.write("features/new.sql", source("orders_v3", "orders.v3", "orders-3"));
    let said = project.ok(&["schemas", "validate"]);
    assert_said(&said, &["orders.v3 with schemas/orders.v1.avsc (another topic)", "orders-value, orders-3-value"]);
}

#[test]
fn contracts_are_registered_once_and_checked_against_what_is_registered() {
    let (url, topic) = (registry(), topic());
    let (subject, project) = (format!("{topic}-value"), shop(&topic));
    project.write("schemas/unused.v1.avsc", ORDERS.replace("Order", "Unused"));
    let run = |verb: &str| project.ok(&["schemas", verb, "--registry", &url]);
    assert_said(
        &run("validate"),
        &[&format!("subjects   {subject} (not registered)"), "compared   not compared: git HEAD"],
    );

    let said = run("register");
    assert_said(&said, &["schemas/unused.v1.avsc … ok (not registered: no source uses it)", "version 1)"]);
    let registry = SchemaRegistry::new(&url).unwrap();
    let first = registry.latest(&subject).unwrap().unwrap();
    assert_eq!(first.version, 1);
    assert_said(
        &said,
        &[&format!("({subject}: id {}, version 1)", first.id), &format!("registry   {}", registry.url())],
    );
    let again = run("register");
    assert_eq!(again.lines().next(), said.lines().next());
    assert_eq!(registry.latest(&subject).unwrap(), Some(first.clone()));
    assert_said(&again, &["the registry's latest: orders.v1"]);
    assert_eq!(registry.schema(first.id).unwrap().as_deref(), Some(first.json.as_str()));
    assert_eq!(registry.schema(u32::MAX >> 1).unwrap(), None);

    // What can't be read any more is registered by nobody.
    project.write("schemas/orders.v1.avsc", ORDERS.replace("\"float\"", "\"int\""));
    for verb in ["validate", "register"] {
        let said = refused(&project, &["schemas", verb, "--registry", &url]);
        let against =
            format!("`total` is written as float and can't be read as int (against registry {subject} version 1)");
        assert_said(&said, &["--> schemas/orders.v1.avsc:4:12", &against]);
    }
    assert_eq!(registry.latest(&subject).unwrap(), Some(first));

    project.write("schemas/orders.v1.avsc", ORDERS);
    project.write("schemas/orders.v2.avsc", grown());
    project.write("features/new.sql", source("orders_v2", "orders.v2", &topic));
    let report = project.json(&["schemas", "register", "--json", "--registry", &url]);
    let versions: Vec<&Json> =
        report["contracts"].as_array().unwrap().iter().map(|c| &c["subjects"][0]["version"]).collect();
    assert_eq!(versions, [&json!(1), &json!(2), &Json::Null], "{report}");
    assert_eq!(registry.latest(&subject).unwrap().unwrap().version, 2);
    // The source that stays on version 1 can't read what the other's producers write.
    let said = refused(&project, &["schemas", "validate", "--registry", &url]);
    assert_said(&said, &["`customer` is written as long and can't be read as int", "schemas/orders.v1.avsc:3:12"]);
}

#[test]
fn the_registrys_own_rules_count_too() {
    let (url, topic) = (registry(), topic());
    let project = shop(&topic);
    project.ok(&["schemas", "register", "--registry", &url]);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let rule = agent
        .put(format!("{url}/config/{topic}-value"))
        .content_type("application/json")
        .send(json!({"compatibility": "FORWARD"}).to_string())
        .unwrap();
    assert_eq!(rule.status().as_u16(), 200);
    // Readers of the first version need the field that is gone.
    let without: Vec<&str> = ORDERS.lines().filter(|line| !line.contains("gone")).collect();
    project.write("schemas/orders.v1.avsc", without.join("\n"));
    project.ok(&["schemas", "validate"]);
    let said = refused(&project, &["schemas", "validate", "--registry", &url]);
    assert_said(&said, &[&format!("the registry would refuse it for {topic}-value")]);
    let error = SchemaRegistry::new(&url)
        .unwrap()
        .register(&format!("{topic}-value"), &Contract::parse("o.v1", &without.join("\n")).unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("incompatible"), "{error}");
}

#[test]
fn without_a_registry_there_is_a_hint_and_with_a_silent_one_an_error() {
    let project = shop("orders");
    assert_said(
        &refused(&project, &["schemas", "register"]),
        &["--registry URL", "SCHEMA_REGISTRY_URL", "infra/services"],
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://me:secret@127.0.0.1:{port}");
    project.write("schemas/other.v1.avsc", "{}");
    let said = refused(&project, &["schemas", "validate", "--registry", &url]);
    assert_said(
        &said,
        &[&format!("error: schema registry http://127.0.0.1:{port}: no answer"), "schemas/other.v1.avsc:1:1"],
    );
    assert!(!said.contains("secret"), "{said}");
    assert_said(&refused(&project, &["schemas", "validate", "--registry", "nowhere"]), &["not a URL"]);
    assert_eq!(project.run(&["schemas"]).status.code(), Some(2));
    let help = project.ok(&["schemas", "validate", "--help"]);
    assert_said(&help, &["--registry", "SCHEMA_REGISTRY_URL"]);
}

#[test]
fn events_of_registered_schemas_are_decoded_with_the_registrys() {
    let (url, topic) = (registry(), topic());
    let registry = Arc::new(SchemaRegistry::new(&url).unwrap());
    let contract = |name: &str, json: &str| Arc::new(Contract::parse(name, json).unwrap());
    let known = [contract("orders.v1", ORDERS), contract("orders.v2", &grown())];
    let ids: Vec<u32> = known.iter().map(|c| registry.register(&format!("{topic}-value"), c).unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    let record = |i: usize| match i % 3 {
        0 => (0, json!({"id": "a", "customer": i, "total": 0.5, "gone": "x", "at": 7})),
        1 => (1, json!({"id": "b", "customer": i, "total": 0.25, "channel": "shop", "at": 7})),
        _ => (2, json!({"id": "c", "customer": i, "total": 0.25, "at": 7})),
    };
    let messages: Vec<Message> = (0..30)
        .map(|i| {
            let (writer, record) = record(i);
            let payload = match known.get(writer) {
                Some(contract) => Encoder::new(contract.clone()).framed_by(ids[writer]).encode(&record).unwrap(),
                None => Encoder::new(known[1].clone()).framed_by(u32::MAX >> 1).encode(&record).unwrap(),
            };
            Message { offset: i as i64, ingested_at: 0, payload }
        })
        .collect();
    // A client of its own: nothing is cached yet.
    let fresh = Arc::new(SchemaRegistry::new(&url).unwrap());
    let mut decoder = Decoder::new(known[1].clone(), fresh, None).unwrap();
    let decoded = decoder.decode(0, &messages).unwrap();
    assert_eq!(decoded.events.num_rows(), 20);
    let channels =
        arrow::util::display::ArrayFormatter::try_new(&decoded.events["channel"], &Default::default()).unwrap();
    let channels: Vec<String> = (0..20).map(|row| channels.value(row).to_string()).collect();
    assert_eq!(channels, ["web", "shop"].repeat(10));
    assert_eq!(decoded.rejects.len(), 10);
    assert!(decoded.rejects.iter().all(|r| r.reason.contains("unknown writer schema with registry id")));
    // Its older reader rejects what got wider, and goes on.
    let mut decoder = Decoder::new(known[0].clone(), registry, None).unwrap();
    let decoded = decoder.decode(0, &messages).unwrap();
    assert_eq!((decoded.events.num_rows(), decoded.rejects.len()), (10, 20));
}
