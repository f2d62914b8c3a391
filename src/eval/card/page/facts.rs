//! The sections of words and facts: what the features mean, texts, slots that need files, cost, and what was measured.

use super::super::report::{Delayed, File, Label, Report, Sample};
use super::{escape, percent, section, table};

/// Samples that are open; the others lie behind a summary.
const SHOWN: usize = 4;

fn chips(list: &[(String, f64)]) -> String {
    let chip = |(text, share): &(String, f64)| {
        let shown = text.trim().replace('\n', "⏎");
        let text = if shown.is_empty() { text.replace('\n', "⏎").replace(' ', "␣") } else { shown };
        format!("<li title=\"{} of the sum\">{}</li>", percent(*share), escape(&text))
    };
    format!("<ul class=\"chips\">{}</ul>", list.iter().map(chip).collect::<String>())
}

pub(super) fn meaning(card: &Report) -> String {
    let rules: String = card.rules.iter().map(|rule| format!("<li>{}</li>", escape(rule))).collect();
    let mut body = format!("<ol>{rules}</ol>\n");
    if !card.meaning.likelier.is_empty() {
        body += "<h3>Tokens that it makes likelier, by their share of the divergence</h3>";
        body += &chips(&card.meaning.likelier);
        body += "<h3>Tokens that it makes less likely</h3>";
        body += &chips(&card.meaning.unlikelier);
    }
    if !card.meaning.features.is_empty() {
        let row = |feature: &super::super::report::Feature| {
            let words = escape(&feature.words);
            let words = if feature.by_lens { format!("<i>{words}</i>") } else { words };
            let lift = feature.lift.map_or_else(|| "–".into(), |lift| format!("{lift:+.2}"));
            vec![
                feature.feature.to_string(),
                feature.layer.map_or_else(String::new, |layer| layer.to_string()),
                words,
                lift,
                if feature.lift.is_some() { escape(&feature.lifted.join(" ")) } else { String::new() },
            ]
        };
        let rows: Vec<Vec<String>> = card.meaning.features.iter().map(row).collect();
        body += &table(&["#feature", "#layer", "means", "#lift", "of the words"], &rows);
        let more = match card.meaning.more_features {
            0 => String::new(),
            n => format!(" {n} more features are not listed."),
        };
        body += &format!(
            "<p class=\"soft small\">In italics: words that the direction points at in the unembedding; others are of \
             explanations. Lift: by how many nats pushing the feature alone makes these words likelier.{more}</p>"
        );
    }
    section("What it does, in words", &body)
}

pub(super) fn samples(card: &Report) -> String {
    let one = |sample: &Sample| {
        let broken =
            sample.broken.as_ref().map_or_else(String::new, |b| format!(" <span class=\"bad\">({})</span>", escape(b)));
        let column = |title: &str, text: &str| format!("<div><h3>{title}</h3><p>{}</p></div>", escape(text.trim()));
        let asked = sample.asked.as_deref().map_or_else(String::new, |text| column("asked", text));
        format!(
            "<div class=\"texts\"><p class=\"prompt\">{}</p>{}{}{asked}</div>\n",
            escape(&sample.prompt),
            column("without", &sample.without),
            column(&format!("with{broken}"), &sample.with)
        )
    };
    let open: String = card.samples.iter().take(SHOWN).map(one).collect();
    let rest: String = card.samples.iter().skip(SHOWN).map(one).collect();
    let n = card.samples.len().saturating_sub(SHOWN);
    let rest = if n == 0 { rest } else { format!("<details><summary>{n} more</summary>\n{rest}</details>\n") };
    let against = match card.effect.against {
        true => {
            "<p class=\"soft small\">The plan turns against something: the texts without it are those that were asked for it, \
            and “asked” are those that were not.</p>"
        }
        false => "",
    };
    section("Texts", &format!("{against}{open}{rest}"))
}

