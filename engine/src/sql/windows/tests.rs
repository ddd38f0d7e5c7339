use datafusion::sql::sqlparser::parser::Parser;

use super::*;
use crate::sql::tokens::DIALECT;

/// The query with its windows resolved, or its errors.
fn resolved(sql: &str) -> Result<String, Vec<String>> {
    let file = SourceFile::new("a.sql", sql);
    let mut query = Parser::new(&DIALECT).try_with_sql(sql).unwrap().parse_query().unwrap();
    let errors = resolve_windows(&mut query, &file);
    if errors.is_empty() {
        Ok(query.to_string())
    } else {
        Err(errors.iter().map(|e| format!("{}:{} {}", e.span.line, e.span.column, e.message)).collect())
    }
}

/// That resolving `sql` gives what parsing `plain` gives.
fn same(sql: &str, plain: &str) {
    let plain = Parser::new(&DIALECT).try_with_sql(plain).unwrap().parse_query().unwrap().to_string();
    assert_eq!(resolved(sql), Ok(plain), "{sql}");
}

#[test]
fn a_name_becomes_its_window() {
    same(
        "SELECT sum(a) OVER W, f(1 + count(*) FILTER (WHERE x) OVER w) FROM t WINDOW w AS (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW), unused AS (ORDER BY z)",
        "SELECT sum(a) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW), f(1 + count(*) FILTER (WHERE x) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW)) FROM t",
    );
}

#[test]
fn clauses_are_added_to_the_named_ones() {
    same(
        "SELECT sum(a) OVER (w ROWS 3 PRECEDING), sum(b) OVER (p ORDER BY x), sum(c) OVER (w), sum(d) OVER () FROM t WINDOW p AS (PARTITION BY k), w AS (p ORDER BY ts)",
        "SELECT sum(a) OVER (PARTITION BY k ORDER BY ts ROWS 3 PRECEDING), sum(b) OVER (PARTITION BY k ORDER BY x), sum(c) OVER (PARTITION BY k ORDER BY ts), sum(d) OVER () FROM t",
    );
    same(
        "SELECT sum(a) OVER v FROM t WINDOW w AS (ORDER BY ts ROWS 1 PRECEDING), v AS w",
        "SELECT sum(a) OVER (ORDER BY ts ROWS 1 PRECEDING) FROM t",
    );
}

#[test]
fn every_select_has_its_own_windows() {
    same(
        "WITH c AS (SELECT sum(a) OVER w AS s FROM t WINDOW w AS (ORDER BY x)) SELECT s, (SELECT max(b) OVER w FROM u WINDOW w AS (ORDER BY z)) FROM (SELECT sum(s) OVER w AS s FROM c WINDOW w AS (ORDER BY y)) AS d WHERE s IN (SELECT min(b) OVER w FROM u WINDOW w AS (ORDER BY q)) ORDER BY 1",
        "WITH c AS (SELECT sum(a) OVER (ORDER BY x) AS s FROM t) SELECT s, (SELECT max(b) OVER (ORDER BY z) FROM u) FROM (SELECT sum(s) OVER (ORDER BY y) AS s FROM c) AS d WHERE s IN (SELECT min(b) OVER (ORDER BY q) FROM u) ORDER BY 1",
    );
    same(
        "SELECT a FROM t WINDOW w AS (ORDER BY x) ORDER BY sum(a) OVER w",
        "SELECT a FROM t ORDER BY sum(a) OVER (ORDER BY x)",
    );
    same(
        "(SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY x)) UNION ALL SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY y) UNION SELECT sum(a) OVER (ORDER BY z) FROM t",
        "(SELECT sum(a) OVER (ORDER BY x) FROM t) UNION ALL SELECT sum(a) OVER (ORDER BY y) FROM t UNION SELECT sum(a) OVER (ORDER BY z) FROM t",
    );
    same(
        "SELECT sum(a) OVER \"W\" FROM t WINDOW \"W\" AS (ORDER BY x), w AS (ORDER BY y)",
        "SELECT sum(a) OVER (ORDER BY x) FROM t",
    );
    same(
        "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY (SELECT sum(b) OVER v FROM u WINDOW v AS (ORDER BY z)))",
        "SELECT sum(a) OVER (ORDER BY (SELECT sum(b) OVER (ORDER BY z) FROM u)) FROM t",
    );
}

