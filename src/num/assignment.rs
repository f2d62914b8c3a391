//! The best one-to-one matching of rows to columns: the Hungarian method, by shortest augmenting paths (Kuhn 1955; Jonker
//! and Volgenant 1987).

use crate::error::{Error, Result};

/// For each row of `score` `[n_rows, n_columns]` the column that it is matched with, so that the sum of scores is largest
/// and no column is taken twice. Needs at least as many columns as rows; costs `n_rows²·n_columns` steps.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) if there are fewer columns than rows, the sizes do not agree, or a score is
/// not finite.
pub fn assign(score: &[f64], n_rows: usize, n_columns: usize) -> Result<Vec<usize>> {
    if n_rows > n_columns || n_rows.checked_mul(n_columns) != Some(score.len()) {
        let n = score.len();
        return Err(Error::argument(format!(
            "assignment: {n} scores are no [{n_rows}, {n_columns}] with a column for each row"
        )));
    }
    if let Some(at) = score.iter().position(|s| !s.is_finite()) {
        return Err(Error::argument(format!("assignment: score {at} is {}", score[at])));
    }
    // Row `n_rows` and column `n_columns` stand for "none". `row_of[c]` is the row that holds column c.
    let none = n_rows;
    let (mut row_price, mut column_price) = (vec![0f64; n_rows + 1], vec![0f64; n_columns + 1]);
    let mut row_of = vec![none; n_columns + 1];
    for row in 0..n_rows {
        // The cheapest path from the new row to a free column, Dijkstra over reduced costs (cost = −score).
        let mut column = n_columns;
        row_of[column] = row;
        let mut least = vec![f64::INFINITY; n_columns];
        let mut before = vec![n_columns; n_columns];
        let mut seen = vec![false; n_columns + 1];
        loop {
            seen[column] = true;
            let holder = row_of[column];
            let (mut delta, mut next) = (f64::INFINITY, n_columns);
            for c in (0..n_columns).filter(|&c| !seen[c]) {
                let cost = -score[holder * n_columns + c] - row_price[holder] - column_price[c];
                if cost < least[c] {
                    (least[c], before[c]) = (cost, column);
                }
                if least[c] < delta {
                    (delta, next) = (least[c], c);
                }
            }
            for c in 0..=n_columns {
                if seen[c] {
                    row_price[row_of[c]] += delta;
                    column_price[c] -= delta;
                } else if c < n_columns {
                    least[c] -= delta;
                }
            }
            column = next;
            if row_of[column] == none {
                break;
            }
        }
        // Hand the columns on along the path.
        while column != n_columns {
            let from = before[column];
            row_of[column] = row_of[from];
            column = from;
        }
        row_of[n_columns] = none;
    }
    let mut matched = vec![0usize; n_rows];
    for (c, &row) in row_of.iter().take(n_columns).enumerate() {
        if row != none {
            matched[row] = c;
        }
    }
    Ok(matched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng;
    use rand::Rng;

    fn total(score: &[f64], n_columns: usize, matched: &[usize]) -> f64 {
        matched.iter().enumerate().map(|(r, &c)| score[r * n_columns + c]).sum()
    }

    /// The best of all matchings.
    fn exhaustive(score: &[f64], n_rows: usize, n_columns: usize, used: &mut Vec<usize>) -> f64 {
        if used.len() == n_rows {
            return total(score, n_columns, used);
        }
        let mut best = f64::NEG_INFINITY;
        for c in 0..n_columns {
            if !used.contains(&c) {
                used.push(c);
                best = best.max(exhaustive(score, n_rows, n_columns, used));
                used.pop();
            }
        }
        best
    }

    #[test]
    fn no_matching_is_better() {
        let mut rng = rng(2);
        for (n_rows, n_columns) in [(1, 1), (1, 4), (2, 2), (3, 3), (3, 6), (5, 5), (5, 7)] {
            for _ in 0..40 {
                // Few values, so that ties occur.
                let score: Vec<f64> =
                    (0..n_rows * n_columns).map(|_| f64::from(rng.random_range(-4i32..5)) / 2.0).collect();
                let matched = assign(&score, n_rows, n_columns).unwrap();
                let mut distinct = matched.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), n_rows, "{matched:?}");
                let best = exhaustive(&score, n_rows, n_columns, &mut Vec::new());
                assert!((total(&score, n_columns, &matched) - best).abs() < 1e-12, "{score:?} {matched:?} {best}");
            }
        }
        assert_eq!(assign(&[], 0, 3).unwrap(), Vec::<usize>::new());
    }

    #[test]
    fn a_permutation_is_found_again() {
        let n = 300;
        let score: Vec<f64> = (0..n * n)
            .map(|at| if (at / n * 7 + 11) % n == at % n { 1.0 } else { -((at * 31 % 97) as f64) / 97.0 })
            .collect();
        let matched = assign(&score, n, n).unwrap();
        assert!(matched.iter().enumerate().all(|(i, &j)| j == (i * 7 + 11) % n));
    }

    #[test]
    fn greed_would_be_worse() {
        // Row 0 likes column 0 best, but row 1 likes nothing else.
        assert_eq!(assign(&[0.9, 0.8, 0.9, 0.0], 2, 2).unwrap(), [1, 0]);
    }

    #[test]
    fn what_cannot_be_matched_is_refused() {
        assert!(assign(&[1.0, 2.0], 2, 1).is_err());
        assert!(assign(&[1.0], 1, 2).is_err());
        assert!(assign(&[f64::NAN], 1, 1).is_err());
    }
}
