//! Rows in text order: documents, and the rows or codes in each.

use std::ops::Range;
use std::sync::Arc;

use crate::activations::Activations;
use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::model::Kinship;
use crate::num::{self, check_finite};
use crate::progress::{Progress, report};

use super::model::Origin;

/// Rows that are encoded at a time.
const ENCODED: usize = 4096;

/// What a temporal model is estimated on: rows `[len, width]` in the order of the text, cut into documents. Nothing is ever
/// taken across the bounds of a document.
#[derive(Clone)]
pub struct Sequences<'a> {
    width: usize,
    store: Arc<Store<'a>>,
    documents: Vec<Document>,
    /// The columns are the latents.
    codes: bool,
    /// Dictionary features that the columns are; empty for rows of the residual stream.
    features: Vec<u32>,
    /// Decoder directions of these features, `[width, d_model]`.
    directions: Arc<Vec<f32>>,
    origin: Origin,
}

/// A run of rows of the store.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    first: usize,
    len: usize,
}

enum Store<'a> {
    Dense(Vec<f32>),
    /// Codes by rows: `(column, value)`.
    Sparse {
        offsets: Vec<usize>,
        entries: Vec<(u32, f32)>,
    },
    Shards(&'a Activations),
}

impl<'a> Sequences<'a> {
    /// Rows in memory, `[n, width]`; `bounds` says where documents start, and ends with n.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if `data` is no such matrix or `bounds` do not rise from 0 to n;
    /// [`Kind::Numeric`](crate::Kind::Numeric) for NaN or infinity, with its place.
    pub fn from_rows(width: usize, data: Vec<f32>, bounds: &[usize]) -> Result<Self> {
        if width == 0 || data.is_empty() || !data.len().is_multiple_of(width) {
            let n = data.len();
            return Err(Error::argument(format!("rows: expected one row or more of {width} values, found {n} values")));
        }
        let n = data.len() / width;
        if bounds.first() != Some(&0) || bounds.last() != Some(&n) || bounds.windows(2).any(|w| w[0] >= w[1]) {
            return Err(Error::argument(format!("bounds: expected numbers that rise from 0 to {n}")));
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            let (row, column) = (at / width, at % width);
            let text = format!("row {row}, column {column}: expected a finite number, found {}", data[at]);
            return Err(Error::numeric(text));
        }
        let documents = bounds.windows(2).map(|w| Document { first: w[0], len: w[1] - w[0] }).collect();
        Ok(Self {
            width,
            store: Arc::new(Store::Dense(data)),
            documents,
            codes: false,
            features: Vec::new(),
            directions: Arc::default(),
            origin: Origin::default(),
        })
    }

    /// Rows of the residual stream as they were harvested, read where they lie; those at position 0, the attention sink,
    /// are left out.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if no row is left; what a directory of an unknown hook point returns.
    pub fn from_activations(rows: &'a Activations) -> Result<Self> {
        Ok(Self {
            width: rows.d_model(),
            documents: documents(rows)?,
            store: Arc::new(Store::Shards(rows)),
            codes: false,
            features: Vec::new(),
            directions: Arc::default(),
            origin: Origin::of_rows(rows)?,
        })
    }

