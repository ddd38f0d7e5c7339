//! What a customer buys, where and how: one draw gives all of a transaction but who pays and when.

use crate::dice::Dice;
use crate::{Transaction, World};

/// A transaction before it has a payer and a time.
#[derive(Debug, Clone)]
pub(crate) struct Purchase {
    pub merchant: usize,
    pub amount: f64,
    pub channel: &'static str,
    pub status: &'static str,
    /// For an online purchase: the device, and the country it seems to be in.
    pub origin: Option<(String, &'static str)>,
}

impl Purchase {
    pub fn online(&self) -> bool {
        self.origin.is_some()
    }
}

impl World {
    /// A purchase as this customer makes them: mostly at a usual merchant, at the customer's level of spending.
    pub(crate) fn purchase(&self, dice: &mut Dice, user: usize) -> Purchase {
        let habits = &self.users[user];
        let merchant = if dice.chance(0.8) {
            // The smaller of two draws: the first of the usual merchants are the dearest.
            let place = dice.below(habits.usual.len()).min(dice.below(habits.usual.len()));
            habits.usual[place] as usize
        } else {
            self.any_merchant(dice)
        };
        let shop = &self.merchants[merchant];
        let amount = shop.typical_amount * (habits.scale + shop.kind.spread * dice.normal()).exp();
        let online = dice.chance(shop.kind.online);
        let fate = dice.unit();
        let declined = 0.03 + 0.12 * shop.risk_score;
        Purchase {
            merchant,
            amount: (amount.clamp(0.5, 20_000.0) * 100.0).round() / 100.0,
            channel: if online { "online" } else { shop.kind.offline_channel },
            status: match fate {
                _ if fate < declined => "declined",
                _ if fate < declined + 0.02 => "refunded",
                _ => "approved",
            },
            origin: online.then(|| (self.device(dice, user), habits.home.code)),
        }
    }

    /// One of the customer's devices, and now and then a new one.
    pub(crate) fn device(&self, dice: &mut Dice, user: usize) -> String {
        let number = dice.below(self.users[user].devices) as u64;
        let bits = if dice.chance(0.01) {
            dice.bits()
        } else {
            scramble(self.config.seed ^ scramble((user as u64) << 8 | number))
        };
        format!("d-{:012x}", bits >> 16)
    }

    /// One of the customer's cards, the first more often.
    pub(crate) fn card(&self, dice: &mut Dice, user: usize) -> i64 {
        let cards = self.users[user].cards;
        let number = dice.below(cards).min(dice.below(cards));
        // Room for four cards a customer, and no id that is a customer's too.
        4 * (i64::from(self.config.users) + user as i64) + number as i64
    }

    /// The purchase, made by a customer with a card at a time.
    pub(crate) fn transaction(
        &self,
        id: u64,
        user: usize,
        card_id: i64,
        event_time: i64,
        purchase: Purchase,
    ) -> Transaction {
        let merchant = &self.merchants[purchase.merchant];
        let (device_id, ip_country) = purchase.origin.unzip();
        Transaction {
            transaction_id: format!("t-{id:016x}"),
            user_id: user as i64 + 1,
            card_id,
            merchant_id: merchant.merchant_id,
            amount: purchase.amount,
            currency: merchant.currency,
            country: merchant.country,
            channel: purchase.channel,
            status: purchase.status,
            device_id,
            ip_country,
            event_time,
            is_fraud: false,
        }
    }
}

/// SplitMix64's finaliser: neighbouring numbers become unlike ones.
fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
