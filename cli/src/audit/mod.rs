//! A client's part in the audit of its run: it commits to a nonce, reveals it once it has seen the digests of all receipts, and
//! computes for itself what the coordinator says was drawn.
//!
//! A coordinator that is in league with a worker would rather not draw it. Whatever it could have changed after it knew the
//! nonce is compared with what it showed before.

mod challenge;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use shardproof_common::audit::{AuditPolicy, Nonce};
use shardproof_common::ids::Digest;
use shardproof_common::tensor::Tensor;
use shardproof_proto::convert;
use shardproof_proto::v1::{Audit, AuditState};
use tokio::task::JoinHandle;

use challenge::Challenge;

use crate::client::Client;
use crate::output::Output;
use crate::progress::Phase;
use crate::run_view::RunView;

/// A run's audit as the command line shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AuditView {
    /// `always`, `request`, `runs:SHARE` or `shards:SHARE`.
    pub(crate) policy: String,
    /// `none` (nothing drawn so far, or nothing to draw), `awaiting nonce`, `drawn` or `not audited`.
    pub(crate) state: &'static str,
    /// Shards whose proofs the audit asks for.
    pub(crate) drawn: Vec<u32>,
    /// Digests of the receipts that the draw is over, in the order of shards.
    pub(crate) receipts: Vec<String>,
    /// The client's commitment to its nonce.
    pub(crate) nonce_commitment: Option<String>,
    /// What a random draw was made with.
    pub(crate) nonce: Option<String>,
    /// `client`, or `coordinator` where no client had a part in the draw.
    pub(crate) nonce_by: Option<&'static str>,
}

impl AuditView {
    /// Reads what the coordinator sent.
    ///
    /// # Errors
    /// Names the field that cannot be read.
    pub(crate) fn read(audit: &Audit) -> Result<Self> {
        let hex = |field: &'static str, bytes: &[u8]| match bytes {
            [] => Ok(None),
            bytes => digest(field, bytes).map(|digest| Some(digest.to_string())),
        };
        let nonce = hex("nonce", &audit.nonce)?;
        let nonce_by = if audit.coordinators_nonce { "coordinator" } else { "client" };
        Ok(Self {
            policy: audit.policy.chars().filter(|c| !c.is_control()).take(80).collect(),
            state: match audit.state() {
                AuditState::Unspecified => "none",
                AuditState::AwaitingNonce => "awaiting nonce",
                AuditState::Drawn => "drawn",
                AuditState::Unrevealed => "not audited",
            },
            drawn: audit.drawn.clone(),
            receipts: receipts(audit)?.iter().map(Digest::to_string).collect(),
            nonce_commitment: hex("commitment", &audit.nonce_commitment)?,
            nonce_by: nonce.is_some().then_some(nonce_by),
            nonce,
        })
    }

    /// In one line; nothing where proofs come on request only.
    pub(crate) fn describe(&self) -> Option<String> {
        let shards = || self.drawn.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let outcome = match (self.state, self.drawn.as_slice()) {
            ("drawn", []) => "nothing drawn".to_owned(),
            ("drawn", [_]) => format!("drew shard {}", shards()),
            ("drawn", _) => format!("drew shards {}", shards()),
            ("not audited", _) => "not audited: the nonce was not revealed in time".to_owned(),
            ("awaiting nonce", _) => "awaits the client's nonce".to_owned(),
            _ if self.policy == AuditPolicy::Request.to_string() => return None,
            _ => "nothing drawn yet".to_owned(),
        };
        let weaker = if self.nonce_by == Some("coordinator") { " (by the coordinator's own nonce)" } else { "" };
        Some(format!("{}: {outcome}{weaker}", self.policy))
    }
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest> {
    Digest::try_from(bytes).with_context(|| format!("the coordinator sent a bad audit: {field}"))
}

fn receipts(audit: &Audit) -> Result<Vec<Digest>> {
    audit.receipts.iter().map(|bytes| digest("receipt", bytes)).collect()
}

/// A run that was followed to its end by the client that submitted it.
pub(crate) struct Followed {
    pub(crate) view: RunView,
    /// What is wrong with the coordinator's draw.
    pub(crate) wrong_draw: Option<String>,
    /// Why the coordinator did not take the nonce.
    pub(crate) refused_nonce: Option<String>,
}

/// Submits a run with a part in its audit, reveals the nonce when it is due, and follows the run until nothing is under way.
///
/// # Errors
/// When the coordinator refuses the run, or is lost.
pub(crate) async fn submit_and_follow(client: &Client, input: &[Tensor], output: Output) -> Result<Followed> {
    let nonce = Nonce::generate();
    let accepted = client.submit(input, Some(nonce.commitment())).await?;
    let run = convert::run_id(&accepted.run).map_err(|status| anyhow!("{}", status.message()))?;
    let policy = accepted.audit.as_ref().map_or("", |audit| audit.policy.as_str());
    let policy = policy.parse().context("the coordinator's audit policy")?;
    let mut challenge = Challenge { run, nonce, policy, receipts: None, revealed: false };
    let mut revealing: Option<JoinHandle<Result<()>>> = None;
    let mut phase = Phase::begin(&format!("run {run}"), output.verbose());
    let last = client
        .watch(run, |update| {
            phase.step(&RunView::read(update)?.progress());
            if challenge.due(update)? {
                let client = client.clone();
                revealing = Some(tokio::spawn(async move { client.reveal(run, nonce).await }));
            }
            Ok(())
        })
        .await?;
    drop(phase);
    let mut refused_nonce = None;
    if let Some(revealing) = revealing {
        let revealed = revealing.await.context("revealing the nonce")?;
        challenge.revealed = revealed.is_ok();
        refused_nonce = revealed.err().map(|error| format!("{error:#}"));
    }
    let wrong_draw = challenge.check(&last).err().map(|wrong| wrong.to_string());
    Ok(Followed { view: RunView::read(&last)?, wrong_draw, refused_nonce })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audits_are_told_in_a_line() {
        let drawn = |drawn: &[u32], coordinators_nonce| Audit {
            policy: "runs:0.5".to_owned(),
            state: AuditState::Drawn.into(),
            nonce: vec![1; 32].into(),
            coordinators_nonce,
            drawn: drawn.to_vec(),
            ..Audit::default()
        };
        let line = |audit: Audit| AuditView::read(&audit).unwrap().describe();
        assert_eq!(line(drawn(&[0, 1], false)).unwrap(), "runs:0.5: drew shards 0, 1");
        assert_eq!(line(drawn(&[1], false)).unwrap(), "runs:0.5: drew shard 1");
        assert_eq!(line(drawn(&[], false)).unwrap(), "runs:0.5: nothing drawn");
        assert_eq!(line(drawn(&[], true)).unwrap(), "runs:0.5: nothing drawn (by the coordinator's own nonce)");
        let in_state = |policy: &str, state: AuditState| {
            line(Audit { policy: policy.to_owned(), state: state.into(), ..Audit::default() })
        };
        assert_eq!(in_state("request", AuditState::Unspecified), None);
        assert_eq!(in_state("runs:1", AuditState::AwaitingNonce).unwrap(), "runs:1: awaits the client's nonce");
        assert!(in_state("runs:1", AuditState::Unrevealed).unwrap().starts_with("runs:1: not audited"));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let short = vec![1; 31];
        assert!(AuditView::read(&Audit { nonce: short.clone().into(), ..Audit::default() }).is_err());
        assert!(AuditView::read(&Audit { receipts: vec![short.into()], ..Audit::default() }).is_err());
    }
}
