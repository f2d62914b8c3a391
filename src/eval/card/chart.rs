//! Charts as SVG: they take their colours from the page, so that they are right on light and on dark ground.

use std::fmt::Write;

use super::report::{Dose, Gains, Leak, Measure, Random, Report};
use super::verdict::short;

/// Size of a chart, in its own units: text of 12 stays readable on a phone.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 250.0;
/// The plot inside of it: left, right, top, bottom.
const PLOT: [f64; 4] = [52.0, 388.0, 16.0, 204.0];
/// A rise of this logarithm has the full colour: a gain of twenty.
const FULL: f64 = 3.0;

/// Where numbers lie.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Over these numbers, with a little room; never of no length.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let room = 0.06 * (high - low).max(1e-6);
        let least = if high - low < 1e-6 { 0.5 } else { 0.0 };
        Self { low: low - room - least, high: high + room + least, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Round numbers inside, about five.
    fn ticks(&self) -> Vec<f64> {
        let raw = (self.high - self.low) / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= raw).unwrap_or(power);
        let first = (self.low / step).ceil() as i64;
        (first..first + 12).map(|i| i as f64 * step).take_while(|tick| *tick <= self.high).collect()
    }
}

/// How effects are written at an axis.
struct Scale(Measure);

impl Scale {
    fn ticks(&self, axis: &Axis) -> Vec<(f64, String)> {
        match self.0 {
            Measure::Asked => axis.ticks().into_iter().map(|tick| (tick, format!("{:.0} %", 100.0 * tick))).collect(),
            _ => {
                let gains = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
                let inside = gains.into_iter().filter(|gain: &f64| axis.holds(gain.ln()));
                inside.map(|gain| (gain.ln(), format!("{gain}×"))).collect()
            }
        }
    }
}

/// Where texts are told by.
fn effect_name(measure: Measure) -> &'static str {
    match measure {
        Measure::Asked => "effect: share of what asking does",
        Measure::HeldOut => "effect: gain of held-out words",
        Measure::Words | Measure::None => "effect: gain of the words",
    }
}

fn open(title: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\n")
}

