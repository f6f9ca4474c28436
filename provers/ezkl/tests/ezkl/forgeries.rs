//! Whatever differs from an honest proof of the statement is rejected, each for its own reason.

use shardproof_common::backend::VerifyError;
use shardproof_common::statement::{Binding, Boundary};
use shardproof_common::tensor::Tensor;
use shardproof_ezkl::Felt;

use crate::support::{Link, hashed, polycommit, public, rejection, verify};

const DOES_NOT_VERIFY: &str = "the proof does not verify";

fn assert_rejected_proof(link: &Link, proof: &[u8], reason: &str, what: &str) {
    let mut request = link.request();
    request.proof = proof;
    let found = rejection(&request);
    assert!(found.contains(reason), "{what}: {found}");
}

fn change_commitment(boundary: &mut Boundary, change: impl FnOnce(&mut Vec<u8>)) {
    match &mut boundary.binding {
        Binding::Committed(commitments) => change(&mut commitments[0]),
        Binding::Public(_) => panic!("a committed boundary"),
    }
}

#[test]
fn changed_proofs_are_rejected() {
    let link = &public()[0];
    for place in [0, 63, 1000, link.proof.len() / 2, link.proof.len() - 1] {
        let mut proof = link.proof.clone();
        proof[place] ^= 1;
        assert_rejected_proof(link, &proof, DOES_NOT_VERIFY, &format!("byte {place}"));
    }
    let words = link.proof.len();
    assert_rejected_proof(link, &link.proof[..words - 32], DOES_NOT_VERIFY, "truncated");
    assert_rejected_proof(link, &link.proof[..words - 1], "no whole number of words", "truncated by a byte");
    assert_rejected_proof(link, &[link.proof.as_slice(), &[0; 32]].concat(), "bytes follow the proof", "extended");
    assert_rejected_proof(
        link,
        &[link.proof.as_slice(), &[0]].concat(),
        "no whole number of words",
        "extended by a byte",
    );
    assert_rejected_proof(link, &[], "no whole number of words", "empty");
    assert_rejected_proof(link, &vec![0; (16 << 20) + 32], "more than the 16777216", "huge");
    assert_rejected_proof(link, &public()[1].proof, DOES_NOT_VERIFY, "of another shard");
}

#[test]
fn other_public_integers_are_rejected() {
    let link = &public()[0];
    let mut output = link.inference.output.clone();
    let Tensor::Integer(tensor) = &mut output[1] else { panic!("integers") };
    tensor.values[0] += 1;
    let mut request = link.request();
    request.output = Some(&output);
    assert!(rejection(&request).contains(DOES_NOT_VERIFY));

    request.output = Some(&output[..1]);
    assert_eq!(rejection(&request), "the output boundary has 2 tensors, but 1 were supplied");
    request.output = None;
    assert_eq!(rejection(&request), "the output boundary is public, but its tensors were not supplied");
    let mut longer = output.clone();
    let Tensor::Integer(tensor) = &mut longer[1] else { panic!("integers") };
    tensor.values.push(0);
    request.output = Some(&longer);
    assert!(rejection(&request).contains("output tensor 1: expected integers of shape [1, 4]"));
}

#[test]
fn other_hashes_are_rejected() {
    let link = &hashed()[1];
    let mut statement = link.statement.clone();
    change_commitment(&mut statement.input, |hash| *hash = Felt::from(5).as_bytes().to_vec());
    let mut request = link.request();
    request.statement = &statement;
    assert!(rejection(&request).contains(DOES_NOT_VERIFY));

    for (bytes, reason) in [(vec![0xff; 32], "not a canonical field element"), (vec![0; 31], "has 32 bytes, found 31")]
    {
        let mut statement = link.statement.clone();
        change_commitment(&mut statement.output, |hash| *hash = bytes);
        let mut request = link.request();
        request.statement = &statement;
        match verify(&request) {
            Err(VerifyError::Instances(found)) => assert!(found.contains(reason), "{found}"),
            other => panic!("{other:?}"),
        }
    }
    let mut statement = link.statement.clone();
    statement.input = public()[0].statement.output.clone();
    request.statement = &statement;
    assert_eq!(rejection(&request), "the input boundary is hashed, but the statement does not bind it so");
}

#[test]
fn other_commitments_are_rejected() {
    let link = &polycommit()[1];
    let reason = "the commitments that lead the proof are not those of the statement";
    type Side = fn(&mut shardproof_common::statement::Statement) -> &mut Boundary;
    let sides: [Side; 2] = [|statement| &mut statement.input, |statement| &mut statement.output];
    for side in sides {
        let mut statement = link.statement.clone();
        change_commitment(side(&mut statement), |point| point[3] ^= 1);
        let mut request = link.request();
        request.statement = &statement;
        assert_eq!(rejection(&request), reason);

        let mut statement = link.statement.clone();
        change_commitment(side(&mut statement), |point| point.push(0));
        request.statement = &statement;
        assert!(rejection(&request).contains("a KZG commitment has 32 bytes, found 33"));
    }
}

#[test]
fn other_keys_are_rejected() {
    let link = &hashed()[1];
    let mut request = link.request();
    request.verifying_key = &hashed()[0].verifying_key;
    assert!(rejection(&request).contains(DOES_NOT_VERIFY), "another shard's key");

    let card = link.card_with(|keys| keys.srs.verifier = hashed()[2].keys().srs.verifier.clone());
    assert_ne!(card, link.files.card, "the shards have SRS of different sizes, each with a secret of its own");
    let mut request = link.request();
    request.card = &card;
    assert!(rejection(&request).contains(DOES_NOT_VERIFY), "another SRS");

    let mut statement = link.statement.clone();
    statement.backend.version = "23.0.4".to_owned();
    let mut request = link.request();
    request.statement = &statement;
    assert_eq!(rejection(&request), "the proof was made by version 23.0.4, expected 23.0.5");
}
