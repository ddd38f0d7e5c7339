//! Kafka with users and passwords over TLS, and a schema registry over TLS: all that is done without, and what is said to
//! whom they refuse. No secret is said to anybody.

use std::collections::BTreeMap;

use serde_json::json;
use tidemark_engine::source::kafka::KafkaConfig;

use super::harness::{PARTITIONS, Shop, Topic, payment, random, says_stalled, service, unique};
use super::verbs::generated;
use crate::crash::events;
use crate::support::{CONTRACT, text};

const OTHER: &str = "not-the-pass-word";

fn password() -> String {
    service("KAFKA_SASL_PASSWORD", "kafka")
}

fn client(mechanism: &str) -> KafkaConfig {
    let options = [
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", mechanism.to_owned()),
        ("sasl.username", service("KAFKA_SASL_USER", "kafka")),
        ("sasl.password", password()),
        ("ssl.ca.location", service("TLS_CA", "kafka")),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value)).into();
    KafkaConfig { brokers: service("KAFKA_SASL_BROKERS", "kafka"), options }
}

async fn topic(test: &str, mechanism: &str) -> Topic {
    Topic::of(client(mechanism), test, PARTITIONS).await
}

/// Whether a text has no password in it.
fn keeps_secrets(text: &str) -> bool {
    !text.contains(&password()) && !text.contains(OTHER)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_over_sasl_and_tls() {
    let mut topic = topic("secure", "SCRAM-SHA-512").await;
    let shop = Shop::new(&topic, "secure").and_plain();
    let up = shop.engine(0);
    topic.send(&events(&mut random())).await;
    up.wait_until("all events", |up| shop.absorbed(&topic, up) && up.get("/ready").0 == 200);
    for page in ["/v1/catalog", "/ready"] {
        let (status, answer) = up.get(page);
        assert!(status == 200 && keeps_secrets(&answer.to_string()), "{page}: {status} {answer}");
    }
    let pushed = json!({"events": [payment(7)]});
    let (status, answer) = up.post("/v1/sources/payments/events", &pushed);
    assert_eq!(status, 200, "{answer}");
    up.wait_until("what was pushed", |up| {
        up.metric("tidemark_source_events_total", "source=\"payments\"") == (topic.events() + 1) as f64
    });
    assert!(keeps_secrets(&up.metrics()) && keeps_secrets(&up.logged()), "{}", up.logged());
    assert_eq!(up.stop(), Some(0));
    let listed = shop.ok(&["dead-letters", "list", "payments"]);
    assert_eq!(listed.as_array().unwrap().len(), topic.poisoned());
    let again = shop.ok(&["dead-letters", "replay", "payments", "--reason", "empty"]);
    let again = again["sent"].as_u64().unwrap();
    assert!(again > 0, "{listed}");
    assert_eq!(shop.drain()["sources"]["payments"]["rejected"], again);
    generated(&shop);
}

/// What options a source has, all its clients have: what reads, and what writes dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_names_its_user_itself() {
    let mut topic = topic("named", "PLAIN").await;
    let options: String = topic.options.iter().map(|(key, value)| format!(", kafka.{key} = '{value}'")).collect();
    topic.options.clear();
    let shop = Shop::with_options(&topic, "named", &service("REDIS_URL", "redis"), &options);
    topic.send(&events(&mut random())).await;
    let drained = shop.drain();
    let said = &drained["sources"]["payments"];
    assert_eq!((&said["events"], &said["rejected"]), (&json!(topic.events()), &json!(topic.poisoned())));
    let listed = shop.ok(&["dead-letters", "list", "payments"]);
    assert_eq!(listed.as_array().unwrap().len(), topic.poisoned());
    let explained = shop.project.ok(&["explain", "payments"]);
    assert!(explained.contains("kafka.sasl.password") && keeps_secrets(&explained), "{explained}");
    // The line of an error is shown, but for what it holds of secrets.
    let path = shop.project.path("features/sources.sql");
    let source = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, source.replace("event_id = 'id'", "event_id = 'idd'")).unwrap();
    let checked = shop.project.run(&["check"]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert!(!checked.status.success() && said.contains("'idd'") && keeps_secrets(&said), "{said}");
}

