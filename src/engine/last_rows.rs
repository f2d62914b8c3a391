//! The row of a text's last token: what pairs of texts are compared by.

use super::{Document, Engine};
use crate::error::Result;
use crate::hook_point::HookPoint;
use crate::progress::{Progress, report};

impl Engine {
    /// The rows `[texts.len(), d_model]` at `point` of each text's last token. A text longer than a batch is refused before any
    /// is computed. Progress counts texts.
    ///
    /// For CAA (arXiv 2312.06681) let every text end with its answer; the last token is then the answer token.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) for an empty text, a text that is too long, or a layer that does not
    /// exist; [`Kind::Cancelled`](crate::Kind::Cancelled).
    pub fn last_rows(
        &mut self,
        texts: &[Document],
        point: impl Into<HookPoint>,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<f32>> {
        let (point, d) = (point.into(), self.d_model());
        let mut all = Vec::with_capacity(texts.len() * d);
        let mut read = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            let tokens = self.document_tokens(text).and_then(|tokens| self.check_batch(tokens.len()).map(|()| tokens));
            read.push(tokens.map_err(|e| e.context(format!("text {}", i + 1)))?);
        }
        for (i, tokens) in read.iter().enumerate() {
            let rows = self.rows(tokens, point).map_err(|e| e.context(format!("text {}", i + 1)))?;
            all.extend_from_slice(&rows[rows.len().saturating_sub(d)..]);
            report(progress, i as u64 + 1, texts.len() as u64, "")?;
        }
        Ok(all)
    }
}
