//! Random event streams: ties, late and duplicate events, NULLs, odd doubles, empty keys, several partitions.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// The Avro contract of the source.
pub const CONTRACT: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"user_id","type":["null","long"]},
    {"name":"card","type":["null","string"]},
    {"name":"amount","type":["null","double"]},
    {"name":"n","type":["null","int"]},
    {"name":"big","type":["null","long"]},
    {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}]},
    {"name":"flag","type":["null","boolean"]},
    {"name":"city","type":["null","string"]},
    {"name":"day","type":["null",{"type":"int","logicalType":"date"}]},
    {"name":"seen_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
    {"name":"event_time","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"event_id","type":["null","string"]}]}"#;

pub const USERS: [i64; 4] = [1, 2, -7, 40];
pub const CARDS: [&str; 4] = ["a|b%", "", "ü x", "{7}"];
pub const CITIES: [&str; 5] = ["Köln", "", "Lagos", "São Paulo", "x"];
pub const PRICES: [i128; 4] = [150, -5, 0, 99_999_999];
pub const DAYS: [i32; 4] = [0, -1, 19_782, 12_345];

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub partition: i32,
    pub offset: i64,
    /// Microseconds UTC.
    pub time: i64,
    pub user: Option<i64>,
    pub card: Option<&'static str>,
    pub amount: Option<f64>,
    pub n: Option<i32>,
    pub big: Option<i64>,
    pub price: Option<i128>,
    pub flag: Option<bool>,
    pub city: Option<&'static str>,
    pub day: Option<i32>,
    pub seen: Option<i64>,
    pub id: Option<String>,
}

/// Which doubles a stream holds: what another engine's sums can be held to depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubles {
    /// Quarters of small integers: sums are exact in any order, so that expressions over them agree too.
    Dyadic,
    /// Ordinary amounts of money, all positive.
    Money,
    /// Money with NaN, infinities, negative zero and subnormals.
    Special,
    /// Doubles near the largest and the smallest, which cancel and overflow.
    Huge,
}

/// Lengths of time that fit each other: events are a unit apart, frames some units long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    pub unit: i64,
    pub name: &'static str,
    /// Tile lengths that cut such frames.
    pub tiles: &'static [(&'static str, i64)],
}

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

pub const SCALES: [Scale; 5] = [
    Scale {
        unit: SECOND,
        name: "second",
        tiles: &[("1 second", SECOND), ("5 seconds", 5 * SECOND), ("7 s", 7 * SECOND)],
    },
    Scale {
        unit: MINUTE,
        name: "minute",
        tiles: &[("1 minute", MINUTE), ("5 minutes", 5 * MINUTE), ("90 s", 90 * SECOND)],
    },
    Scale { unit: HOUR, name: "hour", tiles: &[("1 hour", HOUR), ("30 minutes", 30 * MINUTE), ("6 hours", 6 * HOUR)] },
    Scale { unit: DAY, name: "day", tiles: &[("1 day", DAY), ("12 hours", 12 * HOUR), ("7 days", 7 * DAY)] },
    // Events days apart, frames of calendar months.
    Scale { unit: 5 * DAY, name: "month", tiles: &[("1 day", DAY), ("30 days", 30 * DAY), ("7 days", 7 * DAY)] },
];

/// Around the epoch, before it, at the ends of months and years.
const BASES: [i64; 6] =
    [1_709_078_400 * SECOND, -5 * MINUTE, 0, -615_945_600 * SECOND, 1_703_980_800 * SECOND, -6_311_433_600 * SECOND];

#[derive(Debug, Clone)]
pub struct Shape {
    pub doubles: Doubles,
    pub scale: Scale,
    pub partitions: i32,
    /// Whether the source names `event_id`.
    pub event_id: bool,
    /// Whether an event may come again in another partition.
    pub across: bool,
    pub base: i64,
    pub events: usize,
    /// The source's `max_future`, in microseconds.
    pub ahead: i64,
}

