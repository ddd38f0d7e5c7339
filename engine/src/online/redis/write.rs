//! Writes of pieces as commands.

use redis::{Cmd, Value, cmd};

use super::RedisStore;
use super::layout::{self, HeadValue};
use crate::kernel::EntityKey;
use crate::online::{PieceWrite, StoreError, ViewId, WriteOutcome};

/// Bytes of arguments in one round trip, about.
const ROUND_TRIP: usize = 8 << 20;
/// Pieces that one call of a script writes: enough that the call itself is little of the work, few enough that reads that
/// wait for it (some hundred microseconds) don't notice.
const CALL_KEYS: usize = 64;
/// Bytes of pieces, with which a call is full.
const CALL_BYTES: usize = 256 << 10;

impl RedisStore {
    /// Writes of which no two are of one key.
    pub(super) async fn write_distinct(
        &self,
        sha: &str,
        view: &ViewId,
        mut writes: &[PieceWrite],
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(writes.len());
        let name = self.layout.keys(view);
        while !writes.is_empty() {
            let (mut commands, mut bytes) = (vec![], 0);
            while bytes < ROUND_TRIP && !writes.is_empty() {
                let (command, size, later) = self.write_command(sha, &name, writes);
                commands.push(command);
                bytes += size;
                writes = later;
            }
            let what = "can't write";
            for answer in self.link.all(commands).await.map_err(self.failed(what))? {
                match answer {
                    Ok(Value::Array(answers)) => {
                        for answer in answers {
                            outcomes.push(self.outcome(what, Ok(answer))?);
                        }
                    }
                    other => outcomes.push(self.outcome(what, other)?),
                }
            }
        }
        Ok(outcomes)
    }

    /// One command for the first of some writes, or for several that go together; its bytes, and the others.
    fn write_command<'a>(
        &self,
        sha: &str,
        name: impl Fn(&EntityKey) -> String,
        writes: &'a [PieceWrite],
    ) -> (Cmd, usize, &'a [PieceWrite]) {
        if let Some((write, later)) = writes.split_first().filter(|(write, _)| is_plain(write)) {
            let (key, head) = (name(&write.key), head_value(write));
            let mut set = Cmd::with_capacity(4, 56 + key.len() + write.head.len());
            set.arg("HSETNX").arg(key).arg(layout::head_field(write.partition)).arg(head);
            return (set, write.head.len(), later);
        }
        // Of a cluster's keys each may lie elsewhere.
        let most = if self.link.is_cluster() { 1 } else { CALL_KEYS };
        let shared = |write: &PieceWrite| (write.partition, write.idle_after);
        let (of, mut bytes) = (writes.first().map(shared), 0);
        let fits = writes.iter().take(most).take_while(|write| {
            let fits = bytes < CALL_BYTES && of == Some(shared(write)) && !is_plain(write);
            bytes += write.head.len() + write.chunks.iter().map(|(_, data)| data.len()).sum::<usize>();
            fits
        });
        let (now, later) = writes.split_at(fits.count());
        let mut eval = cmd("EVALSHA");
        eval.arg(sha).arg(now.len());
        now.iter().for_each(|write| {
            eval.arg(name(&write.key));
        });
        if let Some((partition, idle_after)) = of {
            let live = match idle_after {
                // Whoever let idle keys expire may have written it before.
                Some(_) if self.keep_idle => "0".to_owned(),
                Some(idle) => idle.as_millis().clamp(1, i64::MAX as u128).to_string(),
                None => String::new(),
            };
            eval.arg(layout::head_field(partition)).arg(live);
        }
        now.iter().for_each(|write| add_piece(&mut eval, write));
        (eval, bytes, later)
    }
}

/// Whether a piece is a command of its own, a third less work for the server than the script: there is nothing that the store could have lost
/// of it, and nobody forgets it.
fn is_plain(write: &PieceWrite) -> bool {
    let first = write.whole && write.expected.is_none();
    first && write.chunks.is_empty() && write.removed.is_empty() && write.idle_after.is_none()
}

fn head_value(write: &PieceWrite) -> HeadValue<'_> {
    HeadValue { absorbed: write.absorbed, head: &write.head }
}

/// The arguments of one piece, as the script has them.
fn add_piece(eval: &mut Cmd, write: &PieceWrite) {
    eval.arg(write.expected.map(|offset| offset.to_string()).unwrap_or_default());
    // What goes back is refused whatever is stored.
    if write.expected.is_some_and(|expected| write.absorbed < expected) {
        eval.arg(0);
        return;
    }
    let (head, more) = (head_value(write), write.removed.len() + 2 * write.chunks.len());
    if more == 0 {
        eval.arg(1).arg(head);
        return;
    }
    eval.arg(2 + more).arg(head).arg(write.removed.len());
    for chunk in &write.removed {
        eval.arg(layout::chunk_field(write.partition, *chunk));
    }
    for (chunk, data) in &write.chunks {
        eval.arg(layout::chunk_field(write.partition, *chunk)).arg(data.as_ref());
    }
}
