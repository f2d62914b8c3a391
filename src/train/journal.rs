//! A run's metrics on disk: a line of JSON a step, and a plot of them as SVG.
//!
//! A run that goes on from a checkpoint does some steps again; lines of steps that are to come are dropped when the file is
//! opened, so that the file reads as that of one uninterrupted run.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::metrics::Metrics;
use crate::error::{Error, Result};
use crate::file::write_atomic;

/// The metrics of a run, being written.
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    /// A journal at `path`, which is touched with the first step.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// Writes the metrics of a step. The first call drops lines of this step and later ones.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn push(&mut self, metrics: &Metrics) -> Result<()> {
        if self.file.is_none() {
            let before = read(&self.path)?;
            let kept = before.iter().filter(|(step, _)| *step < metrics.step);
            let kept: String = kept.flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
            write_atomic(&self.path, |out| {
                out.write_all(kept.as_bytes()).map_err(|e| Error::io("write", &self.path, e))
            })?;
            let file = File::options().append(true).open(&self.path);
            self.file = Some(file.map_err(|e| Error::io("open", &self.path, e))?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_string(metrics).unwrap_or_default();
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(|e| Error::io("write", &self.path, e))
    }
}

/// The whole lines of a journal, with their steps; none if there is no file.
fn read(path: &Path) -> Result<Vec<(u64, String)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64();
    // A run that was killed may leave half a line.
    Ok(text.lines().filter_map(|line| Some((step(line)?, line.to_owned()))).collect())
}

/// Width and height of a panel, in units of the SVG.
const SIZE: (f64, f64) = (640.0, 150.0);
/// Points of a curve, at most.
const POINTS: usize = 400;

/// Draws the metrics in the journal at `jsonl` over the rows seen: FVU (with that of held-out documents), L0, the loss and
/// dead features.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io); [`Kind::Format`](crate::Kind::Format) if there is no step in it.
pub fn plot(jsonl: &Path, svg: &Path) -> Result<()> {
    let lines: Vec<serde_json::Value> =
        read(jsonl)?.iter().filter_map(|(_, line)| serde_json::from_str(line).ok()).collect();
    if lines.is_empty() {
        return Err(Error::format(jsonl, "expected a line of JSON for each step, found none"));
    }
    let series = |pointer: &str| -> Vec<(f64, f64)> {
        let one = |line: &serde_json::Value| Some((line["rows"].as_f64()?, line.pointer(pointer)?.as_f64()?));
        lines.iter().filter_map(one).collect()
    };
    let panels: [(&str, &[&str]); 4] = [
        ("FVU", &["/fvu", "/held_out/fvu"]),
        ("L0", &["/l0", "/held_out/l0"]),
        ("loss", &["/loss"]),
        ("dead", &["/dead"]),
    ];
    let (width, height) = (SIZE.0 + 80.0, panels.len() as f64 * (SIZE.1 + 40.0) + 20.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, (title, pointers)) in panels.iter().enumerate() {
        let curves: Vec<_> = pointers.iter().map(|pointer| series(pointer)).collect();
        panel(&mut out, i as f64 * (SIZE.1 + 40.0) + 24.0, title, &curves);
    }
    out.push_str("</svg>\n");
    write_atomic(svg, |file| file.write_all(out.as_bytes()).map_err(|e| Error::io("write", svg, e)))
}

fn panel(out: &mut String, top: f64, title: &str, curves: &[Vec<(f64, f64)>]) {
    let ys = || curves.iter().flatten().map(|point| point.1).filter(|y| y.is_finite());
    let (mut low, mut high) = (ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return;
    }
    // Codes start dense: a scale of powers shows where they end.
    let log = low > 0.0 && high > 20.0 * low;
    let scale = |y: f64| if log { y.ln() } else { y };
    (low, high) = (scale(low), scale(high));
    let span = if high > low { high - low } else { 1.0 };
    let last = curves.iter().flatten().fold(1f64, |last, point| last.max(point.0));
    let place = |(x, y): (f64, f64)| (60.0 + x / last * SIZE.0, top + SIZE.1 - (scale(y) - low) / span * SIZE.1);
    let name = |y: f64| if log { y.exp() } else { y };
    let (left, bottom, right) = (60.0, top + SIZE.1, 60.0 + SIZE.0);
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{:.0}\" font-weight=\"bold\">{title}</text>\n\
         <path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n\
         <text x=\"56\" y=\"{:.0}\" text-anchor=\"end\">{:.4}</text>\n\
         <text x=\"56\" y=\"{bottom}\" text-anchor=\"end\">{:.4}</text>\n\
         <text x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\">{last:.0} rows</text>",
        top - 5.0,
        top + 8.0,
        name(high),
        name(low),
        bottom + 13.0,
    );
    for (curve, colour) in curves.iter().zip(["#1f5fa8", "#c4561c"]) {
        let stride = curve.len().div_ceil(POINTS).max(1);
        let finite = curve.iter().step_by(stride).chain(curve.last()).filter(|point| point.1.is_finite());
        let points: String = finite.map(|&point| place(point)).fold(String::new(), |mut text, (x, y)| {
            let _ = write!(text, "{x:.1},{y:.1} ");
            text
        });
        let _ = writeln!(out, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64) -> Metrics {
        let held_out = (step == 2).then_some(super::super::HeldOut { rows: 9, l0: 4.0, fvu: 0.5 });
        Metrics {
            step,
            steps: 9,
            rows: 100 * step,
            lr: 0.1,
            loss: 10.0 / step as f64,
            penalty: 0.0,
            coefficient: 0.0,
            aux_loss: 0.0,
            l0: 4.0,
            fvu: 1.0 / step as f64,
            dead: 0,
            held_out,
        }
    }

    #[test]
    fn a_resumed_run_continues_its_journal_and_half_a_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (path, svg) = (dir.path().join("run.jsonl"), dir.path().join("run.svg"));
        assert!(plot(&path, &svg).is_err());
        let mut journal = Journal::new(&path);
        (1..=4).for_each(|step| journal.push(&metrics(step)).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"{\"step\":5,\"st").unwrap();
        let mut journal = Journal::new(&path);
        (3..=6).for_each(|step| journal.push(&metrics(step)).unwrap());
        let steps: Vec<u64> = read(&path).unwrap().iter().map(|line| line.0).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""held_out":{"rows":9,"l0":4.0,"fvu":0.5}"#), "{text}");

        plot(&path, &svg).unwrap();
        let drawing = std::fs::read_to_string(&svg).unwrap();
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"), "{drawing}");
        assert_eq!(drawing.matches("<polyline").count(), 6, "{drawing}");
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
}
