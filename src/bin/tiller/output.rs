//! What the command says and where: results to standard output (tables or JSON lines), progress and errors to
//! standard error.
//!
//! Names, labels, words and texts come from files that others made. Characters that would steer a terminal are written as
//! visible escapes, `\u{1b}`, wherever something is printed; in JSON they are escaped, so that a parser gets them unchanged.

use crate::interrupt;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tiller::progress::Step;
use tiller::{Error, Kind, Result};

/// How this run of the command talks.
pub(crate) struct Out {
    json: bool,
    quiet: bool,
}

impl Out {
    /// `json`: results as JSON lines; `quiet`: no progress bars.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether results are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Writes `value` as one line of JSON.
    pub(crate) fn object(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| Error::argument(format!("cannot write as JSON: {e}")))?;
        self.json_text(text)?;
        self.write("\n")
    }

    /// Writes JSON as it is; what would steer a terminal is escaped in JSON's way.
    pub(crate) fn json_text(&self, text: impl AsRef<str>) -> Result<()> {
        let escape = |c: char| format!("\\u{:04x}", u32::from(c));
        self.write(&escaped(text.as_ref(), |c| c != '\n' && c != '\t' && steers(c), escape))
    }

    /// Writes one line of text.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result<()> {
        self.text(format!("{}\n", text.as_ref()))
    }

    /// Writes text and shows it at once: for streamed tokens.
    pub(crate) fn text(&self, text: impl AsRef<str>) -> Result<()> {
        self.write(&visible(text.as_ref()))
    }

    /// Whether colours are wanted: on a terminal, unless NO_COLOR is set (no-color.org).
    pub(crate) fn colours(&self) -> bool {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !refused && io::stdout().is_terminal()
    }

    /// Writes pieces of text, each in front of a background of its level from 0 (none) to 9, if colours are wanted; else
    /// the level stands behind the piece as a small digit.
    pub(crate) fn levels<'p>(&self, pieces: impl IntoIterator<Item = (&'p str, u8)>) -> Result<()> {
        const DIGITS: [&str; 10] = ["", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"];
        // From dark red to bright yellow, light under dark letters: brighter also where colours look alike.
        const GROUND: [u8; 10] = [0, 52, 88, 124, 160, 166, 172, 178, 220, 226];
        let colours = self.colours();
        let mut all = String::new();
        for (piece, level) in pieces {
            let (piece, level) = (visible(piece), usize::from(level.min(9)));
            // Blanks around a word stay outside.
            let word = piece.trim();
            let (front, back) = match piece.find(word).filter(|_| !word.is_empty()) {
                Some(at) => (&piece[..at], &piece[at + word.len()..]),
                None => (&*piece, ""),
            };
            all += front;
            if level > 0 && colours {
                let letters = if level > 4 { 16 } else { 231 };
                all += &format!("\u{1b}[48;5;{};38;5;{letters}m{word}\u{1b}[0m", GROUND[level]);
            } else {
                all += word;
                // A line end has no place for a digit.
                all += DIGITS[if word.is_empty() { 0 } else { level }];
            }
            all += back;
        }
        self.write(&all)
    }

    fn write(&self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| Error::io("write", Path::new("standard output"), e))
    }

    /// Writes a line for people that is not a result (a warning, where a file went) to standard error.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", visible(text.as_ref()));
        }
    }

    /// Whether the person at the terminal agrees; nobody is asked where there is none.
    pub(crate) fn agree(&self, question: &str) -> bool {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return false;
        }
        eprint!("{} [y/N] ", visible(question));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// Writes a table; cells that hold a number are aligned to the right.
    pub(crate) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        if !io::stdout().is_terminal() {
            table.set_width(120);
        }
        // Lines around the table and under its header, none between rows.
        for line in [
            TableComponent::HorizontalLines,
            TableComponent::MiddleIntersections,
            TableComponent::LeftBorderIntersections,
            TableComponent::RightBorderIntersections,
        ] {
            table.remove_style(line);
        }
        if !header.is_empty() {
            table.set_header(header);
        }
        for row in rows {
            table.add_row(row.into_iter().map(|text| {
                let text = visible(&text).into_owned();
                let number = text.trim_end_matches(['%', '×']).trim().parse::<f64>().is_ok();
                Cell::new(text).set_alignment(if number { CellAlignment::Right } else { CellAlignment::Left })
            }));
        }
        self.line(table.trim_fmt())
    }

    /// Writes names and values, one pair a row.
    pub(crate) fn facts(&self, facts: &[(&str, String)]) -> Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !io::stdout().is_terminal() {
            table.set_width(120);
        }
        for (name, value) in facts {
            table.add_row([visible(name), visible(value)]);
        }
        self.line(table.trim_fmt())
    }

    /// A progress bar on standard error for long work that counts in `unit`s; a line now and then when standard error is no
    /// terminal, for work that takes longer than [`FIRST_LINE`]. Give `&mut |step| bar.step(step)` to the library.
    pub(crate) fn bar(&self, title: &str, unit: &'static str) -> Bar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(visible(title).into_owned());
        // Ticks take a thread, for which there may be no memory.
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let lines = (bar.is_hidden() && !self.quiet).then(|| Lines::new(title));
        Bar { bar, unit, total: None, lines }
    }
}

