//! TLS for a demo: an authority that exists for as long as it, and a certificate for each process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use shardproof_authority::{Authority, Leaf};
use shardproof_proto::transport::{Party, Subject, Tls, Transport};

use super::directory::DemoDirectory;

/// Longer than any demo.
const VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Where all processes of a demo listen.
const HOST: &str = "127.0.0.1";

/// The demo's authority. Its key is never written down.
pub(super) struct Certificates {
    authority: Authority,
    directory: PathBuf,
}

impl Certificates {
    /// Makes the authority; certificates of an earlier demo in the same directory are removed.
    pub(super) fn make(demo: &DemoDirectory) -> Result<Self> {
        let directory = demo.in_data("tls");
        super::directory::remove_if_there(&directory)?;
        Ok(Self { authority: Authority::generate()?, directory })
    }

    /// Issues a certificate and returns the options that use it.
    pub(super) fn issue(&self, party: Party, name: &str) -> Result<Vec<String>> {
        let directory = self.directory.join(name);
        let leaf = Leaf::new(Subject { party, name: name.parse()? }, vec![HOST.to_owned()], VALIDITY);
        self.authority.issue(&leaf)?.write(&directory)?;
        let text = directory.to_str().with_context(|| format!("{}: not UTF-8", directory.display()))?;
        Ok(vec![format!("--tls={text}")])
    }

    /// How the demo itself, a client, talks to the coordinator.
    pub(super) fn client(&self) -> Result<Transport> {
        self.issue(Party::Client, "demo")?;
        Ok(Transport::with_tls(Tls::load(&self.directory.join("demo"))?))
    }
}
