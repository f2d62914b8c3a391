//! The command `tiller`: one file per subcommand, each with its `Args` and a `run(args, &Out)`.
//!
//! Results go to standard output: tables for people, with `--json` one JSON object a line for machines. Progress bars
//! and errors go to standard error. Exit codes: 0 done, 1 the work failed, 2 the command line was wrong.

mod adopt;
mod bench;
mod card;
mod chat;
mod choice;
mod codes;
mod consistency;
mod convert;
mod entanglement;
mod eval;
mod explain;
mod explained;
mod fetch;
mod find;
mod guard;
mod harvest;
mod info;
mod interrupt;
mod learn;
mod mpc;
mod open;
mod output;
mod paths;
mod plan;
mod plot;
mod quality;
mod relations;
mod run;
mod side_effects;
mod steer;
mod train;
mod universality;
mod why;
mod wish;

use clap::{Parser, Subcommand};
use output::Out;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "tiller", version, about, arg_required_else_help = true)]
struct Cli {
    /// Print JSON, one object a line, instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress bars
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Fetch(fetch::Args),
    Adopt(adopt::Args),
    Info(info::Args),
    Learn(learn::Args),
    Guard(guard::Args),
    Harvest(harvest::Args),
    Train(train::Args),
    Convert(convert::Args),
    Encode(codes::EncodeArgs),
    Decode(codes::DecodeArgs),
    Explain(explain::Args),
    Find(find::Args),
    Relations(relations::Args),
    Plan(plan::Args),
    Run(run::Args),
    Chat(chat::Args),
    Why(why::Args),
    Card(card::Args),
    Bench(bench::Args),
    Eval(eval::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    interrupt::install();
    let out = Out::new(cli.json, cli.quiet);
    let result = match cli.command {
        Command::Fetch(args) => fetch::run(args, &out),
        Command::Adopt(args) => adopt::run(&args, &out),
        Command::Info(args) => info::run(&args, &out),
        Command::Learn(args) => learn::run(&args, &out),
        Command::Guard(args) => guard::run(&args, &out),
        Command::Harvest(args) => harvest::run(&args, &out),
        Command::Train(args) => train::run(&args, &out),
        Command::Convert(args) => convert::run(&args, &out),
        Command::Encode(args) => codes::encode(&args, &out),
        Command::Decode(args) => codes::decode(&args, &out),
        Command::Explain(args) => explain::run(&args, &out),
        Command::Find(args) => find::run(&args, &out),
        Command::Relations(args) => relations::run(&args, &out),
        Command::Plan(args) => plan::run(&args, &out),
        Command::Run(args) => run::run(&args, &out),
        Command::Chat(args) => chat::run(&args, &out),
        Command::Why(args) => why::run(&args, &out),
        Command::Card(args) => card::run(&args, &out),
        Command::Bench(args) => bench::run(&args, &out),
        Command::Eval(args) => eval::run(&args, &out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}
