//! A feature view as a structure, and its SQL as a user would write it.

use datafusion::common::ScalarValue;

use super::rates::Rates;

/// What a column or a result is, as far as the grammar must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    Float,
    Int,
    Decimal,
    Bool,
    Text,
    Date,
    Time,
    Other,
}

#[derive(Debug, Clone)]
pub struct View {
    pub name: String,
    pub keys: Vec<Key>,
    /// The timestamp's name where the windows are.
    pub time: String,
    pub rows: RowStage,
    pub windows: Vec<Window>,
    pub aggregates: Vec<Aggregate>,
    pub features: Vec<Feature>,
    /// Whether expressions over results stand in an outer SELECT.
    pub nested: bool,
    pub tile: Option<(&'static str, i64)>,
    pub lateness: Option<(String, i64)>,
    /// Where the service joins the table with history, if it does.
    pub past: Option<Past>,
}

/// A join to the table with history, in a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    BeforeTheView,
    BehindTheView,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub name: String,
    /// Over the source's columns.
    pub expr: String,
    /// Its type in a service's signature.
    pub sql_type: &'static str,
    /// Values that events may have.
    pub pool: Vec<ScalarValue>,
    /// One that none has.
    pub unseen: ScalarValue,
}

/// What is below the windows.
#[derive(Debug, Clone)]
pub struct RowStage {
    pub style: Style,
    /// (expression, name, type), beside the source's own columns. None in [`Style::Direct`].
    pub computed: Vec<(String, String, Ty)>,
    pub join: Option<&'static str>,
    /// Whether the table with history is joined.
    pub rates: bool,
    /// Below the computed columns.
    pub inner: Option<String>,
    /// In the SELECT that has the windows.
    pub outer: Option<String>,
    /// What aggregates may read.
    pub scope: Vec<(String, Ty)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Direct,
    Subquery,
    Cte,
    CreateView,
}

#[derive(Debug, Clone)]
pub struct Window {
    pub frame: Frame,
    pub reference: Reference,
}

/// How a window is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    Named,
    Inline,
    /// `OVER (base RANGE …)`.
    Extended,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Range { start: Option<Span>, end: Span },
    Rows { start: Option<u64>, end: u64 },
}

/// An interval; all zero is `CURRENT ROW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub months: u32,
    pub micros: i64,
}

#[derive(Debug, Clone)]
pub struct Aggregate {
    pub function: &'static str,
    pub args: Vec<String>,
    /// Constants after the arguments.
    pub constants: Vec<String>,
    pub distinct: bool,
    pub ignore_nulls: bool,
    pub filter: Option<String>,
    pub window: usize,
    pub input: Ty,
    pub output: Ty,
}

#[derive(Debug, Clone)]
pub struct Feature {
    pub name: String,
    /// `{0}` stands for the first of `aggregates`.
    pub template: String,
    pub aggregates: Vec<usize>,
}

impl Feature {
    pub fn plain(&self) -> bool {
        self.template == "{0}"
    }

    pub fn fill(&self, of: impl Fn(usize) -> String) -> String {
        let filled = self.aggregates.iter().enumerate();
        filled.fold(self.template.clone(), |text, (i, aggregate)| text.replace(&format!("{{{i}}}"), &of(*aggregate)))
    }
}

impl Span {
    pub fn is_zero(&self) -> bool {
        *self == Span::default()
    }

    /// `INTERVAL '…'`, with nanoseconds added.
    pub fn sql(&self, nanos: i64) -> String {
        let mut parts = vec![];
        let mut rest = self.micros;
        for (unit, micros) in [
            ("days", 86_400_000_000),
            ("hours", 3_600_000_000),
            ("minutes", 60_000_000),
            ("seconds", 1_000_000),
            ("microseconds", 1),
        ] {
            if rest >= micros {
                parts.push(format!("{} {unit}", rest / micros));
                rest %= micros;
            }
        }
        if self.months > 0 {
            parts.insert(0, format!("{} months", self.months));
        }
        if nanos > 0 || parts.is_empty() {
            parts.push(format!("{nanos} nanoseconds"));
        }
        format!("INTERVAL '{}'", parts.join(" "))
    }
}

