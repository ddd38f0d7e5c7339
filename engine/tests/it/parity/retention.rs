//! Whether OUTSIDE_RETENTION is right, from the rules alone: which events a piece may have let go, and whether a
//! frame reaches them.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use tidemark_engine::offline::HISTORY;

use super::oracle;
use super::view::{Frame, Span, View};
use super::world::{SpineRow, World};

/// How long past its longest frame a view keeps events unless it says otherwise: an hour.
const DEFAULT_LATENESS: i64 = 3_600_000_000;

pub struct Retention<'a> {
    world: &'a World,
    view: &'a View,
    /// Every row below the windows; read when they are first needed.
    rows: Option<Vec<Row>>,
}

struct Row {
    key: Vec<ScalarValue>,
    partition: i32,
    time: i64,
    id: Option<String>,
}

impl<'a> Retention<'a> {
    pub fn new(world: &'a World, view: &'a View) -> Self {
        Self { world, view, rows: None }
    }

    /// Whether some frame at the instant needs what some piece may have let go.
    pub async fn justified(&mut self, asked: &SpineRow, plain: &SessionContext) -> Result<bool, String> {
        if self.rows.is_none() {
            self.rows = Some(self.read(plain).await?);
        }
        let rows: Vec<&Row> = self.rows.iter().flatten().filter(|row| row.key == asked.keys).collect();
        let mut gone = vec![];
        let mut sealed = vec![];
        for partition in HISTORY..self.world.shape.partitions {
            let times = times(rows.iter().copied().filter(|row| row.partition == partition));
            let Some(newest) = times.last().copied() else { continue };
            let cut = self.cut(&times, newest);
            gone.extend(times.iter().copied().filter(|t| *t < cut));
            if let Some((_, tile)) = self.view.tile {
                let open = self.view.frames().into_iter().map(|f| end(f).longest()).max().unwrap_or(0);
                let before = floor(newest - open - self.world.shape.ahead, tile) - tile;
                sealed.extend(times.into_iter().filter(|t| *t < before));
            }
        }
        let all = times(rows.iter().copied());
        Ok(self.view.frames().into_iter().any(|f| self.reaches(f, asked.at, &all, &gone, &sealed)))
    }

    /// A piece lets events before this go, or folds them into its base.
    fn cut(&self, times: &[i64], newest: i64) -> i64 {
        let frames = self.view.frames();
        let longest = frames.iter().map(|f| match f {
            Frame::Range { start, end } => start.unwrap_or_default().longest().max(end.longest()),
            Frame::Rows { .. } => 0,
        });
        let lateness = self.view.lateness.as_ref().map_or(DEFAULT_LATENESS, |l| l.1);
        let cut = newest - longest.max().unwrap_or(0) - lateness - self.world.shape.ahead;
        let cut = self.view.tile.map_or(cut, |(_, tile)| floor(cut, tile));
        let latest = frames.iter().map(|f| match f {
            Frame::Rows { start: Some(start), .. } => *start as usize + 1,
            Frame::Rows { start: None, end } => *end as usize,
            Frame::Range { .. } => 0,
        });
        match latest.max().unwrap_or(0) {
            0 => cut,
            needed => {
                let now = times.partition_point(|t| *t <= newest - self.world.shape.ahead);
                now.checked_sub(needed).map_or(i64::MIN, |i| times[i].min(cut))
            }
        }
    }

    fn reaches(&self, frame: &Frame, t: i64, all: &[i64], gone: &[i64], sealed: &[i64]) -> bool {
        match frame {
            Frame::Range { start, end } => {
                let until = end.before(t);
                let from = start.map(|s| self.view.tile.map_or(s.before(t), |(_, tile)| floor(s.before(t), tile)));
                // A base, and a tile, know no instant between their first event and their last.
                let based = from.is_none() && gone.iter().any(|g| *g > until);
                let tile = self.view.tile.map_or(1, |(_, tile)| tile);
                let cut = sealed.iter().any(|s| *s > until && floor(*s, tile) <= until);
                based || cut || from.is_some_and(|from| gone.iter().any(|g| *g >= from))
            }
            Frame::Rows { start, end } => {
                let seen: Vec<i64> = all.iter().copied().filter(|at| *at <= t).collect();
                let first = start.and_then(|s| seen.len().checked_sub(s as usize + 1)).map(|i| seen[i]);
                let last = seen.len().checked_sub(*end as usize).and_then(|i| seen.get(i)).copied();
                match start {
                    Some(_) => gone.iter().any(|g| first.is_none_or(|first| *g >= first)),
                    None => {
                        gone.iter().any(|g| *g > t || last.is_some_and(|last| *g >= last))
                            || (last.is_none() && *end > 0 && !gone.is_empty())
                    }
                }
            }
        }
    }

    async fn read(&self, plain: &SessionContext) -> Result<Vec<Row>, String> {
        let rows = oracle::run(plain, &oracle::rows(self.world, self.view)).await?;
        let column = |name: &str| -> Result<ArrayRef, String> {
            Ok(rows.column_by_name(name).ok_or(format!("no {name}"))?.clone())
        };
        let keys = self.view.keys.iter().map(|k| column(&k.name)).collect::<Result<Vec<_>, _>>()?;
        let (at, partition) = (column("__at")?, column("_partition")?);
        let ids = if self.world.shape.event_id { Some(column("event_id")?) } else { None };
        (0..rows.num_rows())
            .filter(|row| keys.iter().all(|k| k.is_valid(*row)))
            .map(|row| {
                let id = ids.as_ref().map(|ids| ids.as_string::<i32>());
                Ok(Row {
                    key: keys
                        .iter()
                        .map(|k| ScalarValue::try_from_array(k, row))
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(|e| e.to_string())?,
                    partition: partition.as_primitive::<Int32Type>().value(row),
                    time: at.as_primitive::<TimestampMicrosecondType>().value(row),
                    id: id.and_then(|id| id.is_valid(row).then(|| id.value(row).to_owned())),
                })
            })
            .collect()
    }
}

/// The rows' times, ascending; copies of an event once.
fn times<'r>(rows: impl Iterator<Item = &'r Row>) -> Vec<i64> {
    let mut met = HashSet::new();
    let mut times: Vec<i64> =
        rows.filter(|row| row.id.is_none() || met.insert((row.time, &row.id))).map(|row| row.time).collect();
    times.sort_unstable();
    times
}

fn end(frame: &Frame) -> Span {
    match frame {
        Frame::Range { end, .. } => *end,
        Frame::Rows { .. } => Span::default(),
    }
}

fn floor(t: i64, tile: i64) -> i64 {
    t.div_euclid(tile) * tile
}
