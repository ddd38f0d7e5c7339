//! A view that was changed fills in the background: reads are answered all the while, by the version before and then, from one read on, by
//! the new one.

use serde_json::json;

use crate::support::{Project, Up, shop_project};

const EVENTS: usize = 30_000;
const USERS: usize = 50;
/// 2024-05-01T08:00:00Z
const START: i64 = 1_714_550_400_000_000;
const BRANDS: &str = "
CREATE EXTERNAL TABLE brands STORED AS CSV LOCATION 'tables/brands.csv';
CREATE FEATURE VIEW branded AS
SELECT user_id, LAST_VALUE(brand) OVER ever AS brand
FROM payments LEFT JOIN brands ON brands.name = payments.shop
WINDOW ever AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
";

fn payment(i: usize) -> serde_json::Value {
    json!({"id": format!("p{i}"), "user_id": i % USERS, "shop": "corner", "amount": 1.0, "note": null, "at": START + i as i64 * 1000})
}

fn push(up: &Up, from: usize, to: usize) {
    for first in (from..to).step_by(5000) {
        let events: Vec<_> = (first..(first + 5000).min(to)).map(payment).collect();
        let (status, answer) = up.post("/v1/sources/payments/events", &json!({ "events": events }));
        assert_eq!(status, 200, "{answer}");
    }
}

/// Users' payments ever, the service's answer, and the brand.
fn read(up: &Up) -> (serde_json::Value, serde_json::Value, serde_json::Value) {
    let get = |path: &str| {
        let (status, answer) = up.get(path);
        assert_eq!(status, 200, "{path}: {answer}\n{}", up.logged());
        answer
    };
    let ever = get("/v1/views/user_ever?user_id=7")["row"].clone();
    let brand = get("/v1/views/branded?user_id=7")["row"]["brand"].clone();
    let (status, score) = up.post("/v1/services/ever", &json!({"rows": [{"user_id": 7}]}));
    assert_eq!(status, 200, "{score}\n{}", up.logged());
    (ever, score["rows"][0]["payments"].clone(), brand)
}

fn project() -> Project {
    let project = shop_project(2);
    project.write("tables/brands.csv", "name,brand\ncorner,old\n");
    project.write("features/brands.sql", BRANDS);
    project.write("features/ever.sql", EVER);
    project
}

const EVER: &str = "CREATE FEATURE SERVICE ever (user_id BIGINT) AS
SELECT e.payments FROM request LEFT JOIN user_ever e ON e.user_id = request.user_id;";

#[test]
fn a_changed_view_is_served_in_its_old_version_until_it_has_caught_up() {
    let project = project();
    let up = project.up(&["--commit-every", "0.2"]);
    push(&up, 0, EVENTS);
    up.wait_until_ready();
    up.wait_until("all events", |up| read(up).1 == json!(EVENTS / USERS));
    // What is live is kept for whoever comes next.
    up.wait_until("the release", |_| project.path("data/offline/releases/live.json").exists());
    assert_eq!(up.stop(), Some(0));

    // Twice as much of everything: a view, the service over it, a table's content.
    let views = std::fs::read_to_string(project.path("features/views.sql")).unwrap();
    project.write(
        "features/views.sql",
        views.replace("COUNT(*) OVER ever AS payments", "2 * COUNT(*) OVER ever AS payments"),
    );
    project.write("tables/brands.csv", "name,brand\ncorner,new\n");
    let up = project.up(&["--commit-every", "0.2", "--keep-previous", "0"]);
    up.wait_until("its first answers", |up| {
        up.get("/v1/views/user_ever?user_id=7").0 == 200 && up.get("/v1/views/branded?user_id=7").0 == 200
    });
    let (mut old, mut new, mut sent) = (0, 0, EVENTS);
    up.wait_until("the new version", |up| {
        push(up, sent, sent + USERS);
        sent += USERS;
        let (ever, score, brand) = read(up);
        let doubled = |payments: &serde_json::Value| {
            let payments = payments.as_u64().unwrap() as usize;
            assert!(payments >= EVENTS / USERS, "{payments}");
            // Neither has what the other one is like.
            payments >= 2 * (EVENTS / USERS)
        };
        let (of_view, of_service, of_brand) = (doubled(&ever["payments"]), doubled(&score), brand == json!("new"));
        old += usize::from(!of_view) + usize::from(!of_service) + usize::from(!of_brand);
        new += usize::from(of_view) + usize::from(of_service) + usize::from(of_brand);
        of_view && of_service && of_brand
    });
    assert!(old > 5, "the version before answered {old} times, the new one {new} times");
    up.wait_until("what was pushed meanwhile", |up| read(up).1 == json!(2 * sent / USERS));
    // The old state is dropped, and what is live now is the new version.
    up.wait_until("that the old state is gone", |up| {
        let (_, used) = up.get("/v1/store");
        let views: Vec<_> =
            used["views"].as_array().unwrap().iter().map(|v| v["view"].as_str().unwrap().to_owned()).collect();
        views.iter().filter(|view| *view == "user_ever").count() == 1
    });
    assert_eq!(read(&up).1, json!(2 * sent / USERS));
    assert_eq!(up.stop(), Some(0));
}
