//! Which announced token each row of a micro-batch is.
//!
//! llama.cpp cuts a batch into micro-batches and may reorder it on the way. It does so in one of three ways
//! (llama-batch.cpp):
//!
//! * in order (`split_simple`): the next n tokens of the batch;
//! * equally (`split_equal`): m tokens of each of k sequences, one sequence after the other, in the order in which the
//!   batch names them; "sequentially", only as long as their ids follow each other;
//! * by the streams of a cache that is not unified: the graph itself says which sequence a row is of.
//!
//! Every way that is open is played through and held against the tokens and positions that the graph shows. If those that
//! fit agree on a row, that is the row. If they do not, its sequence is unknown.

use crate::plan::{Row, SequenceSet};

/// What a graph shows of its rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown<'g> {
    /// Tokens of this micro-batch.
    pub(super) n: usize,
    /// The largest micro-batch so far.
    pub(super) largest: usize,
    pub(super) tokens: Option<&'g [i32]>,
    pub(super) positions: Option<&'g [i32]>,
    /// The sequence of each row, by the stream of the cache that it is written to.
    pub(super) streams: Option<&'g [i32]>,
    /// The cache is there, and all sequences share it.
    pub(super) unified: bool,
    /// The context has one sequence only.
    pub(super) alone: bool,
}

impl Shown<'_> {
    /// What the graph alone says of a row.
    fn row(&self, i: usize) -> Row {
        let own = |list: Option<&[i32]>| list.and_then(|list| list.get(i).copied());
        let sequence = own(self.streams).or(self.alone.then_some(0));
        Row {
            position: own(self.positions),
            token: own(self.tokens),
            sequences: sequence.and_then(|id| SequenceSet::of([id])),
            generated: None,
        }
    }

    /// The row as announced and shown; `None` if the two contradict each other.
    fn merge(&self, i: usize, announced: &Row) -> Option<Row> {
        let shown = self.row(i);
        let agree = |a: Option<i32>, b: Option<i32>| a.is_none() || b.is_none() || a == b;
        let of = match (shown.sequences, announced.sequences) {
            (Some(one), Some(all)) => one.is_within(&all),
            _ => true,
        };
        let fits = of && agree(shown.position, announced.position) && agree(shown.token, announced.token);
        fits.then(|| Row {
            position: shown.position.or(announced.position),
            token: shown.token.or(announced.token),
            sequences: announced.sequences.or(shown.sequences),
            generated: announced.generated,
        })
    }
}

/// What the caller said of the batch that is being decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    rows: Vec<Row>,
    used: Vec<bool>,
    /// A micro-batch could not be told apart, so that what is left is not known either.
    lost: bool,
}

/// The rows of a micro-batch, and which announced ones they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Assigned {
    pub(super) rows: Vec<Row>,
    taken: Vec<usize>,
    /// Why rows are not what was announced.
    pub(super) doubt: Option<String>,
}

impl Announced {
    pub(super) fn new(rows: &[Row]) -> Self {
        Self { rows: rows.to_vec(), used: vec![false; rows.len()], lost: false }
    }

    /// Tokens that no micro-batch has held.
    pub(super) fn left(&self) -> usize {
        self.used.iter().filter(|used| !**used).count()
    }

    /// Whether no micro-batch has held any.
    pub(super) fn is_fresh(&self) -> bool {
        !self.lost && !self.used.contains(&true)
    }

    /// The micro-batch with these rows is done.
    pub(super) fn take(&mut self, assigned: &Assigned) {
        self.lost |= assigned.doubt.is_some();
        assigned.taken.iter().for_each(|&i| self.used[i] = true);
    }

    /// Whether nothing is left that could be told.
    pub(super) fn is_over(&self) -> bool {
        self.lost || self.left() == 0
    }

    fn assign(&self, shown: &Shown) -> Assigned {
        if self.left() < shown.n {
            let (all, left) = (self.rows.len(), self.left());
            return unknown(shown, format!("{} rows came, and {left} of {all} announced tokens were left", shown.n));
        }
        let mut ways = match shown.streams {
            Some(streams) => self.by_stream(streams).into_iter().collect(),
            None => self.ways(shown, true),
        };
        let fit = |way: &Vec<usize>| {
            way.iter().enumerate().map(|(i, &e)| shown.merge(i, &self.rows[e])).collect::<Option<Vec<Row>>>()
        };
        let mut fitting: Vec<(Vec<Row>, Vec<usize>)> = ways.drain(..).filter_map(|w| Some((fit(&w)?, w))).collect();
        if fitting.is_empty() && shown.streams.is_none() {
            fitting = self.ways(shown, false).into_iter().filter_map(|w| Some((fit(&w)?, w))).collect();
        }
        let mut fitting = fitting.into_iter();
        let Some((mut rows, taken)) = fitting.next() else { return unknown(shown, self.contradiction(shown)) };
        let mut doubtful = 0;
        for (other, _) in fitting.by_ref() {
            for (i, (row, other)) in rows.iter_mut().zip(&other).enumerate() {
                if row != other {
                    *row = Row { position: row.position, token: row.token, ..shown.row(i) };
                    doubtful += 1;
                }
            }
        }
        let doubt = (doubtful > 0).then(|| {
            "llama.cpp may have split the batch in more than one way, so that the rows' sequences are unknown"
                .to_owned()
        });
        Assigned { rows, taken, doubt }
    }

