//! The sections of figures: effect and dose, selectivity, side effects, rules together.

use super::super::chart;
use super::super::report::{Additivity, Effect, Measure, Report, Whole};
use super::super::verdict::short;
use super::{effect_text, escape, percent, section, table};
use crate::eval::divergence::Divergence;

/// How the effect is told.
fn measure(effect: &Effect) -> String {
    let aims = escape(&effect.aims.join("; "));
    match effect.measure {
        Measure::Asked => format!(
            "Measured by how much likelier the model that is asked finds the text ({aims}): 0 is unsteered, 100 % asked. No \
             judge and no word list."
        ),
        Measure::HeldOut => {
            format!("Measured by words per 100 tokens over unsteered, other words than those that chose ({aims}).")
        }
        Measure::Words => format!(
            "Measured by words per 100 tokens over unsteered: the words that chose ({aims}), for want of others."
        ),
        Measure::None => {
            "Not measured: nothing says what the plan is for, or asking for it does not change the model's texts."
                .into()
        }
    }
}

pub(super) fn effect(card: &Report) -> String {
    let mut body = format!("<p>{}</p>\n", measure(&card.effect));
    if let Some(value) = card.effect.value {
        let text = |value| effect_text(card.effect.measure, value);
        let spread = card.effect.interval.map_or_else(String::new, |[low, high]| {
            format!(" (90 % of a bootstrap over prompts: {} to {})", text(low), text(high))
        });
        let random = card.random.mean.zip(card.random.deviation).zip(card.effect.sigma);
        let random = random.map_or_else(String::new, |((mean, _), sigma)| {
            format!(
                "; {} random directions of the same length: {} on average, the plan is {} σ above them",
                card.random.directions,
                text(mean),
                short(sigma)
            )
        });
        body += &format!("<p>Effect <b>{}</b>{spread}{random}.</p>\n", text(value));
    }
    let figure = |title: &str, svg: String| format!("<div><h3>{title}</h3>{svg}</div>");
    let mut charts = Vec::new();
    charts.extend(chart::doses(card).map(|svg| figure(chart::heading(card), svg)));
    charts.extend(chart::price(card).map(|svg| figure("effect against perplexity", svg)));
    if !card.doses.is_empty() {
        charts.push(figure("texts that loop or are gibberish", chart::broken(card)));
    }
    body += &format!("<div class=\"grid\">{}</div>\n", charts.concat());
    body += "<p class=\"soft small\">Large dot: the plan itself. Hollow: more than an eighth of the texts are broken. Grey band: \
        random directions as long as the plan, mean ± 2 σ. Lines at the dots: 90 % of a bootstrap over prompts.</p>\n";
    if let Some(at) = &card.one_nat {
        let effect = at
            .effect
            .map_or_else(String::new, |e| format!(", where its effect is {}", effect_text(card.effect.measure, e)));
        body += &format!(
            "<p>At equal cost (95th percentile of KL = 1 nat) it would act at {}×{effect}: compare plans there.</p>\n",
            short(at.factor)
        );
    }
    let row = |dose: &super::super::report::Dose| {
        let effect = dose.effect.map_or_else(|| "–".into(), |effect| effect_text(card.effect.measure, effect));
        let (kl, p95) = (short(dose.kl), short(dose.kl_p95));
        vec![format!("{}×", dose.factor), effect, format!("{}×", short(dose.perplexity)), percent(dose.broken), kl, p95]
    };
    let rows: Vec<Vec<String>> = card.doses.iter().map(row).collect();
    let heads = ["#strength", "#effect", "#perplexity", "#broken", "#KL", "#KL p95"];
    body += &format!("<details><summary>The numbers</summary>\n{}</details>\n", table(&heads, &rows));
    section("Effect and dose", &body)
}

