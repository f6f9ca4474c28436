use super::*;

#[test]
fn stores_once_and_detects_damage() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let artifact = store.put(b"content").unwrap();
    assert_eq!(store.put(b"content").unwrap(), artifact);
    assert_eq!(store.read(artifact.digest, 100).unwrap(), b"content");
    assert!(matches!(store.read(artifact.digest, 3), Err(ArtifactError::TooLarge { size: 7, .. })));
    fs::write(store.path(artifact.digest), b"contend").unwrap();
    assert!(matches!(store.read(artifact.digest, 100), Err(ArtifactError::Damaged { .. })));
    assert_eq!(store.find(artifact.digest), None, "whoever has it can store it again");
    assert!(matches!(store.read(Digest::of(b"x"), 100), Err(ArtifactError::Missing { .. })));
}

#[test]
fn a_name_without_its_content_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path().join("store")).unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"content").unwrap();
    let artifact = store.put(b"content").unwrap();
    let lose_power = || fs::write(store.path(artifact.digest), b"").unwrap();
    lose_power();
    assert_eq!(store.put(b"content").unwrap(), artifact);
    assert_eq!(store.read(artifact.digest, 7).unwrap(), b"content");
    lose_power();
    assert_eq!(store.put_file(&file).unwrap(), artifact);
    assert_eq!(store.read(artifact.digest, 7).unwrap(), b"content");

    assert!(store.is_whole(artifact).unwrap());
    fs::write(store.path(artifact.digest), b"contend").unwrap();
    assert!(!store.is_whole(artifact).unwrap());
    assert!(!store.is_whole(artifact).unwrap() && store.find(artifact.digest).is_none());
}

#[test]
fn damage_is_found_on_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let artifact = store.put(b"content").unwrap();
    let read = |offset| -> Result<Vec<u8>, ArtifactError> {
        let mut outgoing = store.send(artifact, offset)?;
        let mut all = Vec::new();
        while let Some(bytes) = outgoing.read(4)? {
            all.extend(bytes);
        }
        Ok(all)
    };
    assert_eq!((read(0).unwrap(), read(3).unwrap()), (b"content".to_vec(), b"tent".to_vec()));
    fs::write(store.path(artifact.digest), b"contend").unwrap();
    assert_eq!(read(3).unwrap(), b"tend", "of a part nobody can tell");
    assert!(matches!(read(0), Err(ArtifactError::Damaged { .. })));
    assert_eq!(store.find(artifact.digest), None, "whoever has it can store it again");
}

#[test]
fn what_the_disk_does_not_let_one_look_at_is_not_said_to_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let digest = Digest::of(b"content");
    fs::write(store.path(digest).parent().unwrap(), b"no directory").unwrap();
    assert!(matches!(store.read(digest, 100), Err(ArtifactError::Io { .. })));
}

#[test]
fn what_was_being_written_when_a_process_died_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let transfer = store.partial(Digest::of(b"whole"));
    fs::write(&transfer, b"who").unwrap();
    let (_, half) = store.temporary().unwrap().keep().unwrap();
    ArtifactStore::open(directory.path()).unwrap();
    assert!(!half.exists());
    assert!(transfer.exists(), "a transfer goes on where it broke off");
}

#[test]
fn completes_a_partial_only_with_the_right_content() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let digest = Digest::of(b"whole");
    fs::write(store.partial(digest), b"whol").unwrap();
    assert!(matches!(store.complete(digest), Err(ArtifactError::Damaged { .. })));
    assert!(!store.partial(digest).exists());
    fs::write(store.partial(digest), b"whole").unwrap();
    assert_eq!(fs::read(store.complete(digest).unwrap()).unwrap(), b"whole");
}

#[test]
fn what_is_taken_in_is_listed_and_removed_by_its_content() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let receive = |bytes: &[u8]| {
        let mut incoming = store.receive().unwrap();
        incoming.write(bytes).unwrap();
        incoming
    };
    let artifact = store.publish(receive(b"content")).unwrap();
    assert_eq!(artifact, Artifact { digest: Digest::of(b"content"), size: 7 });
    let other = store.publish_as(receive(b"other"), artifact.digest);
    assert!(matches!(other, Err(ArtifactError::Damaged { expected, .. }) if expected == artifact.digest));
    fs::write(store.partial(Digest::of(b"p")), b"part").unwrap();
    fs::write(directory.path().join("stray"), b"not by its content").unwrap();
    let listed: Vec<_> = store.list().unwrap().into_iter().map(|(artifact, _)| artifact).collect();
    assert_eq!(listed, [artifact]);
    let partials = store.partials().unwrap();
    assert_eq!(partials.iter().map(|(_, size, _)| *size).collect::<Vec<_>>(), [4]);
    store.remove(artifact.digest).unwrap();
    store.remove(artifact.digest).unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn files_are_stored_by_content() {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path().join("store")).unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"abc").unwrap();
    let written = File::options().append(true).open(&file).unwrap();
    written.set_modified(UNIX_EPOCH).unwrap();
    assert_eq!(store.put_file(&file).unwrap(), Artifact { digest: Digest::of(b"abc"), size: 3 });
    assert!(store.list().unwrap()[0].1 > 0, "it is as young as any that is stored now");
}
