//! What gives a row its features, whoever made it: codes, directions, and the edit that sets a code.
//!
//! | featurizer | code of row x | edit to s |
//! |---|---|---|
//! | dictionary, learned features | its own | `x + (s − f_j)·d_j` |
//! | neurons | `x_j − mean_j` | the same, d_j the coordinate |
//! | difference of means, probe | `u_j·(x − mean)`, u_j of norm 1 | the same, d_j = u_j |
//! | ConCA | `z_j(x) − mean z_j` | `x + s·d_j` |
//! | SSAE | `z_j(x − mean) − mean z_j` | `x + s·d_j` |
//!
//! Codes of the last four have two signs and no zero of their own, so they are counted from their mean over the
//! training rows: correlations are the same, and "five times the largest code" means something. A coder's normalisation
//! couples all its codes; its edits therefore add what takes a row of mean code to s. SSAE codes differences of rows:
//! of a single row it gets the difference from the mean row. These are our decisions; arXiv 2512.15134 is silent.

use std::path::Path;
use std::sync::Arc;

use crate::dictionary::{Activation, Dictionary, Info, Parts, Settings};
use crate::error::{Error, Result};
use crate::num::parallel::count;
use crate::num::{Mat, gemm, norm};
use crate::plan::{Compiled, Feature, Op, Plan, Route, Rule, Strength, Target};
use crate::train::dense::Coder;

/// Rows coded at once, to count means.
const BLOCK: usize = 256;

/// Features of rows.
#[derive(Clone, Debug)]
pub struct Featurizer {
    /// What it is called.
    pub name: String,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Dictionary(Arc<Dictionary>),
    Coder {
        coder: Box<Coder>,
        /// The mean row, which a coder of differences subtracts.
        origin: Option<Vec<f32>>,
        /// The mean codes, `[F]`.
        mean: Vec<f32>,
    },
    Linear {
        /// u, `[F, d_model]`; none for the coordinates themselves.
        directions: Option<Vec<f32>>,
        /// The mean row.
        origin: Vec<f32>,
    },
}

