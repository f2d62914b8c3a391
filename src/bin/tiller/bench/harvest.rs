//! What ending each graph after the harvested layer saves, at a third of the depth: tokens a second, against a harvest of
//! the same layer that lets the whole model run. The rows must be the same, bit for bit.

use std::path::Path;

use tiller::activations::Activations;
use tiller::engine::{Document, Engine, Harvest, Options};
use tiller::{Error, Result};

use super::{Args, Lines, Pairs, model_name};

pub(super) fn run(args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    args.model.iter().try_for_each(|path| model(path, args, lines))
}

fn model(path: &Path, args: &Args, lines: &mut Lines<'_>) -> Result<()> {
    let machine = &args.machine;
    let mut engine = Engine::open(
        path,
        &Options {
            threads: machine.threads,
            gpu_layers: machine.gpu_layers,
            context: 512,
            batch: 512,
            sequences: 8,
            ..Options::default()
        },
    )?;
    let layer = engine.n_layer() / 3;
    let text = [Document::Text(include_str!("../selftest.txt").to_owned())];
    let dir = std::env::temp_dir().join(format!("tiller-bench-{}", std::process::id()));
    let mut once = |early_stop: bool| -> Result<f64> {
        let place = dir.join(if early_stop { "early" } else { "full" });
        let _ = std::fs::remove_dir_all(&place);
        let harvest = Harvest { layers: vec![layer], window: 256, early_stop, ..Harvest::default() };
        let made = engine.harvest(&text, &place, &harvest, &mut tiller::progress::silent)?;
        Ok(made.n_tokens as f64 / made.seconds)
    };
    let n = if args.pairs > 0 { args.pairs } else { 5 };
    let once = std::cell::RefCell::new(&mut once);
    let early = &mut || (once.borrow_mut())(true);
    let full = &mut || (once.borrow_mut())(false);
    let measured = Pairs::measure(n, lines.out, "harvest", early, full).and_then(|pairs| {
        same(&dir.join("early"), &dir.join("full"))?;
        Ok(pairs)
    });
    let _ = std::fs::remove_dir_all(&dir);
    lines.push(measured?.line("harvest", "early-stop", &model_name(path), "tokens/s"))
}

fn same(a: &Path, b: &Path) -> Result<()> {
    let (a, b) = (Activations::open(a)?, Activations::open(b)?);
    let width = a.d_model();
    let (mut x, mut y) = (vec![0.0; width], vec![0.0; width]);
    for i in 0..a.n_rows().max(b.n_rows()) {
        if i < a.n_rows().min(b.n_rows()) {
            a.row(i, &mut x);
            b.row(i, &mut y);
        }
        if i >= a.n_rows().min(b.n_rows()) || x != y {
            return Err(Error::numeric(format!(
                "row {i} differs between a harvest that stops early and one that does not"
            )));
        }
    }
    Ok(())
}
