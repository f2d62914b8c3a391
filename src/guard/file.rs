//! A guard's two files: the plan, which people read and edit, and the dictionary of its features beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dictionary::Dictionary;
use crate::error::{Error, Result};
use crate::file::gguf::GgmlType;
use crate::model::{Kinship, Model};
use crate::plan::{Compiled, Plan, Route, Target};

/// The name by which a guard's plan speaks of its dictionary.
pub const NAME: &str = "guard";

/// A plan with monitors, and the features that they and its rules use.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What is watched for and what follows.
    pub plan: Plan,
    /// The features.
    pub dictionary: Arc<Dictionary>,
}

impl Guard {
    /// Opens the plan at `path` and the dictionary beside it, of the same name with the ending `.gguf`.
    ///
    /// # Errors
    /// As [`Plan::open`] and [`Dictionary::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let plan = Plan::open(path)?;
        let dictionary = Dictionary::open(&features(path)?)?;
        Ok(Self { plan, dictionary: Arc::new(dictionary) })
    }

    /// Writes both files, and returns where the features went.
    ///
    /// # Errors
    /// As [`Plan::save`]; [`Kind::Argument`](crate::Kind::Argument) for a plan's path that ends in `.gguf`.
    pub fn save(&self, path: &Path) -> Result<PathBuf> {
        let features = features(path)?;
        self.dictionary.save_gguf(&features, GgmlType::F32)?;
        self.plan.save(path)?;
        Ok(features)
    }

    /// Checks that the guard was learned from this model or another quantization of it.
    ///
    /// # Errors
    /// [`Kind::Mismatch`](crate::Kind::Mismatch) with what the other model is.
    pub fn check_model(&self, model: &Model) -> Result<()> {
        let info = self.dictionary.info();
        let kinship = Kinship::of(&info.model_fingerprint, model.fingerprint());
        if kinship >= Kinship::Sibling {
            return Ok(());
        }
        let (name, own) = (&info.name, &info.model_name);
        Err(Error::mismatch(format!(
            "guard \"{name}\": learned from \"{own}\"; \"{}\" is {}",
            model.name(),
            kinship.describe()
        ))
        .hinted("learn a guard from this model: `tiller guard learn MODEL --for … --not …`"))
    }

    /// The plan, ready for a model. It goes to the callback whole.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile(&self, target: &Target) -> Result<Compiled> {
        self.plan.compile(&[(NAME, self.dictionary.clone())], target, Route::Callback)
    }
}

/// Where the features of a guard's plan are.
fn features(plan: &Path) -> Result<PathBuf> {
    let features = plan.with_extension("gguf");
    if features == plan {
        return Err(Error::argument(format!("{}: a guard's plan ends in .json", plan.display()))
            .hinted("its features lie beside it under the same name with .gguf"));
    }
    Ok(features)
}
