//! From named arrays to the parts of a dictionary: orientation, storage, sizes; shared by all families.

use std::sync::Arc;

use super::super::matrix::{Matrix, Shared, Values};
use super::super::settings::Place;
use super::super::{Dictionary, Info, Settings, SharedGate, SharedStats, parts};
use super::Family;
use super::source::Source;
use crate::error::{Error, Result};
use crate::file::{Dtype, Tensors, View};

/// How a family lays out a matrix: what shapes cannot say of square ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    /// `[n_features, width]`.
    ByFeature,
    /// `[width, n_features]`, as the weight of a linear layer that decodes.
    ByPlace,
}

/// Reads arrays of a source, and collects what its reader should know.
pub(super) struct Reader<'a> {
    source: &'a Source,
    tensors: &'a Tensors,
    pub(super) notes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, tensors: source.weights(), notes: Vec::new() }
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    pub(super) fn tensors(&self) -> &'a Tensors {
        self.tensors
    }

    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes
    }

    /// Adds a sentence to what a reader should know.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// [`Error::format`] of the weights.
    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::format(self.tensors.path(), what)
    }

    /// The one of `names` that the file has; the first if none.
    pub(super) fn first(&self, names: &[&'static str]) -> &'static str {
        let has = |name: &&&str| self.tensors.opt(name).is_some();
        names.iter().find(has).or(names.first()).copied().unwrap_or_default()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.opt(name).is_some()
    }

    /// Number of elements of the vector `name`.
    pub(super) fn len(&self, name: &str) -> Result<usize> {
        match *self.tensors.get(name)?.shape() {
            [len] if len > 0 => Ok(len),
            ref shape => Err(self.wrong(format!("tensor \"{name}\": expected a vector, found shape {shape:?}"))),
        }
    }

    /// The vector `name` of `len` elements.
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Shared<f32>> {
        Ok(self.tensors.get(name)?.expect_shape(&[len])?.to_f32()?.into_owned().into())
    }

    /// `n_features` rows of `width`, from wherever they lie: mapped if the file allows.
    pub(super) fn matrix(&mut self, name: &str, n_features: usize, width: usize, lies: Lies) -> Result<Matrix> {
        let view = self.tensors.get(name)?;
        let (by_feature, by_place) = ([n_features, width], [width, n_features]);
        let found = match view.shape() {
            shape if n_features == width && shape == by_feature => lies,
            shape if shape == by_feature => Lies::ByFeature,
            shape if shape == by_place => Lies::ByPlace,
            shape => {
                let what = format!(
                    "tensor \"{name}\": expected {n_features} features of width {width}, as {by_feature:?} or {by_place:?}, found shape {shape:?}"
                );
                return Err(self.wrong(what));
            }
        };
        if found != lies {
            self.note(format!("{name} lies the other way round than its family writes it; read by its shape"));
        }
        let values = values(&view)?;
        let matrix = match found {
            Lies::ByFeature => Matrix::new(values, n_features, width),
            Lies::ByPlace => Matrix::from_columns(values, n_features, width),
        };
        matrix.ok_or_else(|| self.wrong(format!("tensor \"{name}\": its data do not fill shape {:?}", view.shape())))
    }

    /// The skip connection `name`: `[d_out, d_in]`, or its transpose where `transposed`.
    pub(super) fn skip(&self, name: &str, d_out: usize, d_in: usize, transposed: bool) -> Result<Option<Matrix>> {
        let Some(view) = self.tensors.opt(name) else { return Ok(None) };
        let view = view.expect_shape(&if transposed { [d_in, d_out] } else { [d_out, d_in] })?;
        let make = if transposed { Matrix::from_columns } else { Matrix::new };
        Ok(make(values(&view)?, d_out, d_in))
    }

    /// θ of every feature: a vector, or one number for all.
    pub(super) fn thresholds(&self, name: &str, n_features: usize) -> Result<Shared<f32>> {
        let view = self.tensors.get(name)?;
        match view.shape().iter().product::<usize>() {
            1 if n_features != 1 => Ok(vec![view.scalar_f32()?; n_features].into()),
            _ => self.vector(name, n_features),
        }
    }
}

/// The elements of a tensor in one of our storages, where they lie if they can be used there.
pub(super) fn values(view: &View<'_>) -> Result<Values> {
    let halves = || view.bytes().as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b)).collect::<Vec<_>>();
    fn shared<T: bytemuck::Pod>(view: &View<'_>) -> Option<Shared<T>> {
        let (map, bytes) = view.mapped()?;
        Shared::mapped(map, bytes)
    }
    Ok(match view.dtype() {
        Dtype::F32 => match shared(view) {
            Some(mapped) => Values::F32(mapped),
            None => Values::F32(view.to_f32()?.into_owned().into()),
        },
        Dtype::F16 => Values::F16(shared(view).unwrap_or_else(|| halves().into())),
        Dtype::BF16 => Values::Bf16(shared(view).unwrap_or_else(|| halves().into())),
        _ => Values::F32(view.to_f32()?.into_owned().into()),
    })
}

/// What a family's reader found.
pub(super) struct Draft {
    pub(super) encoder: Matrix,
    pub(super) decoder: Matrix,
    pub(super) encoder_bias: Shared<f32>,
    pub(super) decoder_bias: Shared<f32>,
    pub(super) threshold: Option<Shared<f32>>,
    pub(super) gate: Option<SharedGate>,
    pub(super) skip: Option<Matrix>,
    pub(super) stats: Option<SharedStats>,
    pub(super) settings: Settings,
    pub(super) info: Info,
}

impl Draft {
    /// The parts that every dictionary has.
    pub(super) fn new(
        (encoder, encoder_bias): (Matrix, Shared<f32>),
        (decoder, decoder_bias): (Matrix, Shared<f32>),
        settings: Settings,
        info: Info,
    ) -> Self {
        let (threshold, gate, skip, stats) = (None, None, None, None);
        Self { encoder, decoder, encoder_bias, decoder_bias, threshold, gate, skip, stats, settings, info }
    }

    /// The dictionary, checked.
    pub(super) fn finish(self, source: &Source, family: Family, mut notes: Vec<String>) -> Result<Dictionary> {
        let Self { encoder, decoder, encoder_bias, decoder_bias, threshold, gate, skip, stats, settings, mut info } =
            self;
        let site = Place::of(&info.hook);
        info.layer = info.layer.or(site.layer());
        if info.layer.is_none() {
            notes.push(match info.hook.as_str() {
                "" => "its files do not say which layer it reads".to_owned(),
                hook => format!("reads \"{hook}\", which is not the output of a layer"),
            });
        }
        let writes = if settings.transcodes { Place::of(&info.hook_out) } else { site };
        info.layer_out =
            info.layer_out.or(writes.layer_out()).filter(|&l| settings.transcodes || Some(l) != info.layer);
        if info.name.is_empty() {
            info.name = source.title();
        }
        info.notes.append(&mut notes);
        let dictionary = Dictionary {
            info,
            settings,
            encoder,
            decoder,
            encoder_bias,
            decoder_bias,
            threshold,
            gate,
            skip,
            stats,
            norms: Arc::default(),
            outline: Arc::default(),
            stats_rows: Arc::default(),
        };
        let wrong = |what| Error::format(source.weights().path(), format!("{family}: {what}"));
        parts::check(&dictionary).map_err(wrong)?;
        Ok(dictionary)
    }
}
