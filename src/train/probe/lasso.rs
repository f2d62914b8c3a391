//! `‖w‖₁ + C·Σ log(1 + exp(−y(w·x + b)))` by coordinate descent on Newton's quadratic model.
//!
//! Each outer step replaces the loss by its second-order model at the current weights and minimises model plus penalty
//! one coordinate at a time: the minimiser along a coordinate is a soft threshold, so weights become exactly zero. Passes
//! go over all columns, then over those that are not zero until they rest, and over all again. A backtracking search on
//! the true objective makes every outer step a descent.

use super::matrix::Matrix;
use super::{Problem, Solution, loss, sigmoid};
use crate::error::Result;

/// Passes over the columns of one model, at most.
const PASSES: usize = 1000;
/// Least curvature of a row, as share of its largest: separable rows would have none.
const LEAST: f64 = 1e-10;

pub(super) fn solve(
    x: &Matrix,
    problem: &Problem<'_>,
    told: &mut dyn FnMut(usize, &str) -> Result<()>,
) -> Result<Solution> {
    let Problem { labels, c, tolerance, max_steps } = *problem;
    let (n, d) = (x.n, x.d);
    let yes = labels.iter().filter(|&&label| label).count() as f64;
    let mut w = vec![0f64; d];
    let mut bias = (yes / (n as f64 - yes)).ln();
    let mut margins = vec![bias; n];
    let mut first = None;
    for step in 0..max_steps {
        let p: Vec<f64> = margins.iter().map(|&m| sigmoid(m)).collect();
        let slopes: Vec<f64> = p.iter().zip(labels).map(|(p, &yes)| c * (p - f64::from(u8::from(yes)))).collect();
        let h: Vec<f64> = p.iter().map(|p| c * (p * (1.0 - p)).max(LEAST)).collect();
        let g: Vec<f64> = (0..d).map(|j| product(x.column(j), &slopes)).collect();
        let g_bias: f64 = slopes.iter().sum();
        let size = g.iter().zip(&w).map(|(&g, &w)| violation(g, w)).sum::<f64>() + g_bias.abs();
        // At no weights at all nothing may be violated; then the largest slope is the measure.
        let start = *first.get_or_insert(size.max(1e-3 * g.iter().fold(0.0, |m: f64, g| m.max(g.abs()))));
        told(step, &format!("violation {:.1e}", if start > 0.0 { size / start } else { 0.0 }))?;
        if size <= tolerance * start || start == 0.0 {
            return Ok(Solution { weights: w, bias, steps: step, converged: true });
        }
        let mut model = Model {
            x,
            h: &h,
            g: &g,
            g_bias,
            curvature: vec![0.0; d],
            moved: vec![0.0; n],
            step: vec![0.0; d],
            bias: 0.0,
        };
        model.minimise(&w, 0.1 * tolerance.max((size / start).powi(2).min(1e-2)) * size);
        let Model { step: direction, bias: bias_step, moved, .. } = model;
        let one = |w: &[f64], t: f64| w.iter().zip(&direction).map(|(w, p)| (w + t * p).abs()).sum::<f64>();
        let value = |t: f64| {
            let moved: Vec<f64> = margins.iter().zip(&moved).map(|(m, a)| m + t * a).collect();
            one(&w, t) + c * loss(&moved, labels)
        };
        let before = value(0.0);
        let slope = inner(&g, &direction) + g_bias * bias_step + one(&w, 1.0) - one(&w, 0.0);
        let mut t = 1.0;
        while t > 1e-10 && value(t) > before + 1e-4 * t * slope + 1e-13 * before.abs() {
            t /= 2.0;
        }
        w.iter_mut().zip(&direction).for_each(|(w, p)| *w += t * p);
        bias += t * bias_step;
        margins.iter_mut().zip(&moved).for_each(|(m, a)| *m += t * a);
    }
    Ok(Solution { weights: w, bias, steps: max_steps, converged: false })
}

/// The quadratic model around the current weights, and the step that minimises it plus the penalty.
struct Model<'a> {
    x: &'a Matrix,
    /// C·p(1−p) of each row.
    h: &'a [f64],
    g: &'a [f64],
    g_bias: f64,
    /// `Σ h·x²` of each column; 0 until it is needed.
    curvature: Vec<f64>,
    /// `X·step + bias` of each row.
    moved: Vec<f64>,
    step: Vec<f64>,
    bias: f64,
}

impl Model<'_> {
    fn minimise(&mut self, w: &[f64], limit: f64) {
        let all: Vec<usize> = (0..w.len()).collect();
        let h_bias: f64 = self.h.iter().sum();
        let mut active: Option<Vec<usize>> = None;
        for _ in 0..PASSES {
            let mut off = 0.0;
            for &j in active.as_ref().unwrap_or(&all) {
                off += self.coordinate(j, w[j]);
            }
            let slope = self.g_bias + inner(self.h, &self.moved);
            let by = -slope / h_bias;
            self.bias += by;
            self.moved.iter_mut().for_each(|m| *m += by);
            off += slope.abs();
            match (off <= limit, active.is_some()) {
                (true, false) => return,
                // The active ones rest: look at all again.
                (true, true) => active = None,
                (false, true) => (),
                (false, false) => active = Some(all.iter().copied().filter(|&j| w[j] + self.step[j] != 0.0).collect()),
            }
        }
    }

    /// Minimises along column `j`; how far from the minimum it was.
    fn coordinate(&mut self, j: usize, w: f64) -> f64 {
        let column = self.x.column(j);
        if self.curvature[j] == 0.0 {
            self.curvature[j] = column.iter().zip(self.h).map(|(&x, h)| h * f64::from(x) * f64::from(x)).sum();
        }
        let curvature = self.curvature[j];
        if curvature <= 0.0 {
            return 0.0;
        }
        let slope = self.g[j]
            + column.iter().zip(self.h.iter().zip(&self.moved)).map(|(&x, (h, m))| f64::from(x) * h * m).sum::<f64>();
        let at = w + self.step[j];
        let off = violation(slope, at);
        // argmin over v of slope·(v − at) + ½ curvature (v − at)² + |v|.
        let plain = at - slope / curvature;
        let next = plain.signum() * (plain.abs() - 1.0 / curvature).max(0.0);
        let by = next - at;
        if by != 0.0 {
            self.step[j] = next - w;
            self.moved.iter_mut().zip(column).for_each(|(m, &x)| *m += by * f64::from(x));
        }
        off
    }
}

/// How far `−g` is from the subgradient of |w|.
fn violation(g: f64, w: f64) -> f64 {
    if w > 0.0 {
        (g + 1.0).abs()
    } else if w < 0.0 {
        (g - 1.0).abs()
    } else {
        (g.abs() - 1.0).max(0.0)
    }
}

fn product(x: &[f32], v: &[f64]) -> f64 {
    x.iter().zip(v).map(|(&x, v)| f64::from(x) * v).sum()
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
