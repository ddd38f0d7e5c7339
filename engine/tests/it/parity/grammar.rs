//! Draws feature views: aggregates, frames, filters, expressions, tiles, row stages.

use datafusion::common::ScalarValue;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::events::{CARDS, DAYS, Doubles, PRICES, Shape, USERS};
use super::view::{Aggregate, Feature, Frame, Key, Past, Reference, RowStage, Span, Style, Ty, View, Window};

const SOURCE: [(&str, Ty); 8] = [
    ("amount", Ty::Float),
    ("n", Ty::Int),
    ("big", Ty::Int),
    ("price", Ty::Decimal),
    ("flag", Ty::Bool),
    ("city", Ty::Text),
    ("day", Ty::Date),
    ("seen_at", Ty::Time),
];

pub fn draw(rng: &mut ChaCha8Rng, shape: &Shape, name: String) -> View {
    // Partial states can't tell an event that came again in another partition from a new one.
    let tile =
        if !shape.across && rng.random_bool(0.25) { Some(*shape.scale.tiles.choose(rng).unwrap()) } else { None };
    let rows = row_stage(rng, shape);
    let (keys, time) = names(rng, &rows);
    let windows: Vec<Window> = (0..rng.random_range(1..=3)).map(|_| window(rng, shape, tile.is_some())).collect();
    let aggregates: Vec<Aggregate> = (0..rng.random_range(1..=6))
        .map(|_| aggregate(rng, &rows.scope, windows.len(), tile.is_some(), shape))
        .collect();
    let features = (0..aggregates.len()).map(|i| feature(rng, &aggregates, i)).collect();
    View {
        name,
        keys,
        time,
        rows,
        windows,
        aggregates,
        features,
        nested: rng.random_bool(0.2),
        tile,
        lateness: lateness(rng, shape),
        past: *[None, Some(Past::BeforeTheView), Some(Past::BehindTheView)].choose(rng).unwrap(),
    }
}

fn lateness(rng: &mut ChaCha8Rng, shape: &Shape) -> Option<(String, i64)> {
    let unit = shape.scale.unit;
    match rng.random_range(0..20) {
        0..9 => Some(("3650 days".to_owned(), 3650 * super::events::DAY)),
        9..14 => Some((format!("{} us", 20 * unit), 20 * unit)),
        14..17 => Some((format!("{} us", 3 * unit), 3 * unit)),
        17 => Some(("0 s".to_owned(), 0)),
        _ => None,
    }
}

fn row_stage(rng: &mut ChaCha8Rng, shape: &Shape) -> RowStage {
    let style = *[Style::Direct, Style::Direct, Style::Subquery, Style::Cte, Style::CreateView].choose(rng).unwrap();
    let join = if rng.random_bool(0.2) { Some(*["LEFT", "INNER"].choose(rng).unwrap()) } else { None };
    let mut scope: Vec<(String, Ty)> = SOURCE.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect();
    if join.is_some() {
        scope.extend([("region".to_owned(), Ty::Text), ("weight".to_owned(), Ty::Int)]);
    }
    let rates = rng.random_bool(0.25);
    if rates {
        scope.extend([("rate".to_owned(), Ty::Int), ("label".to_owned(), Ty::Text)]);
    }
    let mut computed = vec![];
    if style != Style::Direct {
        let columns = [
            ("amount * 2", Ty::Float),
            ("CASE WHEN flag THEN amount ELSE 0 END", Ty::Float),
            ("n * n % 7", Ty::Int),
            ("COALESCE(city, 'none') || '-' || CAST(n AS VARCHAR)", Ty::Text),
            ("amount > 10 AND flag", Ty::Bool),
            ("date_trunc('hour', event_time)", Ty::Time),
            ("price * 2", Ty::Decimal),
            ("CAST(event_time AS DATE)", Ty::Date),
        ];
        for i in 0..rng.random_range(0..=3) {
            let (expr, ty) = *columns.choose(rng).unwrap();
            computed.push((expr.to_owned(), format!("x{i}"), ty));
            scope.push((format!("x{i}"), ty));
        }
    }
    let inner = if rng.random_bool(0.25) { Some(predicate(rng, &scope[..SOURCE.len()], shape)) } else { None };
    let outer = if rng.random_bool(0.25) { Some(predicate(rng, &scope, shape)) } else { None };
    RowStage { style, computed, join, rates, inner, outer, scope }
}

