//! A temporal model: its parts, its file, and what follows an edit.
//!
//! The file is safetensors, for NumPy and PyTorch to read without us:
//!
//! | tensor | type, shape | what |
//! |---|---|---|
//! | `M` | F32 `[n, n]` | `M[i, j]`: how much of latent j is in latent i of the same row |
//! | `B` | F32 `[lags, n, n]` | `B[τ−1, i, j]`: how much of latent j, τ rows before, is in latent i |
//! | `order` | I64 `[n]` | causes first |
//! | `mean` | F32 `[n]` | mean of each latent; the equation is for latents minus their means |
//! | `deviation` | F32 `[n]` | standard deviation of each latent |
//! | `noise` | F32 `[n]` | E\|ε\|, the Laplace scale |
//! | `A` | F32 `[d_model, n]` | directions of the latents in the residual stream, as columns |
//! | `encoder`, `offset` | F32 `[n, d_model]`, `[d_model]` | z = encoder · (x − offset); only of models of rows |
//! | `features` | I64 `[n]` | the dictionary's features; only of models on a dictionary |
//!
//! Metadata: `format`, `model`, `model_fingerprint`, `layer`, `hook`, `dictionary`, `recipe`.

use std::path::Path;

use crate::activations::Activations;
use crate::error::{Error, Result};
use crate::file::safetensors::{Dtype, File, Writer};
use crate::hook_point::HookPoint;
use crate::num::{axpy, dot};

const FORMAT: &str = "tiller temporal 1";

/// Where a model's rows come from; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The language model's name.
    pub model: String,
    /// Its fingerprint.
    pub model_fingerprint: String,
    /// Where the rows were read.
    pub point: Option<HookPoint>,
    /// The dictionary whose features the latents are; empty for latents of rows.
    pub dictionary: String,
}

impl Origin {
    pub(super) fn of_rows(rows: &Activations) -> Result<Self> {
        let meta = rows.meta();
        Ok(Self {
            model: meta.model.clone(),
            model_fingerprint: meta.model_fingerprint.clone(),
            point: Some(rows.point()?),
            dictionary: String::new(),
        })
    }
}

/// How latents and rows of the residual stream belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    /// Directions of the latents, feature-major `[n, d_model]`: the columns of A.
    pub directions: Vec<f32>,
    /// `[n, d_model]`, for models of rows: z = encoder · (x − offset).
    pub encoder: Option<Vec<f32>>,
    /// `[d_model]`; zeros for models on a dictionary.
    pub offset: Vec<f32>,
}

/// Which latent drives which, now and later: see the [module](super).
#[derive(Clone, Debug, PartialEq)]
pub struct Temporal {
    pub(super) n: usize,
    pub(super) lags: usize,
    pub(super) lagged: Vec<f32>,
    pub(super) instantaneous: Vec<f32>,
    pub(super) order: Vec<u32>,
    pub(super) mean: Vec<f32>,
    pub(super) deviation: Vec<f32>,
    pub(super) noise: Vec<f32>,
    pub(super) mixing: Option<Mixing>,
    pub(super) features: Vec<u32>,
    pub(super) origin: Origin,
    pub(super) recipe: String,
}

/// One weight ≠ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relation {
    /// Rows between cause and effect; 0 for a weight of M.
    pub lag: usize,
    /// The driving latent.
    pub from: usize,
    /// The driven latent.
    pub to: usize,
    /// The entry of M or B.
    pub weight: f32,
    /// The same in standard deviations: what one of the driver's does to the driven.
    pub strength: f32,
}

impl Temporal {
    /// Number of latents.
    pub fn n_latents(&self) -> usize {
        self.n
    }

    /// Number of lags.
    pub fn lags(&self) -> usize {
        self.lags
    }

    /// B `[lags, n, n]`: entry (τ−1, i, j) is how much of latent j, τ rows before, is in latent i.
    pub fn lagged(&self) -> &[f32] {
        &self.lagged
    }

    /// M `[n, n]`: entry (i, j) is how much of latent j is in latent i of the same row.
    pub fn instantaneous(&self) -> &[f32] {
        &self.instantaneous
    }

