//! Where the elements of a tensor are: in the file or in memory, in order or not.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::Map;

/// Bytes that somebody else keeps alive too. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Of the file.
    Mapped(Arc<Map>, Range<usize>),
    /// Of memory: they were deflated in the file.
    Memory(Arc<Vec<u8>>, Range<usize>),
}

impl Source {
    /// All of `bytes`.
    pub(super) fn memory(bytes: Vec<u8>) -> Self {
        let all = 0..bytes.len();
        Self::Memory(Arc::new(bytes), all)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let bytes = match self {
            Self::Mapped(map, at) => map.bytes().get(at.clone()),
            Self::Memory(bytes, at) => bytes.get(at.clone()),
        };
        bytes.unwrap_or_default()
    }

    /// Those of `range`, counted from the first of these; none where there are none.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.bytes().get(range.clone())?;
        let (Self::Mapped(_, at) | Self::Memory(_, at)) = self;
        let at = at.start.checked_add(range.start)?..at.start.checked_add(range.end)?;
        Some(match self {
            Self::Mapped(map, _) => Self::Mapped(map.clone(), at),
            Self::Memory(bytes, _) => Self::Memory(bytes.clone(), at),
        })
    }
}

/// The elements of a tensor.
#[derive(Debug)]
pub(super) enum Data {
    /// One after another, little-endian.
    InOrder(Source),
    /// Anywhere; put in order when they are first asked for.
    Scattered(Box<Scattered>),
}

/// Element (i, j, …) of a tensor of `shape` is element i·strides\[0\] + j·strides\[1\] + … of `source`.
#[derive(Debug)]
pub(super) struct Scattered {
    source: Source,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Bytes of an element: 1, 2, 4 or 8.
    width: usize,
    /// Whether each element is big-endian.
    swapped: bool,
    in_order: OnceLock<Vec<u8>>,
}

impl Data {
    /// The elements that `strides` (counted in elements of `width` bytes) pick from `source`, where they are in order as
    /// they are; none if `source` is too short or more elements are asked for than it has: such a tensor repeats elements,
    /// and could be of any size.
    pub(super) fn strided(
        source: &Source,
        shape: &[usize],
        strides: &[usize],
        width: usize,
        swapped: bool,
    ) -> Option<Self> {
        let n = shape.iter().try_fold(width, |n, &d| n.checked_mul(d))?;
        if n == 0 {
            return source.slice(0..0).map(Self::InOrder);
        }
        // Dimensions of one element have any stride.
        let dims: Vec<_> = shape.iter().copied().zip(strides.iter().copied()).filter(|&(d, _)| d != 1).collect();
        let last = dims.iter().try_fold(0usize, |at, &(d, stride)| (d - 1).checked_mul(stride)?.checked_add(at))?;
        let end = last.checked_add(1)?.checked_mul(width)?;
        let source = source.slice(0..end)?;
        let mut next = 1usize;
        let ordered = dims.iter().rev().all(|&(d, stride)| {
            let expected = next;
            next = next.saturating_mul(d);
            stride == expected
        });
        if ordered && (!swapped || width == 1) {
            return Some(Self::InOrder(source));
        }
        if n > end {
            return None;
        }
        let (shape, strides) = dims.into_iter().unzip();
        let in_order = OnceLock::new();
        Some(Self::Scattered(Box::new(Scattered { source, shape, strides, width, swapped, in_order })))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::InOrder(source) => source.bytes(),
            Self::Scattered(scattered) => scattered.in_order.get_or_init(|| scattered.put_in_order()),
        }
    }

    /// Bytes of memory that [`Data::bytes`] takes.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::InOrder(_) => 0,
            Self::Scattered(s) => s.shape.iter().fold(s.width, |n, &d| n.saturating_mul(d)),
        }
    }
}

impl Scattered {
    fn put_in_order(&self) -> Vec<u8> {
        match self.width {
            1 => self.gather::<1>(),
            2 => self.gather::<2>(),
            4 => self.gather::<4>(),
            _ => self.gather::<8>(),
        }
    }

