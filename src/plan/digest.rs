//! The fingerprint of a compiled plan.
//!
//! Hashed are the numbers that the hot path uses (rows, biases, strengths, bounds), in the order of layers and of rules
//! within a layer, before routing. So the fingerprint needs no identity of dictionaries, and cannot forget a setting that
//! a rule's name hides. 64 features of width 2,304 are 1.2 MB: a millisecond.

use super::apply::{Action, Condition, Edit};
use super::encoder::{Encoder, Feature, Kind};
use super::select::Rows;
use super::watch::{Judged, Watcher};
use crate::dictionary::{Activation, Dictionary, Normalization, Unit};
use crate::hook_point::HookPoint;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// SHA-256 in hex over everything that the actions do; gives each action its identity.
pub(super) fn fingerprint(
    actions: &mut BTreeMap<HookPoint, Vec<Action>>,
    watchers: &mut [(HookPoint, Watcher)],
) -> String {
    let mut out = Hasher(Sha256::new());
    let mut seen = HashMap::new();
    out.0.update(b"tiller plan 2");
    // Equal ones are told apart by their order.
    let mut named = |digest: &[u8]| {
        let head = digest.iter().take(8).fold(0u64, |head, &byte| head << 8 | u64::from(byte));
        let before = seen.entry(head).or_insert(0u64);
        *before += 1;
        head.wrapping_add(*before - 1)
    };
    let mut read = Vec::with_capacity(watchers.len());
    for (point, watcher) in watchers {
        let mut own = Hasher(Sha256::new());
        own.0.update(point.to_string());
        own.rows(&watcher.rows);
        own.condition(&watcher.condition);
        let digest = own.0.finalize();
        watcher.identity = named(&digest);
        read.push(watcher.identity);
    }
    for (point, list) in actions {
        out.0.update(point.to_string());
        out.number(list.len());
        for action in list {
            let mut own = Hasher(Sha256::new());
            own.0.update(point.to_string());
            own.action(action);
            if let Some(when) = &action.when {
                own.judged(when, &read);
            }
            let digest = own.0.finalize();
            out.0.update(digest);
            action.identity = named(&digest);
        }
    }
    out.0.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct Hasher(Sha256);

impl Hasher {
    fn number(&mut self, n: usize) {
        self.0.update((n as u64).to_le_bytes());
    }

    fn int(&mut self, n: i32) {
        self.0.update(n.to_le_bytes());
    }

    /// Length first, so that neighbouring lists cannot trade elements. Zeros are hashed without their sign.
    fn floats(&mut self, values: &[f32]) {
        self.number(values.len());
        for chunk in values.chunks(256) {
            let mut bytes = [0; 1024];
            for (bytes, v) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(chunk) {
                *bytes = (v + 0.0).to_le_bytes();
            }
            self.0.update(&bytes[..4 * chunk.len()]);
        }
    }

    fn action(&mut self, action: &Action) {
        let Action { rule: _, identity: _, rows, condition, when: _, edit, norm_preserve } = action;
        self.rows(rows);
        self.number(usize::from(condition.is_some()));
        if let Some(condition) = condition {
            self.condition(condition);
        }
        self.number(usize::from(*norm_preserve));
        match edit {
            Edit::Constant(v) => {
                self.number(0);
                self.floats(v);
            }
            Edit::Relative(v) => {
                self.number(1);
                self.floats(v);
            }
            Edit::Normalized(v, dictionary) => {
                self.number(3);
                self.floats(v);
                self.normalization(dictionary);
            }
            Edit::Codes { encoder, decoder, change, strengths, relative } => {
                self.number(2);
                self.encoder(encoder);
                self.floats(decoder);
                self.number(*change as usize);
                self.floats(strengths);
                self.number(usize::from(*relative));
            }
        }
    }

    fn condition(&mut self, condition: &Condition) {
        let Condition { encoder, share, threshold, sequence } = condition;
        self.encoder(encoder);
        self.floats(share);
        self.floats(&[*threshold]);
        self.number(usize::from(*sequence));
    }

    /// A condition over monitors, which are known by what they read.
    fn judged(&mut self, judged: &Judged, read: &[u64]) {
        let (kind, of): (usize, &[Judged]) = match judged {
            Judged::Fires(monitor) => {
                self.number(10);
                return self.number(read.get(*monitor).map_or(usize::MAX, |&identity| identity as usize));
            }
            Judged::Any(of) => (11, of),
            Judged::All(of) => (12, of),
            Judged::Not(of) => (13, std::slice::from_ref(of)),
        };
        self.number(kind);
        self.number(of.len());
        of.iter().for_each(|judged| self.judged(judged, read));
    }

    fn rows(&mut self, rows: &Rows) {
        let Rows { phase, from, to, first, sequences } = rows;
        self.number(*phase as usize);
        self.int(*from);
        self.int(*to);
        self.number(usize::from(*first));
        self.number(sequences.as_ref().map_or(usize::MAX, |set| set.iter().count()));
        sequences.iter().flat_map(|set| set.iter()).for_each(|id| self.int(id));
    }

    fn encoder(&mut self, encoder: &Encoder) {
        for Feature { unit, offset, sum: _ } in &encoder.features {
            self.unit(*unit);
            self.floats(&[*offset]);
        }
        self.normalization(encoder.dictionary());
        match &encoder.kind {
            Kind::Rows(rows) => self.floats(rows),
            // All features compete, so all rows count.
            Kind::Whole => {
                let dictionary = encoder.dictionary();
                self.number(dictionary.activation().k().unwrap_or(0));
                if let Activation::GroupMax { .. } = dictionary.activation() {
                    self.number(1);
                }
                let mut row = vec![0.0; dictionary.d_model()];
                for id in 0..dictionary.n_features() {
                    dictionary.encoder_row(id, &mut row);
                    self.floats(&row);
                    if let Ok(slice) = dictionary.slice(&[id as u32]) {
                        self.unit(slice.unit(0));
                    }
                }
                self.floats(dictionary.decoder_bias());
            }
        }
    }

    fn unit(&mut self, unit: Unit) {
        let Unit { bias, inner, outer, threshold, gate } = unit;
        self.floats(&[bias, inner, outer, threshold, gate]);
    }

    fn normalization(&mut self, dictionary: &Dictionary) {
        let settings = dictionary.settings();
        self.0.update(settings.normalization.name());
        if let Normalization::ExpectedAverage { scale } = settings.normalization {
            self.floats(&[scale]);
        }
        self.number(usize::from(settings.center_input));
        if settings.transcodes {
            self.number(1);
        }
    }
}
