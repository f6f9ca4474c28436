//! A server that speaks the language of S3, in the process of the test, over a temporary directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What clients identify themselves with.
const ACCESS_KEY: &str = "shardproof-test";
const SECRET_KEY: &str = "shardproof-test-secret";

/// A server with one bucket; ends when dropped.
#[derive(Debug)]
pub struct S3 {
    directory: TempDir,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl S3 {
    /// The bucket.
    pub const BUCKET: &'static str = "shardproof";

    /// Starts a server on a free port.
    ///
    /// # Errors
    /// When it cannot listen or has no directory.
    pub async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join(Self::BUCKET))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, service(directory.path())?));
        Ok(Self { directory, address, serving })
    }

    /// Ends the server with all its connections; its objects stay.
    pub async fn stop(&mut self) {
        self.serving.abort();
        // It was cancelled, which is what it says.
        let _cancelled = (&mut self.serving).await;
    }

    /// Starts it again where it was.
    ///
    /// # Errors
    /// When its port was taken meanwhile.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serving = tokio::spawn(serve(listener, service(self.directory.path())?));
        Ok(())
    }

    /// What the environment of a client says.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Where the bucket's objects lie.
    pub fn bucket(&self) -> PathBuf {
        self.directory.path().join(Self::BUCKET)
    }
}

fn service(directory: &Path) -> anyhow::Result<S3Service> {
    let files = FileSystem::new(directory).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    Ok(service.build())
}

/// Serves until it is dropped, and every connection with it.
async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        connections.spawn(async move {
            // A client that hangs up is done.
            let _ended = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
