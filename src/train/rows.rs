//! Where rows come from, and the seeded order in which they are read.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::table::Table;
use crate::activations::Activations;
use crate::dictionary::Info;
use crate::error::{Error, Result};

/// The stream of the documents that are kept out.
const HELD_OUT: u32 = u32::MAX - 2;

/// The rows to train on, `[n, d_model]`.
pub struct Rows<'a> {
    d_model: usize,
    source: Source<'a>,
    info: Info,
}

enum Source<'a> {
    Memory(&'a [f32]),
    /// Directories of shards, and the rows in them that are used: `(directory, row)`.
    Shards(Vec<&'a Activations>, Vec<(u32, u32)>),
    /// Files of others, and the first row of each; the last entry is the number of rows.
    Tables(Vec<&'a Table>, Vec<usize>),
    /// Rows of the second less rows of the first.
    Differences(&'a Rows<'a>, &'a Rows<'a>),
}

impl<'a> Rows<'a> {
    /// Rows in memory, row-major.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if `data` is no whole number of rows, or none, or too many.
    pub fn from_slice(d_model: usize, data: &'a [f32]) -> Result<Self> {
        if d_model == 0 || data.is_empty() || !data.len().is_multiple_of(d_model) {
            return Err(Error::argument(format!(
                "rows: expected one row or more of {d_model} values, found {} values",
                data.len()
            )));
        }
        number(data.len() / d_model)?;
        Ok(Self { d_model, source: Source::Memory(data), info: Info::default() })
    }

    /// The rows of harvested shards, read where they lie; those at position 0 are left out, because that position is an
    /// attention sink whose norm says nothing about text.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if no row is left;
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) if the directories differ in model, layer or width.
    pub fn from_activations(directories: &[&'a Activations]) -> Result<Self> {
        let Some(first) = directories.first() else {
            return Err(Error::argument("rows: expected one directory of activations or more, found none"));
        };
        let origin = |a: &Activations| (a.d_model(), a.meta().layer, a.meta().model_fingerprint.clone());
        let mut used = Vec::new();
        for (i, directory) in (0..).zip(directories) {
            if origin(directory) != origin(first) {
                let (one, other) = (first.directory().display(), directory.directory().display());
                return Err(Error::mismatch(format!(
                    "{one} and {other}: expected the same model, layer and width, found {:?} and {:?}",
                    origin(first),
                    origin(directory)
                )));
            }
            number(directory.n_rows())?;
            let positions = directory.shards().iter().flat_map(|shard| shard.positions());
            used.extend((0..).zip(positions).filter(|&(_, &position)| position != 0).map(|(row, _)| (i, row)));
        }
        number(used.len())?;
        if used.is_empty() {
            let path = first.directory().display();
            return Err(Error::argument(format!("{path}: expected rows at positions other than 0, found none")));
        }
        let meta = first.meta();
        let point = first.point()?;
        let info = Info {
            name: format!("{} layer {}", meta.model, meta.layer),
            model_name: meta.model.clone(),
            model_fingerprint: meta.model_fingerprint.clone(),
            layer: point.resid_post(),
            hook: point.to_string(),
            ..Info::default()
        };
        Ok(Self { d_model: first.d_model(), source: Source::Shards(directories.to_vec(), used), info })
    }

    /// The rows of files of others, one after another. Nothing is known of their origin, and no row is left out.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) without a file, or with too many rows;
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) if the files differ in width.
    pub fn from_tables(tables: &[&'a Table]) -> Result<Self> {
        let Some(first) = tables.first() else {
            return Err(Error::argument("rows: expected one file of rows or more, found none"));
        };
        let mut starts = vec![0usize];
        let mut total = 0usize;
        for table in tables {
            if table.d_model() != first.d_model() {
                let (one, other) = (first.d_model(), table.d_model());
                return Err(Error::mismatch(format!("{}: expected rows of width {one}, found {other}", table.place())));
            }
            total = total.saturating_add(table.n_rows());
            starts.push(total);
        }
        number(total)?;
        let name = first.path().file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let info = Info { name, ..Info::default() };
        Ok(Self { d_model: first.d_model(), source: Source::Tables(tables.to_vec(), starts), info })
    }

    /// The differences `second − first`, row by row: what SSAE is trained on.
    ///
    /// # Errors
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) if the two differ in number or width.
    pub fn differences(first: &'a Rows<'a>, second: &'a Rows<'a>) -> Result<Self> {
        let (a, b) = ((first.len(), first.d_model), (second.len(), second.d_model));
        if a != b {
            return Err(Error::mismatch(format!("rows: differences need pairs, found {a:?} and {b:?} (rows, width)")));
        }
        let source = Source::Differences(first, second);
        Ok(Self { d_model: first.d_model, source, info: first.info.clone() })
    }

    /// The same rows, said to come from and belong to `info`.
    #[must_use]
    pub fn with_info(mut self, info: Info) -> Self {
        self.info = info;
        self
    }

    /// Width of a row.
    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Memory(data) => data.len() / self.d_model,
            Source::Shards(_, used) => used.len(),
            Source::Tables(_, starts) => starts.last().copied().unwrap_or(0),
            Source::Differences(first, _) => first.len(),
        }
    }

    /// Never true: a set of rows without rows is refused when it is made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they come from.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Reads row `i` and checks that all of it is finite.
    ///
    /// # Errors
    /// [`Kind::Numeric`](crate::Kind::Numeric), with the place, if it is not.
    ///
    /// # Panics
    /// When there is no row `i`, or `out` is not `d_model` long.
    pub fn read(&self, i: usize, out: &mut [f32]) -> Result<()> {
        match &self.source {
            Source::Memory(data) => out.copy_from_slice(&data[i * self.d_model..(i + 1) * self.d_model]),
            Source::Shards(directories, used) => directories[used[i].0 as usize].row(used[i].1 as usize, out),
            Source::Tables(tables, starts) => {
                let (table, row) = locate(starts, i);
                tables[table].row(row, out);
            }
            Source::Differences(first, second) => {
                let mut from = vec![0f32; self.d_model];
                first.read(i, &mut from)?;
                second.read(i, out)?;
                out.iter_mut().zip(&from).for_each(|(x, from)| *x -= from);
            }
        }
        if finite(out) {
            return Ok(());
        }
        let column = out.iter().position(|x| !x.is_finite()).unwrap_or(0);
        let place = match &self.source {
            Source::Memory(_) => format!("row {i}"),
            Source::Shards(directories, used) => {
                format!("{}: row {}", directories[used[i].0 as usize].directory().display(), used[i].1)
            }
            Source::Tables(tables, starts) => {
                let (table, row) = locate(starts, i);
                format!("{}: row {row}", tables[table].place())
            }
            Source::Differences(..) => format!("difference {i}"),
        };
        Err(Error::numeric(format!("{place}, column {column}: expected a finite number, found {}", out[column])))
    }

    /// A few bytes that tell these rows from others: their number, width, and 64 of them.
    pub(super) fn fingerprint(&self) -> Result<String> {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update((self.len() as u64).to_le_bytes());
        hash.update((self.d_model as u64).to_le_bytes());
        let mut row = vec![0f32; self.d_model];
        let samples = self.len().min(64);
        for i in 0..samples {
            self.read(i * self.len() / samples, &mut row)?;
            hash.update(bytemuck::cast_slice::<f32, u8>(&row));
        }
        Ok(hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The file that holds row `i`, and the row's place in it.
fn locate(starts: &[usize], i: usize) -> (usize, usize) {
    let table = starts.partition_point(|&start| start <= i) - 1;
    (table, i - starts[table])
}

/// Some of the rows, by number.
pub(super) enum Selection {
    /// The first so many.
    First(usize),
    /// These.
    Listed(Vec<u32>),
}

/// Rows to train on, and rows kept out.
pub(super) struct Split {
    pub(super) train: Selection,
    pub(super) held_out: Selection,
}

impl Selection {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::First(n) => *n,
            Self::Listed(rows) => rows.len(),
        }
    }

    /// Turns places in the selection into numbers of rows.
    pub(super) fn name(&self, places: &mut [u32]) {
        if let Self::Listed(rows) = self {
            places.iter_mut().for_each(|place| *place = rows[*place as usize]);
        }
    }
}

