//! `tiller eval consistency`: does a model answer paraphrases alike, and can steering make it?

use clap::{Args as Clap, ValueEnum};
use std::path::PathBuf;
use tiller::Result;
use tiller::eval::consistency::answers::Figures;
use tiller::eval::consistency::{Report, Request, consistency};
use tiller::eval::trial::SEQUENCES;
use tiller::plan::Phase;

use crate::open::{Machine, notes};
use crate::output::Out;
use crate::paths::check_outputs;

/// Whether a model answers a question alike however it is asked, and what turning the features that tell does
#[derive(Clap)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// The dictionary whose features are turned
    #[arg(long, value_name = "FILE", required_unless_present = "layer", conflicts_with = "layer")]
    dictionary: Option<PathBuf>,
    /// Without a dictionary: move the output of this block by the difference of the mean rows
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// Groups of paraphrases, JSONL: {"texts": ["…", "…"], "answer": "…"}; some two hundred are built in
    #[arg(long, value_name = "FILE.jsonl")]
    groups: Option<PathBuf>,
    /// Ask in the chat template, or as "Question: … Answer:" [default: chat where the model has a template]
    #[arg(long, value_name = "BOOL")]
    chat: Option<bool>,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = Request::default().max_tokens, value_name = "N")]
    max_tokens: usize,
    /// Features to turn
    #[arg(long, default_value_t = Request::default().features, value_name = "N")]
    features: usize,
    /// Strengths to try
    #[arg(long, value_delimiter = ',', default_values_t = Request::default().strengths, value_name = "X,…")]
    strengths: Vec<f32>,
    /// Rows to edit
    #[arg(long, value_enum, default_value_t = Rows::All)]
    rows: Rows,
    /// Share of the groups to find features on
    #[arg(long, default_value_t = Request::default().fit, value_name = "SHARE")]
    fit: f64,
    /// Share of the groups to choose the strength on
    #[arg(long, default_value_t = Request::default().choose, value_name = "SHARE")]
    choose: f64,
    /// Accuracy that a strength may cost
    #[arg(long, default_value_t = Request::default().slack, value_name = "SHARE")]
    slack: f64,
    /// Runs in which the signs of the edits are drawn anew
    #[arg(long, default_value_t = Request::default().controls, value_name = "N")]
    controls: usize,
    /// Deals groups, draws signs and intervals
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the plan
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rows {
    All,
    Prompt,
    Generated,
}

impl Args {
    fn request(&self) -> Request {
        Request {
            dictionary: self.dictionary.clone(),
            layer: self.layer,
            groups: self.groups.clone(),
            chat: self.chat,
            max_tokens: self.max_tokens,
            features: self.features,
            strengths: self.strengths.clone(),
            phase: match self.rows {
                Rows::All => Phase::All,
                Rows::Prompt => Phase::Prompt,
                Rows::Generated => Phase::Generated,
            },
            fit: self.fit,
            choose: self.choose,
            slack: self.slack,
            controls: self.controls,
            questions: true,
            seed: self.seed,
        }
    }
}

pub(crate) fn run(args: &Args, out: &Out) -> Result<()> {
    let inputs = std::iter::once(&args.model).chain(&args.dictionary).chain(&args.groups);
    check_outputs(&args.out, inputs)?;
    let request = args.request();
    request.check()?;
    let mut engine = args.machine.engine(&args.model, 0, SEQUENCES)?;
    notes(&engine, out);
    let mut bar = out.bar("consistency", "texts");
    let report = consistency(&mut engine, &request, &mut |step| bar.step(step))?;
    drop(bar);
    report.notes.iter().for_each(|note| out.note(format!("warning: {note}")));
    if let Some(path) = &args.out {
        report.plan.save(path)?;
        out.note(format!("{}: the plan at strength {}", path.display(), report.strength));
    }
    if out.json() { out.object(&report) } else { tell(&report, out) }
}

fn tell(report: &Report, out: &Out) -> Result<()> {
    let ([fit, choose, score], [same, other]) = (report.groups, report.pairs);
    let what = if report.features.is_empty() { "the mean row" } else { "features" };
    let n = if report.features.is_empty() { String::new() } else { format!("{} ", report.features.len()) };
    out.facts(&[
        ("groups", format!("{fit} to find {what} on, {choose} to choose the strength on, {score} scored")),
        ("pairs that agree", format!("{same} of {}", same + other)),
        ("turned", format!("{n}{what}, ‖μ⁺ − μ⁻‖ {:.3}", report.length)),
    ])?;
    out.line("\nTo choose the strength on")?;
    let columns = ["strength", "agreement", "across groups", "accuracy"];
    let doses = report.doses.iter().map(|dose| row(dose.strength.to_string(), &dose.figures));
    out.table(&columns, std::iter::once(row("unsteered".into(), &report.usual)).chain(doses))?;
    out.line("\nScored")?;
    let scored = [row("unsteered".into(), &report.before), row(format!("strength {}", report.strength), &report.after)];
    let controls = report.controls.iter().map(|figures| row("signs drawn anew".into(), figures));
    out.table(&["", "agreement", "across groups", "accuracy"], scored.into_iter().chain(controls))?;
    let [low, high] = report.gain_interval.map(|v| 100.0 * v);
    let cost = &report.cost;
    let mut facts = vec![
        ("agreement rose by", format!("{:+.1} points (95 %: {low:+.1} to {high:+.1})", 100.0 * report.gain)),
        ("less what always agrees", format!("{:+.1} points", 100.0 * report.net_gain)),
        (
            "KL on neutral text",
            format!("{:.3} nats a token, 95th percentile {:.3}", cost.divergence.mean, cost.divergence.p95),
        ),
        ("perplexity there", format!("{:.2} ×", cost.perplexity)),
    ];
    if let Some(s) = &cost.side_effects {
        let rate = s.rate.map_or("–".into(), |rate| format!("{rate:.2}"));
        let told = format!(
            "{:.0} → {:.0} % right, {} changed, side effect rate {rate}",
            100.0 * s.right_before,
            100.0 * s.right_after,
            s.changed
        );
        facts.push(("questions with choices", told));
    }
    out.facts(&facts)?;
    if !report.helped {
        out.line(
            "no strength raised agreement without costing accuracy where it was chosen: expect nothing of the plan",
        )?;
    }
    if !report.examples.is_empty() {
        out.line("\nAnswers that changed")?;
        let rows = report
            .examples
            .iter()
            .map(|e| vec![e.text.clone(), e.before.clone(), e.after.clone(), e.right.clone().unwrap_or_default()]);
        out.table(&["question", "unsteered", "steered", "right"], rows)?;
    }
    Ok(())
}

fn row(name: String, figures: &Figures) -> Vec<String> {
    let share = |v: f64| format!("{:.1} %", 100.0 * v);
    vec![name, share(figures.agreement), share(figures.across), figures.accuracy.map_or("–".into(), share)]
}
