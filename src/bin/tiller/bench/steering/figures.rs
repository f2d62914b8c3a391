//! From texts to figures with intervals, and the texts themselves.

use tiller::Result;
use tiller::eval::bootstrap::interval;
use tiller::eval::fluency::{Broken, Fluency};

use super::super::{Line, Lines, median};
use super::methods::Method;
use super::records::{Record, Records, Text};
use super::tasks::{Setting, Task};
use crate::output::Out;

/// What an interval holds.
const SHARE: f64 = 0.95;
/// The methods that a task has lines of, in order.
const METHODS: [Method; 9] = [
    Method::Unsteered,
    Method::Asked,
    Method::Words,
    Method::Prompted,
    Method::Delta,
    Method::Constant,
    Method::Gated,
    Method::Learned,
    Method::Both,
];

/// A text with the unsteered one on the same prompt, in numbers.
struct Pair {
    score: [f64; 2],
    tokens: [f64; 2],
    nll: [f64; 2],
    distinct: [f64; 2],
    /// 1 for a text that loops.
    loops: [f64; 2],
}

impl Pair {
    fn all(task: &Task, texts: &[Text], unsteered: &[Text]) -> Vec<Self> {
        let pair = |text: &Text| {
            let other = unsteered.iter().find(|other| other.prompt == text.prompt)?;
            let both = [text, other];
            let fluency = both.map(|text| Fluency::of(&text.text));
            Some(Self {
                score: both.map(|text| task.score(&text.text)),
                tokens: both.map(|text| text.tokens as f64),
                nll: both.map(|text| text.nll),
                distinct: fluency.map(|fluency| fluency.distinct_2()),
                loops: fluency.map(|fluency| f64::from(u8::from(fluency.broken() == Some(Broken::Loops)))),
            })
        };
        texts.iter().filter_map(pair).collect()
    }
}

/// Value and baseline of a figure over the pairs at these places.
type Figure = fn(&[&Pair]) -> [f64; 2];

fn sum(pairs: &[&Pair], of: impl Fn(&Pair) -> [f64; 2]) -> [f64; 2] {
    pairs.iter().map(|pair| of(pair)).fold([0.0; 2], |[a, b], [x, y]| [a + x, b + y])
}

/// Words of the concept per 100 tokens, with half a word added.
fn per_100(pairs: &[&Pair]) -> [f64; 2] {
    let (hits, tokens) = (sum(pairs, |p| p.score), sum(pairs, |p| p.tokens));
    [0, 1].map(|i| 100.0 * (hits[i] + 0.5) / tokens[i].max(1.0))
}

fn mean_score(pairs: &[&Pair]) -> [f64; 2] {
    sum(pairs, |p| p.score).map(|sum| sum / pairs.len().max(1) as f64)
}

fn perplexity(pairs: &[&Pair]) -> [f64; 2] {
    let (nll, tokens) = (sum(pairs, |p| p.nll), sum(pairs, |p| p.tokens));
    [0, 1].map(|i| (nll[i] / tokens[i].max(1.0)).exp())
}

fn distinct(pairs: &[&Pair]) -> [f64; 2] {
    sum(pairs, |p| p.distinct).map(|sum| sum / pairs.len().max(1) as f64)
}

fn loops(pairs: &[&Pair]) -> [f64; 2] {
    sum(pairs, |p| p.loops).map(|sum| sum / pairs.len().max(1) as f64)
}

/// Steered over unsteered.
fn ratio(figure: Figure, pairs: &[&Pair]) -> f64 {
    let [value, baseline] = figure(pairs);
    value / baseline
}

fn refs(pairs: &[Pair]) -> Vec<&Pair> {
    pairs.iter().collect()
}

/// The pairs of a method on a task, group by group.
fn groups(task: &Task, setting: Setting, method: Method, records: &Records) -> Option<Vec<Vec<Pair>>> {
    let unsteered = records.get(setting, Method::Unsteered, task.kept_as(Method::Unsteered))?.groups.concat();
    let record = records.get(setting, method, task.kept_as(method))?;
    Some(record.groups.iter().map(|texts| Pair::all(task, texts, &unsteered)).collect())
}

