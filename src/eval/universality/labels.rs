//! "Has a counterpart in …", as labels of the features of A: in the form that `tiller explain --labels` takes, or put
//! into explanations, which `tiller find --label` searches.

use std::collections::BTreeMap;
use std::path::Path;

use super::report::Report;
use crate::error::{Error, Result};
use crate::explain::{Estimator, Explanation, Explanations, Header};

/// Of each feature of A that has a counterpart, what to call it: `counterpart in B: 17 (r 0.71)`, the best one first.
pub fn labels(report: &Report) -> BTreeMap<u32, String> {
    let mut labels = BTreeMap::<u32, String>::new();
    for pair in &report.pairs {
        let one = format!("{} (r {:.2})", pair.b, pair.r);
        labels
            .entry(pair.a)
            .and_modify(|label| *label = format!("{label}, {one}"))
            .or_insert_with(|| format!("counterpart in {}: {one}", report.b.dictionary));
    }
    labels
}

/// The explanations with labels behind those that they have, parted by a semicolon. A feature without an explanation
/// gets one without words; a label that is there already is not put in twice.
///
/// # Errors
/// [`Mismatch`](crate::Kind::Mismatch) if they are of a dictionary of another size.
pub fn merge(explanations: &Explanations, report: &Report) -> Result<Explanations> {
    explanations.check_size(report.a.n_features)?;
    let mut labels = labels(report);
    let mut list = explanations.list().to_vec();
    for explanation in &mut list {
        let Some(new) = labels.remove(&explanation.feature) else { continue };
        explanation.label = Some(match explanation.label.take() {
            Some(old) if old.contains(&new) => old,
            Some(old) => format!("{old}; {new}"),
            None => new,
        });
    }
    list.extend(labels.into_iter().map(unexplained));
    Explanations::new(explanations.header().clone(), list)
}

/// Writes labels to a new file: the explanations with them, or without explanations one label a line.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument) if the file is there already; [`Io`](crate::Kind::Io); as [`merge`].
pub fn save(report: &Report, explanations: Option<&Explanations>, path: &Path) -> Result<()> {
    check_new(path)?;
    match explanations {
        Some(explanations) => merge(explanations, report)?.save(path),
        None => {
            let list = labels(report).into_iter().map(unexplained).collect();
            Explanations::new(Header::new(Estimator::Data), list)?.save_labels(path)
        }
    }
}

/// Refuses a file that is there.
///
/// # Errors
/// [`Argument`](crate::Kind::Argument).
pub fn check_new(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let what = format!("{}: expected a new file for labels, found one that is there", path.display());
        return Err(Error::argument(what).hinted("give another name, or move the file away"));
    }
    Ok(())
}

fn unexplained((feature, label): (u32, String)) -> Explanation {
    Explanation { feature, label: Some(label), ..Explanation::default() }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Counterpart, Side};
    use super::*;

    fn report() -> Report {
        let side = |name: &str| Side { dictionary: name.into(), n_features: 10, ..Side::default() };
        let pair = |a, b, r| Counterpart { a, b, r, ..Counterpart::default() };
        let pairs = vec![pair(3, 7, 0.9), pair(5, 1, 0.8), pair(3, 2, 0.25)];
        Report { a: side("one"), b: side("other"), pairs, ..Report::default() }
    }

    #[test]
    fn labels_join_those_that_are_there_and_are_found() {
        let list = [(3, Some("war".to_owned())), (4, None)];
        let list = list.map(|(feature, label)| Explanation { feature, label, ..Explanation::default() }).to_vec();
        let explanations = Explanations::new(Header::new(Estimator::Data), list).unwrap();
        let once = merge(&explanations, &report()).unwrap();
        assert_eq!(once.get(3).unwrap().label.as_deref(), Some("war; counterpart in other: 7 (r 0.90), 2 (r 0.25)"));
        assert_eq!(once.get(4).unwrap().label, None);
        assert_eq!(merge(&once, &report()).unwrap(), once, "a second time changes nothing");
        let found: Vec<u32> = once.find_label("counterpart in other", 9).iter().map(|m| m.feature).collect();
        assert_eq!(found, [3, 5]);
        let small = Report { a: Side { n_features: 2, ..Side::default() }, ..report() };
        assert_eq!(merge(&explanations, &small).unwrap_err().kind(), crate::Kind::Mismatch);
    }

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        save(&report(), None, &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = "{\"feature\":3,\"label\":\"counterpart in other: 7 (r 0.90), 2 (r 0.25)\"}\n";
        assert!(text.starts_with(first) && text.lines().count() == 2, "{text}");
        let error = save(&report(), None, &path).unwrap_err();
        assert!(error.kind() == crate::Kind::Argument && error.message().contains("labels.jsonl"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        // What `tiller explain --labels` reads.
        let list = [3, 5].map(|feature| Explanation { feature, ..Explanation::default() }).to_vec();
        let mut explanations = Explanations::new(Header::new(Estimator::Data), list).unwrap();
        assert_eq!(explanations.load_labels(&path).unwrap(), 2);
    }
}