#[test]
fn a_window_of_another_select_is_unknown() {
    let unknown = |place: &str, name: &str| Err(vec![format!("{place} unknown window `{name}`")]);
    assert_eq!(resolved("SELECT sum(a) OVER hour FROM t"), unknown("1:20", "hour"));
    assert_eq!(resolved("SELECT (SELECT sum(a) OVER w FROM u) FROM t WINDOW w AS (ORDER BY x)"), unknown("1:28", "w"));
    assert_eq!(resolved("SELECT a FROM t UNION SELECT sum(a) OVER w FROM t ORDER BY 1"), unknown("1:42", "w"));
    assert_eq!(
        resolved("SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY x) UNION SELECT sum(a) OVER w FROM t"),
        unknown("1:79", "w")
    );
    assert_eq!(
        resolved("SELECT 1 FROM t WINDOW w AS (ORDER BY x), v AS (ORDER BY sum(a) OVER w)"),
        unknown("1:70", "w")
    );
}

#[test]
fn a_name_that_is_nearly_right_is_offered() {
    let sql = "SELECT sum(a) OVER huor FROM t WINDOW hour AS (ORDER BY x), day AS (ORDER BY x)";
    let mut query = Parser::new(&DIALECT).try_with_sql(sql).unwrap().parse_query().unwrap();
    let errors = resolve_windows(&mut query, &SourceFile::new("a.sql", sql));
    assert_eq!(errors[0].span, Span::new(1, 20, 4));
    assert_eq!(errors[0].expected.as_deref(), Some("one of hour, day"));
    // Two letters swapped are two edits, too many for so short a name.
    assert_eq!(errors[0].hint, None);
    let close = sql.replace("huor", "hourr");
    let mut query = Parser::new(&DIALECT).try_with_sql(&close).unwrap().parse_query().unwrap();
    let errors = resolve_windows(&mut query, &SourceFile::new("a.sql", close));
    assert_eq!(errors[0].hint.as_deref(), Some("did you mean `hour`?"));
}

#[test]
fn what_the_standard_forbids_is_an_error() {
    let error = |sql: &str, message: &str| assert_eq!(resolved(sql), Err(vec![message.to_owned()]), "{sql}");
    error(
        "SELECT sum(a) OVER (w PARTITION BY k) FROM t WINDOW w AS (ORDER BY x)",
        "1:21 a window that extends `w` can't have its own PARTITION BY",
    );
    error(
        "SELECT sum(a) OVER (w ORDER BY k) FROM t WINDOW w AS (ORDER BY x)",
        "1:21 window `w` already has an ORDER BY",
    );
    error(
        "SELECT sum(a) OVER (w ROWS 1 PRECEDING) FROM t WINDOW w AS (ORDER BY x ROWS 2 PRECEDING)",
        "1:21 window `w` has a frame, so it can't be extended",
    );
    error(
        "SELECT sum(a) OVER (w) FROM t WINDOW w AS (ORDER BY x ROWS 2 PRECEDING)",
        "1:21 window `w` has a frame, so it can't be extended",
    );
    error("SELECT sum(a) OVER w FROM t WINDOW w AS (v), v AS (w)", "1:42 window `v` isn't defined before it is used");
    error("SELECT sum(a) OVER w FROM t WINDOW w AS (w ORDER BY x)", "1:42 window `w` isn't defined before it is used");
    error(
        "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY x), W AS (ORDER BY y)",
        "1:55 window `w` is defined twice",
    );
}
