//! Which token a row of the residual stream belongs to, as far as that is known.

use std::fmt;

/// Where a row stands. What could not be told is `None`: a rule that needs it leaves the row alone and says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Position in its sequences, from 0.
    pub position: Option<i32>,
    /// The sequences that the row belongs to: one, or several that share a prompt.
    pub sequences: Option<SequenceSet>,
    /// The token; a row that came as an embedding has none.
    pub token: Option<i32>,
    /// Whether the model wrote the token, or was given it.
    pub generated: Option<bool>,
}

impl Row {
    /// A given token's row at `position` of one sequence. A sequence that llama.cpp cannot have is unknown.
    pub fn new(position: i32, sequence: i32) -> Self {
        let sequences = SequenceSet::of([sequence]);
        Self { position: Some(position), sequences, generated: Some(false), token: None }
    }

    /// The same row, of a token that the model wrote, or was given.
    pub fn generated(self, generated: bool) -> Self {
        Self { generated: Some(generated), ..self }
    }

    /// The same row, of this token.
    pub fn token(self, token: i32) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The same row, shared by these sequences.
    pub fn shared_by(self, sequences: SequenceSet) -> Self {
        Self { sequences: Some(sequences), ..self }
    }

    /// The lowest of its sequences.
    pub fn sequence(&self) -> Option<i32> {
        self.sequences.as_ref().and_then(|set| set.iter().next())
    }
}

impl fmt::Display for Row {
    /// `sequence 3, position 17`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.sequences {
            Some(set) => write!(f, "sequence {set}")?,
            None => f.write_str("sequence unknown")?,
        }
        match self.position {
            Some(position) => write!(f, ", position {position}"),
            None => f.write_str(", position unknown"),
        }
    }
}

/// A set of sequence ids from 0 to 255: llama.cpp has no more (`LLAMA_MAX_SEQ`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SequenceSet([u64; 4]);

impl SequenceSet {
    /// The set of `ids`; `None` if it is empty or holds an id out of range.
    pub fn of(ids: impl IntoIterator<Item = i32>) -> Option<Self> {
        let mut set = Self::default();
        for id in ids {
            let id = usize::try_from(id).ok()?;
            *set.0.get_mut(id / 64)? |= 1 << (id % 64);
        }
        (set != Self::default()).then_some(set)
    }

    /// Whether `id` is in it.
    pub fn contains(&self, id: i32) -> bool {
        usize::try_from(id).is_ok_and(|id| self.0.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 == 1))
    }

    /// The ids, in increasing order.
    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        (0..256).filter(|&id| self.contains(id))
    }

    /// Whether the two have an id in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// Whether every id of it is in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & !b == 0)
    }
}

impl fmt::Debug for SequenceSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for SequenceSet {
    /// `0, 3`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, id) in self.iter().enumerate() {
            write!(f, "{}{id}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_llama_can_name() {
        let set = SequenceSet::of([3, 0, 255, 3]).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 3, 255]);
        assert_eq!(set.to_string(), "0, 3, 255");
        for id in [-1, 1, 256, i32::MAX] {
            assert!(!set.contains(id));
        }
        for none in [&[][..], &[-1], &[256], &[3, 256]] {
            assert_eq!(SequenceSet::of(none.iter().copied()), None);
        }
        let part = SequenceSet::of([3]).unwrap();
        assert!(part.is_within(&set) && !set.is_within(&part) && part.meets(&set));
        assert!(!part.meets(&SequenceSet::of([4]).unwrap()));
    }
}