impl Rows<'_> {
    /// Keeps `share` of the documents out of training, chosen by the seed. Rows that are not
    /// harvested, of which nobody knows, count as documents of their own.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if one of the two parts would be empty.
    pub(super) fn split(&self, share: f32, seed: u64) -> Result<Split> {
        if share == 0.0 {
            return Ok(Split { train: Selection::First(self.len()), held_out: Selection::First(0) });
        }
        let documents = self.documents();
        let wanted = (f64::from(share) * documents.len() as f64).round() as usize;
        if wanted == 0 || wanted == documents.len() {
            return Err(Error::argument(format!(
                "train option held_out: a share of {share} of {} documents is {wanted}; expected some, and not all",
                documents.len()
            )));
        }
        let mut out = vec![false; documents.len()];
        order(documents.len(), seed, HELD_OUT)[..wanted].iter().for_each(|&i| out[i as usize] = true);
        let pick = |held: bool| {
            let chosen = documents.iter().zip(&out).filter(|&(_, &out)| out == held);
            Selection::Listed(chosen.flat_map(|(rows, _)| rows.clone()).collect())
        };
        Ok(Split { train: pick(false), held_out: pick(true) })
    }

    /// The rows of each document.
    fn documents(&self) -> Vec<std::ops::Range<u32>> {
        let Source::Shards(_, used) = &self.source else { return (0..self.len() as u32).map(|i| i..i + 1).collect() };
        // Rows of a window follow each other; the next one starts again at its first position, which is left out.
        let breaks = |two: &[(u32, u32)]| two[1].0 != two[0].0 || two[1].1 != two[0].1 + 1;
        let mut starts = vec![0u32];
        starts.extend((1..).zip(used.windows(2)).filter(|(_, two)| breaks(two)).map(|(i, _)| i));
        let ends: Vec<u32> = starts.iter().skip(1).copied().chain([used.len() as u32]).collect();
        starts.into_iter().zip(ends).map(|(start, end)| start..end).collect()
    }
}