fn names(rng: &mut ChaCha8Rng, rows: &RowStage) -> (Vec<Key>, String) {
    let key = |name: &str, sql_type, pool: Vec<ScalarValue>, unseen: ScalarValue| Key {
        name: name.to_owned(),
        expr: name.to_owned(),
        sql_type,
        pool,
        unseen,
    };
    let user = key("user_id", "BIGINT", USERS.map(ScalarValue::from).to_vec(), ScalarValue::from(999i64));
    let card = key("card", "VARCHAR", CARDS.map(ScalarValue::from).to_vec(), ScalarValue::from("nobody"));
    let mut keys = match rng.random_range(0..20) {
        0..10 => vec![user],
        10..13 => vec![card],
        13..15 => vec![user, card],
        15 => vec![card, user],
        16 => vec![key("flag", "BOOLEAN", [true, false].map(ScalarValue::from).to_vec(), ScalarValue::from(true))],
        17 => {
            vec![key("day", "DATE", DAYS.map(|d| ScalarValue::Date32(Some(d))).to_vec(), ScalarValue::Date32(Some(77)))]
        }
        18 => {
            let price = |p| ScalarValue::Decimal128(Some(p), 12, 2);
            vec![key("price", "DECIMAL(12,2)", PRICES.map(price).to_vec(), price(777))]
        }
        _ => vec![key("n", "INT", (0..4).map(ScalarValue::from).collect(), ScalarValue::from(777i32))],
    };
    if rows.style == Style::Direct {
        return (keys, "event_time".to_owned());
    }
    if rng.random_bool(0.3) {
        let key = keys.first_mut().unwrap();
        key.expr = key.name.clone();
        key.name = format!("the_{}", key.name);
    } else if rng.random_bool(0.15) {
        let pool: Vec<ScalarValue> = [0i64, 1, -1].map(ScalarValue::from).to_vec();
        let computed = Key {
            name: "parity".into(),
            expr: "user_id % 2".into(),
            sql_type: "BIGINT",
            pool,
            unseen: ScalarValue::from(5i64),
        };
        keys[0] = computed;
    }
    (keys, if rng.random_bool(0.3) { "ts".to_owned() } else { "event_time".to_owned() })
}

fn window(rng: &mut ChaCha8Rng, shape: &Shape, tiled: bool) -> Window {
    let reference = *[Reference::Named, Reference::Named, Reference::Inline, Reference::Extended].choose(rng).unwrap();
    let frame = match rng.random_range(0..10) {
        0..2 if !tiled => {
            let end = if rng.random_bool(0.3) { rng.random_range(0..3) } else { 0 };
            let unbounded = !shape.across && rng.random_bool(0.2);
            Frame::Rows { start: if unbounded { None } else { Some(end + rng.random_range(0..5)) }, end }
        }
        2 if !shape.across => {
            Frame::Range { start: None, end: if rng.random_bool(0.4) { span(rng, shape) } else { Span::default() } }
        }
        3 => {
            let end = span(rng, shape);
            let more = span(rng, shape);
            Frame::Range {
                start: Some(Span { months: end.months + more.months, micros: end.micros + more.micros }),
                end,
            }
        }
        4 if rng.random_bool(0.3) => Frame::Range { start: Some(Span::default()), end: Span::default() },
        _ => Frame::Range { start: Some(span(rng, shape)), end: Span::default() },
    };
    Window { frame, reference }
}

pub fn span(rng: &mut ChaCha8Rng, shape: &Shape) -> Span {
    let unit = shape.scale.unit;
    if shape.scale.name == "month" {
        let micros = if rng.random_bool(0.2) { rng.random_range(1..40) * super::events::DAY } else { 0 };
        return Span { months: rng.random_range(1..=3), micros };
    }
    let micros = rng.random_range(1..=8) * unit;
    Span { months: 0, micros: if rng.random_bool(0.15) { micros + unit / 2 } else { micros } }
}

fn of(rng: &mut ChaCha8Rng, scope: &[(String, Ty)], types: &[Ty]) -> (String, Ty) {
    let fitting: Vec<&(String, Ty)> = scope.iter().filter(|(_, ty)| types.contains(ty)).collect();
    let (name, ty) = fitting.choose(rng).unwrap();
    (name.clone(), *ty)
}

