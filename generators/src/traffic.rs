//! One block of time: everything that begins in it, honest or not, and how each event travels.

use crate::dice::{Dice, Purpose};
use crate::rhythm::rhythm;
use crate::{Click, DAY, Event, MINUTE, Record, SECOND, World};

/// Length of a block: the unit that is drawn at once, from dice of its own.
pub(crate) const BLOCK: i64 = 10 * MINUTE;
/// No event happens later than this after the start of its block.
pub(crate) const SPILL: i64 = 3 * 60 * MINUTE;
/// What an event on time takes at most.
pub(crate) const ON_TIME: i64 = 2 * SECOND;

/// Purchases of a shopping trip, and how likely an outing is one.
const TRIP: std::ops::RangeInclusive<usize> = 2..=5;
const TRIP_CHANCE: f64 = 0.15;
const MEAN_OUTING: f64 = 1.0 + TRIP_CHANCE * 2.5;
/// Clicks of a session, and how likely one is a hasty session of many.
const MEAN_SESSION: f64 = 0.95 * 6.0 + 0.05 * 17.0;

const PAGES: [&str; 9] = ["home", "search", "product", "product", "cart", "checkout", "account", "security", "support"];
const ENTRIES: [Option<&str>; 4] = [None, None, Some("search_engine"), Some("newsletter")];

/// Where a block's events are collected.
pub(crate) struct Block<'a> {
    pub world: &'a World,
    pub number: i64,
    pub events: &'a mut Vec<Event>,
    made: usize,
}

impl<'a> Block<'a> {
    /// Draws all events that begin in block `number` into `events`, in no order.
    pub fn draw(world: &'a World, number: i64, events: &'a mut Vec<Event>) {
        let mut block = Self { world, number, events, made: 0 };
        let config = &world.config;
        let share = rhythm(block.start()) * BLOCK as f64 / DAY as f64;
        let transactions = config.transactions_per_day * share;
        block.spending(transactions * (1.0 - config.fraud_share) / MEAN_OUTING);
        block.fraud(transactions * config.fraud_share);
        block.browsing(config.clicks_per_day * share / MEAN_SESSION);
    }

    pub fn start(&self) -> i64 {
        self.number * BLOCK
    }

    pub fn dice(&self, purpose: Purpose) -> Dice {
        Dice::new(self.world.config.seed, purpose, self.number)
    }

    /// Sends a record on its way, and with the configured chance once more.
    pub fn deliver(&mut self, dice: &mut Dice, event_time: i64, record: Record) {
        let config = &self.world.config;
        let late = dice.chance(config.late_share);
        let delay = if late { dice.log_between(ON_TIME, config.max_delay) } else { dice.between(20_000, ON_TIME) };
        if dice.chance(config.duplicates) {
            let again = delay + 1 + ((config.max_delay - delay - 1) as f64 * dice.unit().powi(3)) as i64;
            self.push(event_time + again.min(config.max_delay), true, record.clone());
        }
        self.push(event_time + delay, false, record);
    }

    fn push(&mut self, arrival: i64, duplicate: bool, record: Record) {
        self.events.push(Event { arrival, duplicate, record, order: (self.number, self.made) });
        self.made += 1;
    }

    fn spending(&mut self, mean_outings: f64) {
        let mut dice = self.dice(Purpose::Spending);
        for _ in 0..dice.poisson(mean_outings) {
            let user = self.world.any_user(&mut dice);
            let card = self.world.card(&mut dice, user);
            let mut event_time = self.start() + dice.between(0, BLOCK);
            let trip = dice.chance(TRIP_CHANCE);
            let purchases = if trip { TRIP.start() + dice.below(TRIP.end() - TRIP.start() + 1) } else { 1 };
            for _ in 0..purchases {
                let purchase = self.world.purchase(&mut dice, user);
                let transaction = self.world.transaction(dice.bits(), user, card, event_time, purchase);
                self.deliver(&mut dice, event_time, Record::Transaction(transaction));
                event_time += dice.between(2 * MINUTE, 25 * MINUTE);
            }
        }
    }

    fn browsing(&mut self, mean_sessions: f64) {
        let mut dice = self.dice(Purpose::Clicks);
        for _ in 0..dice.poisson(mean_sessions) {
            let user = self.world.any_user(&mut dice);
            let device = self.world.device(&mut dice, user);
            let start = self.start() + dice.between(0, BLOCK);
            let (clicks, dwell) = if dice.chance(0.05) {
                (10 + dice.below(15), (SECOND, 10 * SECOND))
            } else {
                (1 + dice.below(11), (3 * SECOND, 90 * SECOND))
            };
            self.session(&mut dice, user, device, start, clicks, dwell);
        }
    }

    /// A visit of `clicks` pages, each open for a time within `dwell`; returns when the last one was left.
    pub fn session(
        &mut self,
        dice: &mut Dice,
        user: usize,
        device_id: String,
        start: i64,
        clicks: usize,
        dwell: (i64, i64),
    ) -> i64 {
        let session_id = format!("s-{:016x}", dice.bits());
        let mut referrer = ENTRIES[dice.below(ENTRIES.len())];
        let mut event_time = start;
        for number in 1..=clicks {
            let stay = dice.log_between(dwell.0, dwell.1);
            let page = PAGES[dice.below(PAGES.len())];
            let click = Click {
                click_id: format!("c-{:016x}", dice.bits()),
                user_id: user as i64 + 1,
                session_id: session_id.clone(),
                page,
                referrer,
                device_id: device_id.clone(),
                dwell_ms: (number < clicks).then_some((stay / 1000) as i32),
                event_time,
            };
            self.deliver(dice, event_time, Record::Click(click));
            referrer = Some(page);
            event_time += stay;
        }
        event_time
    }
}
