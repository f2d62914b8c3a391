//! The assignment problem: one column for every row, no column twice, at the least cost in all.

/// The column of each row of `cost` `[n_rows, n_columns]`, row-major, `n_rows ≤ n_columns`, so that the sum of the chosen
/// costs is least. Costs may be negative; to find the largest sum, give them with the other sign.
///
/// Shortest augmenting paths with potentials (Jonker and Volgenant 1987): n_rows² · n_columns steps at worst.
///
/// # Panics
/// If `cost` is no such matrix, or holds NaN or infinity.
pub fn assign(cost: &[f64], n_rows: usize, n_columns: usize) -> Vec<usize> {
    assert_eq!(Some(cost.len()), n_rows.checked_mul(n_columns), "costs are a matrix [{n_rows}, {n_columns}]");
    assert!(n_rows <= n_columns, "{n_rows} rows cannot all have a column of {n_columns}");
    assert!(cost.iter().all(|c| c.is_finite()), "costs are finite");
    // Row 0 and column 0 stand for "none": rows and columns count from 1.
    let mut row_of = vec![0usize; n_columns + 1];
    let (mut row_price, mut column_price) = (vec![0f64; n_rows + 1], vec![0f64; n_columns + 1]);
    let (mut distance, mut from) = (vec![0f64; n_columns + 1], vec![0usize; n_columns + 1]);
    let mut seen = vec![false; n_columns + 1];
    for row in 1..=n_rows {
        row_of[0] = row;
        distance.fill(f64::INFINITY);
        seen.fill(false);
        let mut at = 0;
        while row_of[at] != 0 {
            seen[at] = true;
            let i = row_of[at];
            let costs = &cost[(i - 1) * n_columns..i * n_columns];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for j in 1..=n_columns {
                if seen[j] {
                    continue;
                }
                let reduced = costs[j - 1] - row_price[i] - column_price[j];
                if reduced < distance[j] {
                    (distance[j], from[j]) = (reduced, at);
                }
                if distance[j] < step {
                    (step, next) = (distance[j], j);
                }
            }
            for j in 0..=n_columns {
                if seen[j] {
                    row_price[row_of[j]] += step;
                    column_price[j] -= step;
                } else {
                    distance[j] -= step;
                }
            }
            at = next;
        }
        // Walk the path back: every column on it takes the row of the one before.
        while at != 0 {
            let before = from[at];
            row_of[at] = row_of[before];
            at = before;
        }
    }
    let mut columns = vec![0; n_rows];
    for (j, &row) in row_of.iter().enumerate().skip(1) {
        if row != 0 {
            columns[row - 1] = j - 1;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    fn total(cost: &[f64], n: usize, columns: &[usize]) -> f64 {
        columns.iter().enumerate().map(|(i, &j)| cost[i * n + j]).sum()
    }

    /// The least sum over all ways to choose.
    fn least(cost: &[f64], n: usize, row: usize, used: &mut Vec<bool>) -> f64 {
        if row * n == cost.len() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for j in 0..n {
            if !used[j] {
                used[j] = true;
                best = best.min(cost[row * n + j] + least(cost, n, row + 1, used));
                used[j] = false;
            }
        }
        best
    }

    #[test]
    fn no_other_choice_costs_less() {
        let mut rng = crate::num::rng(5);
        for (rows, columns) in [(1, 1), (2, 2), (3, 5), (6, 6), (4, 7)] {
            for _ in 0..20 {
                // Few values, so that there are ties.
                let cost: Vec<f64> = (0..rows * columns).map(|_| f64::from(rng.random_range(-3..4i32))).collect();
                let found = assign(&cost, rows, columns);
                let mut sorted = found.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), rows, "no column twice: {found:?}");
                let best = least(&cost, columns, 0, &mut vec![false; columns]);
                assert_eq!(total(&cost, columns, &found), best, "{cost:?}");
            }
        }
        assert!(assign(&[], 0, 3).is_empty());
    }

    #[test]
    fn a_permutation_is_found_again() {
        let n = 300;
        let cost: Vec<f64> = (0..n * n)
            .map(|at| if (at / n * 7 + 11) % n == at % n { -1.0 } else { ((at * 31) % 97) as f64 / 97.0 })
            .collect();
        assert!(assign(&cost, n, n).iter().enumerate().all(|(i, &j)| j == (i * 7 + 11) % n));
    }
}