/// A progress bar that is fed with the library's [`Step`]s and passes Ctrl-C on to it.
pub(crate) struct Bar {
    bar: ProgressBar,
    unit: &'static str,
    total: Option<u64>,
    /// In place of a bar.
    lines: Option<Lines>,
}

/// How long work goes on before its first line, and the longest time between two.
const FIRST_LINE: Duration = Duration::from_secs(20);
const SELDOM: Duration = Duration::from_secs(120);

/// Lines that tell how far long work is: ever more seldom.
struct Lines {
    title: String,
    next: Instant,
    pause: Duration,
}

impl Lines {
    fn new(title: &str) -> Self {
        Self { title: visible(title).into_owned(), next: Instant::now() + FIRST_LINE, pause: FIRST_LINE }
    }

    fn step(&mut self, step: Step<'_>, unit: &str) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.pause = (2 * self.pause).min(SELDOM);
        self.next = now + self.pause;
        let total = if step.total > 0 { format!("/{}", step.total) } else { String::new() };
        let note = one_line(&visible(step.note));
        eprintln!("{}: {}{total} {unit} {note}", self.title, step.done);
    }
}

impl Bar {
    /// Shows a step; `false` once Ctrl-C was pressed.
    pub(crate) fn step(&mut self, step: Step<'_>) -> bool {
        if let Some(lines) = &mut self.lines {
            lines.step(step, self.unit);
            return !interrupt::asked();
        }
        if self.total != Some(step.total) {
            self.total = Some(step.total);
            let template = if step.total > 0 {
                self.bar.set_length(step.total);
                format!("{{prefix}} {{bar:30}} {{human_pos}}/{{human_len}} {} {{per_sec}} {{eta}} {{msg}}", self.unit)
            } else {
                format!("{{prefix}} {{spinner}} {{human_pos}} {} {{per_sec}} {{msg}}", self.unit)
            };
            if let Ok(style) = ProgressStyle::with_template(&template) {
                self.bar.set_style(style);
            }
        }
        self.bar.set_position(step.done);
        self.bar.set_message(one_line(&visible(step.note)));
        !interrupt::asked()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Reports failed work: one line of error, one line of hint. A reader of standard output who left early is no failure.
pub(crate) fn fail(error: &Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    tell(error);
    ExitCode::from(if error.kind() == Kind::Argument { 2 } else { 1 })
}

fn cause(error: &Error) -> Option<io::ErrorKind> {
    std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// Whether nobody reads standard output any more.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    cause(error) == Some(io::ErrorKind::BrokenPipe)
}

/// Says what went wrong, and a hint.
pub(crate) fn tell(error: &Error) {
    let cause = cause(error);
    let hint = match (error.kind(), cause) {
        (Kind::Argument, _) => "add --help to the command to see what it takes",
        (Kind::Io, Some(io::ErrorKind::NotFound)) => {
            "check the path; `tiller fetch --help` says what can be downloaded"
        }
        (Kind::Io, Some(io::ErrorKind::OutOfMemory)) => {
            "free some memory, or raise the limit on this process's address space"
        }
        (Kind::Io, _) => "check permissions and free disk space",
        (Kind::Format, _) => {
            "check that this is the file you meant and that it arrived whole; `tiller info FILE` says what it holds"
        }
        (Kind::Unsupported, _) => "`tiller info FILE` shows what the file holds",
        (Kind::Mismatch, _) => "`tiller info` on both files shows which model, layer and width each belongs to",
        (Kind::Numeric, _) => "look for NaN or constant rows in the input, or lower the learning rate or strength",
        (Kind::Cancelled, _) => "nothing was kept: the same command starts anew",
        _ => "this is a bug in tiller: please report the command line and the files",
    };
    let hint = error.hint().unwrap_or(hint);
    eprintln!("error: {}\nhint: {}", visible(&one_line(error.message())), visible(&one_line(hint)));
}

/// Reports a command line that clap refused, in the same two lines; `--help` and `--version` print and succeed.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = visible(&error.render().to_string()).into_owned();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{text}");
        return ExitCode::from(2);
    }
    let mut parts = text.split("\n\n");
    let message = one_line(parts.next().unwrap_or_default());
    let hint = parts.find_map(|part| {
        let part = part.trim();
        part.strip_prefix("tip: ").map(one_line).or_else(|| part.starts_with("Usage:").then(|| one_line(part)))
    });
    eprintln!("{message}\nhint: {}", hint.as_deref().unwrap_or("add --help to see what the command takes"));
    ExitCode::from(2)
}

/// Refuses a path that does not end in one of `known`.
pub(crate) fn ending(path: &Path, known: &[&str]) -> Result<()> {
    if path.extension().is_some_and(|e| known.iter().any(|known| e == *known)) {
        return Ok(());
    }
    Err(Error::argument(format!("{}: expected a file that ends in .{}", path.display(), known.join(" or ."))))
}

/// For `map_err`: what a cancelled command kept, and how it goes on.
pub(crate) fn when_cancelled(hint: &str) -> impl Fn(Error) -> Error {
    move |error| if error.kind() == Kind::Cancelled { error.hinted(hint) } else { error }
}

/// `text` with what would steer a terminal written as `\u{1b}`; line ends and tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && c != '\t' && steers(c), |c| c.escape_unicode().to_string())
}

/// Whether a terminal takes `c` as a command: control characters, and those that turn the direction of text.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, which: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&which) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if which(c) { safe.push_str(&escape(c)) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// `text` with every run of blanks and line ends made one space.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
