//! What every place for artifacts has to do, run over each of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::fs;
use std::path::{Path, PathBuf};

use shardproof_common::artifacts::{Artifact, ArtifactError, ArtifactStore};
use shardproof_common::ids::Digest;
use shardproof_storage::{Artifacts, StorageError};
use shardproof_testing::S3;
use tempfile::TempDir;

/// Where the artifacts of one test are; reachable from any number of machines where `shared`.
struct Place {
    root: TempDir,
    kind: Kind,
}

enum Kind {
    Directory,
    Files,
    S3(S3),
}

impl Place {
    fn new(kind: Kind) -> Self {
        Self { root: tempfile::tempdir().unwrap(), kind }
    }

    /// The artifacts as a machine sees them whose own directory has this name.
    fn seen_from(&self, machine: &str) -> Artifacts {
        let cache = |name: &str| ArtifactStore::open(self.root.path().join(name)).unwrap();
        match &self.kind {
            Kind::Directory => Artifacts::in_directory(cache("only")),
            Kind::Files => {
                let url = format!("file://{}", self.root.path().join("shared").display());
                Artifacts::at(cache(machine), &url).unwrap()
            }
            Kind::S3(server) => {
                let settings = server.environment().map(|(name, value)| (name.to_lowercase(), value));
                let url = format!("s3://{}/some/prefix", S3::BUCKET);
                Artifacts::with_settings(cache(machine), &url, settings).unwrap()
            }
        }
    }

    /// Where an artifact lies in the store itself.
    fn stored(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        let below = |root: &Path| root.join(&name[..2]).join(&name);
        match &self.kind {
            Kind::Directory => below(&self.root.path().join("only")),
            Kind::Files => below(&self.root.path().join("shared")),
            Kind::S3(server) => below(&server.bucket().join("some/prefix")),
        }
    }
}

macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod directory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::new(super::Kind::Directory)).await;
            })*
        }
        mod files {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::new(super::Kind::Files)).await;
            })*
        }
        mod s3 {
            $(#[tokio::test]
            async fn $name() {
                let server = super::S3::start().await.unwrap();
                super::$name(super::Place::new(super::Kind::S3(server))).await;
            })*
        }
    };
}

on_all!(
    what_is_stored_is_read_from_anywhere,
    large_artifacts_arrive_whole,
    damage_is_found,
    what_is_missing_is_missing,
    what_is_stored_is_listed_and_removed,
);

async fn what_is_stored_is_read_from_anywhere(place: Place) {
    let here = place.seen_from("here");
    let artifact = here.put(b"content").await.unwrap();
    assert_eq!(artifact, Artifact { digest: Digest::of(b"content"), size: 7 });
    assert!(place.stored(artifact.digest).is_file());
    assert_eq!(here.put(b"content").await.unwrap(), artifact);
    let there = place.seen_from("there");
    assert_eq!(there.find(artifact.digest).await.unwrap(), Some(artifact));
    assert_eq!(there.read(artifact.digest, 7).await.unwrap(), b"content");
    assert!(matches!(there.read(artifact.digest, 6).await, Err(ArtifactError::TooLarge { size: 7, limit: 6, .. })));
    let file = place.root.path().join("file");
    fs::write(&file, b"of a file").unwrap();
    let artifact = there.put_file(&file).await.unwrap();
    assert_eq!(here.read(artifact.digest, 100).await.unwrap(), b"of a file");
}

async fn large_artifacts_arrive_whole(place: Place) {
    // More than two parts of an upload.
    let content: Vec<u8> = (0..(17u32 << 20) + 5).map(|i| (i % 251) as u8).collect();
    let artifact = place.seen_from("here").put(&content).await.unwrap();
    assert!(place.seen_from("there").read(artifact.digest, 1 << 30).await.unwrap() == content);
}

async fn damage_is_found(place: Place) {
    let artifact = place.seen_from("here").put(b"content").await.unwrap();
    fs::write(place.stored(artifact.digest), b"contend").unwrap();
    let there = place.seen_from("there");
    assert!(matches!(there.read(artifact.digest, 100).await, Err(ArtifactError::Damaged { .. })));
}

async fn what_is_missing_is_missing(place: Place) {
    let here = place.seen_from("here");
    let absent = Digest::of(b"absent");
    assert_eq!(here.find(absent).await.unwrap(), None);
    assert!(matches!(here.read(absent, 100).await, Err(ArtifactError::Missing { digest }) if digest == absent));
}

async fn what_is_stored_is_listed_and_removed(place: Place) {
    let here = place.seen_from("here");
    let (one, two) = (here.put(b"one").await.unwrap(), here.put(b"second").await.unwrap());
    let mut listed = here.list().await.unwrap();
    assert!(listed.iter().all(|(_, written_ms)| *written_ms > 1_600_000_000_000));
    listed.sort_by_key(|(artifact, _)| artifact.size);
    assert_eq!(listed.iter().map(|(artifact, _)| *artifact).collect::<Vec<_>>(), [one, two]);
    here.remove(one.digest).await.unwrap();
    here.remove(one.digest).await.unwrap();
    assert_eq!(here.find(one.digest).await.unwrap(), None);
    assert_eq!(here.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_counts_as_stored_that_the_store_does_not_have() {
    let mut place = Place::new(Kind::S3(S3::start().await.unwrap()));
    let here = place.seen_from("here");
    let Kind::S3(server) = &mut place.kind else { panic!("expected S3") };
    server.stop().await;
    // The bytes are in the cache now, and are not stored.
    assert!(matches!(here.put(b"content").await, Err(ArtifactError::Remote { .. })));
    let Kind::S3(server) = &mut place.kind else { panic!("expected S3") };
    server.resume().await.unwrap();
    let there = place.seen_from("there");
    assert_eq!(there.find(Digest::of(b"content")).await.unwrap(), None);
    let artifact = here.put(b"content").await.unwrap();
    assert_eq!(there.read(artifact.digest, 100).await.unwrap(), b"content");
}

#[tokio::test]
async fn what_is_large_is_hashed_and_written_elsewhere() {
    let place = Place::new(Kind::Directory);
    let here = place.seen_from("here");
    let content = vec![7; 1 << 20];
    let storing = here.put(&content);
    let mut storing = std::pin::pin!(storing);
    assert!(futures::poll!(storing.as_mut()).is_pending(), "this thread has other things to do meanwhile");
    let artifact = storing.await.unwrap();
    assert_eq!(artifact, Artifact { digest: Digest::of(&content), size: 1 << 20 });
    assert_eq!(here.put(&content).await.unwrap(), artifact);
    assert_eq!(here.read(artifact.digest, 1 << 20).await.unwrap(), content);
}

#[tokio::test]
async fn what_the_directory_lost_is_brought_again() {
    let place = Place::new(Kind::Files);
    let here = place.seen_from("here");
    let artifact = here.put(b"content").await.unwrap();
    fs::write(here.path(artifact.digest), b"").unwrap();
    assert_eq!(here.read(artifact.digest, 7).await.unwrap(), b"content");
}

#[test]
fn other_places_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    for url in ["", "bucket", "gs://bucket/prefix", "s3://"] {
        let cache = ArtifactStore::open(directory.path()).unwrap();
        let refused = Artifacts::at(cache, url).unwrap_err();
        assert!(matches!(&refused, StorageError::Url { url: named } if named == url), "{refused}");
    }
}