    /// Matrices are what is met here, transposed ones: the last two dimensions are copied in tiles that fit the cache.
    fn gather<const N: usize>(&self) -> Vec<u8> {
        const TILE: usize = 32;
        let (elements, _) = self.source.bytes().as_chunks::<N>();
        let mut out = vec![[0u8; N]; self.shape.iter().product()];
        let dim = |back: usize| {
            let i = self.shape.len().checked_sub(back)?;
            Some((*self.shape.get(i)?, *self.strides.get(i)?))
        };
        let ((rows, down), (cols, along)) = (dim(2).unwrap_or((1, 0)), dim(1).unwrap_or((1, 0)));
        for (i, matrix) in out.chunks_mut(rows * cols).enumerate() {
            let first = self.start(i);
            for (band, tile_rows) in matrix.chunks_mut(TILE * cols).enumerate() {
                for tile in (0..cols).step_by(TILE) {
                    for (row, to) in tile_rows.chunks_mut(cols).enumerate() {
                        let start = first + (band * TILE + row) * down;
                        for (j, to) in to.iter_mut().enumerate().skip(tile).take(TILE) {
                            *to = elements.get(start + j * along).copied().unwrap_or([0; N]);
                        }
                    }
                }
            }
        }
        if self.swapped {
            out.iter_mut().for_each(|element| element.reverse());
        }
        out.into_flattened()
    }

    /// The first element of the matrix number `i`, counted over all dimensions but the last two.
    fn start(&self, i: usize) -> usize {
        let outer = self.shape.iter().zip(&self.strides).rev().skip(2);
        let (_, at) = outer.fold((i, 0), |(i, at), (&d, &stride)| (i / d, at + i % d * stride));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plainly: each element by its place.
    fn plain(elements: &[[u8; 2]], shape: &[usize], strides: &[usize], swapped: bool) -> Vec<u8> {
        let n: usize = shape.iter().product();
        let mut out = Vec::new();
        for i in 0..n {
            let (mut rest, mut at) = (i, 0);
            for (&d, &stride) in shape.iter().zip(strides).rev() {
                at += rest % d * stride;
                rest /= d;
            }
            let [a, b] = elements[at];
            out.extend(if swapped { [b, a] } else { [a, b] });
        }
        out
    }

    #[test]
    fn any_order_of_dimensions_around_the_tile() {
        let elements: Vec<[u8; 2]> = (0..8000u16).map(u16::to_le_bytes).collect();
        let source = Source::memory(elements.concat());
        for (shape, strides) in [
            (vec![], vec![]),
            (vec![1, 1, 1], vec![7, 9, 0]),
            (vec![5], vec![3]),
            (vec![31, 33], vec![1, 31]),
            (vec![32, 32], vec![1, 32]),
            (vec![33, 65], vec![1, 33]),
            (vec![65, 33], vec![40, 1]),
            (vec![3, 40, 5], vec![1, 15, 3]),
            (vec![3, 40, 5], vec![200, 1, 40]),
            (vec![2, 3, 4, 5, 6], vec![1, 2, 6, 24, 120]),
            (vec![2, 1, 4, 1, 6], vec![24, 9, 1, 9, 4]),
            (vec![3, 2], vec![5, 0]),
            (vec![2, 3, 2], vec![0, 1, 40]),
        ] {
            for swapped in [false, true] {
                let data = Data::strided(&source, &shape, &strides, 2, swapped).unwrap();
                assert_eq!(data.bytes(), plain(&elements, &shape, &strides, swapped), "{shape:?} {strides:?}");
            }
        }
    }

    #[test]
    fn what_is_in_order_is_not_copied() {
        let source = Source::memory(vec![0; 48]);
        for (shape, strides) in
            [(vec![3, 4], vec![4, 1]), (vec![1, 12], vec![99, 1]), (vec![], vec![]), (vec![0, 9], vec![1, 1])]
        {
            let data = Data::strided(&source, &shape, &strides, 4, false).unwrap();
            assert!(matches!(data, Data::InOrder(_)) && data.memory() == 0, "{shape:?}");
        }
        let data = Data::strided(&source, &[4, 3], &[1, 4], 4, false).unwrap();
        assert_eq!(data.memory(), 48);
    }

    #[test]
    fn what_the_source_lacks_is_refused() {
        let source = Source::memory(vec![0; 48]);
        for (shape, strides) in [
            (vec![13], vec![1]),
            (vec![3, 4], vec![5, 1]),
            (vec![2, usize::MAX], vec![1, 1]),
            (vec![2], vec![usize::MAX]),
            (vec![usize::MAX / 2, 3], vec![0, 0]),
            (vec![1 << 40], vec![0]),
            (vec![13], vec![0]),
        ] {
            assert!(Data::strided(&source, &shape, &strides, 4, false).is_none(), "{shape:?} {strides:?}");
        }
        assert!(source.slice(40..49).is_none() && source.slice(40..48).is_some());
    }
}