    fn unused(&self) -> impl Iterator<Item = usize> + '_ {
        self.used.iter().enumerate().filter(|(_, used)| !**used).map(|(i, _)| i)
    }

    /// The next tokens of the sequence that each row is of.
    fn by_stream(&self, streams: &[i32]) -> Option<Vec<usize>> {
        let mut taken = vec![false; self.rows.len()];
        let of = |e: usize, id: i32| self.rows[e].sequences.is_none_or(|set| set.contains(id));
        streams
            .iter()
            .map(|&id| {
                let next = self.unused().find(|&e| !taken[e] && of(e, id))?;
                taken[next] = true;
                Some(next)
            })
            .collect()
    }

    /// The ways in which llama.cpp may have filled a micro-batch of `shown.n` tokens. `strict` leaves out those in which it
    /// would have stopped short of a size that it has reached before; it does so only to be able to roll back.
    fn ways(&self, shown: &Shown, strict: bool) -> Vec<Vec<usize>> {
        let (n, largest) = (shown.n, shown.largest);
        let mut ways = Vec::new();
        if !strict || n == self.left() || n >= largest {
            ways.push(self.unused().take(n).collect());
        }
        let queues = self.queues();
        if queues.len() < 2 {
            return ways;
        }
        for sequential in [false, true] {
            // A unified cache is never split by consecutive ids.
            if sequential && shown.unified {
                continue;
            }
            let chosen = choose(&queues, sequential);
            for k in (1..=chosen.len()).filter(|k| n.is_multiple_of(*k)) {
                let m = n / k;
                let shortest = chosen[..k].iter().map(|(_, queue)| queue.len()).min().unwrap_or(0);
                let all = k == chosen.len() || (m == 1 && n >= largest);
                let full = m == shortest || (m + 1) * k > largest;
                if m <= shortest && (!strict || (all && full)) {
                    let way: Vec<usize> =
                        chosen[..k].iter().flat_map(|(_, queue)| queue[..m].iter().copied()).collect();
                    if !ways.contains(&way) {
                        ways.push(way);
                    }
                }
            }
        }
        ways
    }

    /// What is left of each sequence, or set of sequences that share tokens, in the order in which the batch names them.
    fn queues(&self) -> Vec<(SequenceSet, Vec<usize>)> {
        let mut queues: Vec<(SequenceSet, Vec<usize>)> = Vec::new();
        for e in self.unused() {
            let set = self.rows[e].sequences.unwrap_or_default();
            match queues.iter_mut().find(|(own, _)| *own == set) {
                Some((_, queue)) => queue.push(e),
                None => queues.push((set, vec![e])),
            }
        }
        queues
    }

    /// How the announcement fails to fit, read in order.
    fn contradiction(&self, shown: &Shown) -> String {
        for (i, e) in self.unused().take(shown.n).enumerate() {
            let (announced, found) = (&self.rows[e], shown.row(i));
            if let (Some(a), Some(b)) = (announced.position, found.position)
                && a != b
            {
                return format!("announced position {a}, the graph has {b}");
            }
            if let (Some(a), Some(b)) = (announced.token, found.token)
                && a != b
            {
                return format!("announced token {a}, the graph has {b}");
            }
        }
        "the announced sequences are not those of the graph".to_owned()
    }
}

/// The sequences that take part in an equal split: no two that overlap; `sequential`: as long as ids follow each other.
fn choose(queues: &[(SequenceSet, Vec<usize>)], sequential: bool) -> Vec<&(SequenceSet, Vec<usize>)> {
    let mut chosen: Vec<&(SequenceSet, Vec<usize>)> = Vec::new();
    let mut last = None;
    for queue in queues {
        let id = queue.0.iter().next();
        let follows = !sequential || last.is_none() || id.map(|id| id - 1) == last;
        if follows && !chosen.iter().any(|(set, _)| set.meets(&queue.0)) {
            chosen.push(queue);
            last = id;
        }
    }
    chosen
}

/// The rows that a graph shows, as far as the announcement and the graph tell.
pub(super) fn assign(announced: Option<&Announced>, shown: &Shown) -> Assigned {
    match announced {
        Some(announced) if announced.lost => {
            unknown(shown, "the rows of an earlier part of the batch are unknown".into())
        }
        Some(announced) => announced.assign(shown),
        None => Assigned { rows: (0..shown.n).map(|i| shown.row(i)).collect(), ..Assigned::default() },
    }
}

/// Rows that contradict what was announced: nothing is believed of them.
fn unknown(shown: &Shown, why: String) -> Assigned {
    Assigned { rows: vec![Row::default(); shown.n], taken: Vec::new(), doubt: Some(why) }
}