impl Frame {
    fn sql(&self) -> String {
        match self {
            Frame::Range { start, end } => {
                let end = if end.is_zero() { "CURRENT ROW".to_owned() } else { format!("{} PRECEDING", end.sql(0)) };
                let start = match start {
                    None => "UNBOUNDED PRECEDING".to_owned(),
                    Some(start) if start.is_zero() => "CURRENT ROW".to_owned(),
                    Some(start) => format!("{} PRECEDING", start.sql(0)),
                };
                format!("RANGE BETWEEN {start} AND {end}")
            }
            Frame::Rows { start, end } => {
                let end = if *end == 0 { "CURRENT ROW".to_owned() } else { format!("{end} PRECEDING") };
                let start = start.map_or("UNBOUNDED PRECEDING".to_owned(), |start| format!("{start} PRECEDING"));
                format!("ROWS BETWEEN {start} AND {end}")
            }
        }
    }

    pub fn is_unbounded(&self) -> bool {
        matches!(self, Frame::Range { start: None, .. } | Frame::Rows { start: None, .. })
    }
}

impl Aggregate {
    /// The call, without OVER, FILTER and the treatment of NULLs. `order` goes into the parentheses.
    pub fn call(&self, order: &str) -> String {
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let args = if self.args.is_empty() {
            "*".to_owned()
        } else {
            [self.args.clone(), self.constants.clone()].concat().join(", ")
        };
        format!("{}({distinct}{args}{order})", self.function)
    }

    fn over(&self, view: &View) -> String {
        let nulls = if self.ignore_nulls { " IGNORE NULLS" } else { "" };
        let filter = self.filter.as_ref().map_or(String::new(), |f| format!(" FILTER (WHERE {f})"));
        let window = &view.windows[self.window];
        let over = match window.reference {
            Reference::Named => format!("w{}", self.window),
            Reference::Inline => format!("({} {})", view.partition(), window.frame.sql()),
            Reference::Extended => format!("(base {})", window.frame.sql()),
        };
        format!("{}{nulls}{filter} OVER {over}", self.call(""))
    }
}

impl RowStage {
    /// The relation with the columns that the windows see, as a FROM item, for a view's own SQL. `more` are further
    /// columns of the source that must come through, `rates` the join to the table with history.
    pub fn select(&self, view: &View, more: &[&str], rates: &str) -> String {
        let mut columns: Vec<String> = view.keys.iter().map(|k| aliased(&k.expr, &k.name)).collect();
        columns.push(aliased("event_time", &view.time));
        let named = |name: &str| view.keys.iter().any(|k| k.name == name);
        for (name, _) in self.scope.iter().filter(|(name, _)| !named(name)) {
            let computed = self.computed.iter().find(|(_, n, _)| n == name);
            columns.push(computed.map_or(name.clone(), |(expr, ..)| aliased(expr, name)));
        }
        columns.extend(more.iter().map(|c| (*c).to_owned()));
        format!("SELECT {} {}{}", columns.join(", "), self.from(rates), condition(&self.inner))
    }

    fn from(&self, rates: &str) -> String {
        if self.join.is_none() && !self.rates {
            return "FROM events".to_owned();
        }
        let cities = self.join.map_or(String::new(), |kind| format!(" {kind} JOIN cities AS c ON c.name = e.city"));
        let rates = if self.rates { format!(" {rates}") } else { String::new() };
        format!("FROM events AS e{cities}{rates}")
    }
}

