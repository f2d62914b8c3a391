//! Curves as SVG: the metrics of a training run, and what `tiller bench` measures at several sizes.

use std::io::Write as _;
use std::path::Path;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use serde_json::Value;
use tiller::file::{for_each_line, write_atomic};
use tiller::{Error, Result};

/// Width and height of a panel, in units of the SVG.
const SIZE: (u32, u32) = (720, 190);
/// A line of metrics has some three hundred bytes.
const MAX_LINE_BYTES: u64 = 1 << 16;
/// Points of a curve, at most.
const POINTS: usize = 400;
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 95, 168),
    RGBColor(196, 86, 28),
    RGBColor(60, 138, 72),
    RGBColor(120, 80, 150),
    RGBColor(150, 110, 60),
    RGBColor(210, 100, 160),
    RGBColor(110, 110, 110),
    RGBColor(20, 160, 170),
];

/// One diagram.
#[derive(Default)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// What the horizontal axis counts.
    pub(crate) x: &'static str,
    /// Whether equal distances along x are equal ratios.
    pub(crate) powers: bool,
    /// Names and points of the curves.
    pub(crate) curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws panels below each other. Those without two finite points in some curve are left out.
///
/// # Errors
/// [`Kind::Io`](tiller::Kind::Io); [`Kind::Argument`](tiller::Kind::Argument) if nothing is left.
pub(crate) fn draw(path: &Path, panels: Vec<Panel>) -> Result<()> {
    let panels: Vec<Panel> = panels.into_iter().filter_map(Panel::cleaned).collect();
    if panels.is_empty() {
        return Err(Error::argument(format!("{}: no curve has two points to draw", path.display())));
    }
    let mut text = String::new();
    paint(&mut text, &panels).map_err(|e| Error::io("draw", path, std::io::Error::other(e.to_string())))?;
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e)))
}

/// Draws the metrics that `tiller::train::Journal` wrote to `jsonl`, over the rows seen: FVU and L0 (with those of held-out
/// documents), the loss and dead features.
///
/// # Errors
/// As [`draw`]; [`Kind::Format`](tiller::Kind::Format) if there is no step in it.
pub(crate) fn metrics(jsonl: &Path, svg: &Path) -> Result<()> {
    let mut lines: Vec<Value> = Vec::new();
    for_each_line(jsonl, MAX_LINE_BYTES, |_, line| {
        // A run that was killed may leave half a line.
        lines.extend(serde_json::from_slice::<Value>(line).ok());
        Ok(())
    })?;
    let curve = |(name, pointer): &(&str, &str)| {
        let point = |line: &Value| Some((line["rows"].as_f64()?, line.pointer(pointer)?.as_f64()?));
        ((*name).to_owned(), lines.iter().filter_map(point).collect::<Vec<_>>())
    };
    let panels = [
        ("FVU", &[("training", "/fvu"), ("held out", "/held_out/fvu")][..]),
        ("L0", &[("training", "/l0"), ("held out", "/held_out/l0")]),
        ("loss", &[("loss", "/loss")]),
        ("dead features", &[("dead", "/dead")]),
    ];
    let panel = |(title, curves): (&str, &[_])| Panel {
        title: title.to_owned(),
        x: "rows",
        powers: false,
        curves: curves.iter().map(curve).collect(),
    };
    if lines.iter().all(|line| line["step"].as_u64().is_none()) {
        return Err(Error::format(jsonl, "expected a line of JSON for each step, found none"));
    }
    draw(svg, panels.into_iter().map(panel).collect())
}

impl Panel {
    /// The panel with its finite points, few enough to draw; none if nothing is left to be seen.
    fn cleaned(mut self) -> Option<Self> {
        for (_, points) in &mut self.curves {
            points.retain(|(x, y)| x.is_finite() && y.is_finite() && (!self.powers || *x > 0.0));
            let stride = points.len().div_ceil(POINTS).max(1);
            let last = points.last().copied();
            *points = points.iter().copied().step_by(stride).collect();
            points.extend(last.filter(|last| points.last() != Some(last)));
        }
        self.curves.retain(|(_, points)| points.len() >= 2);
        (!self.curves.is_empty()).then_some(self)
    }