impl Featurizer {
    /// The features of a file: a coder, a dictionary, or of learned features those at `layer`.
    ///
    /// # Errors
    /// As [`Dictionary::open`] and [`Coder::open`]; [`Kind::Mismatch`](crate::Kind::Mismatch) for another width or
    /// layer.
    pub fn open(path: &Path, layer: usize, rows: &[f32], middle: &[f32], threads: usize) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (made, own) = match path.is_file() && Coder::recognize(path)? {
            true => {
                let coder = Coder::open(path)?;
                let own = coder.info().layer;
                check_width(path, coder.d_model(), middle.len())?;
                (Self::of_coder(&name, coder, rows, middle, threads), own)
            }
            false => {
                let dictionary = Dictionary::open(path)?;
                let dictionary = if dictionary.is_layered() { dictionary.at_layer(layer)? } else { dictionary };
                check_width(path, dictionary.d_model(), middle.len())?;
                let own = dictionary.layer();
                (Self::of_dictionary(&name, dictionary), own)
            }
        };
        match own {
            Some(found) if found != layer => {
                let path = path.display();
                Err(Error::mismatch(format!("{path}: expected features of layer {layer}, found layer {found}"))
                    .hinted("measure files of one layer at a time"))
            }
            _ => Ok(made),
        }
    }

    /// The features of a dictionary.
    pub fn of_dictionary(name: &str, dictionary: Dictionary) -> Self {
        Self { name: name.to_owned(), body: Body::Dictionary(Arc::new(dictionary)) }
    }

    /// The codes of a coder, counted from their mean over `rows` `[n, d_model]`, whose mean is `middle`.
    pub fn of_coder(name: &str, coder: Coder, rows: &[f32], middle: &[f32], threads: usize) -> Self {
        let origin = coder.codes_differences().then(|| middle.to_vec());
        let n = coder.n_latents();
        let mut made =
            Self { name: name.to_owned(), body: Body::Coder { coder: Box::new(coder), origin, mean: vec![0.0; n] } };
        let (mut sum, count) = (vec![0f64; n], (rows.len() / middle.len()) as f64);
        for block in rows.chunks(BLOCK * middle.len()) {
            for codes in made.encode(block, threads).chunks_exact(n) {
                sum.iter_mut().zip(codes).for_each(|(s, &z)| *s += f64::from(z) / count);
            }
        }
        if let Body::Coder { mean, .. } = &mut made.body {
            *mean = sum.into_iter().map(|s| s as f32).collect();
        }
        made
    }

    /// The coordinates of a row.
    pub fn neurons(middle: &[f32]) -> Self {
        let body = Body::Linear { directions: None, origin: middle.to_vec() };
        Self { name: "neurons".to_owned(), body }
    }

    /// Directions `[F, d_model]`, which are brought to norm 1.
    ///
    /// # Errors
    /// [`Kind::Numeric`](crate::Kind::Numeric) for a direction without length.
    pub fn linear(name: &str, mut directions: Vec<f32>, middle: &[f32]) -> Result<Self> {
        for (j, row) in directions.chunks_exact_mut(middle.len()).enumerate() {
            let length = norm(row);
            if !(length > 0.0 && length.is_finite()) {
                return Err(Error::numeric(format!("{name}: direction {j}: expected a length, found {length}")));
            }
            row.iter_mut().for_each(|x| *x /= length);
        }
        let body = Body::Linear { directions: Some(directions), origin: middle.to_vec() };
        Ok(Self { name: name.to_owned(), body })
    }

    /// Number of features.
    pub fn n_features(&self) -> usize {
        match &self.body {
            Body::Dictionary(dictionary) => dictionary.n_features(),
            Body::Coder { coder, .. } => coder.n_latents(),
            Body::Linear { directions: None, origin } => origin.len(),
            Body::Linear { directions: Some(all), origin } => all.len() / origin.len(),
        }
    }

    /// Whether codes have two signs.
    pub fn is_signed(&self) -> bool {
        !matches!(self.body, Body::Dictionary(_))
    }

    /// The codes `[n, F]` of rows `[n, d_model]`. `threads` 0 takes all.
    pub fn encode(&self, rows: &[f32], threads: usize) -> Vec<f32> {
        let (n, threads) = (self.n_features(), count(threads));
        match &self.body {
            Body::Dictionary(dictionary) => {
                let codes = dictionary.encode_batch(rows, threads);
                let mut dense = vec![0f32; codes.n_rows() * n];
                for (out, row) in dense.chunks_exact_mut(n).zip(codes.rows()) {
                    row.iter().for_each(|&(f, value)| out[f as usize] = value);
                }
                dense
            }
            Body::Coder { coder, origin, mean } => {
                let mut codes = match origin {
                    Some(origin) => coder.encode(&less(rows, origin), threads),
                    None => coder.encode(rows, threads),
                };
                codes.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(mean).for_each(|(z, m)| *z -= m));
                codes
            }
            Body::Linear { directions, origin } => {
                let (rows, d) = (less(rows, origin), origin.len());
                let Some(directions) = directions else { return rows };
                let mut codes = vec![0f32; rows.len() / d * n];
                gemm(Mat::new(&rows, rows.len() / d, d), Mat::new(directions, n, d).t(), false, &mut codes, threads);
                codes
            }
        }
    }

    /// Codes `[n, F]` of differences `[n, d_model]`, of a coder of such.
    pub fn encode_differences(&self, differences: &[f32], threads: usize) -> Option<Vec<f32>> {
        match &self.body {
            Body::Coder { coder, origin: Some(_), .. } => Some(coder.encode(differences, threads)),
            _ => None,
        }
    }

    /// d_j `[d_model]`: how a row moves when code j rises by 1.
    pub fn direction(&self, j: usize) -> Vec<f32> {
        match &self.body {
            Body::Dictionary(dictionary) => {
                // With whatever the dictionary's own settings make of a decoder row.
                let mut row = vec![0f32; dictionary.d_out()];
                dictionary.decode(&[(j as u32, 1.0)], &mut row);
                row.iter_mut().zip(dictionary.decoder_bias()).for_each(|(x, b)| *x -= b);
                row
            }
            Body::Coder { coder, .. } => coder.decoder_row(j).to_vec(),
            Body::Linear { directions: Some(all), origin } => all[j * origin.len()..(j + 1) * origin.len()].to_vec(),
            Body::Linear { directions: None, origin } => {
                (0..origin.len()).map(|i| f32::from(u8::from(i == j))).collect()
            }
        }
    }

    /// What of its edits is not exact.
    ///
    /// # Errors
    /// As [`edit`](Self::edit).
    pub fn notes(&self, layer: usize, target: &Target) -> Result<Vec<String>> {
        match &self.body {
            Body::Coder { .. } => {
                Ok(vec!["a coder's codes depend on each other: edits add what a row of mean codes lacks".into()])
            }
            _ => Ok(self.edit(&[(0, 0.0)], layer, target)?.warnings),
        }
    }

    /// The plan that sets codes: each feature, once, with the value that its code becomes, at the output of block
    /// `layer`. What the featurizer does not explain of a row stays.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn edit(&self, features: &[(usize, f32)], layer: usize, target: &Target) -> Result<Compiled> {
        let clamp = |list: Vec<Feature>| Rule::new(Op::Clamp, list, Strength::raw(1.0)).at_layer(layer);
        match &self.body {
            Body::Dictionary(dictionary) => {
                let list = features.iter().map(|&(j, value)| Feature::new(j as u32, value)).collect();
                Plan::new([clamp(list)]).compile(&[("", dictionary.clone())], target, Route::Callback)
            }
            Body::Coder { .. } => {
                let mut sum = vec![0f32; target.d_model];
                for &(j, value) in features {
                    sum.iter_mut().zip(self.direction(j)).for_each(|(s, d)| *s += value * d);
                }
                push(sum, layer, target)
            }
            Body::Linear { origin, .. } => {
                let directions: Vec<Vec<f32>> = features.iter().map(|&(j, _)| self.direction(j)).collect();
                let values = features.iter().flat_map(|&(_, value)| [value, 0.0]);
                let list = (0..).zip(values).map(|(id, value)| Feature::new(id, value)).collect();
                let dictionary = Arc::new(two_signs(&directions, origin)?);
                Plan::new([clamp(list)]).compile(&[("", dictionary)], target, Route::Callback)
            }
        }
    }
}