fn predicate(rng: &mut ChaCha8Rng, scope: &[(String, Ty)], shape: &Shape) -> String {
    let (name, ty) = of(rng, scope, &[Ty::Float, Ty::Int, Ty::Decimal, Ty::Bool, Ty::Text, Ty::Date, Ty::Time]);
    let template = match ty {
        // Money is never near zero.
        Ty::Float if shape.doubles == Doubles::Dyadic => {
            *["{} > 100", "{} < 0", "{} IS NOT NULL", "abs({}) < 500"].choose(rng).unwrap()
        }
        Ty::Float => "{} > 50",
        Ty::Int => *["{} > 3", "{} % 2 = 0", "{} BETWEEN -2 AND 9", "{} IN (1, 2, 3, 5, 8)"].choose(rng).unwrap(),
        Ty::Decimal => *["{} > 1.5", "{} <> 0"].choose(rng).unwrap(),
        Ty::Bool => *["{}", "NOT {}", "{} IS NOT TRUE"].choose(rng).unwrap(),
        Ty::Text => *["{} = 'Köln'", "{} <> ''", "{} LIKE '%o%'", "{} IS NULL"].choose(rng).unwrap(),
        Ty::Date => "{} > DATE '1970-01-01'",
        _ => "date_part('day', {}) > 10",
    };
    let condition = template.replace("{}", &name);
    if rng.random_bool(0.2) { format!("{condition} OR n = 4") } else { condition }
}

fn aggregate(rng: &mut ChaCha8Rng, scope: &[(String, Ty)], windows: usize, tiled: bool, shape: &Shape) -> Aggregate {
    use Ty::*;
    const ANY: &[Ty] = &[Float, Int, Decimal, Bool, Text, Date, Time];
    const NUMBERS: &[Ty] = &[Float, Float, Int, Decimal];
    let window = rng.random_range(0..windows);
    let filter = if rng.random_bool(0.3) { Some(predicate(rng, scope, shape)) } else { None };
    let mut made = Aggregate {
        function: "count",
        args: vec![],
        constants: vec![],
        distinct: false,
        ignore_nulls: false,
        filter,
        window,
        input: Other,
        output: Int,
    };
    let take = |rng: &mut ChaCha8Rng, made: &mut Aggregate, types: &[Ty]| {
        let (name, ty) = of(rng, scope, types);
        made.args.push(argument(rng, name, ty));
        made.input = ty;
        ty
    };
    match rng.random_range(0..if tiled { 12 } else { 20 }) {
        0 => {}
        1 => {
            take(rng, &mut made, ANY);
        }
        2 => {
            take(rng, &mut made, ANY);
            made.distinct = true;
        }
        3 | 4 => {
            made.function = "sum";
            made.output = take(rng, &mut made, NUMBERS);
            made.distinct = rng.random_bool(0.15);
        }
        5 => {
            made.function = "avg";
            let input = take(rng, &mut made, NUMBERS);
            made.output = if input == Decimal { Decimal } else { Float };
            made.distinct = rng.random_bool(0.15);
        }
        6 | 7 => {
            made.function = *["min", "max"].choose(rng).unwrap();
            made.output = take(rng, &mut made, ANY);
        }
        8 | 9 => {
            made.function = *["var_samp", "var_pop", "stddev_samp", "stddev_pop"].choose(rng).unwrap();
            take(rng, &mut made, &[Float, Int]);
            made.output = Float;
        }
        10 | 11 => {
            made.function = *["first_value", "last_value"].choose(rng).unwrap();
            made.output = take(rng, &mut made, ANY);
            made.ignore_nulls = rng.random_bool(0.3);
            made.filter = None;
        }
        12 => {
            made.function = "nth_value";
            made.output = take(rng, &mut made, ANY);
            made.constants.push((*["1", "2", "4", "-1", "-3"].choose(rng).unwrap()).to_owned());
            made.filter = None;
        }
        13 => {
            made.function = "array_agg";
            take(rng, &mut made, ANY);
            made.distinct = rng.random_bool(0.4);
            made.output = Other;
        }
        14 => {
            made.function = "string_agg";
            made.output = take(rng, &mut made, &[Text]);
            made.constants.push("', '".to_owned());
        }
        15 => {
            made.function = "median";
            made.output = take(rng, &mut made, NUMBERS);
        }
        16 => {
            made.function = "approx_distinct";
            take(rng, &mut made, &[Text, Int]);
            made.output = Other;
        }
        17 => {
            made.function = *["bool_and", "bool_or"].choose(rng).unwrap();
            made.output = take(rng, &mut made, &[Bool]);
        }
        18 => {
            made.function = *["bit_and", "bit_or", "bit_xor"].choose(rng).unwrap();
            made.output = take(rng, &mut made, &[Int]);
        }
        _ => {
            made.function = *["corr", "covar_samp", "covar_pop", "regr_slope"].choose(rng).unwrap();
            take(rng, &mut made, &[Float]);
            take(rng, &mut made, &[Int, Float]);
            made.input = Float;
            made.output = Other;
        }
    }
    made
}

