//! The figures, as a table and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::answers::Checked;
use crate::drain::Drained;
use crate::floors::{PIPELINE, RawWrites};
use crate::latency::Latency;
use crate::peers::Peer;
use crate::profile::Profile;
use crate::project::Made;
use tidemark_benches::machine::Machine;

const MB: f64 = 1e6;
const WIDTHS: [usize; 5] = [34, 10, 8, 8, 0];

/// Everything that one invocation measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub made: Made,
    pub ours: Option<Drained>,
    pub runs: Vec<Drained>,
    pub answers: Checked,
    /// The peers' view alone, in the engine.
    pub single: Option<Drained>,
    pub single_answers: Checked,
    pub decode_seconds: f64,
    pub decode_events: u64,
    pub raw: Option<RawWrites>,
    #[serde(serialize_with = "outcome")]
    pub latency: Option<Result<Latency, String>>,
    pub peers: Vec<Peer>,
    #[serde(serialize_with = "outcome")]
    pub profile: Option<Result<Profile, String>>,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    events_per_second: Option<f64>,
    /// What the engine makes of it: its events per second over these.
    ours_over_this: Option<f64>,
    peak_mb: Option<f64>,
    notes: String,
}

/// What was aimed at, and what came out.
#[derive(Debug, Serialize)]
struct Target {
    what: String,
    aim: String,
    measured: String,
    met: Option<bool>,
}

impl Report {
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_value(self)?;
        json["table"] = serde_json::to_value(self.rows())?;
        json["targets"] = serde_json::to_value(self.targets())?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, serde_json::to_string_pretty(&json)? + "\n")?)
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let machine = &self.machine;
        let _ = writeln!(
            text,
            "\n{} cores ({}), {} MB, load {} before; {}, {}, {}",
            machine.cores,
            machine.processor,
            machine.memory_mb,
            machine.load,
            machine.tidemark,
            machine.commit,
            machine.redis.split(" sha").next().unwrap_or_default()
        );
        let _ =
            writeln!(text, "{} transactions, {} clicks waiting in Kafka\n", self.made.transactions, self.made.clicks);
        line(&mut text, ["", "events/s", "ours is", "peak MB", "notes"]);
        for row in self.rows() {
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
            let ratio = row.ours_over_this.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3} x"));
            line(&mut text, [&row.name, &number(row.events_per_second), &ratio, &number(row.peak_mb), &row.notes]);
        }
        if let Some(ours) = &self.ours {
            let _ = writeln!(text, "\n{}", memory(ours));
        }
        text.push_str(&self.latency_text());
        let _ = writeln!(text, "\ntargets");
        for target in self.targets() {
            let met = match target.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let _ = writeln!(text, "  {:<12} {:<58} {:<22} {}", met, target.what, target.aim, target.measured);
        }
        text.push_str(&self.profile_text());
        text
    }

    fn our_rate(&self) -> Option<f64> {
        self.ours.as_ref().map(|ours| ours.events_per_second)
    }

    fn decode_rate(&self) -> Option<f64> {
        (self.decode_seconds > 0.0).then(|| self.decode_events as f64 / self.decode_seconds)
    }

    fn rows(&self) -> Vec<Row> {
        let row = |name: &str, rate: Option<f64>, peak: Option<u64>, notes: String| Row {
            name: name.to_owned(),
            events_per_second: rate,
            ours_over_this: self.our_rate().zip(rate).map(|(ours, rate)| ours / rate),
            peak_mb: peak.map(|bytes| bytes as f64 / MB),
            notes,
        };
        let mut rows = vec![];
        for (name, run, checked) in [
            ("tidemark, all shipped views", &self.ours, &self.answers),
            ("tidemark, only the peers' 8 values", &self.single, &self.single_answers),
        ] {
            let Some(run) = run else { continue };
            let notes = format!(
                "{} events in {:.1} s, cpu {:.1} s, Redis cpu {:.1} s; {}",
                run.events,
                run.used.seconds,
                run.used.cpu_seconds,
                run.redis.cpu_seconds,
                words(checked)
            );
            rows.push(row(name, Some(run.events_per_second), Some(run.used.peak_rss), notes));
        }
        rows.push(row("floor: decode only", self.decode_rate(), None, "one thread, messages in memory".into()));
        if let Some(raw) = &self.raw {
            let notes =
                format!("{} HSETs of {} bytes, {PIPELINE} a pipeline, one connection", raw.writes, raw.value_bytes);
            rows.push(row("floor: raw pipelined writes", Some(raw.events_per_second), None, notes));
        }
        for peer in &self.peers {
            let notes = match &peer.failed {
                Some(reason) => format!("FAILED: {reason}"),
                None => format!(
                    "{}: {} events in {:.1} s, {:.0}/s after its first write; {}",
                    peer.version,
                    peer.events,
                    peer.used.seconds,
                    peer.events as f64 / peer.seconds_after_first,
                    words(&peer.checked)
                ),
            };
            let peak = peer.failed.is_none().then_some(peer.used.peak_rss);
            rows.push(row(&format!("peer: {}", peer.name), peer.events_per_second, peak, notes));
        }
        rows
    }

    fn targets(&self) -> Vec<Target> {
        let ours = self.our_rate();
        let over = |rate: Option<f64>| ours.zip(rate).map(|(ours, rate)| ours / rate);
        let target = |what: String, aim: &str, measured: Option<f64>, unit: &str, met: &dyn Fn(f64) -> bool| Target {
            what,
            aim: aim.to_owned(),
            measured: measured.map_or_else(String::new, |value| format!("{value:.2}{unit}")),
            met: measured.map(met),
        };
        let best = |peers: &dyn Fn(&Peer) -> bool| {
            let rates = self.peers.iter().filter(|peer| peers(peer) && peer.checked.right());
            let best = rates.filter_map(|peer| Some((peer.name.clone(), peer.events_per_second?)));
            best.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let mut targets = vec![];
        for (what, best) in [
            ("events/s over the best peer that is a product", best(&|peer| !peer.name.starts_with("floor."))),
            ("events/s over the best peer, a plain loop included", best(&|_| true)),
        ] {
            let name = best.as_ref().map_or_else(String::new, |(name, _)| format!(" ({name})"));
            let ratio = over(best.map(|(_, rate)| rate));
            targets.push(target(what.to_owned() + &name, "at least 10 times", ratio, " times", &|ratio| ratio >= 10.0));
        }
        let floors = [self.decode_rate(), self.raw.as_ref().map(|raw| raw.events_per_second)];
        let slower = floors.into_iter().flatten().reduce(f64::min);
        let share = over(slower).map(|share| share * 100.0);
        targets.push(target("of the slower floor".into(), "at least 50 %", share, " %", &|share| share >= 50.0));
        let latency = self.latency.as_ref().and_then(|latency| latency.as_ref().ok());
        let p99 = latency.map(|latency| if latency.lost > 0 { f64::INFINITY } else { latency.p99_ms });
        targets.push(target("event to readable, p99".into(), "under 250 ms", p99, " ms", &|p99| p99 < 250.0));
        // Flat: the second half of the work takes no more than a tenth on top of what the first half had.
        let growth = self.ours.as_ref().and_then(|ours| match ours.rss_at_quarters.as_slice() {
            [_, half, _, end] if *half > 0 => Some((*end as f64 / *half as f64 - 1.0) * 100.0),
            _ => None,
        });
        targets.push(target(
            "memory at the end over memory half way".into(),
            "flat: under 10 % more",
            growth,
            " %",
            &|growth| growth < 10.0,
        ));
        targets
    }

    fn latency_text(&self) -> String {
        match &self.latency {
            None => String::new(),
            Some(Err(error)) => format!("event to readable: FAILED: {error}\n"),
            Some(Ok(l)) => format!(
                "event to readable at {:.0} events/s: p50 {:.1} ms, p90 {:.1}, p99 {:.1}, max {:.1} ({} probes, {} lost); in the first seconds after \
                 its start p99 {:.0}; \
                 a probe's read takes {:.2} ms of it; {} commits of {:.0} ms, batches of {:.1} ms; \
                 the slowest of each second: {}\n",
                l.sent_per_second,
                l.p50_ms,
                l.p90_ms,
                l.p99_ms,
                l.max_ms,
                l.probes,
                l.lost,
                l.warm_up_p99_ms,
                l.read_p50_ms,
                l.commits,
                l.commit_ms,
                l.batch_ms,
                l.slowest_ms.iter().map(|ms| format!("{ms:.0}")).collect::<Vec<_>>().join(" ")
            ),
        }
    }

    fn profile_text(&self) -> String {
        let mut text = String::new();
        match &self.profile {
            None => {}
            Some(Err(error)) => text = format!("\nno profile: {error}\n"),
            Some(Ok(profile)) => {
                let _ = writeln!(
                    text,
                    "\nwhere the CPU time goes ({} samples under perf; {:.0} % of all is in malloc and free, whoever calls them)",
                    profile.samples,
                    profile.allocator * 100.0
                );
                for (part, share) in profile.parts.iter().filter(|(_, share)| *share >= 0.005) {
                    let _ = writeln!(text, "  {:5.1} %  {part}", share * 100.0);
                }
                let top = profile.threads.iter().take(5).map(|(name, seconds)| format!("{name} {seconds:.1}"));
                let threads = top.collect::<Vec<_>>().join(", ");
                let _ = writeln!(
                    text,
                    "  CPU seconds in {:.1} s: {threads}; Redis {:.1}",
                    profile.seconds, profile.redis_cpu_seconds
                );
            }
        }
        text
    }
}

