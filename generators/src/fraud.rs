//! The hidden pattern.
//!
//! A fraud is an episode of several transactions on one victim's card. All that a row shows besides the
//! victim (merchant, amount, country, channel, status, device) is a purchase of some other customer, the
//! *operator*, drawn by the operator's own habits, and victims are drawn as customers are. So a single row of fraud
//! is distributed as an honest row is, but for a slight lean to lax merchants. What gives it away is only seen over
//! time: many purchases on one card within minutes, at merchants, amounts, places and devices that are not the
//! victim's, a burst of clicks just before.

use crate::dice::{Dice, Purpose};
use crate::habits::Purchase;
use crate::traffic::{BLOCK, Block};
use crate::{MINUTE, Record, SECOND};

/// Transactions of an episode.
const FEWEST: usize = 3;
const MOST: usize = 8;
const MEAN_EPISODE: f64 = (FEWEST + MOST) as f64 / 2.0;

/// What an operator does with a card. Which one follows from the operator's first purchase: so the share of
/// online rows, and all that goes with it, stays what it is among honest rows.
#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    /// Online, seconds apart, from small amounts up to the one that pays.
    CardTesting,
    /// Online, minutes apart, after a hasty look around the victim's account from the operator's device.
    Takeover,
    /// A copied card at terminals and machines, minutes apart.
    Cloned,
}

impl Block<'_> {
    /// Draws the episodes that begin in this block, for a mean number of fraudulent transactions.
    pub(crate) fn fraud(&mut self, mean_transactions: f64) {
        let mut dice = self.dice(Purpose::Fraud);
        for _ in 0..dice.poisson(mean_transactions / MEAN_EPISODE) {
            self.episode(&mut dice);
        }
    }

    fn episode(&mut self, dice: &mut Dice) {
        let world = self.world;
        let victim = world.any_user(dice);
        let card = world.card(dice, victim);
        let mut operator = world.any_user(dice);
        while operator == victim {
            operator = world.any_user(dice);
        }
        let first = self.lax_purchase(dice, operator);
        let scheme = match (first.online(), dice.chance(0.5)) {
            (true, true) => Scheme::CardTesting,
            (true, false) => Scheme::Takeover,
            (false, _) => Scheme::Cloned,
        };
        let purchases = self.purchases(dice, operator, first, scheme);

        let mut event_time = self.start() + dice.between(0, BLOCK);
        if scheme == Scheme::Takeover && world.config.clicks_per_day > 0.0 {
            let device = world.device(dice, operator);
            let clicks = 8 + dice.below(13);
            event_time = self.session(dice, victim, device, event_time, clicks, (2 * SECOND, 30 * SECOND));
        }
        let gap = match scheme {
            Scheme::CardTesting => (10 * SECOND, 90 * SECOND),
            Scheme::Takeover => (30 * SECOND, 5 * MINUTE),
            Scheme::Cloned => (2 * MINUTE, 10 * MINUTE),
        };
        for purchase in purchases {
            let mut transaction = world.transaction(dice.bits(), victim, card, event_time, purchase);
            transaction.is_fraud = true;
            self.deliver(dice, event_time, Record::Transaction(transaction));
            event_time += dice.between(gap.0, gap.1);
        }
    }

    /// The operator's purchases, of the first one's kind: online all or none.
    fn purchases(&self, dice: &mut Dice, operator: usize, first: Purchase, scheme: Scheme) -> Vec<Purchase> {
        let online = first.online();
        let wanted = FEWEST + dice.below(MOST - FEWEST + 1);
        let mut purchases = vec![first];
        // It ends: the operator just made one of this kind, so more will come.
        while purchases.len() < wanted {
            let purchase = self.lax_purchase(dice, operator);
            if purchase.online() == online {
                purchases.push(purchase);
            }
        }
        if scheme == Scheme::CardTesting {
            purchases.sort_by(|a, b| a.amount.total_cmp(&b.amount));
        }
        purchases
    }

    /// A purchase of the operator's, leaning a little to merchants whose checks are lax.
    fn lax_purchase(&self, dice: &mut Dice, operator: usize) -> Purchase {
        loop {
            let purchase = self.world.purchase(dice, operator);
            if dice.chance(0.7 + 0.3 * self.world.merchants[purchase.merchant].risk_score) {
                return purchase;
            }
        }
    }
}
