//! Merkle trees over the rows of an oracle, with Blake3.
//!
//! A leaf is the hash of a row's bytes, a node that of its two children. The depth of a tree and the length of its rows
//! follow from the parameters, so leaves and nodes need no tags to keep them apart. Messages of equal length are hashed
//! many at a time, which is where vector instructions help.

use p3_blake3::Blake3;
use p3_symmetric::CryptographicHasher;

use super::PcsError;
use super::encoding::Reader;

/// A node of a tree.
pub(super) type Digest = [u8; 32];

/// Hashes messages of the same length that lie one after the other.
pub(super) fn hash_messages(messages: &[u8], digests: &mut [Digest]) {
    Blake3.hash_many(messages, digests);
}

fn hash_pairs(children: &[Digest]) -> Vec<Digest> {
    let mut parents = vec![[0; 32]; children.len() / 2];
    hash_messages(children.as_flattened(), &mut parents);
    parents
}

/// The root over `leaves`, whose indices ascend, in a tree of `depth` levels, with the siblings from `reader`.
pub(super) fn root(
    mut nodes: Vec<(usize, Digest)>,
    depth: usize,
    reader: &mut Reader<'_>,
) -> Result<Option<Digest>, PcsError> {
    for _ in 0..depth {
        let mut parents = Vec::with_capacity(nodes.len());
        let mut children = Vec::with_capacity(2 * nodes.len());
        let mut nodes_left = nodes.iter().peekable();
        while let Some(&(index, digest)) = nodes_left.next() {
            parents.push(index >> 1);
            let sibling = nodes_left.next_if(|&&(next, _)| index & 1 == 0 && next == index + 1);
            children.extend(match sibling {
                Some(&(_, sibling)) => [digest, sibling],
                None if index & 1 == 0 => [digest, reader.digest()?],
                None => [reader.digest()?, digest],
            });
        }
        nodes = parents.into_iter().zip(hash_pairs(&children)).collect();
    }
    Ok(nodes.first().map(|&(_, root)| root))
}

#[cfg(feature = "prover")]
pub(super) use tree::MerkleTree;

#[cfg(feature = "prover")]
mod tree {
    use p3_field::PrimeField64;
    use rayon::prelude::*;

    use super::{Digest, hash_messages};
    use crate::field::Base;

    /// Messages hashed by one task.
    const BATCH: usize = 256;

    /// All levels of a tree.
    #[derive(Debug)]
    pub(in crate::pcs) struct MerkleTree {
        /// From the leaves to the root.
        levels: Vec<Vec<Digest>>,
    }

    impl MerkleTree {
        /// A tree over rows of `width` elements; their number is a power of two.
        pub(in crate::pcs) fn new(elements: &[Base], width: usize) -> Self {
            let mut leaves = vec![[0; 32]; elements.len() / width];
            let hash_rows = |(rows, digests): (&[Base], &mut [Digest])| {
                let mut bytes = Vec::with_capacity(rows.len() * 8);
                rows.iter().for_each(|value| bytes.extend_from_slice(&value.as_canonical_u64().to_le_bytes()));
                hash_messages(&bytes, digests);
            };
            elements.par_chunks(BATCH * width).zip(leaves.par_chunks_mut(BATCH)).for_each(hash_rows);
            let mut levels = vec![leaves];
            while let Some(children) = levels.last().filter(|level| level.len() > 1) {
                let mut parents = vec![[0; 32]; children.len() / 2];
                children
                    .par_chunks(2 * BATCH)
                    .zip(parents.par_chunks_mut(BATCH))
                    .for_each(|(children, parents)| hash_messages(children.as_flattened(), parents));
                levels.push(parents);
            }
            Self { levels }
        }

        pub(in crate::pcs) fn root(&self) -> Digest {
            self.levels.last().expect("a tree has leaves")[0]
        }

        /// Appends the siblings that lead from the leaves at `indices`, which ascend, to the root.
        pub(in crate::pcs) fn write_siblings(&self, indices: &[usize], bytes: &mut Vec<u8>) {
            let mut indices = indices.to_vec();
            for level in &self.levels[..self.levels.len() - 1] {
                let mut at = 0;
                let mut parents = Vec::with_capacity(indices.len());
                while let Some(&index) = indices.get(at) {
                    let both = index & 1 == 0 && indices.get(at + 1) == Some(&(index + 1));
                    if !both {
                        bytes.extend_from_slice(&level[index ^ 1]);
                    }
                    at += if both { 2 } else { 1 };
                    parents.push(index >> 1);
                }
                indices = parents;
            }
        }
    }
}