impl Shape {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let event_id = rng.random_bool(0.5);
        let scale = *SCALES.choose(rng).unwrap();
        let base = *BASES.choose(rng).unwrap();
        // Enough for several chunks and tiles of one key, now and then.
        let events = match rng.random_range(0..100) {
            0..2 => rng.random_range(500..900),
            2..10 => rng.random_range(0..4),
            _ => rng.random_range(4..60),
        };
        Shape {
            doubles: match rng.random_range(0..10) {
                0..5 => Doubles::Dyadic,
                5..7 => Doubles::Money,
                7..9 => Doubles::Special,
                _ => Doubles::Huge,
            },
            scale,
            partitions: *[1, 1, 2, 3].choose(rng).unwrap(),
            event_id,
            across: event_id && rng.random_bool(0.3),
            base,
            events,
            ahead: [0, 1, 300_000_000][events % 3],
        }
    }
}

/// A stream in the order of arrival; offsets ascend in each partition, perhaps with gaps.
pub fn draw(rng: &mut ChaCha8Rng, shape: &Shape, gaps: bool) -> Vec<Event> {
    let mut times: Vec<i64> = (0..shape.events).map(|_| time(rng, shape)).collect();
    times.sort_unstable();
    // Most events come in order, some a little late, a few very late.
    for i in 0..times.len() {
        if rng.random_bool(0.15) {
            let j = if rng.random_bool(0.3) { rng.random_range(0..times.len()) } else { (i + 3).min(times.len() - 1) };
            times.swap(i, j);
        }
    }
    let users = rng.random_range(1..=USERS.len());
    let mut next = vec![0i64; shape.partitions as usize];
    let mut events: Vec<Event> = vec![];
    for at in times {
        let partition = rng.random_range(0..shape.partitions);
        let mut event = event(rng, shape, at, users);
        event.partition = partition;
        // An id comes again in another partition only where that is meant.
        event.id = event.id.map(|id| format!("{partition}{id}"));
        if shape.event_id
            && rng.random_bool(0.25)
            && let Some(earlier) = events.choose(rng)
        {
            let conflicting = rng.random_bool(0.2);
            let Event { time, user, card, id, .. } = earlier.clone();
            event = if conflicting { Event { time, user, card, id, ..event } } else { earlier.clone() };
            event.partition = if shape.across { partition } else { earlier.partition };
        }
        let offset = &mut next[event.partition as usize];
        *offset += if gaps && rng.random_bool(0.1) { rng.random_range(1..5) } else { 0 };
        event.offset = *offset;
        *offset += 1;
        events.push(event);
    }
    events
}

fn time(rng: &mut ChaCha8Rng, shape: &Shape) -> i64 {
    let unit = shape.scale.unit;
    let spread = if shape.events > 100 { 60 } else { 24 };
    let jitter = match rng.random_range(0..10) {
        0..6 => 0,
        6 => 1,
        7 => -1,
        _ => rng.random_range(0..unit),
    };
    shape.base + rng.random_range(0..=spread) * unit + jitter
}

fn event(rng: &mut ChaCha8Rng, shape: &Shape, time: i64, users: usize) -> Event {
    fn maybe<T>(rng: &mut ChaCha8Rng, value: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
        if rng.random_bool(0.12) { None } else { Some(value(rng)) }
    }
    Event {
        partition: 0,
        offset: 0,
        time,
        user: if rng.random_bool(0.05) { None } else { Some(USERS[rng.random_range(0..users)]) },
        card: maybe(rng, |r| CARDS[r.random_range(0..users)]),
        amount: maybe(rng, |r| double(r, shape.doubles)),
        n: maybe(rng, |r| if r.random_bool(0.1) { i32::MIN } else { r.random_range(-9..20) }),
        big: maybe(rng, |r| if r.random_bool(0.1) { 1 << 53 } else { r.random_range(-1000..1000) }),
        price: maybe(rng, |r| {
            if r.random_bool(0.5) { *PRICES.choose(r).unwrap() } else { r.random_range(-10_000..10_000) }
        }),
        flag: maybe(rng, |r| r.random_bool(0.6)),
        city: maybe(rng, |r| *CITIES.choose(r).unwrap()),
        day: maybe(rng, |r| *DAYS.choose(r).unwrap()),
        seen: maybe(rng, |r| shape.base + r.random_range(-50..50) * shape.scale.unit / 3),
        id: maybe(rng, |r| format!("e{}", r.random_range(0..40))),
    }
}