pub(super) fn selectivity(card: &Report) -> String {
    let leak = &card.leak;
    let legend: Vec<String> = leak
        .rows
        .iter()
        .skip(1)
        .filter(|row| row.name != "asked")
        .enumerate()
        .map(|(i, row)| format!("rule {}: {}", i + 1, escape(&row.name)))
        .collect();
    let legend =
        if legend.is_empty() { String::new() } else { format!("<p class=\"soft small\">{}</p>", legend.join(" · ")) };
    let worst = match (&leak.leaks_to, leak.leak) {
        (Some(name), Some(leak)) => {
            format!(" It leaks most to <b>{}</b>: {} of its own rise.", escape(name), percent(leak))
        }
        (None, Some(_)) => " No other concept rises beyond noise.".into(),
        _ => String::new(),
    };
    let numbers = match (leak.own_rise, leak.selectivity) {
        (Some(own), Some(selectivity)) => format!(
            "<p>Its own rise is T = {}, {} of all rises beyond noise.{worst}</p>",
            short(own),
            percent(selectivity)
        ),
        _ => "<p>What it is meant for does not rise beyond noise, so nothing can be told of selectivity.</p>".into(),
    };
    let text = "<p class=\"soft small\">Words of each concept per 100 tokens, over unsteered; those that chose features are left out. T: by how many standard \
        deviations of random directions (one word at least) the plan's texts rise above these; below 3 is noise. Bold: what the plan is for, \
        and rises beyond noise.</p>";
    section("Selectivity and leak", &format!("{numbers}{}{legend}{text}", chart::heat(leak)))
}

pub(super) fn side_effects(card: &Report) -> String {
    let moved = |name: &str, d: &Divergence| {
        vec![name.to_owned(), short(d.mean), short(d.p95), short(d.entropy_base), short(d.entropy)]
    };
    let mut rows = vec![moved("the plan", &card.divergence)];
    rows.extend(card.asked_divergence.as_ref().map(|d| moved("asked", d)));
    let heads = ["", "#KL mean", "#KL p95", "#entropy before", "#entropy after"];
    let mut body = format!("<h3>Next-word distributions, nats a token</h3>{}", table(&heads, &rows));
    let whole = |name: &str, w: &Whole| {
        let (loops, gibberish) = (format!("{} of {}", w.loops, w.texts), format!("{} of {}", w.gibberish, w.texts));
        vec![name.to_owned(), short(w.perplexity), format!("{:.2}", w.distinct), loops, gibberish]
    };
    let mut rows = vec![whole("without", &card.fluency.without), whole("with", &card.fluency.with)];
    rows.extend(card.fluency.asked.as_ref().map(|w| whole("asked", w)));
    body += "<h3>Fluency</h3>";
    body += &table(&["", "#perplexity", "#distinct pairs", "#loops", "#gibberish"], &rows);
    let c = &card.choices;
    let rate = c.rate.map_or_else(
        || "no answer changed".into(),
        |rate| {
            format!(
                "side effect rate <b>{}</b> ({} of {} changed answers got worse, {} better)",
                percent(rate),
                c.worsened,
                c.changed,
                c.improved
            )
        },
    );
    body += &format!(
        "<h3>{} questions with choices</h3><p>Right {} without, {} with; {rate}. The right choice moves by {} nats, in the mean {:+.2}.</p>",
        c.questions,
        percent(c.right_before),
        percent(c.right_after),
        short(c.shift),
        c.drift
    );
    let r = &card.random;
    body += &format!(
        "<p class=\"soft small\">Random directions of the same length: perplexity {}× of unsteered, {} of texts broken.</p>",
        short(r.perplexity),
        percent(r.broken)
    );
    section("Side effects", &body)
}

pub(super) fn additivity(card: &Report) -> String {
    let Some(Additivity { rules, aims, alone, together, interaction, .. }) = &card.additivity else {
        return String::new();
    };
    let number = |value: f64| match card.effect.measure {
        Measure::Asked => percent(value),
        _ => short(value),
    };
    let heads: Vec<String> = aims.iter().map(|aim| format!("#{}", escape(aim))).collect();
    let heads: Vec<&str> = [""].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let row = |name: &str, values: &[f64]| {
        [name.to_owned()].into_iter().chain(values.iter().map(|v| number(*v))).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> =
        rules.iter().zip(alone).map(|(rule, values)| row(&format!("alone: {}", escape(rule)), values)).collect();
    rows.push(row("all at once", together));
    rows.push(
        [String::from("interaction I")].into_iter().chain(interaction.iter().map(|i| format!("{i:+.2}"))).collect(),
    );
    let unit = match card.effect.measure {
        Measure::Asked => "Effects in shares of what asking does.",
        _ => "Effects in words per 100 tokens more than unsteered.",
    };
    let text = format!(
        "<p class=\"soft small\">{unit} I = (together − sum) / sum of sizes: 0 adds up, below 0 the rules are in each other's \
         way, above 0 they do more together.</p>"
    );
    section("Rules together", &(table(&heads, &rows) + &text))
}