/// Lines and labels of both axes.
fn frame(svg: &mut String, (x, y): (&Axis, &Axis), xs: &[(f64, String)], ys: &[(f64, String)], name: &str) {
    let [left, right, _, bottom] = PLOT;
    for (value, label) in ys {
        let at = y.at(*value);
        let _ = writeln!(
            svg,
            "<path class=\"guide\" d=\"M{left} {at:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{label}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    for (value, label) in xs {
        let at = x.at(*value);
        let _ = writeln!(
            svg,
            "<path class=\"guide\" d=\"M{at:.1} {bottom}v4\"/><text x=\"{at:.1}\" y=\"{:.1}\" class=\"mid\">{label}</text>",
            bottom + 18.0
        );
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>");
    let (middle, low) = ((left + right) / 2.0, HEIGHT - 8.0);
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{low}\" class=\"mid soft\">{name}</text>");
}

/// The band of random directions: mean ± 2 σ, from one edge to the other.
fn band(svg: &mut String, y: &Axis, random: &Random) {
    let Some((mean, deviation)) = random.mean.zip(random.deviation) else { return };
    let [left, right, ..] = PLOT;
    let (high, low) = (y.at(mean + 2.0 * deviation), y.at(mean - 2.0 * deviation));
    let (width, height) = (right - left, (low - high).max(1.0));
    let _ = writeln!(
        svg,
        "<rect class=\"band\" x=\"{left}\" y=\"{high:.1}\" width=\"{width}\" height=\"{height:.1}\"/>\
         <path class=\"null\" d=\"M{left} {:.1}H{right}\"/>",
        y.at(mean)
    );
}

/// Effect by strength, with intervals and the band of random directions.
pub(super) fn doses(card: &Report) -> Option<String> {
    let known: Vec<(&Dose, f64)> = card.doses.iter().filter_map(|dose| Some((dose, dose.effect?))).collect();
    if known.is_empty() {
        return None;
    }
    let [left, right, top, bottom] = PLOT;
    // Multiples lie on a scale of logarithms: half and twice are as far.
    let place = |dose: &Dose| f64::from(dose.factor).ln();
    let x = Axis::over(known.iter().map(|(dose, _)| place(dose)), left, right);
    let y = effects(card, bottom, top);
    let mut svg = open("Effect by strength", HEIGHT);
    band(&mut svg, &y, &card.random);
    let xs: Vec<(f64, String)> = known.iter().map(|(dose, _)| (place(dose), short_factor(dose.factor))).collect();
    frame(&mut svg, (&x, &y), &xs, &Scale(card.effect.measure).ticks(&y), "multiple of the plan");
    let spread = |(dose, _): &(&Dose, f64)| dose.interval.map(|[low, high]| (x.at(place(dose)), y.at(low), y.at(high)));
    for (at, low, high) in known.iter().filter_map(spread) {
        let _ = writeln!(svg, "<path class=\"spread\" d=\"M{at:.1} {low:.1}V{high:.1}\"/>");
    }
    let points: Vec<(f64, f64)> = known.iter().map(|(dose, effect)| (x.at(place(dose)), y.at(*effect))).collect();
    line(&mut svg, &points);
    for ((dose, _), &(px, py)) in known.iter().zip(&points) {
        dot(&mut svg, (px, py), dose);
    }
    Some(svg + "</svg>")
}

/// Effect against perplexity: up is more, right costs more.
pub(super) fn price(card: &Report) -> Option<String> {
    let known: Vec<(&Dose, f64)> = card.doses.iter().filter_map(|dose| Some((dose, dose.effect?))).collect();
    if known.is_empty() {
        return None;
    }
    let [left, right, top, bottom] = PLOT;
    let asked = card.fluency.asked.map(|asked| (asked.perplexity / card.fluency.without.perplexity).ln());
    let asked = asked.zip(card.effect.asked).filter(|(cost, effect)| cost.is_finite() && effect.is_finite());
    let costs = known.iter().map(|(dose, _)| dose.perplexity.ln()).chain(asked.map(|(cost, _)| cost)).chain([0.0]);
    let x = Axis::over(costs, left, right);
    let y = effects(card, bottom, top);
    let mut svg = open("Effect against perplexity", HEIGHT);
    band(&mut svg, &y, &card.random);
    let ratios = [0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0, 10_000.0];
    let xs: Vec<f64> = ratios.into_iter().filter(|ratio: &f64| x.holds(ratio.ln())).collect();
    let skip = xs.len().div_ceil(6);
    let xs: Vec<(f64, String)> = xs.into_iter().step_by(skip.max(1)).map(|r| (r.ln(), format!("{r}×"))).collect();
    frame(&mut svg, (&x, &y), &xs, &Scale(card.effect.measure).ticks(&y), "perplexity over unsteered");
    let points: Vec<(f64, f64)> =
        known.iter().map(|(dose, effect)| (x.at(dose.perplexity.ln()), y.at(*effect))).collect();
    line(&mut svg, &points);
    let mut labels: Vec<(f64, f64)> = Vec::new();
    for ((dose, _), &(px, py)) in known.iter().zip(&points) {
        dot(&mut svg, (px, py), dose);
        // A label that would lie on another is left out; the table has the number.
        if labels.iter().any(|(x, y): &(f64, f64)| (x - px).abs() < 30.0 && (y - py).abs() < 12.0) {
            continue;
        }
        labels.push((px, py));
        let (dx, class) = if px > right - 40.0 { (-8.0, "end") } else { (8.0, "start") };
        let (px, py, factor) = (px + dx, py + 4.0, short_factor(dose.factor));
        let _ = writeln!(svg, "<text x=\"{px:.1}\" y=\"{py:.1}\" class=\"{class} small\">{factor}</text>");
    }
    if let Some((cost, effect)) = asked {
        let (px, py) = (x.at(cost), y.at(effect));
        let _ = writeln!(
            svg,
            "<path class=\"asked\" d=\"M{px:.1} {:.1}l6 6l-6 6l-6 -6z\"/><text x=\"{px:.1}\" y=\"{:.1}\" class=\"mid small\">asked</text>",
            py - 6.0,
            if py < top + 16.0 { py + 20.0 } else { py - 10.0 }
        );
    }
    Some(svg + "</svg>")
}

/// Share of texts that loop or are gibberish, by strength.
pub(super) fn broken(card: &Report) -> String {
    let [left, right, top, bottom] = PLOT;
    let n = card.doses.len().max(1) as f64;
    let y = Axis { low: 0.0, high: 1.0, from: bottom, to: top };
    let x = Axis { low: 0.0, high: n, from: left, to: right };
    let mut svg = open("Texts that loop or are gibberish, by strength", HEIGHT);
    let place = |i: usize| i as f64 + 0.5;
    let xs: Vec<(f64, String)> =
        card.doses.iter().enumerate().map(|(i, dose)| (place(i), short_factor(dose.factor))).collect();
    let ys = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, format!("{:.0} %", 100.0 * share)));
    frame(&mut svg, (&x, &y), &xs, &ys, "multiple of the plan");
    let width = 0.5 * (right - left) / n;
    for (i, dose) in card.doses.iter().enumerate() {
        let (at, high) = (x.at(place(i)) - width / 2.0, y.at(dose.broken));
        let height = (bottom - high).max(0.0);
        let _ = writeln!(
            svg,
            "<rect class=\"bad\" x=\"{at:.1}\" y=\"{high:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }
    let unsteered = y.at(card.fluency.without.broken());
    let _ = writeln!(
        svg,
        "<path class=\"null\" d=\"M{left} {unsteered:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"start small\">unsteered</text>",
        left + 4.0,
        unsteered - 5.0
    );
    svg + "</svg>"
}

/// The axis of effects: doses, their intervals, random directions and asking.
fn effects(card: &Report, from: f64, to: f64) -> Axis {
    let doses = card.doses.iter().flat_map(|dose| {
        let spread = dose.interval.unwrap_or([f64::NAN; 2]);
        [dose.effect.unwrap_or(f64::NAN), spread[0], spread[1]]
    });
    let random = card.random.mean.zip(card.random.deviation);
    let random = random.map(|(mean, deviation)| [mean - 2.0 * deviation, mean + 2.0 * deviation]);
    Axis::over(doses.chain(random.into_iter().flatten()).chain(card.effect.asked).chain([0.0]), from, to)
}

fn line(svg: &mut String, points: &[(f64, f64)]) {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let _ = writeln!(svg, "<path class=\"line\" d=\"M{}\"/>", path.join("L"));
}

/// A dose; hollow where more than an eighth of the texts are broken, larger for the plan itself.
fn dot(svg: &mut String, (x, y): (f64, f64), dose: &Dose) {
    let class = if dose.broken > 0.125 { "dot hollow" } else { "dot" };
    let r = if dose.factor == 1.0 { 6.0 } else { 4.0 };
    let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>");
}

/// `1×`
fn short_factor(factor: f32) -> String {
    format!("{factor}×")
}

/// The heading of a chart of effects.
pub(super) fn heading(card: &Report) -> &'static str {
    effect_name(card.effect.measure)
}

