//! The pages: their text, their blocks of code, what stands between backticks, their links.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the package.
pub(crate) fn file(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect(name)
}

/// The README, or a page beside the examples or the benches.
pub(crate) struct Page {
    /// From the root on, such as `examples/files.md`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced block of code.
pub(crate) struct Block {
    /// `PAGE:LINE` of its first line.
    pub(crate) place: String,
    pub(crate) language: String,
    pub(crate) code: String,
}

/// Every page.
pub(crate) fn all() -> Vec<Page> {
    let mut names = vec!["README.md".to_owned()];
    for directory in ["examples", "benches"] {
        for entry in fs::read_dir(root().join(directory)).expect(directory) {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            if name.ends_with(".md") {
                names.push(format!("{directory}/{name}"));
            }
        }
    }
    names.sort();
    names.into_iter().map(|name| Page { text: file(&name), name }).collect()
}

/// The blocks of all pages in `language`, the first word of their fence.
pub(crate) fn blocks(language: &str) -> Vec<Block> {
    all().iter().flat_map(Page::blocks).filter(|block| block.language == language).collect()
}

impl Page {
    /// Its blocks of code.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut found, mut open) = (Vec::new(), None::<Block>);
        for (number, line) in (1..).zip(self.text.lines()) {
            match (line.strip_prefix("```"), &mut open) {
                (Some(fence), None) => {
                    let language = fence.split(',').next().unwrap_or_default().to_owned();
                    let place = format!("{}:{}", self.name, number + 1);
                    open = Some(Block { place, language, code: String::new() });
                }
                (Some(_), Some(_)) => found.extend(open.take()),
                (None, Some(block)) => block.code = format!("{}{line}\n", block.code),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block of code has no end", self.name);
        found
    }

    /// Its text without blocks of code.
    pub(crate) fn prose(&self) -> String {
        self.text.split("\n```").step_by(2).map(|part| part.split_once('\n').map_or("", |(_, rest)| rest)).collect()
    }

    /// What stands between single backticks, on one line.
    pub(crate) fn spans(&self) -> Vec<String> {
        let odd = |line: &str| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        self.prose().lines().flat_map(odd).collect()
    }

    /// Relative links: the file, by its path from the root, and the heading behind `#`.
    pub(crate) fn links(&self) -> Vec<(PathBuf, String)> {
        let beside = Path::new(&self.name).parent().expect("a directory");
        let prose = self.prose();
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        let relative = targets.filter(|target| !target.contains("://"));
        let split = relative.map(|target| target.split_once('#').unwrap_or((target, "")));
        split.map(|(path, heading)| (tidy(&beside.join(path)), heading.to_owned())).collect()
    }

    /// Its headings, as links name them.
    pub(crate) fn headings(&self) -> Vec<String> {
        let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let anchor = |title: &str| title.to_lowercase().replace(' ', "-").chars().filter(|&c| kept(c)).collect();
        let prose = self.text.lines().filter(|line| line.starts_with('#'));
        prose.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Its sections under `##`, by their titles.
    pub(crate) fn sections(&self) -> Vec<(&str, &str)> {
        self.text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, ""))).collect()
    }
}

/// A path without `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.iter() {
        if part == ".." {
            tidy.pop();
        } else {
            tidy.push(part);
        }
    }
    tidy
}
