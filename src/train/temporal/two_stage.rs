//! The two-stage estimator: regress on the past, then find who drives whom in what is left.
//!
//! Stage one: Φ_τ by block Yule–Walker with a ridge. Stage two, for codes that are given: independent components of the
//! residuals, W u = ε; W is (I − M) but for the order and scale of its rows, which a Hungarian assignment puts right
//! (ICA-LiNGAM, Shimizu et al. 2006), then the causal order, and B and M by regression in that order, pruned. For rows: the
//! components are known up to M, and M is the one that makes B sparsest (`sparse.rs`).

use nalgebra::DMatrix;
use serde::Serialize;

use super::frame::{Frame, covariance, for_chunks};
use super::ica::{from_rows, map_rows, to_rows, unmix, unmix_rows};
use super::model::{Mixing, Temporal};
use super::moments::{Moments, symmetric};
use super::order::causal_order;
use super::prune::{Structure, Test, prune};
use super::sequences::Sequences;
use super::sparse::sparsest;
use crate::error::{Error, Result};
use crate::file::room;
use crate::num::{Mat, assign, gemm};
use crate::progress::{Progress, report};

/// The settings of the two-stage estimator. All of them but `threads` shape the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TwoStageOptions {
    /// Rows that the present may depend on.
    pub lags: usize,
    /// Latents of rows, at most the rows' width; codes of a dictionary are as many as they are.
    pub n_latents: usize,
    /// The ridge of the regression on the past, for columns of variance 1.
    pub ridge: f64,
    /// Least effect, in standard deviations, of one of the driver's on the driven; smaller weights are 0. In the same row
    /// the effects among latents of rows count from twice that: directions that are a little off leak into each other.
    pub smallest: f64,
    /// Least |weight| in standard errors.
    pub certainty: f64,
    /// Residuals that are unmixed, at most; they take `4 · ica_rows · n` bytes.
    pub ica_rows: usize,
    /// Steps of unmixing, at most.
    pub ica_steps: usize,
    /// Threads; 0: all that the machine has. The result doesn't depend on it.
    #[serde(skip)]
    pub threads: usize,
}

impl Default for TwoStageOptions {
    fn default() -> Self {
        Self {
            lags: 2,
            n_latents: 128,
            ridge: 1e-4,
            smallest: 0.05,
            certainty: 5.0,
            ica_rows: 100_000,
            ica_steps: 100,
            threads: 0,
        }
    }
}

impl TwoStageOptions {
    fn check(&self, sequences: &Sequences<'_>) -> Result<()> {
        let wrong = |name: &str, what: &str, found: String| {
            Err(Error::argument(format!("temporal option {name} must be {what}, found {found}")))
        };
        if self.lags == 0 || self.lags > 64 {
            return wrong("lags", "1 to 64", self.lags.to_string());
        }
        if !sequences.are_codes() && !(2..=sequences.width()).contains(&self.n_latents) {
            return wrong("n_latents", &format!("2 to {}", sequences.width()), self.n_latents.to_string());
        }
        for (name, value) in [("ridge", self.ridge), ("smallest", self.smallest), ("certainty", self.certainty)] {
            if !(0.0..=1e6).contains(&value) {
                return wrong(name, "0 to 1e6", value.to_string());
            }
        }
        if self.ica_steps == 0 || self.ica_rows == 0 {
            return wrong("ica_rows and ica_steps", "1 or more", "0".into());
        }
        Ok(())
    }

    fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    fn test(&self, now: f64) -> Test {
        Test { smallest: self.smallest, smallest_now: now * self.smallest, certainty: self.certainty }
    }
}

/// Estimates a temporal model: of codes, if the columns of `sequences` are the latents (features of a dictionary, or codes
/// that are known), else of `n_latents` latents of rows. See the module.
///
/// # Errors
/// [`Kind::Argument`](crate::Kind::Argument) for impossible options or too few rows;
/// [`Kind::Numeric`](crate::Kind::Numeric) for columns that are constant or sums of each other;
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
pub fn two_stage(
    sequences: &Sequences<'_>,
    options: &TwoStageOptions,
    progress: &mut Progress<'_>,
) -> Result<Temporal> {
    options.check(sequences)?;
    // Second moments of all columns and their past, and what is solved with them.
    let columns = sequences.width().saturating_mul(options.lags + 1);
    let bytes = columns.saturating_mul(columns).saturating_mul(2 * size_of::<f64>());
    room(bytes, format_args!("moments of {columns} columns"))?;
    match sequences.are_codes() {
        true => of_codes(sequences, options, progress),
        false => of_rows(sequences, options, progress),
    }
}