/// The plan that adds a vector to every row but the first.
///
/// # Errors
/// As [`Plan::compile`].
pub fn push(vector: Vec<f32>, layer: usize, target: &Target) -> Result<Compiled> {
    let mut rule = Rule::vector(vector, Strength::raw(1.0)).at_layer(layer);
    rule.select.include_first = Some(false);
    Plan::new([rule]).compile(&[], target, Route::Callback)
}

/// A ReLU dictionary with two features for each direction u, `relu(u·(x − origin))` along u and `relu(−u·(x − origin))`
/// along −u: setting the first to s and the second to 0 sets `u·(x − origin)` to s, whatever its sign was.
fn two_signs(directions: &[Vec<f32>], origin: &[f32]) -> Result<Dictionary> {
    let rows: Vec<f32> = directions.iter().flat_map(|u| u.iter().copied().chain(u.iter().map(|x| -x))).collect();
    let bias = |row: &[f32]| -row.iter().zip(origin).map(|(&u, &x)| f64::from(u) * f64::from(x)).sum::<f64>() as f32;
    Dictionary::from_parts(Parts {
        d_model: origin.len(),
        encoder_bias: rows.chunks_exact(origin.len()).map(bias).collect(),
        encoder: rows.clone(),
        decoder: rows,
        decoder_bias: vec![0.0; origin.len()],
        threshold: None,
        gate: None,
        stats: None,
        settings: Settings { apply_b_dec_to_input: false, ..Settings::new(Activation::Relu) },
        info: Info::default(),
    })
}

fn less(rows: &[f32], origin: &[f32]) -> Vec<f32> {
    rows.chunks_exact(origin.len()).flat_map(|row| row.iter().zip(origin).map(|(x, o)| x - o)).collect()
}

fn check_width(path: &Path, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::mismatch(format!("{}: expected rows of width {expected}, found {found}", path.display()))),
    }
}