    /// The latents in causal order, causes first.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Means of the latents, `[n]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviations of the latents, `[n]`.
    pub fn deviation(&self) -> &[f32] {
        &self.deviation
    }

    /// Laplace scale of each latent's noise, `[n]`.
    pub fn noise(&self) -> &[f32] {
        &self.noise
    }

    /// How latents lie in the residual stream, if that is known.
    pub fn mixing(&self) -> Option<&Mixing> {
        self.mixing.as_ref()
    }

    /// Features of the dictionary that the latents are; empty for latents of rows.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// Where the rows came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How it was estimated: one line of JSON.
    pub fn recipe(&self) -> &str {
        &self.recipe
    }

    /// The latent that is feature `feature` of the dictionary; of a model of rows, latent `feature` itself.
    pub fn latent(&self, feature: u32) -> Option<usize> {
        match self.features.is_empty() {
            true => usize::try_from(feature).ok().filter(|&i| i < self.n),
            false => self.features.binary_search(&feature).ok(),
        }
    }

    /// Latents `[rows, n]` of rows `[rows, d_model]` of the residual stream, for models of rows.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a model on a dictionary, which encodes them itself;
    /// [`Kind::Argument`](crate::Kind::Argument) if `rows` are no rows of its width.
    pub fn encode(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let Some(Mixing { encoder: Some(encoder), offset, .. }) = &self.mixing else {
            return Err(Error::unsupported(
                "this temporal model's latents are features of a dictionary: encode with it",
            ));
        };
        let d = offset.len();
        if !rows.len().is_multiple_of(d) {
            return Err(Error::argument(format!("rows: expected rows of width {d}, found {} values", rows.len())));
        }
        let mut out = Vec::with_capacity(rows.len() / d * self.n);
        let mut centered = vec![0f32; d];
        for row in rows.chunks_exact(d) {
            centered.iter_mut().zip(row).zip(offset).for_each(|((c, v), o)| *c = v - o);
            out.extend(encoder.chunks_exact(d).map(|e| dot(e, &centered)));
        }
        Ok(out)
    }

    /// All weights ≠ 0, the strongest first.
    pub fn relations(&self) -> Vec<Relation> {
        let n = self.n;
        let weights = std::iter::once((0, &self.instantaneous[..]))
            .chain(self.lagged.chunks_exact(n * n).enumerate().map(|(k, b)| (k + 1, b)));
        let mut found = Vec::new();
        for (lag, weights) in weights {
            for (at, &weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                let (to, from) = (at / n, at % n);
                let strength = weight * self.deviation[from] / self.deviation[to].max(f32::MIN_POSITIVE);
                found.push(Relation { lag, from, to, weight, strength });
            }
        }
        found.sort_by(|a, b| {
            b.strength.abs().total_cmp(&a.strength.abs()).then((a.lag, a.from, a.to).cmp(&(b.lag, b.from, b.to)))
        });
        found
    }

    /// Sets weights to 0 that are weaker than `smallest` in standard deviations.
    pub(super) fn drop_weak(&mut self, smallest: f32) {
        let (n, deviation) = (self.n, &self.deviation);
        for (at, weight) in self.instantaneous.iter_mut().chain(&mut self.lagged).enumerate() {
            let (i, j) = (at / n % n, at % n);
            if weight.abs() * deviation[j] < smallest * deviation[i] {
                *weight = 0.0;
            }
        }
    }

