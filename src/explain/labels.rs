//! Labels on their own, as JSONL: `{"feature":17,"label":"war"}`. People, or any language model, write them offline.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::explanations::{Explanations, LONGEST_LINE};
use crate::error::{Error, Result};
use crate::file::text::{for_each_line, wrong};
use crate::file::{json, write_atomic};

/// What helps against every mistake in labels.
const HINT: &str =
    "a label is {\"feature\": number, \"label\": \"text\"} on a line of its own, for a feature that is explained";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    feature: u32,
    label: String,
}

impl Explanations {
    /// Writes the labels; features without one are left out.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io).
    pub fn save_labels(&self, path: &Path) -> Result<()> {
        write_atomic(path, |out| {
            for explanation in self.list() {
                let Some(label) = explanation.label.clone() else { continue };
                let line = Line { feature: explanation.feature, label };
                let written = serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from);
                written.and_then(|()| out.write_all(b"\n")).map_err(|e| Error::io("write", path, e))?;
            }
            Ok(())
        })
    }

    /// Reads labels and gives them to their features; the answer is how many. Nothing changes if the file is wrong.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io); [`Format`](crate::Kind::Format) reads `file:line: expected …, found …`: a label that is
    /// empty, a feature that comes twice or that has no explanation.
    pub fn load_labels(&mut self, path: &Path) -> Result<usize> {
        let mut lines: Vec<Line> = Vec::new();
        let mut seen = HashSet::new();
        for_each_line(path, LONGEST_LINE, |number, text| {
            let line: Line =
                serde_json::from_str(text).map_err(|e| json::error(&e, text, path.display(), number, HINT))?;
            let feature = line.feature;
            if self.get(feature).is_none() {
                let what = format!("feature: expected one that has an explanation, found {feature}");
                return Err(wrong(path, number, what).hinted(HINT));
            }
            if !seen.insert(feature) {
                let what = format!("feature: expected each feature once, found {feature} again");
                return Err(wrong(path, number, what).hinted(HINT));
            }
            if line.label.trim().is_empty() {
                return Err(wrong(path, number, format!("label: expected text, found {:?}", line.label)).hinted(HINT));
            }
            lines.push(line);
            Ok(())
        })?;
        let n_lines = lines.len();
        lines.into_iter().try_for_each(|line| self.set_label(line.feature, Some(line.label)))?;
        Ok(n_lines)
    }
}
