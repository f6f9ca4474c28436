//! The one place through which every value passes that the prover sends in the clear.
//!
//! Both ends absorb what is sent before the next challenge is drawn. The receiver knows how many values follow from the
//! graph alone, takes exactly these, and refuses a proof with fewer or more.

use thiserror::Error;

use crate::field::Ext;
use crate::transcript::Transcript;

/// The prover's end.
#[cfg(feature = "prover")]
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    /// Shared with the commitments.
    pub transcript: &'a mut Transcript,
    sent: Vec<Ext>,
}

/// The verifier's end.
#[derive(Debug)]
pub(crate) struct Receiver<'a> {
    /// Shared with the commitments.
    pub transcript: &'a mut Transcript,
    values: &'a [Ext],
    taken: usize,
}

/// A proof with another number of values than its graph asks for.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ChannelError {
    /// Too few.
    #[error("the proof ends after {found} values where more are due")]
    Exhausted {
        /// Values in the proof.
        found: usize,
    },
    /// Too many.
    #[error("the proof has {found} values, {expected} are due")]
    Surplus {
        /// Values that the graph asks for.
        expected: usize,
        /// Values in the proof.
        found: usize,
    },
}

#[cfg(feature = "prover")]
impl<'a> Sender<'a> {
    /// An end that has sent nothing.
    pub(crate) fn new(transcript: &'a mut Transcript) -> Self {
        Self { transcript, sent: Vec::new() }
    }

    /// Sends `values`.
    pub(crate) fn send(&mut self, values: &[Ext]) {
        #[cfg(test)]
        let values = &*lies::told(self.sent.len(), values);
        self.transcript.absorb_ext(values);
        self.sent.extend_from_slice(values);
    }

    /// A challenge that depends on everything sent so far.
    pub(crate) fn challenge(&mut self) -> Ext {
        self.transcript.challenge()
    }

    /// `n` challenges.
    pub(crate) fn challenges(&mut self, n: usize) -> Vec<Ext> {
        self.transcript.challenges(n)
    }

    /// All that was sent.
    pub(crate) fn finish(self) -> Vec<Ext> {
        self.sent
    }
}

impl<'a> Receiver<'a> {
    /// An end that reads `values`.
    pub(crate) fn new(transcript: &'a mut Transcript, values: &'a [Ext]) -> Self {
        Self { transcript, values, taken: 0 }
    }

    /// The next N values.
    ///
    /// # Errors
    /// When fewer are left.
    pub(crate) fn receive<const N: usize>(&mut self) -> Result<[Ext; N], ChannelError> {
        let exhausted = ChannelError::Exhausted { found: self.values.len() };
        let next = self.values.get(self.taken..self.taken + N).ok_or(exhausted)?;
        let values: [Ext; N] = next.try_into().map_err(|_| exhausted)?;
        self.taken += N;
        self.transcript.absorb_ext(&values);
        Ok(values)
    }

    /// A challenge that depends on everything received so far.
    pub(crate) fn challenge(&mut self) -> Ext {
        self.transcript.challenge()
    }

    /// `n` challenges.
    pub(crate) fn challenges(&mut self, n: usize) -> Vec<Ext> {
        self.transcript.challenges(n)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When values are left over.
    pub(crate) fn finish(self) -> Result<(), ChannelError> {
        if self.taken == self.values.len() {
            Ok(())
        } else {
            Err(ChannelError::Surplus { expected: self.taken, found: self.values.len() })
        }
    }
}

#[cfg(all(test, feature = "prover"))]
pub(crate) mod lies {
    //! Provers that say something else than they computed, and go on with what they computed.

    use std::cell::RefCell;

    use super::Ext;

    /// How a value is changed.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Change {
        Add(Ext),
        Times(Ext),
        Be(Ext),
    }

    thread_local! {
        static LIES: RefCell<Vec<(usize, Change)>> = const { RefCell::new(Vec::new()) };
    }

    /// Runs `work`, during which the values of this thread's proofs with the given indices are changed.
    pub(crate) fn tell<T>(lies: &[(usize, Change)], work: impl FnOnce() -> T) -> T {
        LIES.set(lies.to_vec());
        let result = work();
        LIES.set(Vec::new());
        result
    }

    /// What is said instead of `values`, the first of which is the proof's `first`.
    pub(super) fn told(first: usize, values: &[Ext]) -> Vec<Ext> {
        let mut values = values.to_vec();
        LIES.with_borrow(|lies| {
            for &(index, change) in lies {
                let Some(value) = index.checked_sub(first).and_then(|index| values.get_mut(index)) else { continue };
                match change {
                    Change::Add(difference) => *value += difference,
                    Change::Times(factor) => *value *= factor,
                    Change::Be(other) => *value = other,
                }
            }
        });
        values
    }
}