/// Every verb, and an engine, of a client that the broker or that doesn't take the broker; with what each must say.
async fn refused(test: &str, change: impl Fn(&mut BTreeMap<String, String>), expected: &[&str]) {
    let topic = topic(test, "SCRAM-SHA-512").await;
    let mut shop = Shop::new(&topic, test);
    change(&mut shop.client.options);
    let broker = service("KAFKA_SASL_BROKERS", "kafka");
    let says = |said: &str| keeps_secrets(said) && expected.iter().chain([&broker.as_str()]).all(|e| said.contains(e));
    let contracts = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    for name in ["transactions", "clicks"] {
        let contract = std::fs::read(format!("{contracts}/{name}.v1.avsc")).unwrap();
        shop.project.write(&format!("schemas/{name}.v1.avsc"), contract);
    }
    let sources = ["transactions", "clicks"].map(|name| {
        let topic = unique(name);
        format!("CREATE SOURCE {name} WITH (schema = '{name}.v1', topic = '{topic}', timestamp = 'event_time');\n")
    });
    let verbs: [&[&str]; 4] = [
        &["stream", "--until-end"],
        &["dead-letters", "list", "payments"],
        &["dead-letters", "replay", "payments"],
        &["generate", "--to", "kafka", "--days", "1"],
    ];
    for verb in verbs {
        if verb[0] == "generate" {
            shop.project.write("features/generated.sql", sources.concat());
        }
        let output = shop.command().args(verb).output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && says(&said), "{verb:?}: {said}");
    }
    std::fs::remove_file(shop.project.path("features/generated.sql")).unwrap();
    let up = shop.engine(0);
    up.wait_until("the reason", |up| expected.iter().all(|expected| says_stalled(up, expected)));
    let (_, answer) = up.get("/ready");
    assert!(says(&answer.to_string()), "{answer}");
    assert!(keeps_secrets(&up.logged()), "{}", up.logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said() {
    let change = |options: &mut BTreeMap<String, String>| {
        options.insert("sasl.password".into(), OTHER.into());
    };
    refused("password", change, &["uthentication", "sasl.password"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_said() {
    let change = |options: &mut BTreeMap<String, String>| {
        options.remove("ssl.ca.location");
    };
    refused("untrusted", change, &["certificate verify failed", "ssl.ca.location"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_is_told() {
    let change = |options: &mut BTreeMap<String, String>| {
        options.clear();
    };
    refused("plain", change, &["security.protocol"]).await;
}

/// Who is known, but has no right.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_said() {
    let change = |options: &mut BTreeMap<String, String>| {
        options.insert("sasl.username".into(), "stranger".into());
    };
    refused("stranger", change, &["uthorization failed", "ACLs"]).await;
}

/// An option that isn't one is named; what was meant to be secret isn't shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_option_is_said_without_its_value() {
    let topic = topic("misspelt", "PLAIN").await;
    let mut shop = Shop::new(&topic, "misspelt");
    for (option, said) in [("sasl.pasword", "sasl.pasword"), ("security.protocol", "security.protocol")] {
        shop.client.options.insert(option.into(), OTHER.into());
        let output = shop.command().args(["stream", "--until-end"]).output().unwrap();
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{error}");
        assert!(option == "security.protocol" || keeps_secrets(&error), "{error}");
        shop.client.options.remove(option);
    }
    shop.project.write("tidemark.toml", format!("[kafka]\n\"sasl.password\" = {OTHER}\n"));
    let output = shop.command().args(["stream", "--until-end"]).output().unwrap();
    let error = text(&output.stderr);
    assert!(error.contains("tidemark.toml") && error.contains("line 2") && keeps_secrets(&error), "{error}");
}

/// An authority of one's own is named in the environment, as OpenSSL has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_answers_over_tls() {
    let registry = service("SCHEMA_REGISTRY_TLS_URL", "registry");
    let mut topic = Topic::new("registry").await;
    let v1 = topic.version(CONTRACT);
    topic.send_raw(vec![(0, Some(v1.encode(&payment(1)).unwrap()))]).await;
    let shop = Shop::new(&topic, "registry");
    let drain = |authority: Option<String>| {
        let mut command = shop.command();
        command.env("SCHEMA_REGISTRY_URL", registry.replace("https://", "https://somebody:a-word@"));
        command.envs(authority.map(|authority| ("SSL_CERT_FILE", authority)));
        command.args(["stream", "--until-end"]).output().unwrap()
    };
    let refused = drain(None);
    let said = text(&refused.stderr);
    let expected = [registry.as_str(), "certificate", "SSL_CERT_FILE"];
    assert!(!refused.status.success() && expected.iter().all(|expected| said.contains(expected)), "{said}");
    assert!(!said.contains("a-word"), "{said}");
    let drained = drain(Some(service("TLS_CA", "registry")));
    assert!(drained.status.success(), "{}", text(&drained.stderr));
}