    /// Codes of `dictionary` on harvested rows, for at most `n` features: those that say most about the text, by the
    /// entropy of "fires or not", among the features that fire in 0.1 % to 20 % of the rows. Rows at position 0 are left
    /// out. Costs one encoding of all rows; progress counts them.
    ///
    /// # Errors
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) if the dictionary is for another width, layer or model;
    /// [`Kind::Argument`](crate::Kind::Argument) if fewer than two features fire often enough;
    /// [`Kind::Cancelled`](crate::Kind::Cancelled).
    pub fn from_dictionary(
        rows: &Activations,
        dictionary: &Dictionary,
        n: usize,
        threads: usize,
        progress: &mut Progress<'_>,
    ) -> Result<Sequences<'static>> {
        const RARE: f64 = 1e-3;
        const DENSE: f64 = 0.2;
        check_pair(rows, dictionary)?;
        let found = documents(rows)?;
        let all = encode(rows, &found, dictionary, threads, progress)?;
        let total = all.offsets.len() - 1;
        let mut fired = vec![0usize; dictionary.n_features()];
        all.entries.iter().for_each(|&(i, _)| fired[i as usize] += 1);
        let entropy = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        let mut ranked: Vec<(u32, f64)> = (0u32..)
            .zip(&fired)
            .map(|(i, &f)| (i, f as f64 / total as f64))
            .filter(|(_, p)| (RARE..=DENSE).contains(p))
            .map(|(i, p)| (i, entropy(p)))
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut features: Vec<u32> = ranked.iter().take(n).map(|r| r.0).collect();
        features.sort_unstable();
        Self::of_codes(rows, dictionary, all, found, features)
    }

    /// Codes of `dictionary` on harvested rows for just these features, ascending and each once; else as
    /// [`Sequences::from_dictionary`].
    ///
    /// # Errors
    /// As [`Sequences::from_dictionary`], and [`Kind::Argument`](crate::Kind::Argument) for features that the dictionary
    /// does not have.
    pub fn from_features(
        rows: &Activations,
        dictionary: &Dictionary,
        features: &[u32],
        threads: usize,
        progress: &mut Progress<'_>,
    ) -> Result<Sequences<'static>> {
        check_pair(rows, dictionary)?;
        let n = dictionary.n_features();
        let rising = features.windows(2).all(|w| w[0] < w[1]);
        if !rising || features.last().is_some_and(|&last| last as usize >= n) {
            return Err(Error::argument(format!("features: expected ids that rise, each below {n}")));
        }
        let found = documents(rows)?;
        let all = encode(rows, &found, dictionary, threads, progress)?;
        Self::of_codes(rows, dictionary, all, found, features.to_vec())
    }

    fn of_codes(
        rows: &Activations,
        dictionary: &Dictionary,
        all: Csr,
        mut documents: Vec<Document>,
        features: Vec<u32>,
    ) -> Result<Sequences<'static>> {
        if features.len() < 2 {
            return Err(Error::argument(format!(
                "dictionary: expected two features or more that fire in 0.1 % to 20 % of the rows, found {}",
                features.len()
            )));
        }
        let mut column = vec![u32::MAX; dictionary.n_features()];
        features.iter().zip(0..).for_each(|(&f, c)| column[f as usize] = c);
        let mut offsets = vec![0];
        let mut entries = Vec::new();
        for row in all.offsets.windows(2) {
            let kept = all.entries[row[0]..row[1]].iter().map(|&(f, v)| (column[f as usize], v));
            entries.extend(kept.filter(|e| e.0 != u32::MAX));
            offsets.push(entries.len());
        }
        // Rows of the store now follow each other without the ones that were left out.
        let mut first = 0;
        for document in &mut documents {
            document.first = first;
            first += document.len;
        }
        let d = dictionary.d_out();
        let mut directions = vec![0.0; features.len() * d];
        directions.chunks_exact_mut(d).zip(&features).for_each(|(row, &f)| dictionary.decoder_row(f as usize, row));
        let origin = Origin { dictionary: dictionary.info().name.clone(), ..Origin::of_rows(rows)? };
        Ok(Sequences {
            width: features.len(),
            store: Arc::new(Store::Sparse { offsets, entries }),
            documents,
            codes: true,
            features,
            directions: Arc::new(directions),
            origin,
        })
    }

    /// The same rows with their columns as the latents: codes that the caller encoded.
    #[must_use]
    pub fn as_codes(self) -> Self {
        Self { codes: true, ..self }
    }

    /// Whether the columns are the latents.
    pub fn are_codes(&self) -> bool {
        self.codes
    }

    /// Values in a row: the model's width, or the number of features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of all documents.
    pub fn len(&self) -> usize {
        self.documents.iter().map(|d| d.len).sum()
    }

    /// Never true of what the constructors make; a share of a split may be.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Number of documents.
    pub fn n_documents(&self) -> usize {
        self.documents.len()
    }

    /// Dictionary features that the columns are; empty for rows of the residual stream.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// Decoder directions of the features, `[width, d_model]`; empty for rows of the residual stream.
    pub(super) fn directions(&self) -> &[f32] {
        &self.directions
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Holds out every `every`-th document: what is left, and what was held out.
    ///
    /// # Errors
    /// [`Kind::Argument`](crate::Kind::Argument) if one of the two would be empty.
    pub fn hold_out(&self, every: usize) -> Result<(Self, Self)> {
        let part = |held: bool| {
            let take = |&(i, _): &(usize, &Document)| (every > 0 && (i + 1) % every == 0) == held;
            let documents = self.documents.iter().enumerate().filter(take).map(|(_, d)| d.clone()).collect();
            Self { documents, ..self.clone() }
        };
        let (kept, held) = (part(false), part(true));
        if kept.is_empty() || held.is_empty() {
            let n = self.documents.len();
            return Err(Error::argument(format!(
                "cannot hold out every {every}th of {n} documents: one part is empty"
            )));
        }
        Ok((kept, held))
    }

    /// Length of document `i`.
    pub(super) fn document_len(&self, i: usize) -> usize {
        self.documents[i].len
    }

    /// Rows that have `lags` rows before them in their document.
    pub(super) fn n_targets(&self, lags: usize) -> usize {
        self.documents.iter().map(|d| d.len.saturating_sub(lags)).sum()
    }

    /// Reads rows of a document to `out` `[rows.len(), width]`.
    pub(super) fn read(&self, document: usize, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let first = self.documents[document].first;
        let (from, to) = (first + rows.start, first + rows.end);
        let w = self.width;
        match &*self.store {
            Store::Dense(data) => out.copy_from_slice(&data[from * w..to * w]),
            Store::Sparse { offsets, entries } => {
                out.fill(0.0);
                for (row, out) in (from..to).zip(out.chunks_exact_mut(w)) {
                    entries[offsets[row]..offsets[row + 1]].iter().for_each(|&(i, v)| out[i as usize] = v);
                }
            }
            Store::Shards(rows) => {
                for (row, out) in (from..to).zip(out.chunks_exact_mut(w)) {
                    rows.row(row, out);
                    if let Some(column) = out.iter().position(|v| !v.is_finite()) {
                        let (path, value) = (rows.directory().display(), out[column]);
                        let what =
                            format!("{path}: row {row}, column {column}: expected a finite number, found {value}");
                        return Err(Error::numeric(what));
                    }
                }
            }
        }
        Ok(())
    }

    /// A few bytes that tell these rows from others: documents, width, and 64 rows.
    pub(super) fn fingerprint(&self) -> Result<String> {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for number in [self.len(), self.width, self.documents.len()] {
            hash.update((number as u64).to_le_bytes());
        }
        let mut row = vec![0f32; self.width];
        let n = self.documents.len();
        for i in 0..n.min(64) {
            let document = i * n / n.min(64);
            let middle = self.documents[document].len / 2;
            self.read(document, middle..middle + 1, &mut row)?;
            hash.update(bytemuck::cast_slice::<f32, u8>(&row));
        }
        Ok(hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Codes of many rows, by rows.
struct Csr {
    offsets: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

/// Where documents lie, in rows of the whole directory, without the rows at position 0.
fn documents(rows: &Activations) -> Result<Vec<Document>> {
    let mut found = Vec::new();
    let mut start = 0;
    for shard in rows.shards() {
        for bound in shard.documents().windows(2) {
            let sink = usize::from(shard.positions().get(bound[0]) == Some(&0));
            if bound[1] > bound[0] + sink {
                found.push(Document { first: start + bound[0] + sink, len: bound[1] - bound[0] - sink });
            }
        }
        start += shard.n_rows();
    }
    if found.is_empty() {
        let path = rows.directory().display();
        return Err(Error::argument(format!("{path}: expected rows at positions other than 0, found none")));
    }
    Ok(found)
}

fn check_pair(rows: &Activations, dictionary: &Dictionary) -> Result<()> {
    let path = rows.directory().display();
    if dictionary.d_model() != rows.d_model() {
        let (expected, found) = (dictionary.d_model(), rows.d_model());
        return Err(Error::mismatch(format!("{path}: the dictionary is for rows of width {expected}, found {found}")));
    }
    let (own, here) = (dictionary.point(), rows.point()?);
    if let Some(own) = own.filter(|own| *own != here) {
        return Err(Error::mismatch(format!("{path}: the dictionary is for {own}, the rows are from {here}")));
    }
    let (own, here) = (&dictionary.info().model_fingerprint, &rows.meta().model_fingerprint);
    // Quantizations of one model share their features.
    if !own.is_empty() && !here.is_empty() && Kinship::of(own, here) < Kinship::Sibling {
        let what = format!("{path}: the dictionary is for model {own}, the rows are from model {here}");
        return Err(Error::mismatch(what));
    }
    Ok(())
}

fn encode(
    rows: &Activations,
    documents: &[Document],
    dictionary: &Dictionary,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Csr> {
    let d = rows.d_model();
    let total: usize = documents.iter().map(|d| d.len).sum();
    let mut all = Csr { offsets: Vec::with_capacity(total + 1), entries: Vec::new() };
    all.offsets.push(0);
    let mut block = Vec::with_capacity(ENCODED * d);
    let mut flush = |block: &mut Vec<f32>, all: &mut Csr| {
        check_finite(block, d, all.offsets.len() - 1)?;
        let codes = dictionary.encode_batch(block, threads);
        for row in codes.rows() {
            all.entries.extend_from_slice(row);
            all.offsets.push(all.entries.len());
        }
        block.clear();
        report(progress, (all.offsets.len() - 1) as u64, total as u64, "encoding")
    };
    for document in documents {
        for row in document.first..document.first + document.len {
            let at = block.len();
            block.resize(at + d, 0.0);
            rows.row(row, &mut block[at..]);
            if !num::norm(&block[at..]).is_finite() {
                let path = rows.directory().display();
                return Err(Error::numeric(format!("{path}: row {row}: expected finite numbers, found another")));
            }
            if block.len() == ENCODED * d {
                flush(&mut block, &mut all)?;
            }
        }
    }
    if !block.is_empty() {
        flush(&mut block, &mut all)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn windows_stay_inside_documents() {
        let data: Vec<f32> = (0..20).map(|v| v as f32).collect();
        let rows = Sequences::from_rows(2, data, &[0, 3, 4, 10]).unwrap();
        assert_eq!((rows.len(), rows.n_documents(), rows.n_targets(2)), (10, 3, 1 + 4));
        let mut out = [0.0; 4];
        rows.read(2, 1..3, &mut out).unwrap();
        assert_eq!(out, [10.0, 11.0, 12.0, 13.0]);
        let (kept, held) = rows.hold_out(2).unwrap();
        assert_eq!((kept.len(), held.len()), (9, 1));
        assert_ne!(kept.fingerprint().unwrap(), rows.fingerprint().unwrap());
        assert_eq!(rows.hold_out(7).err().unwrap().kind(), Kind::Argument);
    }

    #[test]
    fn malformed_rows_are_named() {
        let bad = |data: Vec<f32>, bounds: &[usize]| Sequences::from_rows(2, data, bounds).err().unwrap();
        assert_eq!(bad(vec![0.0; 3], &[0, 1]).kind(), Kind::Argument);
        assert!(bad(vec![0.0; 4], &[0, 1]).message().contains("rise from 0 to 2"));
        assert!(bad(vec![0.0; 4], &[0, 2, 2]).message().contains("rise"));
        let error = bad(vec![0.0, 1.0, 2.0, f32::NAN], &[0, 2]);
        assert_eq!(
            (error.kind(), error.message()),
            (Kind::Numeric, "row 1, column 1: expected a finite number, found NaN")
        );
    }
}