/// Gains of each concept: a row a concept, a column for the plan, for what is held against it, and for each rule.
pub(super) fn heat(leak: &Leak) -> String {
    const ROW: f64 = 24.0;
    const NAMES: f64 = 92.0;
    const HEAD: f64 = 26.0;
    let columns: Vec<&Gains> = leak.rows.iter().take(8).collect();
    let rise = if leak.rise.is_empty() { 0.0 } else { 1.0 };
    let width = (WIDTH - NAMES) / (columns.len() as f64 + rise).max(1.0);
    let height = HEAD + ROW * leak.concepts.len() as f64 + 4.0;
    let mut svg = open("Gain of each concept", height);
    let heads = columns.iter().enumerate().map(|(i, _)| match i {
        0 => "plan".to_owned(),
        _ if columns[i].name == "asked" => "asked".to_owned(),
        _ => format!("rule {}", i - usize::from(columns.get(1).is_some_and(|row| row.name == "asked"))),
    });
    for (i, head) in heads.chain((rise > 0.0).then(|| "T".to_owned())).enumerate() {
        let x = NAMES + width * (i as f64 + 0.5);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"17\" class=\"mid soft\">{head}</text>");
    }
    for (j, name) in leak.concepts.iter().enumerate() {
        let y = HEAD + ROW * j as f64;
        let (own, name) = (if leak.own.contains(&j) { " own" } else { "" }, super::page::escape(name));
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"end{own}\">{name}</text>", NAMES - 8.0, y + 16.0);
        for (i, row) in columns.iter().enumerate() {
            let log = row.logs.get(j).copied().unwrap_or(0.0);
            cell(&mut svg, (NAMES + width * i as f64, y, width, ROW), log, &format!("{}×", short_gain(log.exp())));
        }
        if let Some(t) = leak.rise.get(j) {
            let class = if *t >= super::leak::NOISE { "mid own" } else { "mid soft" };
            let x = NAMES + width * (columns.len() as f64 + 0.5);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"{class}\">{t:+.1}</text>", y + 16.0);
        }
    }
    svg + "</svg>"
}

/// A cell of the heat map: what rises has one colour, what falls another.
fn cell(svg: &mut String, (x, y, width, height): (f64, f64, f64, f64), log: f64, text: &str) {
    let (class, depth) = (if log >= 0.0 { "rise" } else { "fall" }, (log.abs() / FULL).clamp(0.0, 1.0) * 0.85);
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" fill-opacity=\"{depth:.2}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" class=\"mid\">{text}</text>",
        x + 1.0,
        y + 1.0,
        width - 2.0,
        height - 2.0,
        x + width / 2.0,
        y + 16.0
    );
}

/// A gain in a cell.
fn short_gain(gain: f64) -> String {
    if gain < 10.0 { format!("{gain:.1}") } else { short(gain.round()).trim_end_matches(".0").to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis { low: -0.07, high: 1.33, from: 0.0, to: 1.0 };
        let ticks = axis.ticks();
        assert!((3..=8).contains(&ticks.len()), "{ticks:?}");
        assert!(ticks.iter().all(|tick| axis.holds(*tick)) && ticks.contains(&0.0), "{ticks:?}");
        let flat = Axis::over([2.0, 2.0].into_iter(), 0.0, 1.0);
        assert!(flat.high > flat.low && !flat.ticks().is_empty());
        let none = Axis::over([f64::NAN].into_iter(), 0.0, 1.0);
        assert!(none.high > none.low, "no numbers, and yet an axis");
    }

    #[test]
    fn numbers_in_cells_are_short() {
        assert_eq!([0.123, 1.0, 9.94, 41.2, 1234.0].map(short_gain), ["0.1", "1.0", "9.9", "41", "1234"]);
    }
}
