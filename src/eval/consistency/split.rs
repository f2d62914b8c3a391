//! Which groups are fitted on, chosen on, and scored.

use rand::seq::SliceRandom;

use super::groups::Group;
use crate::error::{Error, Result};
use crate::num::rng;

/// Groups of the three parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) fit: Vec<Group>,
    pub(super) choose: Vec<Group>,
    pub(super) score: Vec<Group>,
}

/// Deals whole kinds, in an order drawn by the seed, until each part has its share of the groups.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) where a part gets none.
pub(super) fn split(groups: &[Group], fit: f64, choose: f64, seed: u64) -> Result<Split> {
    let mut kinds: Vec<&str> = groups.iter().map(|group| group.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.shuffle(&mut rng(seed));
    let (mut all, mut dealt) = (Split::default(), 0);
    for kind in kinds {
        let share = dealt as f64 / groups.len() as f64;
        let part = match share {
            s if s < fit => &mut all.fit,
            s if s < fit + choose => &mut all.choose,
            _ => &mut all.score,
        };
        let own = groups.iter().filter(|group| group.kind == kind);
        part.extend(own.cloned());
        dealt += groups.iter().filter(|group| group.kind == kind).count();
    }
    for (part, name) in [(&all.fit, "fit"), (&all.choose, "choose"), (&all.score, "score")] {
        if part.is_empty() {
            let n = groups.len();
            return Err(Error::argument(format!(
                "consistency: expected groups of enough kinds to fit, choose and score on, found none of {n} to {name} on"
            )));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::eval::consistency::groups::built_in;

    #[test]
    fn kinds_stay_together_and_parts_have_their_share() {
        let all = built_in().unwrap();
        let parts = split(&all, 0.3, 0.15, 1).unwrap();
        let kinds = |part: &[Group]| part.iter().map(|g| g.kind.clone()).collect::<HashSet<_>>();
        assert!(kinds(&parts.fit).is_disjoint(&kinds(&parts.choose)));
        assert!(kinds(&parts.fit).is_disjoint(&kinds(&parts.score)));
        assert!(kinds(&parts.choose).is_disjoint(&kinds(&parts.score)));
        assert_eq!(parts.fit.len() + parts.choose.len() + parts.score.len(), all.len());
        assert!((0.25..0.42).contains(&(parts.fit.len() as f64 / all.len() as f64)), "{}", parts.fit.len());
        assert!(parts.score.len() >= 90, "{}", parts.score.len());
        assert_eq!(split(&all, 0.3, 0.15, 1).unwrap(), parts);
        assert_ne!(split(&all, 0.3, 0.15, 2).unwrap(), parts);
        assert!(split(&all[..3], 0.3, 0.15, 1).unwrap_err().message().contains("to choose on"));
    }
}
