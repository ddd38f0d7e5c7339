//! The nearest valid name to one that isn't known, for hints.

use datafusion::common::utils::datafusion_strsim::levenshtein;

/// The candidate nearest to `name`, if one is near enough to be what was meant: at most a third of the longer
/// name differs (and always one character may), whatever the case. Of equally near ones, the first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let scored = candidates.into_iter().filter_map(|candidate| {
        let known = candidate.to_lowercase();
        let longer = wanted.chars().count().max(known.chars().count());
        let distance = levenshtein(&wanted, &known);
        (distance <= (longer / 3).max(1) && distance < longer).then_some((distance, candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// The hint "did you mean …?", if [`nearest`] finds a name.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|found| format!("did you mean `{found}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let columns = ["user_id", "amount", "event_time", "ts"];
        assert_eq!(nearest("usr_id", columns), Some("user_id"));
        assert_eq!(nearest("AMOUNT", columns), Some("amount"));
        assert_eq!(nearest("tiemstamp", ["timestamp"]), Some("timestamp"));
        assert_eq!(nearest("s", columns), Some("ts"));
        assert_eq!(nearest("country", columns), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", columns), None);
        assert_eq!(nearest("anything", []), None);
    }
}