/// The columns are the latents: B and M.
fn of_codes(sequences: &Sequences<'_>, options: &TwoStageOptions, progress: &mut Progress<'_>) -> Result<Temporal> {
    let (n, threads) = (sequences.width(), options.thread_count());
    let frame = Frame::standard(sequences, options.lags)?;
    let moments = Moments::of(sequences, &frame, options.lags, threads, progress)?;
    let (phi, past) = moments.regress(options.ridge)?;
    report(progress, 0, 0, "whitening")?;
    let whiten = symmetric(&moments.residual(&phi), |v| 1.0 / v.max(1e-6).sqrt());
    let rows = residuals(sequences, &frame, &phi, &whiten, options, threads)?;
    // White codes lie close to their noise: the identity is a good start.
    let w = unmix(&rows, to_rows(&DMatrix::identity(n, n)), n, options.ica_steps, threads, progress)?;
    drop(rows);
    report(progress, 0, 0, "ordering")?;
    let w = from_rows(&w, n, n) * whiten;
    let order = causal_order(&weights(&w, options.smallest / 2.0)?, n);
    let Structure { m, b } = prune(&moments, &phi, &past, &order, options.test(1.0))?;
    let scale: Vec<f64> = frame.scale().iter().map(|&s| f64::from(s)).collect();
    let directions = sequences.directions();
    let mixing = (!directions.is_empty()).then(|| Mixing {
        directions: directions.to_vec(),
        encoder: None,
        offset: vec![0.0; directions.len() / n],
    });
    let parts = Parts { moments: &moments, m, b, order, scale, mean: frame.mean.clone(), mixing };
    assemble(sequences, options, parts)
}

/// Latents of rows: A, B and M from the rows alone.
fn of_rows(sequences: &Sequences<'_>, options: &TwoStageOptions, progress: &mut Progress<'_>) -> Result<Temporal> {
    let (n, threads) = (options.n_latents, options.thread_count());
    report(progress, 0, 0, "principal components")?;
    let (mean, covariance) = covariance(sequences, threads)?;
    let whiten = principal(&covariance, n)?;
    let frame = Frame::mixed(mean.clone(), &whiten);
    let moments = Moments::of(sequences, &frame, options.lags, threads, progress)?;
    let (phi, _) = moments.regress(options.ridge)?;
    report(progress, 0, 0, "whitening")?;
    let residual = moments.residual(&phi);
    let again = symmetric(&residual, |v| 1.0 / v.max(1e-9).sqrt());
    let back = symmetric(&residual, |v| v.max(1e-9).sqrt());
    let rows = residuals(sequences, &frame, &phi, &again, options, threads)?;
    let w = unmix_rows(rows, n, options.ica_steps, threads, progress)?;

    // y = W v has noise of variance 1; C_τ = W Φ_τ W⁻¹.
    let rotation = from_rows(&w, n, n);
    let (w, inverse) = (&rotation * &again, &back * rotation.transpose());
    let columns: Vec<Vec<f64>> = {
        let c: Vec<DMatrix<f64>> = (0..options.lags).map(|k| &w * phi.columns(k * n, n) * &inverse).collect();
        (0..n).map(|j| c.iter().flat_map(|c| c.column(j).iter().copied().collect::<Vec<_>>()).collect()).collect()
    };
    let noise = (9.0 / (moments.count as f64).sqrt()).max(0.02);
    let m = DMatrix::from_row_slice(n, n, &sparsest(&columns, noise, progress)?);

    // z = (I − M)⁻¹ y, and A its directions in rows, of length 1.
    let mut unit = DMatrix::identity(n, n) - m;
    let order = causal_order(&weights(&unit, 0.0)?, n);
    let unwhiten = inverse_of(&whiten, &covariance);
    let mut a = unwhiten * &inverse * &unit;
    let mut encode = unit
        .clone()
        .try_inverse()
        .ok_or_else(|| Error::numeric("(I − M) is singular, which a triangle with ones is not"))?
        * &w;
    for i in 0..n {
        let column = a.column(i);
        let largest = column.iter().copied().fold(0f64, |best, v| if v.abs() > best.abs() { v } else { best });
        let length = column.norm() * largest.signum();
        if length == 0.0 || !length.is_finite() {
            return Err(Error::numeric(format!("latent {i} has no direction; give more rows or fewer latents")));
        }
        a.column_mut(i).iter_mut().for_each(|v| *v /= length);
        encode.row_mut(i).iter_mut().for_each(|v| *v *= length);
    }
    unit.fill(0.0);
    let moments = moments.mapped(&encode);
    let deviation: Vec<f64> = (0..n).map(|i| moments.now()[(i, i)].sqrt()).collect();
    let standard = moments.mapped(&DMatrix::from_diagonal(&nalgebra::DVector::from_fn(n, |i, _| 1.0 / deviation[i])));
    let (phi, past) = standard.regress(options.ridge)?;
    let Structure { m, b } = prune(&standard, &phi, &past, &order, options.test(2.0))?;
    let encoder = encode * whiten;
    let mixing = Some(Mixing { directions: to_rows(&a.transpose()), encoder: Some(to_rows(&encoder)), offset: mean });
    let scale = deviation.iter().map(|d| 1.0 / d).collect();
    let parts = Parts { moments: &standard, m, b, order, scale, mean: vec![0.0; n], mixing };
    assemble(sequences, options, parts)
}