/// Slots that need files.
pub(super) fn further(card: &Report) -> String {
    let labels = match &card.labels {
        None => "<p class=\"soft\">Not measured. Give a file that says which features are universal, found by comparing this \
            dictionary with one of another model: <code>--labels FILE.jsonl</code>.</p>"
            .to_owned(),
        Some(labels) if labels.is_empty() => "<p class=\"soft\">The file says nothing of the plan's features.</p>".into(),
        Some(labels) => {
            let facts = |label: &Label| {
                let fact = |(key, value): (&String, &serde_json::Value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    format!("{}: {}", escape(key), escape(&value))
                };
                vec![label.feature.to_string(), label.facts.iter().map(fact).collect::<Vec<_>>().join("<br>")]
            };
            table(&["#feature", "what the file says"], &labels.iter().map(facts).collect::<Vec<_>>())
        }
    };
    let delayed = match &card.delayed {
        None => "<p class=\"soft\">Not measured. Train a temporal model on the dictionary (<code>tiller train temporal</code>) and give it: \
            <code>--temporal FILE</code>.</p>"
            .to_owned(),
        Some(found) if found.is_empty() => "<p class=\"soft\">The temporal model holds none of the plan's features.</p>".into(),
        Some(found) => {
            let row = |d: &Delayed| {
                let (own, control) = (format!("{:+.2}", d.correlation), format!("{:+.2}", d.control));
                vec![d.feature.to_string(), d.tokens.to_string(), own, control]
            };
            let heads = ["#feature", "#tokens later", "#predicted and seen", "#others' predictions"];
            table(&heads, &found.iter().map(row).collect::<Vec<_>>())
        }
    };
    section("Universality", &labels) + &section("Delayed effects", &delayed)
}

fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} bytes"),
        1024..0x10_0000 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / f64::from(1 << 20)),
    }
}

pub(super) fn cost(card: &Report) -> String {
    let c = &card.cost;
    let more = 100.0 * (c.ms_with / c.ms_without.max(f64::MIN_POSITIVE) - 1.0);
    let rows = match c.rows {
        [_, 0] => "runs inside the graph, as a control vector".to_owned(),
        [edited, seen] => format!("{edited} of {seen} rows edited while writing one text"),
    };
    section(
        "Cost",
        &format!(
            "<div class=\"facts\"><div><b>{:.2} ms</b><span class=\"soft small\">a token without</span></div>\
             <div><b>{:.2} ms</b><span class=\"soft small\">with ({more:+.0} %)</span></div>\
             <div><b>{}</b><span class=\"soft small\">of rows in memory</span></div>\
             <div><b>{}</b><span class=\"soft small\">plan file</span></div></div>\n<p class=\"soft small\">{rows}</p>",
            c.ms_without,
            c.ms_with,
            bytes(c.bytes),
            bytes(c.plan_bytes)
        ),
    )
}

pub(super) fn identity(card: &Report) -> String {
    let id = &card.identity;
    let file = |what: &str, file: &File| {
        let name = if file.name.is_empty() { String::new() } else { format!("{}<br>", escape(&file.name)) };
        let (path, mark) = (escape(&file.file), escape(&file.fingerprint));
        vec![
            what.to_owned(),
            format!("{name}<code>{path}</code><br><code class=\"soft\">{mark}</code>"),
            bytes(file.bytes),
        ]
    };
    let mut rows = vec![file("model", &id.model)];
    rows.extend(id.dictionaries.iter().map(|dictionary| file("dictionary", dictionary)));
    rows.push(file("plan", &id.plan));
    let mut body = table(&["", "file and fingerprint", "#size"], &rows);
    let (tiller, llama) = (escape(&id.tiller), escape(&id.llama_cpp));
    body += &format!("<p class=\"small\">tiller {tiller} · {llama} · seed {} · {:.0} s</p>", id.seed, card.seconds);
    if !card.command.is_empty() {
        body += &format!("<h3>Make it again</h3><pre>{}</pre>", escape(&card.command));
    }
    if !card.notes.is_empty() {
        let notes: String = card.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
        body += &format!("<h3>Notes</h3><ul>{notes}</ul>");
    }
    section("What was measured", &body)
}
