//! TopK: every row keeps its `k` largest positive scores (arXiv 2406.04093).

use crate::train::score::{Block, Keep, Lane, Panels, scan};

/// Leaves on every lane its row's `k` best positive scores, in the order of the features.
pub(in crate::train) fn select(panels: &Panels, block: Block<'_>, lanes: &mut [Lane], k: usize) {
    for lane in lanes.iter_mut() {
        lane.limit = 0.0;
        lane.items.clear();
    }
    scan(panels, block, lanes, Keep::best(k));
    for lane in lanes {
        lane.prune(k);
        lane.items.sort_unstable_by_key(|item| item.1);
    }
}