fn double(rng: &mut ChaCha8Rng, doubles: Doubles) -> f64 {
    let money = |rng: &mut ChaCha8Rng| f64::from(rng.random_range(1..100_000)) / 100.0;
    match doubles {
        Doubles::Dyadic => f64::from(rng.random_range(-4000..4000)) / 4.0,
        Doubles::Money => money(rng),
        Doubles::Special => match rng.random_range(0..20) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => 5e-324,
            5 => 0.0,
            _ => money(rng),
        },
        Doubles::Huge => {
            let odd = [f64::MAX, f64::MIN, 1e308, -1e308, 1e16, -1e16, 1.0, 5e-324, -2.5e-310, f64::MIN_POSITIVE, 0.1];
            *odd.choose(rng).unwrap()
        }
    }
}

/// Events as a batch of a source: the contract's columns and the platform's.
pub fn batch(events: &[&Event], schema: &SchemaRef) -> RecordBatch {
    let instants = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let prices: Decimal128Array = events.iter().map(|e| e.price).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|e| e.user).collect::<Int64Array>()),
        Arc::new(events.iter().map(|e| e.card).collect::<StringArray>()),
        Arc::new(events.iter().map(|e| e.amount).collect::<Float64Array>()),
        Arc::new(events.iter().map(|e| e.n).collect::<Int32Array>()),
        Arc::new(events.iter().map(|e| e.big).collect::<Int64Array>()),
        Arc::new(prices.with_precision_and_scale(12, 2).unwrap()),
        Arc::new(events.iter().map(|e| e.flag).collect::<BooleanArray>()),
        Arc::new(events.iter().map(|e| e.city).collect::<StringArray>()),
        Arc::new(events.iter().map(|e| e.day).collect::<Date32Array>()),
        instants(events.iter().map(|e| e.seen).collect()),
        instants(events.iter().map(|e| Some(e.time)).collect()),
        Arc::new(events.iter().map(|e| e.id.as_deref()).collect::<StringArray>()),
        Arc::new(events.iter().map(|e| Some(e.partition)).collect::<Int32Array>()),
        Arc::new(events.iter().map(|e| Some(e.offset)).collect::<Int64Array>()),
        instants(events.iter().map(|_| Some(0)).collect()),
    ];
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// An event in Avro's binary encoding, as a producer with the contract writes it.
pub fn avro(event: &Event) -> Vec<u8> {
    fn long(bytes: &mut Vec<u8>, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest > 0x7f {
            bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    fn block(bytes: &mut Vec<u8>, value: &[u8]) {
        long(bytes, value.len() as i64);
        bytes.extend(value);
    }
    /// The branch of a union with null, then the value.
    fn maybe<T>(bytes: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
        long(bytes, i64::from(value.is_some()));
        if let Some(value) = value {
            write(bytes, value);
        }
    }
    let mut bytes = vec![];
    maybe(&mut bytes, event.user, long);
    maybe(&mut bytes, event.card, |bytes, text| block(bytes, text.as_bytes()));
    maybe(&mut bytes, event.amount, |bytes, double| bytes.extend(double.to_le_bytes()));
    maybe(&mut bytes, event.n, |bytes, n| long(bytes, i64::from(n)));
    maybe(&mut bytes, event.big, long);
    maybe(&mut bytes, event.price, |bytes, price| block(bytes, &price.to_be_bytes()));
    maybe(&mut bytes, event.flag, |bytes, flag| bytes.push(u8::from(flag)));
    maybe(&mut bytes, event.city, |bytes, text| block(bytes, text.as_bytes()));
    maybe(&mut bytes, event.day, |bytes, day| long(bytes, i64::from(day)));
    maybe(&mut bytes, event.seen, long);
    long(&mut bytes, event.time);
    maybe(&mut bytes, event.id.as_deref(), |bytes, text| block(bytes, text.as_bytes()));
    bytes
}
