//! The proof systems that this program can work with.

use std::path::PathBuf;

use clap::Args;
use shardproof_common::backend::ProofVerifier;
use shardproof_ezkl::{EzklConfig, EzklVerifier, Installation, RunnerKind, VERSION};
use shardproof_gkr_service::GkrVerifier;

/// Which ezkl is used.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EzklChoice {
    /// Use this `ezkl` program instead of the Python wheel.
    #[arg(long, value_name = "PATH")]
    pub(crate) ezkl_cli: Option<PathBuf>,
}

impl EzklChoice {
    /// The choice with what the environment says.
    pub(crate) fn config(&self) -> EzklConfig {
        let mut config = EzklConfig::from_env();
        if let Some(program) = &self.ezkl_cli {
            config.runner = RunnerKind::Program(program.clone());
        }
        config
    }

    /// The same, for the services' command lines.
    pub(crate) fn to_args(&self) -> Vec<String> {
        self.ezkl_cli.iter().flat_map(|path| ["--ezkl-cli".to_owned(), path.display().to_string()]).collect()
    }

    /// One verifier per proof system.
    pub(crate) fn verifiers(&self) -> Vec<Box<dyn ProofVerifier>> {
        Self::verifiers_of(&self.config())
    }

    /// One verifier per proof system, where ezkl is the one that `config` describes.
    pub(crate) fn verifiers_of(config: &EzklConfig) -> Vec<Box<dyn ProofVerifier>> {
        vec![Box::new(GkrVerifier::default()), Box::new(EzklVerifier::new(config.clone()))]
    }

    /// What happens when ezkl is used for the first time on this machine, in words; nothing when it is in place.
    pub(crate) fn first_use(&self) -> Option<String> {
        let config = self.config();
        let installation = Installation::new(&config);
        (self.ezkl_cli.is_none() && !installation.is_ready()).then(|| {
            format!(
                "first use: installing ezkl {VERSION} into {} and making a test SRS, which takes a minute or so",
                installation.site().display()
            )
        })
    }
}