fn line(text: &mut String, cells: [&str; 5]) {
    for (i, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let _ = match i {
            0 => write!(text, "{cell:<width$}"),
            4 => writeln!(text, "  {cell}"),
            _ => write!(text, " {cell:>width$}"),
        };
    }
}

fn words(checked: &Checked) -> String {
    match checked.right() {
        true => format!("answers of {} users right", checked.users),
        false => format!("ANSWERS WRONG: {} of {}, {} missing", checked.wrong, checked.users, checked.missing),
    }
}

fn memory(ours: &Drained) -> String {
    let quarters: Vec<String> = ours.rss_at_quarters.iter().map(|bytes| format!("{:.0}", *bytes as f64 / MB)).collect();
    format!(
        "memory at 25/50/75/100 % of the writes: {} MB, peak {:.0}; Redis {:.0} MB for {} keys: {:.0} bytes a key, {:.0} an event; \
         archive {:.0} MB; {} writes, {} reads",
        quarters.join("/"),
        ours.used.peak_rss as f64 / MB,
        ours.redis.used_memory as f64 / MB,
        ours.redis.keys,
        ours.bytes_per_key,
        ours.bytes_per_event,
        ours.archive_bytes as f64 / MB,
        ours.redis.writes(),
        ours.redis.calls("hmget"),
    )
}

fn outcome<T: Serialize, S: Serializer>(outcome: &Option<Result<T, String>>, serializer: S) -> Result<S::Ok, S::Error> {
    let json = match outcome {
        None => Json::Null,
        Some(Ok(value)) => serde_json::to_value(value).map_err(serde::ser::Error::custom)?,
        Some(Err(error)) => json!({ "failed": error }),
    };
    json.serialize(serializer)
}
