//! Every architecture's graph, as it really runs: what is added to a site shows where the model reads it, or the hook says
//! that it was not added.
//!
//! The models are tiny, random and made in memory. An observer of its own finds the residual stream by the *weights* that
//! read it (`observer`), and tiller's hook adds `(1 + position)·v` to one site of one block (`hooked`). Three things are
//! compared (`bench`): the rows that the hook saw with what the observer reads there, the difference that the edit makes,
//! and that in every single reading, since a copy that was taken before the edit would leave half of the model unsteered.
//! A site that a block does not have must be refused: an error of `patch`, or a fault at `finish`, with no row edited.
#![cfg(feature = "engine")]

mod architecture;
mod bench;
mod hooked;
mod observer;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::collections::BTreeMap;

use architecture::Block;
use bench::{Bench, Outcome};
use hooked::{Rows, factor};
use support::raw::Model;
use tiller::hook_point::Site;

#[test]
fn every_site_of_every_architecture() {
    let _turn = support::turn();
    let (mut wrong, mut found) = (Vec::new(), Vec::<(String, Vec<&str>)>::new());
    for architecture in table::all() {
        let model = Model::new(architecture.gguf, &architecture.keys).expect(architecture.name);
        // Encoders take no control vector.
        let controls: &[bool] = if architecture.block(0) == Block::Closed { &[false] } else { &[false, true] };
        let mut benches: Vec<Bench> = controls.iter().map(|&on| Bench::new(&architecture, &model, on)).collect();
        let mut cells = Vec::new();
        for site in Site::ALL {
            let mut words: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for layer in 0..if site == Site::ResidPre { 1 } else { model.n_layer() } {
                let place = format!("{} {} {layer}", architecture.name, site.name());
                let outcomes: Vec<Outcome> = benches.iter_mut().map(|bench| bench.outcome(site, layer)).collect();
                let word = match both(outcomes) {
                    Outcome::Steered => "yes",
                    Outcome::Named(_) => "no",
                    Outcome::Refused(why) => {
                        if architecture.block(layer).has(site) && !REFUSED.contains(&(architecture.name, site)) {
                            wrong.push(format!("{place} is refused: {why}"));
                        }
                        "no"
                    }
                    Outcome::Wrong(why) => {
                        wrong.push(format!("{place}: {why}"));
                        "WRONG"
                    }
                };
                words.entry(word).or_default().push(layer.to_string());
            }
            cells.push(match (words.len(), words.contains_key("yes")) {
                (1, true) => "yes",
                (1, false) => "no",
                _ if words.get("no").is_some_and(|layers| layers == &[(model.n_layer() - 1).to_string()]) => {
                    "not the last"
                }
                _ => "some",
            });
        }
        let cells = cells.join(" | ");
        match found.iter_mut().find(|(own, _)| *own == cells) {
            Some((_, names)) => names.push(architecture.name),
            None => found.push((cells, vec![architecture.name])),
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    in_the_page(&table(&found));
}

/// Refusals by the graph: what is read behind the last block is no single block's, or block 0 reads a norm of an input.
const REFUSED: [(&str, Site); 3] =
    [("gemma3n", Site::ResidPost), ("step35", Site::ResidPost), ("muse-glimmer", Site::ResidPre)];

/// The table, an architecture where it is alone and several where they are alike.
fn table(found: &[(String, Vec<&str>)]) -> String {
    let mut table = format!("| architectures | {} |\n", Site::ALL.map(Site::name).join(" | "));
    table += &format!("|---|{}\n", "---|".repeat(Site::ALL.len()));
    for (cells, names) in found {
        table += &format!("| {} | {cells} |\n", names.join(", "));
    }
    table
}

/// A page has the table. `TILLER_BLESS=1` writes it there.
fn in_the_page(table: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the place of the table");
    let (has, after) = rest.split_once(END).expect("the end of the table");
    if std::env::var_os("TILLER_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert!(has == table, "{PAGE}: the table of architectures should be\n{table}");
    }
}

const PAGE: &str = "examples/architectures.md";
const BEGIN: &str = "<!-- made by tests/architectures -->\n\n";
const END: &str = "\n<!-- end -->";

/// A hook that sees a model's graph for the first time does what it does once it knows the graph.
#[test]
fn the_first_graph_is_edited_as_the_next() {
    let _turn = support::turn();
    for architecture in table::all().iter().filter(|architecture| architecture.block(0) != Block::Closed) {
        let model = Model::new(architecture.gguf, &architecture.keys).expect(architecture.name);
        let mut bench = Bench::new(architecture, &model, false);
        for layer in 0..model.n_layer() {
            for site in Site::ALL {
                if let Err(why) = bench.twice(site, layer) {
                    panic!("{} {} {layer}: {why}", architecture.name, site.name());
                }
            }
        }
    }
}

/// One outcome of those without and with a control vector.
fn both(outcomes: Vec<Outcome>) -> Outcome {
    let mut outcomes = outcomes.into_iter();
    let plain = outcomes.next().expect("a bench");
    match (plain, outcomes.next()) {
        (plain, None) => plain,
        (Outcome::Steered, Some(Outcome::Steered)) => Outcome::Steered,
        (Outcome::Refused(why), Some(Outcome::Refused(_))) => Outcome::Refused(why),
        (Outcome::Named(why), _) | (_, Some(Outcome::Named(why))) => Outcome::Named(why),
        (Outcome::Wrong(why), _) => Outcome::Wrong(why),
        (_, Some(Outcome::Wrong(why))) => Outcome::Wrong(format!("with a control vector on: {why}")),
        (_, Some(Outcome::Refused(why))) => Outcome::Wrong(format!("refused with a control vector on only: {why}")),
        (_, Some(Outcome::Steered)) => Outcome::Wrong("refused without a control vector only".into()),
    }
}

#[test]
fn the_observer_sees_what_it_plants() {
    let _turn = support::turn();
    for architecture in table::all().iter().filter(|architecture| architecture.block(0) != Block::Closed) {
        let model = Model::new(architecture.gguf, &architecture.keys).expect(architecture.name);
        let mut bench = Bench::new(architecture, &model, false);
        for layer in 0..model.n_layer() {
            for site in [Site::ResidPre, Site::ResidMid, Site::ResidPost] {
                if architecture.block(layer).has(site) {
                    let done = bench.planted(site, layer);
                    done.unwrap_or_else(|why| panic!("{} {} {layer}: {why}", architecture.name, site.name()));
                }
            }
        }
    }
}

#[test]
fn what_is_planted_is_noticed() {
    let _turn = support::turn();
    let all = table::all();
    let find = |name: &str| all.iter().find(|architecture| architecture.name == name).unwrap();
    let llama = Model::new("llama", &find("llama").keys).unwrap();
    let mut bench = Bench::new(find("llama"), &llama, false);
    let plant = |bench: &mut Bench, node: &str, times: &dyn Fn(i32) -> f32| {
        bench.plant(0, |_, name| name == node, 0, 5 * 64, times)
    };
    let (reading, rows) = plant(&mut bench, "l_out-0", &factor);
    bench.compare(0, Site::ResidPost, 0, &reading, &rows).unwrap();
    let says = |result: Result<(), String>, what: &str| assert!(result.unwrap_err().contains(what));
    // The right edit, taken for another.
    says(bench.compare(0, Site::ResidPost, 1, &reading, &rows), "of the site was");
    says(bench.compare(0, Site::MlpOut, 0, &reading, &rows), "of the site was");
    says(bench.compare(0, Site::ResidPost, 0, &reading, &Rows::new()), "was not seen");
    // Two rows taken for each other.
    let swapped = |position| factor(if [2, 3].contains(&position) { 5 - position } else { position });
    let (reading, rows) = plant(&mut bench, "l_out-0", &swapped);
    says(bench.compare(0, Site::ResidPost, 0, &reading, &rows), "row 2 went from");
    // An edit that comes to nothing, and one that is made twice.
    let (reading, rows) = plant(&mut bench, "l_out-1", &|_| 0.0);
    says(bench.compare(0, Site::ResidPost, 1, &reading, &rows), "row 0 went from");
    let (reading, rows) = plant(&mut bench, "l_out-1", &|position| 2.0 * factor(position));
    says(bench.compare(0, Site::ResidPost, 1, &reading, &rows), "row 0 went from");

    // Gemma 3n's next block copies the streams before its first norm looks at one of them.
    let gemma = Model::new("gemma3n", &find("gemma3n").keys).unwrap();
    let mut bench = Bench::new(find("gemma3n"), &gemma, false);
    let (reading, rows) = plant(&mut bench, "l_out-0", &factor);
    bench.compare(0, Site::ResidPost, 0, &reading, &rows).unwrap();
    let (reading, rows) = plant(&mut bench, "l_out-0 (view)", &factor);
    says(bench.compare(0, Site::ResidPost, 0, &reading, &rows), "row 0 went from");
}