/// The whitened residuals of at most `ica_rows` rows, evenly over the documents.
fn residuals(
    sequences: &Sequences<'_>,
    frame: &Frame,
    phi: &DMatrix<f64>,
    whiten: &DMatrix<f64>,
    options: &TwoStageOptions,
    threads: usize,
) -> Result<Vec<f32>> {
    let (n, lags) = (frame.n(), options.lags);
    let total = sequences.n_targets(lags);
    let every = total.div_ceil(options.ica_rows);
    let parts: Vec<Vec<f32>> = (0..lags).map(|k| to_rows(&-phi.columns(k * n, n).into_owned())).collect();
    let mut out: Vec<f32> = Vec::with_capacity(total.div_ceil(every) * n);
    let (mut block, mut seen) = (Vec::new(), 0usize);
    for_chunks(sequences, frame, lags, threads, |chunk| {
        block.clear();
        block.extend_from_slice(chunk.values(0));
        for (k, part) in parts.iter().enumerate() {
            gemm(chunk.lagged(k + 1), Mat::new(part, n, n).t(), true, &mut block, threads);
        }
        for row in block.chunks_exact(n) {
            if seen.is_multiple_of(every) {
                out.extend_from_slice(row);
            }
            seen += 1;
        }
        Ok(())
    })?;
    map_rows(&mut out, whiten, threads);
    Ok(out)
}

/// How much each latent drives each other one, from components in any order and scale: rows are assigned so that the
/// diagonal is large, and scaled so that it is 1. Weights up to `noise` count as none.
fn weights(w: &DMatrix<f64>, noise: f64) -> Result<Vec<f64>> {
    let n = w.nrows();
    // score[j][k]: component k belongs to latent j.
    let score: Vec<f64> = (0..n * n).map(|at| w[(at % n, at / n)].abs().max(1e-12).ln()).collect();
    let component = assign(&score, n, n)?;
    let mut out = vec![0f64; n * n];
    for (i, &k) in component.iter().enumerate() {
        for j in (0..n).filter(|&j| j != i) {
            let v = -w[(k, j)] / w[(k, i)];
            out[i * n + j] = (v.abs() - noise).max(0.0) * v.signum();
        }
    }
    Ok(out)
}

/// The `n` largest principal components, each scaled to variance 1: `[n, width]`.
fn principal(covariance: &DMatrix<f64>, n: usize) -> Result<DMatrix<f64>> {
    let w = covariance.nrows();
    let eigen = covariance.clone().symmetric_eigen();
    let mut by_size: Vec<usize> = (0..w).collect();
    by_size.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]).then(a.cmp(&b)));
    let largest = by_size.first().map_or(0.0, |&i| eigen.eigenvalues[i]);
    let smallest = by_size.get(n - 1).map_or(0.0, |&i| eigen.eigenvalues[i]);
    if smallest.is_nan() || smallest <= 1e-9 * largest {
        return Err(Error::numeric(format!("rows: they span fewer than {n} dimensions; ask for fewer latents")));
    }
    Ok(DMatrix::from_fn(n, w, |i, j| eigen.eigenvectors[(j, by_size[i])] / eigen.eigenvalues[by_size[i]].sqrt()))
}

