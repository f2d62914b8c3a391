//! `½‖w‖² + C·Σ log(1 + exp(−y(w·x + b)))` by Newton's method.
//!
//! The step solves `H·p = −g` by conjugate gradients, only as exactly as the distance to the optimum deserves; a product
//! with `H = I + C·XᵀDX`, D = p(1−p), costs two passes over the rows and no matrix `[d, d]`. A backtracking search on the
//! convex loss keeps every step a descent. Margins are kept, so the search does not touch the rows.

use super::matrix::Matrix;
use super::{Problem, Solution, loss, sigmoid};
use crate::error::Result;

/// Products with H a step, at most.
const PRODUCTS: usize = 400;

pub(super) fn solve(
    x: &mut Matrix,
    problem: &Problem<'_>,
    told: &mut dyn FnMut(usize, &str) -> Result<()>,
) -> Result<Solution> {
    let Problem { labels, c, tolerance, max_steps } = *problem;
    let (n, d) = (x.n, x.d);
    let yes = labels.iter().filter(|&&label| label).count() as f64;
    // The last entry is the intercept, which starts at the log odds of the labels.
    let mut w = vec![0f64; d + 1];
    w[d] = (yes / (n as f64 - yes)).ln();
    let mut margins = vec![w[d]; n];
    let mut first = None;
    for step in 0..max_steps {
        let p: Vec<f64> = margins.iter().map(|&m| sigmoid(m)).collect();
        let slopes: Vec<f64> = p.iter().zip(labels).map(|(p, &yes)| c * (p - f64::from(u8::from(yes)))).collect();
        let (mut g, sum) = x.transposed_times(&slopes);
        g.iter_mut().zip(&w).for_each(|(g, w)| *g += w);
        g.push(sum);
        let size = norm(&g);
        let start = *first.get_or_insert(size);
        told(step, &format!("gradient {:.1e}", if start > 0.0 { size / start } else { 0.0 }))?;
        if size <= tolerance * start || start == 0.0 {
            let bias = w.pop().unwrap_or(0.0);
            return Ok(Solution { weights: w, bias, steps: step, converged: true });
        }
        let h: Vec<f64> = p.iter().map(|p| c * p * (1.0 - p)).collect();
        let mut diagonal = x.squares(&h);
        diagonal.iter_mut().for_each(|v| *v += 1.0);
        diagonal.push(h.iter().sum::<f64>().max(1e-12));
        let exactness = (size / start).sqrt().min(0.1);
        let direction = conjugate_gradients(x, &h, &diagonal, &g, exactness * size);
        let mut along = vec![0f64; n];
        x.times(&direction[..d], direction[d], &mut along);
        let slope: f64 = g.iter().zip(&direction).map(|(g, p)| g * p).sum();
        let value = |t: f64| {
            let moved: Vec<f64> = margins.iter().zip(&along).map(|(m, a)| m + t * a).collect();
            let penalty: f64 = w[..d].iter().zip(&direction).map(|(w, p)| (w + t * p).powi(2)).sum();
            penalty / 2.0 + c * loss(&moved, labels)
        };
        let before = value(0.0);
        let mut t = 1.0;
        // Near the optimum the loss stands still to the last digit: a step that small is taken as it is.
        while t > 1e-10 && value(t) > before + 1e-4 * t * slope + 1e-13 * before.abs() {
            t /= 2.0;
        }
        w.iter_mut().zip(&direction).for_each(|(w, p)| *w += t * p);
        x.times(&w[..d], w[d], &mut margins);
    }
    let bias = w.pop().unwrap_or(0.0);
    Ok(Solution { weights: w, bias, steps: max_steps, converged: false })
}

/// `p` with `‖H·p + g‖ ≤ limit`, preconditioned by H's diagonal.
fn conjugate_gradients(x: &Matrix, h: &[f64], diagonal: &[f64], g: &[f64], limit: f64) -> Vec<f64> {
    let d = x.d;
    let mut p = vec![0f64; d + 1];
    let mut residual: Vec<f64> = g.iter().map(|g| -g).collect();
    let mut z: Vec<f64> = residual.iter().zip(diagonal).map(|(r, m)| r / m).collect();
    let mut search = z.clone();
    let mut energy = inner(&residual, &z);
    let mut along = vec![0f64; x.n];
    for _ in 0..PRODUCTS {
        if norm(&residual) <= limit {
            break;
        }
        x.times(&search[..d], search[d], &mut along);
        along.iter_mut().zip(h).for_each(|(a, h)| *a *= h);
        let (mut product, sum) = x.transposed_times(&along);
        product.iter_mut().zip(&search).for_each(|(q, s)| *q += s);
        product.push(sum);
        let curvature = inner(&search, &product);
        if curvature <= 0.0 {
            break;
        }
        let t = energy / curvature;
        p.iter_mut().zip(&search).for_each(|(p, s)| *p += t * s);
        residual.iter_mut().zip(&product).for_each(|(r, q)| *r -= t * q);
        z.iter_mut().zip(residual.iter().zip(diagonal)).for_each(|(z, (r, m))| *z = r / m);
        let next = inner(&residual, &z);
        let beta = next / energy;
        energy = next;
        search.iter_mut().zip(&z).for_each(|(s, z)| *s = z + beta * *s);
    }
    p
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    inner(a, a).sqrt()
}
