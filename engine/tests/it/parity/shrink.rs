//! Makes a failing world small, and tells how to see it again.

use std::fmt::Write;

use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;

use super::attempt;
use super::check::Failure;
use super::coverage::Coverage;
use super::oracle;
use super::world::{Way, World};

/// Attempts at most: a failing case is worth a minute.
const ATTEMPTS: usize = 300;

struct Shrinking<'a> {
    runtime: &'a Runtime,
    plain: &'a SessionContext,
    world: World,
    failure: Failure,
    left: usize,
}

impl Shrinking<'_> {
    /// Keeps a smaller world if it fails as well.
    fn offer(&mut self, smaller: World) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        match attempt(self.runtime, &smaller, self.plain, &mut Coverage::default()) {
            Ok(()) => false,
            Err(failure) => {
                (self.world, self.failure) = (smaller, failure);
                true
            }
        }
    }

    fn views(&mut self) {
        if let Some(view) = self.failure.view {
            let mut smaller = self.world.clone();
            smaller.views = vec![smaller.views[view].clone()];
            smaller.spines = vec![smaller.spines[view].clone()];
            self.offer(smaller);
        }
        let mut at = 0;
        while self.world.views.len() > 1 && at < self.world.views.len() {
            let mut smaller = self.world.clone();
            smaller.views.remove(at);
            smaller.spines.remove(at);
            if !self.offer(smaller) {
                at += 1;
            }
        }
    }

    fn events(&mut self) {
        let mut size = self.world.events.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < self.world.events.len() {
                let mut smaller = self.world.clone();
                smaller.events.drain(at..(at + size).min(smaller.events.len()));
                if smaller.way != Way::Memory {
                    renumber(&mut smaller);
                }
                if !self.offer(smaller) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn rates(&mut self) {
        let mut at = 0;
        while at < self.world.rates.rows.len() {
            let mut smaller = self.world.clone();
            smaller.rates.rows.remove(at);
            if !self.offer(smaller) {
                at += 1;
            }
        }
    }

    fn questions(&mut self) {
        for view in 0..self.world.views.len() {
            let mut at = 0;
            while self.world.spines[view].len() > 1 && at < self.world.spines[view].len() {
                let mut smaller = self.world.clone();
                smaller.spines[view].remove(at);
                if !self.offer(smaller) {
                    at += 1;
                }
            }
        }
    }

    fn features(&mut self) {
        for view in 0..self.world.views.len() {
            let mut at = 0;
            while self.world.views[view].features.len() > 1 && at < self.world.views[view].features.len() {
                let mut smaller = self.world.clone();
                smaller.views[view].features.remove(at);
                if !self.offer(smaller) {
                    at += 1;
                }
            }
        }
    }
}

fn renumber(world: &mut World) {
    super::history::renumber(&world.shape, &mut world.events);
}

/// The failure of a world made as small as it goes, as a text that says everything.
pub fn report(runtime: &Runtime, world: World, failure: Failure, plain: &SessionContext) -> String {
    let seed = world.seed;
    let first = failure.message.clone();
    let mut shrinking = Shrinking { runtime, plain, world, failure, left: ATTEMPTS };
    shrinking.views();
    shrinking.events();
    shrinking.rates();
    shrinking.questions();
    shrinking.features();
    let Shrinking { world, failure, .. } = shrinking;
    let mut text = format!(
        "seed {seed}: {first}\n\nmade smaller: {}\n\n{:?}\nevents:\n{}\n{}\n",
        failure.message,
        world.shape,
        world.table(),
        world.rates.text()
    );
    for (view, spine) in world.views.iter().zip(&world.spines) {
        let _ = writeln!(text, "{}\nplain SQL:\n{}\n\nasked:", view.sql(), oracle::frames(&world, view));
        for row in spine {
            let _ = writeln!(text, "  {:?} {:?} at {}", row.keys, row.place, super::world::instant(row.at));
        }
    }
    let _ = writeln!(text, "\nagain: TIDEMARK_PARITY_SEED={seed} cargo test --workspace --test it parity");
    text
}
