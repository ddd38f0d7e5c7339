//! The figures, as a table and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tidemark_benches::machine::Machine;

use crate::contender::{Contender, Run};

const MB: f64 = 1e6;

/// Everything that one invocation measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub workloads: Vec<Workload>,
    /// Size, events, and what Tidemark took for W1.
    pub growth: Vec<(String, u64, Run)>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Serialize)]
pub struct Workload {
    pub name: String,
    pub size: String,
    pub rows: Vec<Row>,
}

/// A contender's median, and all of its runs.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub seconds: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub peak_mb: Option<f64>,
    /// How many times as long as Tidemark it took.
    pub times_ours: Option<f64>,
    /// What a comparison with DuckDB's answers said.
    pub answers: String,
    pub failed: Option<String>,
    pub runs: Vec<Run>,
}

/// What was aimed at, and what came out.
#[derive(Debug, Serialize)]
pub struct Target {
    pub what: String,
    pub aim: f64,
    pub measured: Option<f64>,
    pub met: Option<bool>,
}

impl Report {
    pub fn add(&mut self, name: &str, size: &str, done: Vec<(Contender, Vec<Run>)>, answers: Vec<(String, String)>) {
        let mut rows: Vec<Row> = vec![];
        for (contender, runs) in done {
            let failed = runs.iter().find_map(|run| run.failed.clone());
            let median = |of: &dyn Fn(&Run) -> f64| match &failed {
                Some(_) => None,
                None => middle(runs.iter().map(of).collect()),
            };
            let seconds = median(&|run| run.seconds);
            let ours = rows.first().map_or(seconds, |row| row.seconds);
            let answer = answers.iter().find(|(name, _)| *name == contender.name).map(|(_, answer)| answer.clone());
            rows.push(Row {
                seconds,
                cpu_seconds: median(&|run| run.used.cpu_seconds),
                peak_mb: median(&|run| run.used.peak_rss as f64 / MB),
                times_ours: ours.zip(seconds).map(|(ours, theirs)| theirs / ours),
                answers: answer.unwrap_or_else(|| {
                    if contender.tool() == "feast" { "not compared" } else { "the reference" }.to_owned()
                }),
                failed,
                runs,
                name: contender.name,
            });
        }
        for (tool, aim) in aims(name) {
            let row = rows.iter().find(|row| row.name.starts_with(tool));
            let measured = row.and_then(|row| row.times_ours);
            let what = format!("{name} {size}: times as fast as {tool}");
            self.targets.push(Target { what, aim, measured, met: measured.map(|times| times >= aim) });
        }
        if name == "w1" {
            let peak = |tool| rows.iter().find(|row| row.name.starts_with(tool)).and_then(|row| row.peak_mb);
            let measured = peak("polars").zip(peak("tidemark")).map(|(theirs, ours)| theirs / ours);
            let what = format!("{name} {size}: Polars' memory over ours");
            self.targets.push(Target { what, aim: 1.0, measured, met: measured.map(|times| times > 1.0) });
        }
        self.workloads.push(Workload { name: name.to_owned(), size: size.to_owned(), rows });
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)?)?)
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let machine = &self.machine;
        let _ = writeln!(
            text,
            "{} {}, {} cores, {} MB, load {} before; commit {}\n",
            machine.at, machine.processor, machine.cores, machine.memory_mb, machine.load, machine.commit
        );
        for workload in &self.workloads {
            let _ = writeln!(
                text,
                "{:<24} {:>9} {:>9} {:>9} {:>9}  answers",
                format!("{} {}", workload.name.to_uppercase(), workload.size),
                "seconds",
                "CPU s",
                "peak MB",
                "x ours"
            );
            for row in &workload.rows {
                let _ = match &row.failed {
                    Some(cause) => writeln!(text, "  {:<22} failed: {cause}", row.name),
                    None => writeln!(
                        text,
                        "  {:<22} {:>9} {:>9} {:>9} {:>9}  {}",
                        row.name,
                        cell(row.seconds, 2),
                        cell(row.cpu_seconds, 1),
                        cell(row.peak_mb, 0),
                        cell(row.times_ours, 1),
                        row.answers
                    ),
                };
            }
            text.push('\n');
        }
        if !self.growth.is_empty() {
            let _ = writeln!(
                text,
                "{:<24} {:>9} {:>9} {:>9} {:>9}",
                "growth, W1", "seconds", "ns/event", "peak MB", "B/event"
            );
        }
        for (size, events, run) in &self.growth {
            let per = |value: f64| value / *events as f64;
            let _ = match &run.failed {
                Some(cause) => writeln!(text, "  {size:<22} failed: {cause}"),
                None => writeln!(
                    text,
                    "  {:<22} {:>9.2} {:>9.0} {:>9.0} {:>9.0}",
                    format!("{size}, {events} events"),
                    run.seconds,
                    per(run.seconds * 1e9),
                    run.used.peak_rss as f64 / MB,
                    per(run.used.peak_rss as f64)
                ),
            };
        }
        let _ = writeln!(text, "\ntargets");
        for target in &self.targets {
            let met = target.met.map_or("not measured", |met| if met { "met" } else { "MISSED" });
            let _ =
                writeln!(text, "  {:<52} {:>6} wanted {:>6}  {met}", target.what, target.aim, cell(target.measured, 1));
        }
        text
    }
}

/// How many times as fast as each tool it should be.
fn aims(workload: &str) -> Vec<(&'static str, f64)> {
    match workload {
        "w1" => vec![("polars", 3.0), ("duckdb", 15.0), ("datafusion", 40.0)],
        "w5" => vec![("floor", 3.0), ("feast", 12.0)],
        _ => vec![("polars", 1.0), ("duckdb", 1.0), ("feast", 30.0)],
    }
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}
