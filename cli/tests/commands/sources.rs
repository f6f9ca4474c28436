//! Where options come from besides the command line, and who takes them from there.

use crate::shardproof;

const COORDINATOR: [&str; 5] = ["coordinator", "127.0.0.1", "0", "1", "mlp"];

/// Runs a command that fails in an environment with more variables: exit code and standard error.
fn fails_with(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = shardproof(args).envs(variables.iter().copied()).output().unwrap();
    assert!(!output.status.success(), "{args:?} with {variables:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_services_take_variables_and_a_file_as_their_own_programs_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("options.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "audit = \"always\"\nbackend = \"float\"").unwrap();
    let expected = "--audit always: float mode proves nothing";
    let named = [COORDINATOR.as_slice(), &["--config", path]].concat();
    for (args, variables) in [
        (COORDINATOR.as_slice(), [("SHARDPROOF_AUDIT", "always"), ("SHARDPROOF_BACKEND", "float")].as_slice()),
        (&COORDINATOR, &[("SHARDPROOF_CONFIG", path)]),
        (&named, &[]),
    ] {
        let (code, said) = fails_with(args, variables);
        assert!(code == Some(1) && said.contains(expected), "{said}");
    }
    let worker = ["worker", "127.0.0.1", "0", "127.0.0.1", "9", "SOLO"];
    let (code, said) = fails_with(&worker, &[("SHARDPROOF_QUEUE", "many")]);
    assert!(code == Some(2) && said.contains("--queue"), "{said}");
    std::fs::write(&file, "queue = \"many\"").unwrap();
    let (code, said) = fails_with(&worker, &[("SHARDPROOF_CONFIG", path)]);
    assert!(code == Some(2) && said.contains(path) && said.contains("--queue"), "{said}");
}

#[test]
fn clients_do_not_take_what_is_meant_for_services() {
    let variables = [("SHARDPROOF_CONFIG", "/nowhere/options.toml"), ("SHARDPROOF_SAMPLES", "/nowhere/samples.npy")];
    let output = shardproof(&["plan", "mlp", "--shards", "1"]).envs(variables).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_variable_that_is_empty_counts_as_none() {
    let empty = ["TLS", "ADMIT", "CONFIG", "MAX_RUNS", "INSECURE"].map(|name| (format!("SHARDPROOF_{name}"), ""));
    let empty: Vec<(&str, &str)> = empty.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let args = [COORDINATOR.as_slice(), &["--audit", "always", "--backend", "float"]].concat();
    let (code, said) = fails_with(&args, &empty);
    assert!(code == Some(1) && said.contains("--audit always: float mode proves nothing"), "{said}");
    let empty = [("SHARDPROOF_TLS", ""), ("SHARDPROOF_COORDINATOR", "")];
    let (_, said) = fails_with(&["status", "--coordinator", "127.0.0.1:1"], &empty);
    assert!(said.contains("no coordinator at 127.0.0.1:1"), "{said}");
    // Whether or not somebody listens at the default address.
    let output = shardproof(&["status"]).envs(empty).output().unwrap();
    assert_ne!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_demo_does_what_it_is_told_whatever_is_in_its_environment() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let variables = [
        ("SHARDPROOF_CONFIG", "/nowhere/options.toml"),
        ("SHARDPROOF_BACKEND", "magic"),
        ("SHARDPROOF_TLS", "/nowhere/certificates"),
        ("SHARDPROOF_QUEUE", "many"),
        ("SHARDPROOF_DATABASE", "postgres://nowhere.invalid/none"),
    ];
    let args = ["demo", "mlp", "--shards", "1", "--backend", "float", "--out", out];
    let output = shardproof(&args).envs(variables).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