/// The map back from principal components: `[width, n]`. With P = Λ^(−1/2) Vᵀ it is V Λ^(1/2) = S Pᵀ.
fn inverse_of(p: &DMatrix<f64>, covariance: &DMatrix<f64>) -> DMatrix<f64> {
    covariance * p.transpose()
}

/// What both ways end in, in columns of variance 1; `scale` is one over their deviations.
struct Parts<'m> {
    moments: &'m Moments,
    m: DMatrix<f64>,
    b: DMatrix<f64>,
    order: Vec<usize>,
    scale: Vec<f64>,
    mean: Vec<f32>,
    mixing: Option<Mixing>,
}

fn assemble(sequences: &Sequences<'_>, options: &TwoStageOptions, parts: Parts<'_>) -> Result<Temporal> {
    let Parts { moments, m, b, order, scale, mean, mixing } = parts;
    let n = m.nrows();
    // Weights in the latents' own units.
    let own = |w: f64, i: usize, j: usize| (w * scale[j] / scale[i]) as f32;
    let instantaneous = (0..n * n).map(|at| own(m[(at / n, at % n)], at / n, at % n)).collect();
    let lagged = (0..options.lags * n * n).map(|at| {
        let (k, i, j) = (at / (n * n), at / n % n, at % n);
        own(b[(i, k * n + j)], i, j)
    });
    // ε = (I − M) z − B·past, its variance from the moments; E|ε| of a Laplace variable is its deviation over √2.
    let whole = DMatrix::identity(n, n) - &m;
    let half = &whole * moments.cross() * b.transpose();
    let s = &whole * moments.now() * whole.transpose() - &half - half.transpose() + &b * moments.past() * b.transpose();
    let noise = (0..n).map(|i| ((s[(i, i)].max(0.0) / 2.0).sqrt() / scale[i]) as f32).collect();
    let recipe = serde_json::json!({
        "estimator": "two-stage", "options": options, "rows": sequences.fingerprint()?, "n_rows": sequences.len(),
    });
    Ok(Temporal {
        n,
        lags: options.lags,
        lagged: lagged.collect(),
        instantaneous,
        order: order.into_iter().map(|i| i as u32).collect(),
        mean,
        deviation: scale.iter().map(|scale| (1.0 / scale) as f32).collect(),
        noise,
        mixing,
        features: sequences.features().to_vec(),
        origin: sequences.origin().clone(),
        recipe: recipe.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::generate::{Process, Shape};
    use super::super::recovery::recovery;
    use super::*;
    use crate::Kind;
    use crate::progress::silent;

    #[test]
    fn a_planted_process_is_found_in_codes_and_in_rows() {
        let mut process = Process::new(Shape { n_latents: 16, lags: 2, seed: 1 }).unwrap();
        let z = process.latents(30_000);
        let options = TwoStageOptions { n_latents: 16, threads: 1, ..TwoStageOptions::default() };
        let codes = process.sequences(z.clone()).unwrap().as_codes();
        let model = two_stage(&codes, &options, &mut silent).unwrap();
        let found = recovery(&process, &model, &z, &z).unwrap();
        assert!(found.f1_lagged >= 0.95 && found.f1_instantaneous >= 0.95, "codes: {found:?}");
        let again = two_stage(&codes, &TwoStageOptions { threads: 3, ..options.clone() }, &mut silent).unwrap();
        assert_eq!(model, again, "threads change nothing");
        // Every noise has the scale that was drawn.
        for (found, want) in model.noise().iter().zip(&process.noise) {
            assert!((found / want - 1.0).abs() < 0.05, "{found} for {want}");
        }

        let x = process.mix(&z);
        let rows = process.sequences(x.clone()).unwrap();
        let model = two_stage(&rows, &options, &mut silent).unwrap();
        let encoded = model.encode(&x).unwrap();
        let found = recovery(&process, &model, &z, &encoded).unwrap();
        assert!(found.mcc >= 0.95 && found.f1_lagged >= 0.9 && found.f1_instantaneous >= 0.85, "rows: {found:?}");
        // x = A z again.
        let mixing = model.mixing().unwrap();
        let mut back = vec![0f32; x.len()];
        gemm(Mat::new(&encoded, 30_000, 16), Mat::new(&mixing.directions, 16, 16), false, &mut back, 1);
        for (row, x) in back.chunks_exact(16).zip(x.chunks_exact(16)).take(50) {
            for ((v, x), offset) in row.iter().zip(x).zip(&mixing.offset) {
                assert!((v + offset - x).abs() < 1e-2, "{} {x}", v + offset);
            }
        }
        // The future is predicted by the past, and not by another place's past.
        let (_, held) = Sequences::from_rows(16, x, &[0, 25_000, 30_000]).unwrap().hold_out(2).unwrap();
        let forecast = super::super::forecast(&model, &held, 1, &mut silent).unwrap();
        assert!(forecast.from_past > 0.1 && forecast.from_past > forecast.from_shuffled_past + 0.1, "{forecast:?}");
        assert!(forecast.from_past_and_present > forecast.from_past, "{forecast:?}");
    }

    /// A feature of documents' first rows stands still in all targets.
    #[test]
    fn a_feature_of_first_rows_drives_and_is_not_driven() {
        const LEN: usize = 20;
        let mut process = Process::new(Shape { n_latents: 4, lags: 1, seed: 1 }).unwrap();
        let (mut codes, mut first) = (Vec::new(), 0.0);
        for (t, row) in process.latents(40_000).chunks_exact(4).enumerate() {
            // It fires with 1, 2 or 3, and pushes latent 0 by twice that a row later.
            let push = if t % LEN == 1 { 2.0 * first } else { 0.0 };
            first = if t % LEN == 0 { 1.0 + (t / LEN % 3) as f32 } else { 0.0 };
            codes.extend([row[0] + push, row[1], row[2], row[3], first]);
        }
        let bounds: Vec<usize> = (0..=40_000).step_by(LEN).collect();
        let codes = Sequences::from_rows(5, codes, &bounds).unwrap().as_codes();
        let options = TwoStageOptions { lags: 1, ..TwoStageOptions::default() };
        let model = two_stage(&codes, &options, &mut silent).unwrap();
        let relations = model.relations();
        let push = relations.iter().find(|r| (r.from, r.to, r.lag) == (4, 0, 1)).expect("the push is found");
        assert!((push.weight - 2.0).abs() < 0.2, "{push:?}");
        assert!(relations.iter().all(|r| r.to != 4 && (r.from != 4 || r.lag == 1)), "{relations:?}");
        assert!(model.deviation()[4] > 0.3, "its deviation is that over all rows: {}", model.deviation()[4]);
        let forecast = super::super::forecast(&model, &codes, 1, &mut silent).unwrap();
        assert!(forecast.latents[4] == 0.0 && forecast.from_past > 0.05, "{forecast:?}");
    }

    #[test]
    fn bad_rows_and_options_are_named() {
        let mut process = Process::new(Shape { n_latents: 4, lags: 1, seed: 1 }).unwrap();
        let z = process.latents(2000);
        let options = TwoStageOptions { n_latents: 4, ..TwoStageOptions::default() };
        let run = |data: Vec<f32>, bounds: &[usize], codes: bool, options: &TwoStageOptions| {
            let rows = Sequences::from_rows(4, data, bounds).unwrap();
            two_stage(&if codes { rows.as_codes() } else { rows }, options, &mut silent).unwrap_err()
        };
        let mut constant = z.clone();
        constant.iter_mut().skip(2).step_by(4).for_each(|v| *v = 3.0);
        let error = run(constant.clone(), &[0, 2000], true, &options);
        assert_eq!(error.kind(), Kind::Numeric);
        assert!(error.message().contains("column 2 is constant"), "{error}");
        let error = run(constant, &[0, 2000], false, &options);
        assert!(error.message().contains("fewer than 4 dimensions"), "{error}");
        let short: Vec<usize> = (0..=1000).map(|k| 2 * k).collect();
        let error = run(z.clone(), &short, true, &options);
        assert_eq!(error.kind(), Kind::Argument);
        assert!(error.message().contains("need more than 8 rows with a past, found 0"), "{error}");
        let error = run(z.clone(), &[0, 2000], true, &TwoStageOptions { lags: 0, ..options.clone() });
        assert!(error.message().contains("lags must be 1 to 64"), "{error}");
        let rows = Sequences::from_rows(4, z, &[0, 2000]).unwrap();
        let error = two_stage(&rows, &options, &mut |_| false).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
    }
}
