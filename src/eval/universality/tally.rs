//! What is kept of two models' codes while text is read, and the report that is made of it.

use super::comparison::{Chance, Draw, Similarity, compare};
use super::correlation::{Codes, Correlation};
use super::matching::{Pair, filter};
use super::null::deal;
use super::report::{Counterpart, Report, Subspace};
use super::request::Request;
use super::similarity::LEAST;
use super::subspace::Category;
use super::tokens::{Item, Texts, TopTokens};
use crate::error::Result;
use crate::num::rng;
use crate::progress::Progress;

/// The decoder rows `[n, d]` of features of one side.
pub type Decoder<'d> = dyn Fn(&[u32]) -> Vec<f32> + Sync + 'd;

/// Sums and lists over pairs of tokens.
pub struct Tally {
    /// Texts of tokens; items refer to them.
    pub texts: Texts,
    correlation: Correlation,
    tokens: [TopTokens; 2],
    active: [u64; 2],
}

impl Tally {
    /// Nothing read yet.
    ///
    /// # Errors
    /// As [`Correlation::new`].
    pub fn new([n_a, n_b]: [usize; 2], most_bytes: usize) -> Result<Self> {
        let correlation = Correlation::new(n_a, n_b, most_bytes)?;
        let tokens = [TopTokens::new(n_a), TopTokens::new(n_b)];
        Ok(Self { texts: Texts::default(), correlation, tokens, active: [0; 2] })
    }

    /// Pairs of tokens read.
    pub fn n_tokens(&self) -> u64 {
        self.correlation.n_rows()
    }

    /// Adds pairs of tokens: their codes in A and B, and what stands there.
    ///
    /// # Errors
    /// As [`Correlation::add`].
    pub fn add(&mut self, codes: [Codes<'_>; 2], items: &[Item], threads: usize) -> Result<()> {
        self.correlation.add(codes[0], codes[1], threads)?;
        for ((tokens, codes), active) in self.tokens.iter_mut().zip(codes).zip(&mut self.active) {
            tokens.add(codes, items);
            *active += (0..codes.n_rows()).map(|r| codes.row(r).len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// Matches features, and compares the decoder rows of those that match. The caller fills in what it alone knows.
    ///
    /// # Errors
    /// As [`compare`].
    pub fn report(
        &self,
        request: &Request,
        categories: &[Category],
        decoders: [&Decoder<'_>; 2],
        progress: &mut Progress<'_>,
    ) -> Result<Report> {
        let best = self.correlation.best(request.least);
        let alive = self.correlation.alive(request.least);
        let [of_a, of_b] = &self.tokens;
        let (mut pairs, steps) = filter(&best, [of_a, of_b], &self.texts, request.one_to_one, request.min_r);
        let mut report = Report {
            n_tokens: self.n_tokens(),
            steps,
            mean_best_r: mean(best.iter().flatten().map(|best| best.r)),
            mean_r: mean(pairs.iter().map(|p| p.r)),
            ..Report::default()
        };
        for (side, (alive, active)) in [&mut report.a, &mut report.b].into_iter().zip(alive.iter().zip(self.active)) {
            side.n_features = alive.len();
            side.alive = alive.iter().filter(|alive| **alive).count();
            side.l0 = active as f64 / self.n_tokens().max(1) as f64;
        }
        pairs.sort_by(|x, y| y.r.total_cmp(&x.r).then(x.b.cmp(&y.b)));
        report.pairs = pairs.iter().map(|p| self.counterpart(p)).collect();
        let compared = drawn(&pairs, request.max_pairs, request.seed);
        report.compared = compared.len();
        let alive =
            alive.map(|side| (0..).zip(side).filter(|(_, alive)| *alive).map(|(id, _)| id).collect::<Vec<u32>>());
        let spaces = Spaces { pairs: &compared, alive, decoders, chance: Chance::of(request) };
        report.similarity = spaces.all(progress)?;
        for category in categories {
            let members = category.members(&compared, [of_a, of_b], &self.texts);
            let similarity = spaces.some(&members, &category.name, progress)?;
            report.subspaces.push(Subspace { name: category.name.clone(), pairs: members.len(), similarity });
        }
        Ok(report)
    }

    fn counterpart(&self, p: &Pair) -> Counterpart {
        let texts = |side: &TopTokens, id: u32| side.texts(id, &self.texts).into_iter().map(str::to_owned).collect();
        let [of_a, of_b] = &self.tokens;
        Counterpart { a: p.a, b: p.b, r: p.r, tokens_a: texts(of_a, p.a), tokens_b: texts(of_b, p.b) }
    }
}

impl Chance {
    fn of(request: &Request) -> Self {
        Self { runs: request.runs, subsets: request.subsets, seed: request.seed, threads: request.threads }
    }
}

/// At most `most` of the pairs, in their order.
fn drawn(pairs: &[Pair], most: usize, seed: u64) -> Vec<Pair> {
    let mut chosen = deal(pairs.len(), most, &mut rng(seed));
    chosen.sort_unstable();
    chosen.into_iter().filter_map(|i| pairs.get(i).copied()).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

/// Matched features and where to find their vectors.
struct Spaces<'s> {
    pairs: &'s [Pair],
    alive: [Vec<u32>; 2],
    decoders: [&'s Decoder<'s>; 2],
    chance: Chance,
}

impl Spaces<'_> {
    fn rows(&self, members: &[usize]) -> [Vec<f32>; 2] {
        let ids =
            |id: fn(&Pair) -> u32| members.iter().filter_map(|&i| self.pairs.get(i)).map(id).collect::<Vec<u32>>();
        [(self.decoders[0])(&ids(|p| p.a)), (self.decoders[1])(&ids(|p| p.b))]
    }

    fn all(&self, progress: &mut Progress<'_>) -> Result<Vec<Similarity>> {
        let n = self.pairs.len();
        let everyone: Vec<usize> = (0..n).collect();
        self.compare(&everyone, "", progress, &|rng| {
            let mut draw = |side: usize| {
                let dealt = deal(self.alive[side].len(), n, rng);
                // Without one-to-one, there may be more pairs than features of A.
                let ids = dealt.iter().cycle().take(n).map(|&i| self.alive[side][i]);
                (self.decoders[side])(&ids.collect::<Vec<u32>>())
            };
            [draw(0), draw(1)]
        })
    }

    fn some(&self, members: &[usize], name: &str, progress: &mut Progress<'_>) -> Result<Vec<Similarity>> {
        let n = self.pairs.len();
        self.compare(members, &format!("{name}: "), progress, &|rng| self.rows(&deal(n, members.len(), rng)))
    }

    fn compare(
        &self,
        members: &[usize],
        note: &str,
        progress: &mut Progress<'_>,
        draw: &Draw<'_>,
    ) -> Result<Vec<Similarity>> {
        if members.len() < LEAST {
            return Ok(Vec::new());
        }
        let [x, y] = self.rows(members);
        compare([&x, &y], members.len(), &self.chance, draw, note, progress)
    }
}
