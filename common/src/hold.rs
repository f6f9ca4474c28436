//! Holds a program at a named stage, for tests of faults.
//!
//! A test that kills a worker "after its receipt, before it passes the run on" cannot hit that moment with a sleep. With
//! `--hold-at STAGE` the task that reaches the stage says so on the log and waits for SIGUSR1; everything else in the
//! process goes on, heartbeats and other runs included. What the test does then (kill, stop, let go) happens exactly there.
//! Without the flag a stage costs a comparison with `None`.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The stages, in the order in which a run meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Coordinator: about to set up a shard.
    Setup,
    /// Worker: told of its shard, has fetched nothing.
    Fetch,
    /// Coordinator: the run is accepted and saved, its input not handed to a worker.
    Submitted,
    /// Worker: the boundary is spooled, its sender not told.
    Spooled,
    /// Worker: the shard is run, no receipt is signed.
    BeforeReceipt,
    /// Worker: the receipt is queued for the coordinator, the output not passed on.
    AfterReceipt,
    /// Coordinator: a receipt is saved.
    ReceiptTaken,
    /// Coordinator: requests for proofs are saved, the workers not told.
    ProofRequested,
    /// Worker: about to prove.
    Prove,
    /// Worker: the proof is spooled, not handed over.
    AfterProof,
    /// Coordinator: a proof has come and is not verified.
    Verify,
}

impl Stage {
    const ALL: [(Self, &str); 11] = [
        (Self::Setup, "setup"),
        (Self::Fetch, "fetch"),
        (Self::Submitted, "submitted"),
        (Self::Spooled, "spooled"),
        (Self::BeforeReceipt, "before-receipt"),
        (Self::AfterReceipt, "after-receipt"),
        (Self::ReceiptTaken, "receipt-taken"),
        (Self::ProofRequested, "proof-requested"),
        (Self::Prove, "prove"),
        (Self::AfterProof, "after-proof"),
        (Self::Verify, "verify"),
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(stage, _)| stage == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(stage, _)| *stage).ok_or_else(|| UnknownStage { found: text.to_owned() })
    }
}

/// No stage has that name.
#[derive(Debug, Error)]
#[error("there is no stage `{found}`: the stages are {}", Stage::ALL.map(|(_, name)| name).join(", "))]
pub struct UnknownStage {
    found: String,
}

/// Where to hold: `STAGE`, or `STAGE:N` for the N-th time that the stage is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldAt {
    stage: Stage,
    times: u32,
}

impl FromStr for HoldAt {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        let unknown = || UnknownStage { found: text.to_owned() };
        let (stage, times) = match text.split_once(':') {
            Some((stage, times)) => (stage, times.parse().ok().filter(|&times| times > 0).ok_or_else(unknown)?),
            None => (text, 1),
        };
        Ok(Self { stage: stage.parse()?, times })
    }
}

/// The stage at which a program holds, if at any.
#[derive(Debug, Default)]
pub struct Hold(Option<Armed>);

#[derive(Debug)]
struct Armed {
    stage: Stage,
    /// How often the stage is still to be reached before it holds.
    left: AtomicU32,
    released: watch::Receiver<bool>,
}

impl Hold {
    /// Arms the stage, if one is named, and waits for SIGUSR1 from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the signal's handler cannot be installed.
    pub fn arm(at: Option<HoldAt>) -> io::Result<Self> {
        let Some(HoldAt { stage, times }) = at else { return Ok(Self(None)) };
        let mut go_on = signal(SignalKind::user_defined1())?;
        let (release, released) = watch::channel(false);
        tokio::spawn(async move {
            go_on.recv().await;
            release.send_replace(true);
        });
        Ok(Self(Some(Armed { stage, left: AtomicU32::new(times), released })))
    }

    /// Passes a stage: at once, unless it is the one to hold at.
    pub async fn reach(&self, stage: Stage) {
        let Some(armed) = &self.0 else { return };
        if armed.stage != stage || armed.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        let mut released = armed.released.clone();
        tracing::warn!("holding at {stage}");
        // The sender is dropped only after it has sent.
        let _released = released.wait_for(|&released| released).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_stage_has_a_name_of_its_own_and_mistakes_list_them() {
        for (stage, name) in Stage::ALL {
            assert_eq!(name.parse::<Stage>().unwrap(), stage);
            assert_eq!(stage.to_string(), name);
        }
        assert_eq!("prove:3".parse::<HoldAt>().unwrap(), HoldAt { stage: Stage::Prove, times: 3 });
        for wrong in ["proove", "prove:0", "prove:", ""] {
            assert!(wrong.parse::<HoldAt>().unwrap_err().to_string().contains("before-receipt, after-receipt"));
        }
    }

    #[tokio::test]
    async fn only_the_named_stage_holds_the_nth_time_and_once() {
        let hold = Hold::arm(Some("spooled:2".parse().unwrap())).unwrap();
        hold.reach(Stage::Spooled).await;
        hold.reach(Stage::Verify).await;
        let held = hold.reach(Stage::Spooled);
        tokio::pin!(held);
        tokio::select! {
            biased;
            () = &mut held => panic!("it did not hold"),
            () = std::future::ready(()) => {}
        }
        hold.reach(Stage::Spooled).await;
        let pid = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
        tokio::time::timeout(Duration::from_secs(60), held).await.unwrap();
    }
}