    /// The places along x at which something was measured.
    fn sizes(&self) -> Vec<f64> {
        let mut sizes: Vec<f64> = self.curves.iter().flat_map(|(_, points)| points).map(|p| p.0).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        sizes
    }

    /// Where no curve is: above the lower end.
    fn free_corner(&self) -> SeriesLabelPosition {
        let ends = self.curves.iter().filter_map(|(_, points)| Some((points.first()?.1, points.last()?.1)));
        let (first, last) = ends.fold((0.0, 0.0), |sums, ends| (sums.0 + ends.0, sums.1 + ends.1));
        match first < last {
            true => SeriesLabelPosition::UpperLeft,
            false => SeriesLabelPosition::UpperRight,
        }
    }

    /// The least and the largest of what `of` takes of the points.
    fn range(&self, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let all = || self.curves.iter().flat_map(|(_, points)| points).map(&of);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        if low < high { (low, high) } else { (low - 0.5, high + 0.5) }
    }
}

type Painted<T> = std::result::Result<T, DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn paint(text: &mut String, panels: &[Panel]) -> Painted<()> {
    let root = SVGBackend::with_string(text, (SIZE.0, SIZE.1 * panels.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let mut builder = ChartBuilder::on(area);
        builder.caption(&panel.title, ("sans-serif", 13)).margin(8).x_label_area_size(30).y_label_area_size(62);
        let ((left, right), (low, high)) = (panel.range(|p| p.0), panel.range(|p| p.1));
        let sizes = || (left..right).log_scale().with_key_points(panel.sizes());
        // Codes start dense, and time grows by powers: a scale of ratios shows where they end.
        match (panel.powers, low > 0.0 && high > 20.0 * low) {
            (true, true) => {
                curves(&mut builder.build_cartesian_2d(sizes(), (low..high).log_scale())?, panel)?;
            }
            (true, false) => curves(&mut builder.build_cartesian_2d(sizes(), low.min(0.0)..high)?, panel)?,
            (false, true) => curves(&mut builder.build_cartesian_2d(left..right, (low..high).log_scale())?, panel)?,
            (false, false) => curves(&mut builder.build_cartesian_2d(left..right, low..high)?, panel)?,
        }
    }
    root.present()
}

fn curves<'a, X, Y>(chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>, panel: &Panel) -> Painted<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // Six digits: without those that a sum of tenths leaves behind.
    let number = |v: &f64| format!("{v:.5e}").parse::<f64>().unwrap_or(*v).to_string();
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(panel.x).x_label_formatter(&number).y_label_formatter(&number);
    mesh.light_line_style(TRANSPARENT).label_style(("sans-serif", 10)).draw()?;
    for ((name, points), colour) in panel.curves.iter().zip(COLOURS.iter().cycle()) {
        let line = chart.draw_series(LineSeries::new(points.iter().copied(), colour))?;
        line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
    }
    if panel.curves.len() > 1 {
        let mut legend = chart.configure_series_labels();
        legend.position(panel.free_corner()).background_style(WHITE.mix(0.8)).label_font(("sans-serif", 10)).draw()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_drawn_without_half_a_line_and_numbers_that_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let (path, svg) = (dir.path().join("run.jsonl"), dir.path().join("run.svg"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(metrics(&path, &svg).unwrap_err().kind(), tiller::Kind::Format);
        let line = |step: u32| {
            let held_out = if step > 1 { r#"{"rows":9,"l0":4.0,"fvu":0.5}"# } else { "null" };
            let fvu = 1.0 / f64::from(step);
            format!(
                r#"{{"step":{step},"rows":{step}00,"fvu":{fvu},"l0":{fvu}e3,"loss":null,"dead":0,"held_out":{held_out}}}"#
            )
        };
        let text: Vec<String> = (1..=40).map(line).collect();
        std::fs::write(&path, text.join("\n") + "\n{\"step\":5,\"st").unwrap();
        metrics(&path, &svg).unwrap();
        let drawing = std::fs::read_to_string(&svg).unwrap();
        assert!(drawing.starts_with("<svg") && drawing.trim_end().ends_with("</svg>"), "{drawing}");
        for title in ["FVU", "L0", "dead features", "held out"] {
            assert!(drawing.contains(title), "{title}");
        }
        assert!(!drawing.contains("loss"), "a panel without numbers");
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
}
