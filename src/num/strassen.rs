//! Strassen's products (Gaussian elimination is not optimal, 1969), two levels deep: 49 products of parts where the
//! definition takes 64. In integers they are exact, whatever is added up on the way: sums wrap, and wrap back.
//!
//! Four tiles of rows meet four panels of features, each cut into four parts along its width: 4 × 4 blocks of either
//! side. [`spread`] makes of a side's 16 blocks the 49 sums and differences that are multiplied, [`gather`] adds a product
//! up to where it counts among the 4 × 4 blocks of results. A sum of blocks has up to four terms, so an entry may have
//! [`LARGEST`] at most.

use std::array;

use super::screen::Sums;

/// Tiles, and panels, that are multiplied at once, and parts of their width.
pub(crate) const GROUP: usize = 4;
/// Products of parts.
pub(crate) const PRODUCTS: usize = 49;
/// What entries may have, so that four of them fit in 16 bits.
pub(super) const LARGEST: f32 = 8191.0;

/// Blocks of a 2 × 2 matrix, row by row: one, and perhaps another with its sign.
type Terms = [(usize, Option<(usize, Sign)>); 7];

#[derive(Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}
use Sign::{Minus, Plus};

/// What is multiplied, of the left side.
const LEFT: Terms = [
    (0, Some((3, Plus))),
    (2, Some((3, Plus))),
    (0, None),
    (3, None),
    (0, Some((1, Plus))),
    (2, Some((0, Minus))),
    (1, Some((3, Minus))),
];
/// And of the right.
const RIGHT: Terms = [
    (0, Some((3, Plus))),
    (0, None),
    (1, Some((3, Minus))),
    (2, Some((0, Minus))),
    (3, None),
    (0, Some((1, Plus))),
    (2, Some((3, Plus))),
];
/// Where products count: the first is always added.
const RESULT: Terms = [
    (0, Some((3, Plus))),
    (2, Some((3, Minus))),
    (1, Some((3, Plus))),
    (0, Some((2, Plus))),
    (1, Some((0, Minus))),
    (3, None),
    (0, None),
];

/// A side of the product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Tiles of rows.
    Left,
    /// Panels of features.
    Right,
}

/// Entry pairs of a part, of rows with `pairs` of them.
pub(crate) fn part_len(pairs: usize) -> usize {
    pairs.div_ceil(GROUP)
}

/// The 49 parts `[PRODUCTS, part_len]` that are multiplied of four tiles or panels `[GROUP, pairs]`, which lie one after
/// the other. `scratch` is anything.
pub(crate) fn spread<const N: usize>(
    side: Side,
    group: &[[i32; N]],
    scratch: &mut Vec<[i32; N]>,
    out: &mut [[i32; N]],
) {
    let pairs = group.len() / GROUP;
    let len = part_len(pairs);
    assert_eq!(out.len(), PRODUCTS * len, "a part for each product");
    // The 16 blocks, of which the first level adds up quarters; then what it makes of them.
    scratch.clear();
    scratch.resize((16 + 7 * 4) * len, [0; N]);
    let (blocks, first) = scratch.split_at_mut(16 * len);
    for (i, one) in group.chunks_exact(pairs.max(1)).enumerate() {
        for (k, part) in one.chunks(len).enumerate() {
            let (row, column) = if side == Side::Left { (i, k) } else { (k, i) };
            let at = (row / 2 * 2 + column / 2) * 4 + row % 2 * 2 + column % 2;
            blocks[at * len..][..part.len()].copy_from_slice(part);
        }
    }
    let terms = if side == Side::Left { &LEFT } else { &RIGHT };
    add_up(terms, blocks, first);
    for (four, seven) in first.chunks_exact(4 * len).zip(out.chunks_exact_mut(7 * len)) {
        add_up(terms, four, seven);
    }
}

/// The seven sums of four blocks, entry by entry in 16 bits.
fn add_up<const N: usize>(terms: &Terms, four: &[[i32; N]], seven: &mut [[i32; N]]) {
    let len = four.len() / 4;
    let block = |i: usize| -> &[i16] { bytemuck::cast_slice(four[i * len..][..len].as_flattened()) };
    for (&(first, second), out) in terms.iter().zip(seven.chunks_exact_mut(len)) {
        let out: &mut [i16] = bytemuck::cast_slice_mut(out.as_flattened_mut());
        let Some((second, sign)) = second else {
            out.copy_from_slice(block(first));
            continue;
        };
        let both = out.iter_mut().zip(block(first)).zip(block(second));
        match sign {
            Plus => both.for_each(|((out, a), b)| *out = a.wrapping_add(*b)),
            Minus => both.for_each(|((out, a), b)| *out = a.wrapping_sub(*b)),
        }
    }
}

/// Adds product `m` to the results of four tiles with four panels: tile by tile, all panels of each.
#[inline]
pub(crate) fn gather(m: usize, product: &Sums, results: &mut [Sums; GROUP * GROUP]) {
    let signed = |(first, second): (usize, Option<(usize, Sign)>)| {
        std::iter::once((first, false)).chain(second.map(|(at, sign)| (at, matches!(sign, Minus))))
    };
    for (outer, minus) in signed(RESULT[m / 7]) {
        for (inner, also) in signed(RESULT[m % 7]) {
            let (tile, panel) = (outer / 2 * 2 + inner / 2, outer % 2 * 2 + inner % 2);
            let results = results[tile * GROUP + panel].iter_mut().zip(product);
            if minus == also {
                results.for_each(|(sum, p)| *sum = array::from_fn(|j| sum[j].wrapping_add(p[j])));
            } else {
                results.for_each(|(sum, p)| *sum = array::from_fn(|j| sum[j].wrapping_sub(p[j])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::{PANEL, TILE, products};
    use super::*;
    use rand::Rng;

    /// Random entry pairs up to `LARGEST`.
    fn random<const N: usize>(pairs: usize, seed: u64) -> Vec<[i32; N]> {
        let mut random = super::super::rng(seed);
        let mut draw = || random.random_range(-LARGEST as i32..=LARGEST as i32);
        (0..GROUP * pairs).map(|_| std::array::from_fn(|_| (draw() & 0xffff) | (draw() << 16))).collect()
    }

    #[test]
    fn forty_nine_products_are_the_sixty_four() {
        for pairs in [1, 2, 3, 4, 5, 7, 8, 33, 288] {
            let (rows, features) = (random::<TILE>(pairs, 1), random::<PANEL>(pairs, 2));
            let mut expected = [Sums::default(); GROUP * GROUP];
            for (tile, expected) in rows.chunks(pairs).zip(expected.as_chunks_mut::<GROUP>().0) {
                features.chunks(pairs).zip(expected).for_each(|(panel, sums)| products(tile, panel, sums));
            }
            let len = part_len(pairs);
            let (mut left, mut right) = (vec![[0; TILE]; PRODUCTS * len], vec![[0; PANEL]; PRODUCTS * len]);
            spread(Side::Left, &rows, &mut Vec::new(), &mut left);
            spread(Side::Right, &features, &mut Vec::new(), &mut right);
            let mut found = [Sums::default(); GROUP * GROUP];
            for (m, (tile, panel)) in left.chunks(len).zip(right.chunks(len)).enumerate() {
                let mut product = Sums::default();
                products(tile, panel, &mut product);
                gather(m, &product, &mut found);
            }
            assert!(found == expected, "{pairs} pairs");
        }
    }
}
