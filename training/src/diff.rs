//! What makes two training sets different.
//!
//! Guarantee: every difference in what they were made from, in columns, in the number of rows and in values is found, and each
//! column's first one is shown; values are equal if they are so to the last bit. Rows are compared by their place: in the file, or
//! in the file of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::util::display::array_value_to_string;

use crate::Result;
use crate::folder::TYPE;
use crate::side::{Behind, ROWS, Rows, Side};

/// A difference, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// What the footers say: the same key, and what each file has there.
    MadeFrom { key: String, a: Option<String>, b: Option<String> },
    /// A column that only one of them has, or has in another type.
    Column { name: String, a: Option<String>, b: Option<String> },
    /// Of all, or of a part of a folder.
    Rows { part: Option<String>, a: u64, b: u64 },
    /// Folders whose files are by other values.
    Folders { a: String, b: String },
    /// Values of a column, and the first of them: its row, from 1.
    Values { column: String, rows: u64, first: u64, a: String, b: String },
}

/// Compares two training sets, each a Parquet file or a folder of them.
pub fn diff(a: &Path, b: &Path) -> Result<Vec<Difference>> {
    let (a, b) = (Side::open(a)?, Side::open(b)?);
    let mut found = vec![];
    // How many rows there are is compared by itself, and what a folder is partitioned by says nothing of its rows.
    let keys = a.made_from.keys().chain(b.made_from.keys()).filter(|key| !ASIDE.contains(&key.as_str()));
    let mut keys: Vec<&String> = keys.collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (a, b) = (a.made_from.get(key), b.made_from.get(key));
        if a != b {
            found.push(Difference::MadeFrom { key: key.clone(), a: a.cloned(), b: b.cloned() });
        }
    }
    let mut shared = vec![];
    let names = a.schema.fields().iter().chain(b.schema.fields()).map(|field| field.name());
    for name in names {
        let type_in = |side: &Side| side.schema.field_with_name(name).ok().map(|field| field.data_type().to_string());
        let (a, b) = (type_in(&a), type_in(&b));
        let known = shared.contains(name)
            || found.iter().any(|d| matches!(d, Difference::Column { name: known, .. } if known == name));
        match known {
            true => {}
            false if a == b => shared.push(name.clone()),
            false => found.push(Difference::Column { name: name.clone(), a, b }),
        }
    }
    let rows = (a.rows(), b.rows());
    if rows.0 != rows.1 {
        found.push(Difference::Rows { part: None, a: rows.0, b: rows.1 });
        return Ok(found);
    }
    let by = |side: &Side| side.partitioning.as_ref().map(|by| by.by.to_string());
    // Rows of a folder can't be put in the order of another kind of folder; those of a file can in a folder's.
    if let (Some(a), Some(b)) = (by(&a), by(&b))
        && a != b
    {
        found.push(Difference::Folders { a, b });
        return Ok(found);
    }
    let parts = uneven(&a, &b)?;
    found.extend(match parts.is_empty() {
        true => values(&a, &b, &shared)?,
        false => parts,
    });
    Ok(found)
}

/// What the two may differ in and hold the same rows.
const ASIDE: [&str; 3] = ["tidemark.rows", "tidemark.partition_by", TYPE];

