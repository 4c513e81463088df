//! The demonstration as a newcomer runs it: a real process, nothing configured.

use std::process::{Command, Output};

/// Runs `demo --run` on free ports, with settings around that must not matter.
fn play(more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), "LISTEN_ADDR=nonsense\n").unwrap();
    Command::new(env!("CARGO_BIN_EXE_marketplace-connector"))
        .args([
            "demo",
            "--run",
            "--listen",
            "127.0.0.1:0",
            "--sandbox-listen",
            "127.0.0.1:0",
        ])
        .args(more)
        .env("DATABASE_URL", "nonsense")
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_whole_story_plays_with_nothing_configured() {
    let output = play(&[]);
    let lines = lines(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{lines:#?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: Vec<_> = lines.iter().map(|line| line[..21].trim_end()).collect();
    assert_eq!(
        told,
        [
            "ok      connect",
            "ok      customer",
            "ok      card",
            "ok      payment",
            "ok      rejected",
            "ok      refund",
            "ok      subscription",
            "ok      refresh",
            "ok      revoke",
            "ok      after revoke",
        ]
    );
    assert!(lines[4].contains("decline issuer"), "{}", lines[4]);
    assert!(lines[9].contains("409 connection_revoked"), "{}", lines[9]);
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_fault_ends_the_story_at_its_step_and_says_why() {
    let output = play(&["--fault", "token=500"]);
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("FAILED  connect"), "{}", lines[0]);
    assert!(lines[0].contains("Mercado Pago is not answering"), "{}", lines[0]);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(why.contains("the token endpoint is unavailable (500)"), "{why}");

    let output = play(&["--fault", "payments=503"]);
    assert_eq!(output.status.code(), Some(1));
    let last = self::lines(&output).pop().unwrap();
    assert!(last.starts_with("FAILED  payment       answered 503"), "{last}");
}

#[test]
fn a_fault_that_is_none_is_bad_usage() {
    assert_eq!(play(&["--fault", "token=sulk"]).status.code(), Some(2));
}
