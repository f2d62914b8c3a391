//! The command `tiller`: one file per subcommand, each with its `Args` and a `run(args, &Out)`.
//!
//! Results go to standard output: tables for people, with `--json` one JSON object a line for machines. Progress bars
//! and errors go to standard error. Exit codes: 0 done, 1 the work failed, 2 the command line was wrong.

mod fetch;
mod interrupt;
mod output;

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
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}