/// The parts of folders that have other rows in one than in the other.
fn uneven(a: &Side, b: &Side) -> Result<Vec<Difference>> {
    let Some(partitioning) = a.partitioning.as_ref().or(b.partitioning.as_ref()) else { return Ok(vec![]) };
    let (a, b) = (a.rows_by(partitioning)?, b.rows_by(partitioning)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let rows = |side: &BTreeMap<String, u64>, name: &String| side.get(name).copied().unwrap_or(0);
    let parts = names.into_iter().map(|name| (name, rows(&a, name), rows(&b, name)));
    let differ = parts.filter(|(_, a, b)| a != b);
    Ok(differ.map(|(name, a, b)| Difference::Rows { part: Some(name.clone()), a, b }).collect())
}

/// Columns whose values differ. The rows of one are read in its order; with those of a folder, each of its files in its own.
fn values(a: &Side, b: &Side, columns: &[String]) -> Result<Vec<Difference>> {
    // A file leads, if one of them is: it says the order of all.
    let swapped = a.partitioning.is_some() && b.partitioning.is_none();
    let (lead, follow) = if swapped { (b, a) } else { (a, b) };
    let mut found: BTreeMap<usize, (u64, u64, String, String)> = BTreeMap::new();
    let (mut behind, mut row) = (Behind::new(follow), 0u64);
    for part in &lead.parts {
        let mut rows = Rows::open(lead, part, 0)?;
        while let Some(led) = rows.next(ROWS)? {
            for (name, from, to) in follow.stretches(&led)? {
                let (mut led, mut from) = (led.slice(from, to - from), from);
                while led.num_rows() > 0 {
                    let Some(followed) = behind.next(&name, led.num_rows())? else { break };
                    let n = followed.num_rows();
                    for (place, column) in columns.iter().enumerate() {
                        let (Some(x), Some(y)) = (led.column_by_name(column), followed.column_by_name(column)) else {
                            continue;
                        };
                        let x = x.slice(0, n);
                        if x.to_data() == y.to_data() {
                            continue;
                        }
                        for at in (0..n).filter(|at| x.slice(*at, 1).to_data() != y.slice(*at, 1).to_data()) {
                            let (x, y) = if swapped { (y, &x) } else { (&x, y) };
                            let first = || (0, row + (from + at) as u64 + 1, shown(x, at), shown(y, at));
                            found.entry(place).or_insert_with(first).0 += 1;
                        }
                    }
                    (led, from) = (led.slice(n, led.num_rows() - n), from + n);
                }
            }
            row += led.num_rows() as u64;
        }
    }
    let named = |(place, (rows, first, a, b)): (usize, (u64, u64, String, String))| {
        let column = columns.get(place)?.clone();
        Some(Difference::Values { column, rows, first, a, b })
    };
    Ok(found.into_iter().filter_map(named).collect())
}

fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    array_value_to_string(column, row).unwrap_or_else(|_| "a value".to_owned())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let or = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Self::MadeFrom { key, a, b } => {
                let key = key.strip_prefix("tidemark.").unwrap_or(key);
                match (a, b) {
                    // Of two texts of many lines, the first line that differs says enough.
                    (Some(a), Some(b)) if a.contains('\n') || b.contains('\n') => {
                        let lines = a.lines().map(Some).chain(std::iter::repeat(None));
                        let mut lines = lines.zip(b.lines().map(Some).chain(std::iter::repeat(None))).zip(1..);
                        let count = a.lines().count().max(b.lines().count());
                        match lines.by_ref().take(count).find(|((a, b), _)| a != b) {
                            Some(((a, b), line)) => write!(
                                f,
                                "made from {key}, line {line}: A `{}`, B `{}`",
                                a.unwrap_or_default().trim(),
                                b.unwrap_or_default().trim()
                            ),
                            None => write!(f, "made from {key}: other line endings"),
                        }
                    }
                    _ => write!(f, "made from {key}: A {}, B {}", or(a), or(b)),
                }
            }
            Self::Column { name, a, b } => write!(f, "column {name}: A {}, B {}", or(a), or(b)),
            Self::Rows { part, a, b } => {
                let part = part.as_ref().map_or(String::new(), |part| format!(" in {part}"));
                write!(f, "rows{part}: A {a}, B {b}; values are compared by their place, so not at all here")
            }
            Self::Folders { a, b } => {
                let why = "values are compared by their place, so not at all here; hint: compare each with a file";
                write!(f, "partitioned: A by {a}, B by {b}; {why}")
            }
            Self::Values { column, rows, first, a, b } => {
                let differ = if *rows == 1 { "row differs" } else { "rows differ" };
                write!(f, "column {column}: {rows} {differ}; the first is row {first}: A {a}, B {b}")
            }
        }
    }
}