fn argument(rng: &mut ChaCha8Rng, name: String, ty: Ty) -> String {
    if rng.random_bool(0.75) {
        return name;
    }
    let template = match ty {
        Ty::Float => *["{} * 2", "COALESCE({}, 0)", "CASE WHEN flag THEN {} END", "abs({})"].choose(rng).unwrap(),
        Ty::Int => *["{} + big", "{} % 5", "{} - 1"].choose(rng).unwrap(),
        Ty::Decimal => "{} + 1",
        Ty::Bool => "NOT {}",
        Ty::Text => *["upper({})", "{} || '|'", "NULLIF({}, '')"].choose(rng).unwrap(),
        Ty::Time => "date_trunc('minute', {})",
        _ => "{}",
    };
    template.replace("{}", &name)
}

/// Whether other engines compute it in steps that round: those may differ a little.
pub fn rounds(aggregate: &Aggregate) -> bool {
    let sums = matches!(aggregate.function, "sum" | "avg") && aggregate.input == Ty::Float;
    let moments = ["var", "stddev", "corr", "covar", "regr"].iter().any(|f| aggregate.function.starts_with(f));
    sums || moments
}

fn feature(rng: &mut ChaCha8Rng, aggregates: &[Aggregate], index: usize) -> Feature {
    let name = format!("f{index}");
    let plain = Feature { name: name.clone(), template: "{0}".to_owned(), aggregates: vec![index] };
    let aggregate = &aggregates[index];
    let moments = rounds(aggregate) && !matches!(aggregate.function, "sum" | "avg");
    if moments || rng.random_bool(0.6) {
        return plain;
    }
    let count = aggregates.iter().position(|a| a.function == "count").unwrap_or(index);
    let counted = aggregates[count].function == "count";
    let float = aggregates.iter().rposition(|a| a.output == Ty::Float && matches!(a.function, "sum" | "avg"));
    let mut templates: Vec<&str> = vec!["{0} IS NULL"];
    let mut others = vec![index];
    match aggregate.output {
        Ty::Float
            if let Some(float) = float
                && rng.random_bool(0.4) =>
        {
            others.push(float);
            templates = vec!["{0} - {1}", "{0} / NULLIF({1}, 0)", "CASE WHEN {0} > {1} THEN 1 ELSE 0 END"];
        }
        Ty::Float if counted && rng.random_bool(0.5) => {
            others.push(count);
            templates = vec!["{0} / NULLIF({1}, 0)", "CASE WHEN {1} > 1 THEN {0} END"];
        }
        Ty::Float => templates.extend(["COALESCE({0}, 0)", "{0} > 10", "abs({0})"]),
        Ty::Int if counted && rng.random_bool(0.4) => {
            others.push(count);
            templates = vec!["{0} * 2 - {1}", "CAST({0} AS DOUBLE) / NULLIF({1}, 0)", "{0} > {1}"];
        }
        Ty::Int => templates.extend(["{0} % 3", "CAST({0} AS VARCHAR)", "COALESCE({0}, -1)", "{0} BETWEEN 1 AND 3"]),
        Ty::Decimal => templates.extend(["{0} * 2", "COALESCE({0}, 0)", "{0} > 1.5"]),
        Ty::Bool => templates.extend(["NOT {0}", "COALESCE({0}, false)", "CASE WHEN {0} THEN 1 ELSE 0 END"]),
        Ty::Text => templates.extend(["upper({0})", "COALESCE({0}, 'none')", "{0} || '!'", "character_length({0})"]),
        Ty::Date => templates.extend(["{0} > DATE '2000-01-01'", "date_part('year', {0})"]),
        Ty::Time => templates.extend(["{0} + INTERVAL '1 day'", "date_trunc('hour', {0})"]),
        Ty::Other => {}
    }
    Feature { name, template: (*templates.choose(rng).unwrap()).to_owned(), aggregates: others }
}
