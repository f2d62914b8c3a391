//! What an adoption says about itself: Markdown.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use super::Job;
use super::state::Tested;
use crate::error::{Error, Result};
use crate::file::write_atomic;

/// What to do where a dictionary does not steer.
const LEARN: &str = "```sh\ntiller learn MODEL.gguf \"Talk about the sea.\" --out sea.gguf\ntiller run MODEL.gguf --chat --prompt \"Tell me a story.\" --steer sea.gguf\n```\n";

impl Job<'_> {
    pub(super) fn report(&self, tested: &Tested) -> Result<PathBuf> {
        let path = self.directory.join("report.md");
        let text = self.write(tested, self.layer()?).map_err(|e| Error::numeric(e.to_string()))?;
        write_atomic(&path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io("write", &path, e)))?;
        Ok(path)
    }

    /// What was learned, and how it is used.
    fn learned(&self, name: &str, out: &mut String) -> std::fmt::Result {
        let learned = &self.state.learned;
        let Some((first, file)) = learned.iter().find_map(|l| Some((l, l.file.as_ref()?))) else { return Ok(()) };
        writeln!(
            out,
            "## Learned instructions\n\nThese need no dictionary; any other one is learned by its first use (`--steer \"talk \
             about music\"`):\n\n```sh\ntiller run {name} --steer {file} --prompt \"{}\"{}\n```\n",
            first.sample[0],
            if first.chat { " --chat" } else { "" }
        )?;
        writeln!(out, "| file | instruction | of what asking does | perplexity | a message | without | with it |")?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for l in learned {
            let [message, before, after] = l.sample.each_ref().map(|text| cell(text));
            match &l.file {
                Some(file) => writeln!(
                    out,
                    "| {file} | {} | {:.0} %{} | {:.2}× | {message} | {before} | {after} |",
                    cell(&l.instruction),
                    100.0 * l.effect,
                    if l.fluent { "" } else { ", but it breaks the text" },
                    l.perplexity
                )?,
                None => writeln!(out, "| | {} | the model does not follow it | | | | |", cell(&l.instruction))?,
            }
        }
        writeln!(out)
    }

    fn write(&self, tested: &Tested, layer: usize) -> std::result::Result<String, std::fmt::Error> {
        let (state, mut out) = (&self.state, String::new());
        let n_layer = self.model.n_layer();
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let steerable = if tested.shown.is_empty() { "a dictionary" } else { "steerable" };
        writeln!(out, "# {name}, {steerable}\n")?;
        writeln!(
            out,
            "`dictionary.gguf` has {} features of the residual stream after block {layer} of {n_layer} (counted from 0); \
             `dictionary.jsonl` says of {} of them what they mean.\n",
            tested.features.1, tested.explained
        )?;
        match tested.shown.first() {
            Some(shown) => writeln!(
                out,
                "This was seen to work ({} words of the concept, {} without steering):\n\n```sh\ntiller run {name} --dictionary \
                 dictionary.gguf --words \"{}\" --strength {:.2} --prompt \"{}\" --max-tokens 50 --compare\n```\n",
                shown.hits[1], shown.hits[0], shown.words, shown.strength, shown.prompt
            )?,
            None => writeln!(
                out,
                "**By this dictionary the model could not be steered**: {}. More minutes, or more text, may make a better one. \
                 What works without one is to learn an instruction:\n\n{LEARN}",
                match tested.gains.len() {
                    0 => "there was no time to try".to_owned(),
                    n => format!("of {n} concepts none came into a text that stayed whole"),
                }
            )?,
        }
        for (i, shown) in tested.shown.iter().enumerate() {
            if i == 0 {
                writeln!(out, "| words | beginning | without steering | with it |\n|---|---|---|---|")?;
            }
            let (words, prompt) = (&shown.words, cell(&shown.prompt));
            writeln!(out, "| {words} | {prompt} | {} | {} |", cell(&shown.before), cell(&shown.after))?;
        }
        writeln!(out)?;
        self.learned(&name, &mut out)?;
        writeln!(out, "## Why block {layer}\n")?;
        let judged = if state.tried.iter().all(|tried| tried.gains.is_empty()) {
            "There was no time to steer by them, or nothing to compare: of several, the block nearest to two thirds of the \
             depth was taken."
        } else {
            "Then it was calculated what steering by the words of a few concepts would do to the model's next word, in neutral \
             text that it had written: the figure is how much likelier *other* words of the concept become, at the strength at \
             which the model finds its steered choice about a quarter more surprising; the block with the largest mean was \
             taken. (In the mean a figure below 1 counts as 1. Written text moves further, see the last table.)"
        };
        writeln!(
            out,
            "Every candidate got a dictionary of {} features, trained on the same text ({} rows). {judged}\n",
            state.tried.first().map_or(0, |tried| tried.features),
            state.tried.first().map_or(0, |tried| tried.rows),
        )?;
        let names: Vec<&str> = state.tried.iter().flat_map(|t| &t.gains).fold(Vec::new(), |mut all, (name, ..)| {
            if !all.contains(&name.as_str()) {
                all.push(name);
            }
            all
        });
        let heads: String = names.iter().map(|name| format!("{name} | ")).collect();
        writeln!(out, "| block | FVU | {heads}geometric mean |")?;
        writeln!(out, "|---|---|{}---|", "---|".repeat(names.len()))?;
        for tried in &state.tried {
            let gain = |name: &&str| {
                let found = tried.gains.iter().find(|(of, ..)| of == name);
                found.map_or_else(
                    || "–".to_owned(),
                    |(_, gain, perplexity)| format!("{gain:.1}× (ppl {perplexity:.2}×)"),
                )
            };
            let cells: String = names.iter().map(|name| gain(name) + " | ").collect();
            let mean = if tried.gains.is_empty() { "–".to_owned() } else { format!("{:.2}×", tried.gain()) };
            writeln!(out, "| {} | {:.3} | {cells}{mean} |", tried.layer, tried.fvu)?;
        }
        writeln!(out, "\n## The dictionary\n")?;
        writeln!(
            out,
            "BatchTopK, {} features trained, {} kept because they fire; {} rows of {}, each seen {} times.\n",
            tested.features.0,
            tested.features.1,
            tested.rows,
            if self.options.text.is_empty() { "text that the model wrote" } else { "the text given" },
            tested.epochs
        )?;
        writeln!(out, "On text that it was not trained on, by the model as it is quantized:\n")?;
        writeln!(out, "| L0 | FVU | cross-entropy recovered | features silent there |\n|---|---|---|---|")?;
        writeln!(
            out,
            "| {:.1} | {:.3} | {:.3} | {:.1} % |\n",
            tested.l0,
            tested.fvu,
            tested.recovered,
            100.0 * tested.dead
        )?;
        writeln!(out, "Self-test: {}\n", tested.verdict)?;
        match tested.median_gain().zip(tested.median_perplexity()) {
            None => writeln!(out, "There was no time to steer by concepts: give it more minutes.\n")?,
            Some((median, perplexity)) => {
                writeln!(
                    out,
                    "| concept | other words of it, steered over unsteered | perplexity, steered over unsteered |\n\
                     |---|---|---|"
                )?;
                for (concept, gain, perplexity) in &tested.gains {
                    writeln!(out, "| {concept} | {gain:.1}× | {perplexity:.2}× |")?;
                }
                writeln!(out, "| median | {median:.1}× | {perplexity:.2}× |\n")?;
            }
        }
        let speed = state.speed.clone().unwrap_or_default();
        writeln!(
            out,
            "Made in {:.1} minutes of {:.0}. Rows came at {:.0} tokens a second{}.",
            (state.earlier + self.clock.elapsed()) / 60.0,
            (state.earlier + self.clock.total()) / 60.0,
            speed.tokens,
            speed.run_as.map_or_else(String::new, |kind| format!(", from a copy of the model in {kind}"))
        )?;
        Ok(out)
    }
}

/// A text in a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
