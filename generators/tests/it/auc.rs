//! How well a score tells fraud from the rest, and a small model to make a score of many columns.

use std::collections::HashMap;
use std::hash::Hash;

/// The chance that a random positive scores above a random negative; ties count half.
pub fn auc(scores: &[f64], labels: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let (mut rank_sum, mut at) = (0.0, 0);
    while at < order.len() {
        let mut end = at;
        while end < order.len() && scores[order[end]] == scores[order[at]] {
            end += 1;
        }
        let mean_rank = (at + end + 1) as f64 / 2.0;
        rank_sum += mean_rank * order[at..end].iter().filter(|row| labels[**row]).count() as f64;
        at = end;
    }
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

/// Each value's smoothed share of positives among the first `train` rows: what any model can learn of one column.
pub fn target_encoded<K: Hash + Eq>(values: &[K], labels: &[bool], train: usize) -> Vec<f64> {
    let mean = labels[..train].iter().filter(|label| **label).count() as f64 / train as f64;
    let mut counts: HashMap<&K, (f64, f64)> = HashMap::new();
    for (value, label) in values.iter().zip(labels).take(train) {
        let (rows, positives) = counts.entry(value).or_default();
        *rows += 1.0;
        *positives += f64::from(u8::from(*label));
    }
    let share = |value| counts.get(value).map_or(mean, |(rows, positives)| (positives + 20.0 * mean) / (rows + 20.0));
    values.iter().map(share).collect()
}

/// Fits a logistic regression on the first `train` rows by gradient descent, and scores all rows.
pub fn logistic(columns: &[Vec<f64>], labels: &[bool], train: usize) -> Vec<f64> {
    let columns: Vec<Vec<f64>> = columns.iter().map(|column| standardised(column, train)).collect();
    let mut weights = vec![0.0; columns.len()];
    let mut bias = 0.0;
    // Positives weigh as much as negatives together.
    let positives = labels[..train].iter().filter(|label| **label).count() as f64;
    let weight = |label: bool| {
        if label { 0.5 / positives } else { 0.5 / (train as f64 - positives) }
    };
    let targets: Vec<(f64, f64)> =
        labels[..train].iter().map(|label| (f64::from(u8::from(*label)), weight(*label))).collect();
    let scores = |weights: &[f64], bias: f64, rows: usize| {
        let mut scores = vec![bias; rows];
        for (column, weight) in columns.iter().zip(weights) {
            for (score, value) in scores.iter_mut().zip(column) {
                *score += weight * value;
            }
        }
        scores
    };
    for _ in 0..30 {
        let mut errors = scores(&weights, bias, train);
        for (error, (target, weight)) in errors.iter_mut().zip(&targets) {
            *error = (1.0 / (1.0 + (-*error).exp()) - target) * weight;
        }
        bias -= 2.0 * errors.iter().sum::<f64>();
        for (weight, column) in weights.iter_mut().zip(&columns) {
            let slope: f64 = errors.iter().zip(column).map(|(error, value)| error * value).sum();
            *weight -= 2.0 * slope;
        }
    }
    scores(&weights, bias, labels.len())
}

fn standardised(column: &[f64], train: usize) -> Vec<f64> {
    let mean = column[..train].iter().sum::<f64>() / train as f64;
    let deviation = (column[..train].iter().map(|x| (x - mean).powi(2)).sum::<f64>() / train as f64).sqrt().max(1e-12);
    // Bounded, so that one extreme row does not steer the fit.
    column.iter().map(|x| ((x - mean) / deviation).clamp(-5.0, 5.0)).collect()
}

#[test]
fn auc_of_known_scores() {
    let labels = [false, true, false, true];
    assert_eq!(auc(&[1.0, 2.0, 3.0, 4.0], &labels), 0.75);
    assert_eq!(auc(&[0.0, 1.0, 0.0, 1.0], &labels), 1.0);
    assert_eq!(auc(&[5.0; 4], &labels), 0.5);
}