/// The lines of a task.
pub(super) fn tell(model: &str, task: &Task, setting: Setting, records: &Records, lines: &mut Lines<'_>) -> Result<()> {
    for method in METHODS {
        let Some(record) = records.get(setting, method, task.kept_as(method)) else { continue };
        let Some(groups) = groups(task, setting, method, records) else { continue };
        let pairs: Vec<Pair> = groups.into_iter().flatten().collect();
        let figures: [(&str, Figure, &'static str); 4] = [
            match task.is_concept() {
                true => ("gain", per_100, "held-out words per 100 tokens"),
                false => ("score", mean_score, "score of the detector"),
            },
            ("perplexity", perplexity, "perplexity"),
            ("distinct", distinct, "share of word pairs"),
            ("loops", loops, "share of texts"),
        ];
        for (what, figure, unit) in figures {
            let [value, baseline] = figure(&refs(&pairs));
            let drawn = &mut |places: &[usize]| {
                let drawn: Vec<&Pair> = places.iter().map(|&place| &pairs[place]).collect();
                // Shares and scores may have a baseline of 0: their own interval says more.
                if matches!(what, "loops" | "score") { figure(&drawn)[0] } else { ratio(figure, &drawn) }
            };
            let interval = interval(pairs.len(), SHARE, 0, drawn);
            lines.push(line(
                model,
                [what, setting.name(), method.name(), &task.name],
                (value, baseline, unit),
                pairs.len(),
                interval,
            ))?;
        }
        costs(model, task, setting, (method, record), records, lines)?;
        if let Some(share) = share(task, setting, method, records) {
            let case = ["share", setting.name(), method.name(), &task.name];
            lines.push(line(model, case, (share, 1.0, "of what asking does"), pairs.len(), None))?;
        }
    }
    Ok(())
}

/// Milliseconds a token beside unsteered, and seconds to learn or search.
fn costs(
    model: &str,
    task: &Task,
    setting: Setting,
    (method, record): (Method, &Record),
    records: &Records,
    lines: &mut Lines<'_>,
) -> Result<()> {
    let unsteered =
        records.get(setting, Method::Unsteered, task.kept_as(Method::Unsteered)).map_or(f64::NAN, |record| record.ms);
    let case = |what| [what, setting.name(), method.name(), task.name.as_str()];
    lines.push(line(model, case("ms"), (record.ms, unsteered, "ms a token, prompts included"), 1, None))?;
    if record.seconds > 0.0 {
        lines.push(line(model, case("seconds"), (record.seconds, f64::NAN, "s to learn or search"), 1, None))?;
    }
    Ok(())
}

/// The share of what asking does to the score that a learned form does; none where asking does nothing.
fn share(task: &Task, setting: Setting, method: Method, records: &Records) -> Option<f64> {
    if task.is_concept() || !matches!(method, Method::Constant | Method::Gated) {
        return None;
    }
    let moved = |method| {
        let pairs: Vec<Pair> = groups(task, setting, method, records)?.into_iter().flatten().collect();
        let [value, baseline] = mean_score(&refs(&pairs));
        Some(value - baseline)
    };
    let (own, asked) = (moved(method)?, moved(Method::Asked)?);
    (asked.abs() > 0.02).then(|| own / asked)
}

/// The random directions that all tasks drew, beside each task: mean and standard deviation of the gain's logarithm, and by how
/// many of these asking and learning lie above that mean.
pub(super) fn nulls(
    model: &str,
    tasks: &[Task],
    setting: Setting,
    records: &Records,
    lines: &mut Lines<'_>,
) -> Result<()> {
    let random = Method::Random;
    let drawn = tasks.iter().filter_map(|task| records.get(setting, random, &task.name));
    let directions: Vec<&Vec<Text>> = drawn.flat_map(|record| &record.groups).collect();
    if directions.len() < 2 {
        return Ok(());
    }
    let mut above: Vec<(Method, Vec<f64>)> =
        [Method::Asked, Method::Constant, Method::Gated].map(|m| (m, Vec::new())).into();
    let (mut pairs, mut gains) = (Vec::new(), Vec::new());
    for task in tasks {
        let Some(unsteered) = records.get(setting, Method::Unsteered, task.kept_as(Method::Unsteered)) else {
            continue;
        };
        let unsteered = unsteered.groups.concat();
        let own: Vec<Vec<Pair>> = directions.iter().map(|texts| Pair::all(task, texts, &unsteered)).collect();
        let logs: Vec<f64> = own.iter().map(|pairs| ratio(per_100, &refs(pairs)).ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let square = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
        let deviation = (square / (logs.len() - 1) as f64).sqrt();
        for (method, above) in &mut above {
            let Some(groups) = groups(task, setting, *method, records) else { continue };
            let log = ratio(per_100, &refs(&groups.into_iter().flatten().collect::<Vec<_>>())).ln();
            above.push((log - mean) / deviation);
            let case = ["sigma", setting.name(), method.name(), &task.name];
            lines.push(line(
                model,
                case,
                ((log - mean) / deviation, 1.0, "standard deviations above random"),
                logs.len(),
                None,
            ))?;
        }
        gains.push(mean.exp());
        pairs = own.into_iter().flatten().collect();
    }
    for (what, value, unit) in [
        ("gain", median(&gains), "geometric mean over directions, median over tasks"),
        ("perplexity", ratio(perplexity, &refs(&pairs)), "ratio"),
        ("loops", loops(&refs(&pairs))[0], "share of texts"),
    ] {
        let case = [what, setting.name(), random.name(), "median"];
        lines.push(line(model, case, (value, 1.0, unit), directions.len(), None))?;
    }
    for (method, above) in above.into_iter().filter(|(_, above)| !above.is_empty()) {
        let case = ["sigma", setting.name(), method.name(), "median"];
        let unit = "standard deviations above random";
        lines.push(line(model, case, (median(&above), 1.0, unit), above.len(), None))?;
    }
    Ok(())
}

/// Medians over concepts, or over behaviours, with intervals over them, and the worst.
pub(super) fn medians(
    model: &str,
    tasks: &[Task],
    setting: Setting,
    records: &Records,
    lines: &mut Lines<'_>,
) -> Result<()> {
    for method in METHODS {
        let of = |figure: Figure| -> Vec<f64> {
            let one = |task: &Task| {
                let pairs: Vec<Pair> = groups(task, setting, method, records)?.into_iter().flatten().collect();
                Some(ratio(figure, &refs(&pairs)))
            };
            tasks.iter().filter_map(one).collect()
        };
        let concepts = tasks.iter().all(Task::is_concept);
        let gains = if concepts {
            of(per_100)
        } else {
            tasks.iter().filter_map(|t| share(t, setting, method, records)).collect()
        };
        let name = if concepts { "gain" } else { "share" };
        for (what, values) in [(name, gains), ("perplexity", of(perplexity)), ("distinct", of(distinct))] {
            if values.is_empty() {
                continue;
            }
            let drawn = &mut |places: &[usize]| median(&places.iter().map(|&place| values[place]).collect::<Vec<_>>());
            let interval = interval(values.len(), SHARE, 0, drawn);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let case = |which| [what, setting.name(), method.name(), which];
            lines.push(line(model, case("median"), (median(&values), 1.0, "ratio"), values.len(), interval))?;
            lines.push(line(model, case("least"), (least, 1.0, "ratio"), values.len(), None))?;
        }
    }
    Ok(())
}

fn line(
    model: &str,
    case: [&str; 4],
    (value, baseline, unit): (f64, f64, &'static str),
    n: usize,
    interval: Option<[f64; 2]>,
) -> Line {
    let (case, model) = (case.join("/"), model.to_owned());
    Line { bench: "steering", case, model, value, unit, baseline, ratio: value / baseline, n, interval }
}

/// How much of its effect, the logarithm of the gain, a method has after other talk.
pub(super) fn kept(model: &str, tasks: &[Task], records: &Records, lines: &mut Lines<'_>) -> Result<()> {
    for method in [Method::Asked, Method::Learned, Method::Both] {
        let effect = |task: &Task, setting| {
            let pairs: Vec<Pair> = groups(task, setting, method, records)?.into_iter().flatten().collect();
            Some(ratio(per_100, &refs(&pairs)).ln())
        };
        let both = |task| Some([effect(task, Setting::Chat)?, effect(task, Setting::Later)?]);
        let all: Vec<[f64; 2]> = tasks.iter().filter_map(both).collect();
        let sums = |places: &[usize]| places.iter().fold([0.0; 2], |[a, b], &i| [a + all[i][0], b + all[i][1]]);
        let share = |[chat, later]: [f64; 2]| later / chat;
        if !all.is_empty() {
            let own = sums(&(0..all.len()).collect::<Vec<_>>());
            let interval = interval(all.len(), SHARE, 0, &mut |places: &[usize]| share(sums(places)));
            let case = ["kept", "later", method.name(), "all"];
            lines.push(line(model, case, (share(own), 1.0, "of the effect in chat"), all.len(), interval))?;
        }
    }
    Ok(())
}

/// How many wishes came, how many texts loop, and all texts.
pub(super) fn wishes(model: &str, tasks: &[Task], records: &Records, lines: &mut Lines<'_>) -> Result<()> {
    let methods = [Method::Unsteered, Method::Asked, Method::Learned];
    let text = |task: &Task, method| {
        let record = records.get(Setting::Chat, method, task.kept_as(method))?;
        record.groups.first()?.first().map(|text| text.text.trim().to_owned())
    };
    let came = |task: &Task, method| {
        text(task, method).zip(text(task, Method::Unsteered)).is_some_and(|(text, plain)| task.came(&text, &plain))
    };
    let n = tasks.len() as f64;
    for method in methods {
        let share = |n_true: usize| n_true as f64 / n;
        let loops =
            |task: &&Task| text(task, method).is_some_and(|text| Fluency::of(&text).broken() == Some(Broken::Loops));
        for (what, value) in [
            ("came", share(tasks.iter().filter(|task| came(task, method)).count())),
            ("loops", share(tasks.iter().filter(loops).count())),
        ] {
            let case = [what, "chat", method.name(), "all"];
            lines.push(line(model, case, (value, 1.0, "share of wishes"), tasks.len(), None))?;
        }
        for task in tasks {
            let case = ["came", "chat", method.name(), &task.name];
            let value = f64::from(u8::from(came(task, method)));
            lines.push(line(model, case, (value, 1.0, "1 if it came"), 1, None))?;
        }
    }
    if !lines.out.json() {
        for task in tasks {
            lines.out.line(format!("\n{}: {}", task.name, task.instruction))?;
            let row = methods.map(|method| text(task, method).unwrap_or_default());
            lines.out.table(&methods.map(Method::name), [row.to_vec()])?;
        }
    }
    Ok(())
}

/// What the learned forms write in the best, the median and the worst case, beside what was asked for in the prompt.
pub(super) fn texts(tasks: &[Task], settings: &[Setting], records: &Records, out: &Out) -> Result<()> {
    for &setting in settings {
        for method in [Method::Constant, Method::Gated] {
            let gain = |task: &Task| {
                let pairs: Vec<Pair> = groups(task, setting, method, records)?.into_iter().flatten().collect();
                Some(if task.is_concept() {
                    ratio(per_100, &refs(&pairs))
                } else {
                    share(task, setting, method, records)?
                })
            };
            let mut all: Vec<(&Task, f64)> = tasks.iter().filter_map(|task| Some((task, gain(task)?))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let places = [("best", 0), ("median", all.len() / 2), ("worst", all.len().saturating_sub(1))];
            for (which, (task, gain)) in places.iter().filter_map(|&(which, at)| Some((which, all.get(at)?))) {
                out.line(format!("\n{} {} {which}: {} {gain:.1}×", setting.name(), method.name(), task.name))?;
                let first = |method| {
                    let record = records.get(setting, method, task.kept_as(method))?;
                    record.groups.first()?.first().map(|text| text.text.trim().to_owned())
                };
                let row = [Method::Unsteered, Method::Asked, method].map(|m| first(m).unwrap_or_default());
                out.table(&["unsteered", "asked", method.name()], [row.to_vec()])?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(score: [f64; 2], tokens: f64, nll: [f64; 2]) -> Pair {
        Pair { score, tokens: [tokens; 2], nll, distinct: [0.5, 1.0], loops: [1.0, 0.0] }
    }

    #[test]
    fn figures_are_sums_over_texts() {
        let pairs = [pair([3.0, 0.0], 50.0, [50.0, 25.0]), pair([2.0, 1.0], 50.0, [50.0, 25.0])];
        let all = refs(&pairs);
        assert_eq!(per_100(&all), [5.5, 1.5]);
        assert!((ratio(perplexity, &all) - 0.5f64.exp()).abs() < 1e-12);
        assert_eq!((distinct(&all), loops(&all)), ([0.5, 1.0], [1.0, 0.0]));
        assert_eq!(mean_score(&all), [2.5, 0.5]);
    }
}
