//! The card as one HTML page that needs nothing else: no script, no network, light and dark, on a phone and on a desk.
//!
//! What comes from files and models (names, words, texts, paths) is escaped; everything else is tiller's own.

mod effects;
mod facts;

use super::report::{Measure, Report};
use super::verdict::{Check, Word, short};

const CSS: &str = include_str!("page.css");

impl Report {
    /// The card as a page, whole in itself.
    pub fn page(&self) -> String {
        let title = escape(&self.title);
        let parts = [
            header(self),
            verdict(self),
            facts::meaning(self),
            facts::samples(self),
            effects::effect(self),
            effects::selectivity(self),
            effects::side_effects(self),
            effects::additivity(self),
            facts::further(self),
            facts::cost(self),
            facts::identity(self),
        ];
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>Steering card: {title}</title>\
             <style>\n{CSS}</style></head><body><main>\n{}\n</main></body></html>\n",
            parts.concat()
        )
    }
}

/// Text as HTML shows it: no character of it is markup, and control characters are written out.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            '\n' | '\t' => safe.push(c),
            // Also those that turn the direction of a line.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                safe.extend(c.escape_unicode());
            }
            c => safe.push(c),
        }
    }
    safe
}

fn section(title: &str, body: &str) -> String {
    format!("<section><h2>{title}</h2>\n{body}</section>\n")
}

/// A table; columns whose heading begins with `#` hold numbers.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let class = |i: usize| if heads.get(i).is_some_and(|head| head.starts_with('#')) { " class=\"n\"" } else { "" };
    let head: String =
        heads.iter().enumerate().map(|(i, h)| format!("<th{}>{}</th>", class(i), h.trim_start_matches('#'))).collect();
    let row = |row: &Vec<String>| {
        let cells: String = row.iter().enumerate().map(|(i, cell)| format!("<td{}>{cell}</td>", class(i))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.iter().map(row).collect();
    format!("<div class=\"scroll\"><table><tr>{head}</tr>\n{rows}</table></div>\n")
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// An effect in its own unit.
fn effect_text(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Asked => percent(value),
        _ => format!("{}×", short(value.exp())),
    }
}

fn color(word: Word) -> &'static str {
    match word {
        Word::Selective => "good",
        Word::BreaksFluency => "bad",
        Word::DoesNothing | Word::Unknown => "soft",
        Word::Weak | Word::Entangled | Word::Leaky => "warn",
    }
}

fn header(card: &Report) -> String {
    let (word, sentence) = (card.verdict.word, escape(&card.verdict.sentence()));
    let also: Vec<&str> = card.verdict.also.iter().map(|word| word.name()).collect();
    let also =
        if also.is_empty() { String::new() } else { format!(" <span class=\"soft\">also {}</span>", also.join(", ")) };
    let fact = |value: String, name: &str| format!("<div><b>{value}</b><span class=\"soft small\">{name}</span></div>");
    let mut facts = Vec::new();
    if let Some(value) = card.effect.value {
        let name = if card.effect.measure == Measure::Asked { "of what asking does" } else { "words, over unsteered" };
        facts.push(fact(effect_text(card.effect.measure, value), name));
    }
    if let Some(sigma) = card.effect.sigma {
        facts.push(fact(format!("{} σ", short(sigma)), "above random directions"));
    }
    let ratio = card.fluency.with.perplexity / card.fluency.without.perplexity;
    facts.push(fact(format!("{}×", short(ratio)), "perplexity"));
    facts.push(fact(short(card.divergence.mean), "nats a token (KL)"));
    if let Some(selectivity) = card.leak.selectivity {
        facts.push(fact(percent(selectivity), "selectivity"));
    }
    format!(
        "<header><p class=\"soft small\">Steering card</p><h1>{}</h1>\
         <p><span class=\"badge {}\">{}</span>{also}</p><p>{sentence}</p>\
         <p class=\"soft small\">{} · prompts: {}</p><div class=\"facts\">{}</div></header>\n",
        escape(&card.title),
        color(word),
        word.name(),
        escape(&card.identity.model.name),
        if card.setting == "chat" { "messages in the chat template" } else { "beginnings of texts" },
        facts.concat()
    )
}

fn verdict(card: &Report) -> String {
    let row = |check: &Check| {
        let (side, bound) = (if check.above { ">" } else { "<" }, short(check.threshold));
        let (name, value) = (check.word.name(), check.value.map_or_else(|| "–".into(), short));
        let (name, value) = match check.holds() {
            true => (format!("<b class=\"{}\">{name} ✓</b>", color(check.word)), format!("<b>{value}</b>")),
            false => (format!("<span class=\"soft\">{name}</span>"), value),
        };
        vec![name, escape(&check.what), value, escape(&format!("{side} {bound}"))]
    };
    let rows: Vec<Vec<String>> = card.verdict.checks.iter().map(row).collect();
    let text = "<p class=\"soft small\">The first word that holds is the verdict; both numbers of KL must hold for the \
        first. A plan of which none holds is selective. –: not measured.</p>";
    section("Verdict", &(table(&["word", "number", "#measured", "#holds if"], &rows) + text))
}

#[cfg(test)]
mod tests;
