//! A bundle with its card while it is being forged, and the tools to seal it again.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shardproof_common::bundle::{Bundle, ShardProof};
use shardproof_common::card::{CardBody, ModelCard};
use shardproof_common::receipt::Admission;
use shardproof_common::statement::{Binding, Boundary, Statement};
use shardproof_common::tensor::{Tensor, boundary_digest, decode_boundary, encode_boundary};

use crate::party::Keys;

/// A bundle, the card it goes with, and the answer that was delivered with it.
#[derive(Clone)]
pub struct Draft {
    /// The run.
    pub bundle: Bundle,
    /// The card.
    pub card: ModelCard,
    /// What the client was told.
    pub answer: Vec<f64>,
    /// Whether the client goes on under an SRS that is for tests only, which this machine's ezkl has.
    pub accept_test_srs: bool,
}

/// The files of a forgery.
#[derive(Clone, Debug, PartialEq)]
pub struct Forged {
    /// The bundle's file.
    pub bundle: Vec<u8>,
    /// The card's file.
    pub card: Vec<u8>,
    /// What the client was told.
    pub answer: Vec<f64>,
    /// As in [`Draft`].
    pub accept_test_srs: bool,
}

impl Draft {
    /// The files as they are written.
    ///
    /// # Errors
    /// When the bundle has more than a bundle can have.
    pub fn forged(&self) -> Result<Forged> {
        Ok(Forged {
            bundle: self.bundle.encode()?,
            card: self.card.to_json().into_bytes(),
            answer: self.answer.clone(),
            accept_test_srs: self.accept_test_srs,
        })
    }

    /// The files, with the bundle's bytes changed at the end.
    ///
    /// # Errors
    /// As [`Draft::forged`], and when the change cannot be made.
    pub fn forged_as(&self, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Forged> {
        let mut forged = self.forged()?;
        change(&mut forged.bundle)?;
        Ok(forged)
    }

    /// Changes a statement and has its worker sign it.
    pub fn restate(&mut self, keys: &Keys, shard: usize, change: impl FnOnce(&mut Statement)) {
        let receipt = &mut self.bundle.shards[shard].receipt;
        change(&mut receipt.statement);
        *receipt = receipt.signed_by(&keys.workers[shard]);
    }

    /// Changes a boundary between two shards on both its sides; both workers sign.
    pub fn restate_boundary(&mut self, keys: &Keys, boundary: usize, change: impl Fn(&mut Boundary)) {
        self.restate(keys, boundary - 1, |statement| change(&mut statement.output));
        self.restate(keys, boundary, |statement| change(&mut statement.input));
    }

    /// Puts other tensors for those of a public boundary.
    ///
    /// # Errors
    /// When the boundary is not shown.
    pub fn show(&mut self, boundary: usize, change: impl FnOnce(&mut Vec<Tensor>) -> Result<()>) -> Result<Binding> {
        let shown = self.bundle.boundaries[boundary].as_mut().context("the boundary is not shown")?;
        let mut tensors = decode_boundary(shown)?;
        change(&mut tensors)?;
        *shown = encode_boundary(&tensors).into();
        Ok(Binding::Public(boundary_digest(&tensors)))
    }

    /// A shard's proof.
    ///
    /// # Errors
    /// When it has none.
    pub fn proof(&mut self, shard: usize) -> Result<&mut ShardProof> {
        self.bundle.shards[shard].proof.as_mut().context("the shard has no proof")
    }

    /// Changes the bytes of a shard's proof.
    ///
    /// # Errors
    /// When it has none, or the change cannot be made.
    pub fn change_proof(&mut self, shard: usize, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let proof = self.proof(shard)?;
        let mut bytes = proof.proof.to_vec();
        change(&mut bytes)?;
        proof.proof = bytes.into();
        Ok(())
    }

    /// Changes the bytes of a shard's verifying key.
    ///
    /// # Errors
    /// As [`Draft::change_proof`].
    pub fn change_key(&mut self, shard: usize, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let proof = self.proof(shard)?;
        let mut bytes = proof.verifying_key.to_vec();
        change(&mut bytes)?;
        proof.verifying_key = bytes.into();
        Ok(())
    }

    /// Puts these verifying keys into the bundle; they are no secret.
    ///
    /// # Errors
    /// When a shard has no proof.
    pub fn carry_keys(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        for (shard, key) in keys.iter().enumerate() {
            self.proof(shard)?.verifying_key = key.clone().into();
        }
        Ok(())
    }

    /// Has the authority admit every worker to the card's plan.
    pub fn readmit(&mut self, keys: &Keys) {
        let plan = self.card.body.plan.digest();
        for record in &mut self.bundle.shards {
            record.admission = Admission::sign(record.receipt.worker, plan, &keys.authority);
        }
    }

    /// Changes the card; the owner signs it, and the bundle is relabelled to be of it.
    pub fn republish(&mut self, keys: &Keys, change: impl FnOnce(&mut CardBody)) {
        let mut body = self.card.body.clone();
        change(&mut body);
        self.card = ModelCard::sign(body, &keys.owner);
        self.bundle.card = self.card.digest();
    }
}

/// The commitments of a boundary.
///
/// # Panics
/// When it is public: forgeries of commitments are made in scenes that have some.
pub(crate) fn commitments(boundary: &mut Boundary) -> &mut Vec<Vec<u8>> {
    match &mut boundary.binding {
        Binding::Committed(commitments) => commitments,
        Binding::Public(_) => panic!("the boundary is public"),
    }
}

/// Changes the encoding of a value whose type keeps its parts to itself.
///
/// # Errors
/// When the changed bytes are no such value.
pub(crate) fn recoded<T: Serialize + DeserializeOwned>(value: &T, change: impl FnOnce(&mut Vec<u8>)) -> Result<T> {
    let mut bytes = postcard::to_allocvec(value)?;
    change(&mut bytes);
    Ok(postcard::from_bytes(&bytes)?)
}

/// Adds a modulus to a number of equally many bytes, least significant first: another writing of the same element.
///
/// # Errors
/// When the sum does not fit.
pub(crate) fn add_modulus(number: &mut [u8], modulus: &[u8]) -> Result<()> {
    let mut carry = 0;
    for (byte, &add) in number.iter_mut().zip(modulus) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    if carry == 0 { Ok(()) } else { Err(anyhow!("the element has no second writing of this length")) }
}
