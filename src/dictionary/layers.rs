//! Features that live at several layers: what learning an instruction makes.
//!
//! Such a dictionary is a list of features, each with the layer whose output it reads and writes; there is no row that all of
//! them read. Rules of plans act on each at its own layer. What works on whole rows takes one layer: [`Dictionary::at_layer`].

use super::{Dictionary, Info};
use crate::error::{Error, Result};
use crate::hook_point::HookPoint;

impl Dictionary {
    /// The layer of every feature, if they live at several; else empty.
    pub fn layers(&self) -> &[usize] {
        &self.info.layers
    }

    /// Whether its features live at several layers.
    pub fn is_layered(&self) -> bool {
        !self.info.layers.is_empty()
    }

    /// The layer at which a feature lives, if known.
    pub fn feature_layer(&self, feature: usize) -> Option<usize> {
        if self.is_layered() { self.info.layers.get(feature).copied() } else { self.layer() }
    }

    /// The hook point that a feature reads, if known and one of those that plans know.
    pub fn feature_point(&self, feature: usize) -> Option<HookPoint> {
        if self.is_layered() { self.feature_layer(feature).map(HookPoint::from) } else { self.point() }
    }

    /// The features that live at `layer`, as a dictionary of that layer. Of a dictionary of one layer, a copy.
    ///
    /// # Errors
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) if none does.
    pub fn at_layer(&self, layer: usize) -> Result<Self> {
        if !self.is_layered() && self.layer() == Some(layer) {
            return Ok(self.clone());
        }
        let here: Vec<u32> = (0..).zip(self.layers()).filter(|(_, at)| **at == layer).map(|(i, _)| i).collect();
        if here.is_empty() {
            let (name, has) = (self.info.title(), self.describe_layers());
            return Err(Error::mismatch(format!("{name}: layer: expected {has}, found {layer}")));
        }
        let slice = self.select(&here)?;
        let info = Info { layers: Vec::new(), layer: Some(layer), learned: None, ..slice.info.clone() };
        Ok(slice.with_info(info))
    }

    /// Refuses a dictionary whose features live at several layers, for work on whole rows.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported).
    pub fn check_one_layer(&self, what: &str) -> Result<()> {
        if !self.is_layered() {
            return Ok(());
        }
        let (name, has) = (self.info.title(), self.describe_layers());
        Err(Error::unsupported(format!("{name}: {what} works on rows of one layer, and its features live at {has}"))
            .hinted("take the features of one layer: `tiller convert FILE --layer N --out ONE.gguf`"))
    }

    /// Its layers for people.
    fn describe_layers(&self) -> String {
        let mut layers: Vec<usize> =
            if self.is_layered() { self.layers().to_vec() } else { self.layer().into_iter().collect() };
        layers.sort_unstable();
        layers.dedup();
        match layers.as_slice() {
            [] => "an unknown layer".to_owned(),
            [one] => format!("layer {one}"),
            some => format!("layers {}", some.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}