    /// What follows an edit of latents by `edit` `[n]` in one row: Ψ_k·edit for k = 0 … `steps`, where
    /// Ψ_0 = (I − M)⁻¹ and Ψ_k = Σ_τ (I − M)⁻¹ B_τ Ψ_{k−τ}. Ψ_0 is the edit with what it drives in the same row.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if `edit` has another length.
    pub fn response(&self, edit: &[f32], steps: usize) -> Result<Vec<Vec<f32>>> {
        let n = self.n;
        if edit.len() != n {
            return Err(Error::argument(format!("edit: expected {n} values, one a latent, found {}", edit.len())));
        }
        let mut all: Vec<Vec<f32>> = Vec::with_capacity(steps.saturating_add(1).min(1 << 16));
        for k in 0..=steps {
            let mut now = if k == 0 { edit.to_vec() } else { vec![0.0; n] };
            for (tau, b) in (1..=k).zip(self.lagged.chunks_exact(n * n)) {
                let before = &all[k - tau];
                now.iter_mut().zip(b.chunks_exact(n)).for_each(|(v, row)| *v += dot(row, before));
            }
            // (I − M)⁻¹ by substitution in causal order: what is earlier is done.
            for &i in &self.order {
                let i = i as usize;
                now[i] += dot(&self.instantaneous[i * n..(i + 1) * n], &now) - self.instantaneous[i * n + i] * now[i];
            }
            all.push(now);
        }
        Ok(all)
    }

    /// The direction `[d_model]` of an edit of one unit of latent `i`: alone (`A e_i`), or with what it drives in the same
    /// row (`A Ψ_0 e_i`).
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for a latent that it doesn't have;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the latents' directions are not known.
    pub fn direction(&self, i: usize, propagate: bool) -> Result<Vec<f32>> {
        if i >= self.n {
            return Err(Error::argument(format!("latent: the temporal model has {} (from 0), found {i}", self.n)));
        }
        let Some(mixing) = &self.mixing else {
            return Err(Error::unsupported("this temporal model does not know the directions of its latents"));
        };
        let d = mixing.offset.len();
        let mut edit = vec![0.0; self.n];
        edit[i] = 1.0;
        if propagate {
            edit = self.response(&edit, 0)?.swap_remove(0);
        }
        let mut out = vec![0f32; d];
        for (&amount, row) in edit.iter().zip(mixing.directions.chunks_exact(d)).filter(|(a, _)| **a != 0.0) {
            axpy(amount, row, &mut out);
        }
        Ok(out)
    }

