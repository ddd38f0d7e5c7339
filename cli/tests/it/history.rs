//! A table with history, through the binary: what was known at an instant is what a training set gets and what REST serves.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value as Json, json};

use crate::support::{Project, read, text};

const EVENTS: &str = "\
order_id,customer,product,pieces,ordered_at
1,anna,tea,1,2024-05-01T09:59:59Z
2,anna,tea,1,2024-05-01T10:00:00Z
3,anna,tea,2,2024-05-01T12:00:00Z
4,anna,pot,5,2024-05-01T12:00:00Z
5,anna,,1,2024-05-01T12:00:00Z
";

/// By no order: tea costs 3 for two hours, then 4; the pot's price is from later on.
const PRICES: &str = "\
product,price,since
tea,4.0,2024-05-01T12:00:00Z
pot,50.0,2024-05-01T12:00:00.000001Z
tea,3.0,2024-05-01T10:00:00Z
";

const FEATURES: &str = "
CREATE SOURCE orders WITH (connector = 'files', location = 'events/*.csv', timestamp = 'ordered_at');

CREATE EXTERNAL TABLE prices (product VARCHAR, price DOUBLE, since TIMESTAMP)
STORED AS CSV LOCATION 'prices.csv' OPTIONS (timestamp 'since', max_age '1 day');

CREATE FEATURE VIEW customer_orders WITH (lateness = '10 days') AS
SELECT customer, SUM(o.pieces * p.price) OVER ever AS spent, COUNT(*) OVER ever AS orders
FROM orders o
ASOF JOIN prices p MATCH_CONDITION (o.ordered_at >= p.since) ON p.product = o.product
WINDOW ever AS (PARTITION BY customer ORDER BY ordered_at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);

CREATE FEATURE SERVICE offer (customer VARCHAR, product VARCHAR) AS
SELECT
  o.spent,
  o.orders,
  p.price,
  date_part('epoch', request.as_of) - date_part('epoch', p.since) AS price_age
FROM request
LEFT JOIN customer_orders o ON o.customer = request.customer
ASOF JOIN prices p MATCH_CONDITION (request.as_of >= p.since) ON p.product = request.product;
";

/// What is asked, and what the price was, how many seconds old.
const ASKED: [(&str, &str, Option<f64>, Option<f64>); 8] = [
    ("tea", "2024-05-01T09:59:59.999999Z", None, None),
    ("tea", "2024-05-01T10:00:00Z", Some(3.0), Some(0.0)),
    ("tea", "2024-05-01T11:59:59Z", Some(3.0), Some(7199.0)),
    ("tea", "2024-05-01T12:00:00Z", Some(4.0), Some(0.0)),
    ("tea", "2024-05-02T12:00:00Z", Some(4.0), Some(86_400.0)),
    ("tea", "2024-05-02T12:00:00.000001Z", None, None),
    ("pot", "2024-05-01T12:00:00Z", None, None),
    ("jug", "2024-05-01T12:00:00Z", None, None),
];

fn project() -> Project {
    let labels: String = ASKED.iter().map(|(product, at, ..)| format!("anna,{product},{at}\n")).collect();
    Project::new(&[
        ("features/orders.sql", FEATURES),
        ("events/may.csv", EVENTS),
        ("prices.csv", PRICES),
        ("labels.csv", &format!("customer,product,at\n{labels}")),
    ])
}

#[test]
fn what_held_then_is_trained_on_and_served() {
    let project = project();
    let drained = project.json(&["stream", "--until-end", "--json"]);
    assert_eq!(drained["sources"]["orders"], json!({"events": 5, "rejected": 0}));
    let set =
        ["training-set", "--spine", "labels.csv", "--service", "offer", "--timestamp", "at", "--out", "set.parquet"];
    project.ok(&set);
    let rows = read(&project.path("set.parquet")).pop().unwrap();
    let doubles = |name: &str| rows[name].as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
    let (prices, ages, spent) = (doubles("price"), doubles("price_age"), doubles("spent"));
    let orders = rows["orders"].as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    for (row, (product, at, price, age)) in ASKED.iter().enumerate() {
        assert_eq!((prices[row], ages[row]), (*price, *age), "{product} at {at}");
    }
    // Each order at the price of its own instant: none, 1 × 3, 2 × 4, and a pot that had no price yet.
    assert_eq!(spent, [None, Some(3.0), Some(3.0), Some(11.0), Some(11.0), Some(11.0), Some(11.0), Some(11.0)]);
    assert_eq!(orders, [1, 2, 2, 5, 5, 5, 5, 5].map(Some));

    let up = project.up(&[]);
    up.wait_until_ready();
    let body = json!({
        "rows": ASKED.iter().map(|(product, ..)| json!({"customer": "anna", "product": product})).collect::<Vec<_>>(),
        "as_of": ASKED.iter().map(|(_, at, ..)| *at).collect::<Vec<_>>(),
    });
    let (status, answer) = up.post("/v1/services/offer", &body);
    assert_eq!(status, 200, "{answer}");
    let trained: Vec<Json> = (0..ASKED.len())
        .map(|row| json!({"spent": spent[row], "orders": orders[row], "price": prices[row], "price_age": ages[row]}))
        .collect();
    assert_eq!(answer["rows"], json!(trained));

    // Now is an instant as well: every price is too old, and `as_of` is no column of a call.
    let now = json!({"rows": [{"customer": "anna", "product": "tea"}]});
    assert_eq!(up.post("/v1/services/offer", &now).1["rows"][0]["price"], Json::Null);
    let stated = json!({"rows": [{"customer": "anna", "product": "tea", "as_of": "2024-05-01T12:00:00Z"}]});
    assert_eq!(up.post("/v1/services/offer", &stated).0, 422);
    let at = ["get", "offer", "customer=anna", "product=tea", "--as-of", "2024-05-01T11:00:00Z"];
    let read = project.json(&[&["--json"][..], &at, &["--url", up.url()]].concat());
    assert!(read.to_string().contains("\"price\":3.0"), "{read}");

    let (_, table) = up.get("/v1/catalog/tables/prices");
    assert_eq!((&table["timestamp"], &table["max_age"]), (&json!("since"), &json!("1 day")));
    assert_eq!(up.stop(), Some(0));
}

/// Prices that change make another view, and so does how long they hold.
#[test]
fn content_and_age_are_a_part_of_the_version() {
    let project = project();
    let version = || project.json(&["explain", "customer_orders", "--json"])["fingerprint"].clone();
    let first = version();
    assert!(first.is_string());
    project.write("prices.csv", format!("{PRICES}tea,5.0,2024-05-03T00:00:00Z\n"));
    let more = version();
    project.write("prices.csv", PRICES);
    assert_eq!(version(), first);
    project.write("features/orders.sql", FEATURES.replace("1 day", "2 days"));
    let longer = version();
    assert!(first != more && first != longer && more != longer, "{first} {more} {longer}");

    project.write("prices.csv", format!("{PRICES}tea,5.0,2024-05-01T12:00:00Z\n"));
    let output = project.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(said.contains("prices has more than one row for key tea at 2024-05-01T12:00:00Z"), "{said}");
}
