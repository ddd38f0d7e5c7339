//! The scenario: who there is, what they like, and how busy each is.

use rand_distr::Zipf;

use crate::dice::{Dice, Purpose};
use crate::{Config, Error, Events, Result};

/// Usual merchants of a customer.
const USUAL: usize = 8;

/// A small economy drawn from a seed. Its events are a pure function of it and of time.
pub struct World {
    pub(crate) config: Config,
    pub(crate) users: Vec<User>,
    pub(crate) merchants: Vec<Merchant>,
    /// From popularity rank to index in `users`, so that an id says nothing of how busy its owner is.
    user_ranks: Vec<u32>,
    merchant_ranks: Vec<u32>,
    user_popularity: Zipf<f64>,
    merchant_popularity: Zipf<f64>,
}

/// A merchant, as a row of the merchants table.
#[derive(Debug, Clone, PartialEq)]
pub struct Merchant {
    pub merchant_id: i64,
    pub name: String,
    pub category: &'static str,
    /// ISO 3166 alpha-2 code.
    pub country: &'static str,
    /// From 0 to 1: how lax its checks are. Declines and fraud lean towards high risk.
    pub risk_score: f64,
    /// What a purchase in this category usually costs, in US dollars.
    pub typical_amount: f64,
    pub(crate) kind: &'static Category,
    pub(crate) currency: &'static str,
}

pub(crate) struct User {
    pub home: &'static Country,
    pub cards: usize,
    pub devices: usize,
    /// Natural logarithm of how much more than others the customer spends.
    pub scale: f64,
    /// Indices of the usual merchants, the favourite first.
    pub usual: [u32; USUAL],
}

pub(crate) struct Country {
    pub code: &'static str,
    currency: &'static str,
    share: f64,
}

/// What a kind of merchant sells: the median price, how far prices spread (sigma of the logarithm), and how.
#[derive(Debug, PartialEq)]
pub(crate) struct Category {
    name: &'static str,
    typical_amount: f64,
    pub spread: f64,
    pub online: f64,
    pub offline_channel: &'static str,
}

const COUNTRIES: [Country; 6] = [
    Country { code: "US", currency: "USD", share: 0.50 },
    Country { code: "GB", currency: "GBP", share: 0.14 },
    Country { code: "DE", currency: "EUR", share: 0.10 },
    Country { code: "FR", currency: "EUR", share: 0.10 },
    Country { code: "CA", currency: "CAD", share: 0.08 },
    Country { code: "BR", currency: "BRL", share: 0.08 },
];

const CATEGORIES: [Category; 10] = [
    Category { name: "grocery", typical_amount: 35.0, spread: 0.6, online: 0.10, offline_channel: "pos" },
    Category { name: "restaurant", typical_amount: 28.0, spread: 0.6, online: 0.05, offline_channel: "pos" },
    Category { name: "fuel", typical_amount: 45.0, spread: 0.4, online: 0.0, offline_channel: "pos" },
    Category { name: "fashion", typical_amount: 60.0, spread: 0.7, online: 0.50, offline_channel: "pos" },
    Category { name: "electronics", typical_amount: 150.0, spread: 0.9, online: 0.60, offline_channel: "pos" },
    Category { name: "travel", typical_amount: 260.0, spread: 0.9, online: 0.80, offline_channel: "pos" },
    Category { name: "digital", typical_amount: 14.0, spread: 0.6, online: 1.0, offline_channel: "pos" },
    Category { name: "marketplace", typical_amount: 40.0, spread: 0.8, online: 1.0, offline_channel: "pos" },
    Category { name: "health", typical_amount: 35.0, spread: 0.6, online: 0.10, offline_channel: "pos" },
    Category { name: "cash", typical_amount: 90.0, spread: 0.5, online: 0.0, offline_channel: "atm" },
];

impl World {
    /// Draws the customers and merchants. Fails on a setting out of its range.
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        let mut dice = Dice::new(config.seed, Purpose::World, 0);
        let merchants: Vec<Merchant> = (1..=i64::from(config.merchants)).map(|id| merchant(&mut dice, id)).collect();
        let mut world = Self {
            users: Vec::new(),
            user_ranks: shuffled(&mut dice, config.users),
            merchant_ranks: shuffled(&mut dice, config.merchants),
            user_popularity: zipf("user_skew", config.users, config.user_skew)?,
            merchant_popularity: zipf("merchant_skew", config.merchants, config.merchant_skew)?,
            merchants,
            config,
        };
        world.users = (0..world.config.users).map(|_| world.user(&mut dice)).collect();
        Ok(world)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All merchants, by id.
    pub fn merchants(&self) -> &[Merchant] {
        &self.merchants
    }

    /// Every event that arrives at `from <= arrival < to` (microseconds UTC), in arrival order, generated as it is
    /// asked for in bounded memory. Adjacent ranges give together what the whole range gives. Events that arrive early in the
    /// range may have happened before it. For live traffic without an end give `i64::MAX` and pace by `arrival`.
    pub fn events(&self, from: i64, to: i64) -> Events<'_> {
        Events::new(self, from, to)
    }

    /// A customer, the busy ones more often.
    pub(crate) fn any_user(&self, dice: &mut Dice) -> usize {
        self.user_ranks[dice.rank(&self.user_popularity)] as usize
    }

    /// A merchant, the popular ones more often.
    pub(crate) fn any_merchant(&self, dice: &mut Dice) -> usize {
        self.merchant_ranks[dice.rank(&self.merchant_popularity)] as usize
    }

    fn user(&self, dice: &mut Dice) -> User {
        let home = country(dice);
        let usual = std::array::from_fn(|_| {
            // People shop at home; a world with few merchants may have none there.
            let mut index = self.any_merchant(dice);
            for _ in 0..50 {
                if self.merchants[index].country == home.code {
                    break;
                }
                index = self.any_merchant(dice);
            }
            index as u32
        });
        User { home, cards: 1 + dice.below(3), devices: 1 + dice.below(3), scale: 0.5 * dice.normal(), usual }
    }
}

fn merchant(dice: &mut Dice, merchant_id: i64) -> Merchant {
    let kind = &CATEGORIES[dice.below(CATEGORIES.len())];
    let country = country(dice);
    // Most are sound, few are lax, and the category has no say: a price must not give the risk away.
    let risk_score = (dice.unit().powi(2) * 1000.0).round() / 1000.0;
    Merchant {
        merchant_id,
        name: format!("{} {merchant_id}", kind.name),
        category: kind.name,
        country: country.code,
        risk_score,
        typical_amount: kind.typical_amount,
        kind,
        currency: country.currency,
    }
}

fn country(dice: &mut Dice) -> &'static Country {
    let mut left = dice.unit();
    for country in &COUNTRIES {
        left -= country.share;
        if left < 0.0 {
            return country;
        }
    }
    &COUNTRIES[0]
}

fn shuffled(dice: &mut Dice, n: u32) -> Vec<u32> {
    let mut ranks: Vec<u32> = (0..n).collect();
    dice.shuffle(&mut ranks);
    ranks
}

fn zipf(field: &'static str, n: u32, exponent: f64) -> Result<Zipf<f64>> {
    Zipf::new(f64::from(n), exponent).map_err(|_| Error::Setting {
        field,
        value: exponent.to_string(),
        expected: "a Zipf exponent from 0 to 3",
    })
}