impl View {
    /// The files of its definition: the view's own, and perhaps a shared view's.
    pub fn sql(&self) -> String {
        let rates = Rates::asof("e.city", "e.event_time");
        let stage = self.rows.select(self, &[], &rates);
        let (before, with, from) = match self.rows.style {
            Style::Direct => (String::new(), String::new(), self.rows.from(&rates)),
            Style::Subquery => (String::new(), String::new(), format!("FROM ({stage}) AS s")),
            Style::Cte => (String::new(), format!("WITH s AS ({stage})\n"), "FROM s".to_owned()),
            Style::CreateView => (
                format!("CREATE VIEW rows_{0} AS {stage};\n", self.name),
                String::new(),
                format!("FROM rows_{}", self.name),
            ),
        };
        let conditions = match self.rows.style {
            Style::Direct => condition(&self.both()),
            _ => condition(&self.rows.outer),
        };
        let keys: Vec<String> = self.keys.iter().map(|k| k.name.clone()).collect();
        let features = |of: &dyn Fn(usize) -> String| -> Vec<String> {
            self.features.iter().map(|f| aliased(&f.fill(of), &f.name)).collect()
        };
        let over = |i: usize| self.aggregates[i].over(self);
        let windows = self.named_windows();
        let query = if self.nested {
            let results = (0..self.aggregates.len()).map(|i| format!("{} AS a{i}", over(i)));
            let inner: Vec<String> = keys.iter().cloned().chain(results).collect();
            let outer: Vec<String> = keys.iter().cloned().chain(features(&|i| format!("a{i}"))).collect();
            format!(
                "{with}SELECT {}\nFROM (SELECT {}\n{from}{conditions}{windows}) AS z",
                outer.join(", "),
                inner.join(", ")
            )
        } else {
            let columns: Vec<String> = keys.iter().cloned().chain(features(&over)).collect();
            format!("{with}SELECT {}\n{from}{conditions}{windows}", columns.join(",\n  "))
        };
        let options: Vec<String> =
            [("tile", self.tile.map(|t| t.0.to_owned())), ("lateness", self.lateness.clone().map(|l| l.0))]
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name} = '{}'", value?)))
                .collect();
        let options = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
        format!("{before}CREATE FEATURE VIEW {}{options} AS\n{query};\n", self.name)
    }

    /// A service that passes every feature through, and computes some from the request.
    pub fn service_sql(&self) -> String {
        let signature: Vec<String> = self.keys.iter().map(|k| format!("{} {}", k.name, k.sql_type)).collect();
        let on: Vec<String> = self.keys.iter().map(|k| format!("v.{0} = request.{0}", k.name)).collect();
        let columns: Vec<String> = self.features.iter().map(|f| format!("v.{}", f.name)).collect();
        let first = &self.features[0].name;
        let view = format!("LEFT JOIN {} AS v ON {}", self.name, on.join(" AND "));
        let rates = Rates::asof("request.place", "request.as_of");
        let (past, joins) = match self.past {
            None => ("", view),
            Some(Past::BeforeTheView) => (PAST, format!("{rates} {view}")),
            Some(Past::BehindTheView) => (PAST, format!("{view} {rates}")),
        };
        format!(
            "CREATE FEATURE SERVICE s_{0} ({1}, threshold DOUBLE, place VARCHAR) AS\nSELECT {2}, CASE WHEN v.{first} IS NULL THEN -1 ELSE request.threshold * 2 END AS computed{past}\n\
             FROM request {joins};\n",
            self.name,
            signature.join(", "),
            columns.join(", "),
        )
    }

    /// The frames that some aggregate uses: the others leave no trace.
    pub fn frames(&self) -> Vec<&Frame> {
        let used = |i: &usize| self.nested || self.features.iter().any(|f| f.aggregates.contains(i));
        let aggregates = (0..self.aggregates.len()).filter(used).map(|i| &self.aggregates[i]);
        aggregates.map(|a| &self.windows[a.window].frame).collect()
    }

    /// Both conditions in one, for a view without levels.
    pub fn both(&self) -> Option<String> {
        match (&self.rows.inner, &self.rows.outer) {
            (Some(a), Some(b)) => Some(format!("({a}) AND ({b})")),
            (a, b) => a.clone().or(b.clone()),
        }
    }

    fn partition(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|k| k.name.as_str()).collect();
        format!("PARTITION BY {} ORDER BY {}", keys.join(", "), self.time)
    }

    fn named_windows(&self) -> String {
        let mut windows = vec![];
        if self.windows.iter().any(|w| w.reference == Reference::Extended) {
            windows.push(format!("base AS ({})", self.partition()));
        }
        for (i, window) in self.windows.iter().enumerate().filter(|(_, w)| w.reference == Reference::Named) {
            windows.push(format!("w{i} AS ({} {})", self.partition(), window.frame.sql()));
        }
        if windows.is_empty() { String::new() } else { format!("\nWINDOW {}", windows.join(",\n  ")) }
    }
}

/// What a service has of the table with history, and when it was asked.
const PAST: &str = ", h.rate AS rate_then, upper(h.label) AS label_then, request.as_of AS asked";

fn aliased(expr: &str, name: &str) -> String {
    if expr == name { expr.to_owned() } else { format!("{expr} AS {name}") }
}

pub fn condition(condition: &Option<String>) -> String {
    condition.as_ref().map_or(String::new(), |c| format!("\nWHERE {c}"))
}