/// Rows are numbered with 32 bits.
fn number(n: usize) -> Result<()> {
    match u32::try_from(n) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::argument(format!("rows: expected at most {}, found {n}", u32::MAX))),
    }
}

/// `x · 0` is 0 for finite `x` and NaN otherwise; lanes, because a single sum would be a chain of 500 additions.
fn finite(row: &[f32]) -> bool {
    let mut sums = [0f32; 16];
    let mut chunks = row.chunks_exact(16);
    for chunk in &mut chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * 0.0);
    }
    sums.iter().chain(chunks.remainder()).all(|x| x * 0.0 == 0.0)
}

/// The order of `n` rows in pass `epoch`: a permutation that depends on the seed and the pass alone, so that a resumed run
/// can draw it again.
pub(super) fn order(n: usize, seed: u64, epoch: u32) -> Vec<u32> {
    let mut rng = generator(seed, u64::from(epoch) + 1);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.random_range(0..=i as u64) as usize);
    }
    order
}

/// Stream `stream` of the generator that `seed` starts.
pub(super) fn generator(seed: u64, stream: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn orders_are_permutations_that_differ_by_pass_and_seed() {
        let a = order(1000, 7, 0);
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &row)| i as u32 == row));
        assert_eq!(a, order(1000, 7, 0));
        assert_ne!(a, order(1000, 7, 1));
        assert_ne!(a, order(1000, 8, 0));
    }

    #[test]
    fn documents_are_kept_out_whole_and_by_the_seed() {
        let data = vec![1.0; 300];
        let rows = Rows::from_slice(3, &data).unwrap();
        let split = rows.split(0.2, 5).unwrap();
        let named = |part: &Selection| {
            let mut all: Vec<u32> = (0..part.len() as u32).collect();
            part.name(&mut all);
            all
        };
        let (train, held_out) = (named(&split.train), named(&split.held_out));
        assert_eq!((train.len(), held_out.len()), (80, 20));
        let mut all = [train, held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u32>>());
        assert_ne!(held_out, named(&rows.split(0.2, 6).unwrap().held_out));
        assert_eq!(rows.split(0.0, 5).unwrap().train.len(), 100);
        let error = rows.split(0.001, 5).err().unwrap();
        assert!(error.message().contains("of 100 documents is 0"), "{error}");
    }

    #[test]
    fn malformed_rows_are_named() {
        assert!(Rows::from_slice(3, &[0.0; 7]).err().unwrap().message().contains("found 7 values"));
        assert!(Rows::from_slice(3, &[]).is_err());
        assert!(Rows::from_slice(0, &[1.0]).is_err());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let data = [1.0, 2.0, 3.0, 4.0, bad, 6.0];
            let error = Rows::from_slice(3, &data).unwrap().read(1, &mut [0.0; 3]).unwrap_err();
            assert_eq!(error.kind(), Kind::Numeric);
            assert!(error.message().starts_with("row 1, column 1: expected a finite number"), "{error}");
        }
    }
}