    /// Writes the file; see the module's table.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        let (n, lags) = (self.n, self.lags);
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let numbers = |values: &[u32]| values.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect::<Vec<u8>>();
        let mut w = Writer::new();
        w.metadata("format", FORMAT);
        w.metadata("recipe", &self.recipe);
        let Origin { model, model_fingerprint, point, dictionary } = &self.origin;
        let layer = point.map_or(String::new(), |p| p.layer().to_string());
        let hook = point.map_or("", |p| p.site().name());
        let strings = [
            ("model", model.as_str()),
            ("model_fingerprint", model_fingerprint.as_str()),
            ("layer", layer.as_str()),
            ("hook", hook),
            ("dictionary", dictionary.as_str()),
        ];
        strings.iter().filter(|(_, v)| !v.is_empty()).for_each(|(key, value)| w.metadata(key, value));
        w.tensor("M", Dtype::F32, &[n, n], floats(&self.instantaneous));
        w.tensor("B", Dtype::F32, &[lags, n, n], floats(&self.lagged));
        w.tensor("order", Dtype::I64, &[n], numbers(&self.order));
        w.tensor("mean", Dtype::F32, &[n], floats(&self.mean));
        w.tensor("deviation", Dtype::F32, &[n], floats(&self.deviation));
        w.tensor("noise", Dtype::F32, &[n], floats(&self.noise));
        if !self.features.is_empty() {
            w.tensor("features", Dtype::I64, &[n], numbers(&self.features));
        }
        if let Some(mixing) = &self.mixing {
            let d = mixing.offset.len();
            w.tensor("A", Dtype::F32, &[d, n], floats(&transposed(&mixing.directions, n, d)));
            w.tensor("offset", Dtype::F32, &[d], floats(&mixing.offset));
            if let Some(encoder) = &mixing.encoder {
                w.tensor("encoder", Dtype::F32, &[n, d], floats(encoder));
            }
        }
        w.write(path)
    }

    /// Whether `file` says that it holds a temporal model.
    pub fn recognize(file: &File) -> bool {
        file.metadata("format") == Some(FORMAT)
    }

    /// Opens a file that [`Temporal::save`] wrote.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io); [`Kind::Format`](crate::Kind::Format) naming the tensor, for files that hold no such
    /// model, numbers that are not finite, an order that is none, or an M that is not triangular in it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        if !Self::recognize(&file) {
            let found = file.metadata("format").unwrap_or("none");
            return Err(Error::format(path, format!("metadata format: expected {FORMAT:?}, found {found:?}")));
        }
        let shape = file.tensor("B")?.shape().to_vec();
        let &[lags, n, also] = shape.as_slice() else {
            return Err(Error::format(path, format!("tensor \"B\": expected [lags, n, n], found {shape:?}")));
        };
        if n == 0 || lags == 0 || n != also || u32::try_from(n).is_err() {
            return Err(Error::format(path, format!("tensor \"B\": expected [lags, n, n], found {shape:?}")));
        }
        let floats = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
            let values = file.tensor(name)?.expect_shape(shape)?.to_f32()?.into_owned();
            match values.iter().position(|v| !v.is_finite()) {
                Some(at) => {
                    let what = format!("tensor \"{name}\": value {at}: expected a finite number, found {}", values[at]);
                    Err(Error::format(path, what))
                }
                None => Ok(values),
            }
        };
        let ids = |name: &str| -> Result<Vec<u32>> {
            let values = file.tensor(name)?.expect_shape(&[n])?.to_i64()?;
            let convert = |&v: &i64| u32::try_from(v).ok();
            let wrong = || Error::format(path, format!("tensor \"{name}\": expected numbers of 32 bits from 0"));
            values.iter().map(convert).collect::<Option<Vec<_>>>().ok_or_else(wrong)
        };
        let mixing = match file.opt_tensor("A").map(|a| a.shape().to_vec()) {
            None => None,
            Some(shape) => {
                let d = shape.first().copied().unwrap_or(0);
                let directions = transposed(&floats("A", &[d, n])?, d, n);
                let encoder = file.opt_tensor("encoder").map(|_| floats("encoder", &[n, d])).transpose()?;
                Some(Mixing { directions, encoder, offset: floats("offset", &[d])? })
            }
        };
        let string = |key: &str| file.metadata(key).unwrap_or_default().to_owned();
        let layer = file.metadata("layer").map(|text| {
            text.parse().map_err(|_| Error::format(path, format!("metadata layer: expected a number, found {text:?}")))
        });
        let point = match layer.transpose()? {
            Some(layer) => {
                let site = file.metadata("hook").unwrap_or("resid_post");
                Some(HookPoint::new(site.parse().map_err(|e: Error| e.context(path.display()))?, layer))
            }
            None => None,
        };
        let model = Self {
            n,
            lags,
            lagged: floats("B", &[lags, n, n])?,
            instantaneous: floats("M", &[n, n])?,
            order: ids("order")?,
            mean: floats("mean", &[n])?,
            deviation: floats("deviation", &[n])?,
            noise: floats("noise", &[n])?,
            mixing,
            features: file.opt_tensor("features").map(|_| ids("features")).transpose()?.unwrap_or_default(),
            origin: Origin {
                model: string("model"),
                model_fingerprint: string("model_fingerprint"),
                point,
                dictionary: string("dictionary"),
            },
            recipe: string("recipe"),
        };
        model.check().map_err(|what| Error::format(path, what))?;
        Ok(model)
    }

    /// What shapes and types alone don't say.
    fn check(&self) -> std::result::Result<(), String> {
        let n = self.n;
        let mut rank = vec![usize::MAX; n];
        for (k, &i) in self.order.iter().enumerate() {
            match rank.get_mut(i as usize) {
                Some(rank) if *rank == usize::MAX => *rank = k,
                _ => return Err(format!("tensor \"order\": expected every number below {n} once, found {i} wrong")),
            }
        }
        for (at, &weight) in self.instantaneous.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            if weight != 0.0 && rank[j] >= rank[i] {
                return Err(format!(
                    "tensor \"M\": expected 0 at [{i}, {j}], against the causal order, found {weight}"
                ));
            }
        }
        if self.features.windows(2).any(|w| w[0] >= w[1]) {
            return Err("tensor \"features\": expected numbers that rise".to_owned());
        }
        Ok(())
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    /// Three latents in a row: 2 → 0 → 1 at once, 1 → 2 a row later.
    pub(crate) fn chain() -> Temporal {
        let mut m = vec![0.0; 9];
        m[2] = 0.5; // M[0, 2]
        m[3] = -2.0; // M[1, 0]
        let mut b = vec![0.0; 18];
        b[7] = 0.25; // B_1[2, 1]
        b[9] = 0.125; // B_2[0, 0]
        Temporal {
            n: 3,
            lags: 2,
            lagged: b,
            instantaneous: m,
            order: vec![2, 0, 1],
            mean: vec![0.0, 1.0, 2.0],
            deviation: vec![1.0, 2.0, 4.0],
            noise: vec![1.0; 3],
            mixing: Some(Mixing {
                directions: vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
                encoder: Some(vec![0.5; 6]),
                offset: vec![1.0, -1.0],
            }),
            features: vec![],
            origin: Origin {
                model: "m".into(),
                point: Some(HookPoint::new(crate::hook_point::Site::default(), 7)),
                ..Origin::default()
            },
            recipe: "{}".into(),
        }
    }

    #[test]
    fn responses_are_the_ones_computed_by_hand() {
        let model = chain();
        let all = model.response(&[0.0, 0.0, 1.0], 2).unwrap();
        // Ψ_0 e_2: 2 has 1, 0 has 0.5, 1 has −1.
        assert_eq!(all[0], [0.5, -1.0, 1.0]);
        // B_1: latent 2 gets 0.25·(−1); then 0 gets 0.5·(−0.25), 1 gets −2 times that.
        assert_eq!(all[1], [-0.125, 0.25, -0.25]);
        // B_1 of row 1: 2 gets 0.0625; B_2 of row 0: 0 gets 0.125·0.5, and 0.5·0.0625 from 2.
        assert_eq!(all[2], [0.0625 + 0.03125, -0.1875, 0.0625]);
        // A e_2 = (1, 1); A Ψ_0 e_2 = 0.5·(1, 0) − (0, 1) + (1, 1).
        assert_eq!(model.direction(2, false).unwrap(), [1.0, 1.0]);
        assert_eq!(model.direction(2, true).unwrap(), [1.5, 0.0]);
        assert_eq!(model.direction(3, true).unwrap_err().kind(), Kind::Argument);
        assert_eq!(model.response(&[1.0], 1).unwrap_err().kind(), Kind::Argument);
        let strongest = model.relations();
        assert_eq!(strongest.len(), 4);
        // 0.5 · 4 / 1 is more than −2 · 1 / 2.
        assert_eq!((strongest[0].lag, strongest[0].from, strongest[0].to, strongest[0].strength), (0, 2, 0, 2.0));
        assert_eq!(model.encode(&[2.0, 0.0]).unwrap(), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_file_comes_back_and_a_wrong_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let model = chain();
        model.save(&path).unwrap();
        assert_eq!(Temporal::open(&path).unwrap(), model);
        let on_dictionary = Temporal { features: vec![3, 9, 4000], mixing: None, ..chain() };
        on_dictionary.save(&path).unwrap();
        let opened = Temporal::open(&path).unwrap();
        assert_eq!((opened.latent(9), opened.latent(2)), (Some(1), None));
        assert_eq!(opened.direction(0, true).unwrap_err().kind(), Kind::Unsupported);

        let bad = |change: fn(&mut Temporal)| {
            let mut model = chain();
            change(&mut model);
            model.save(&path).unwrap();
            let error = Temporal::open(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Format);
            error.message().to_owned()
        };
        assert!(bad(|m| m.order = vec![0, 1, 1]).contains("\"order\""));
        assert!(bad(|m| m.order = vec![0, 1, 2]).contains("expected 0 at [0, 2]"));
        assert!(bad(|m| m.lagged[4] = f32::NAN).contains("\"B\": value 4"));
        assert!(bad(|m| m.features = vec![2, 2, 5]).contains("\"features\""));
        std::fs::write(&path, b"no").unwrap();
        assert_eq!(Temporal::open(&path).unwrap_err().kind(), Kind::Format);
    }
}
