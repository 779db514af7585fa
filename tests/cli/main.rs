//! The commands that read an archive, as a user runs them: the real program on an archive that the test fills.

mod explain;
mod find;
mod samples;
mod show;
mod tail;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// The program, with nothing of the test's own environment that it looks at.
fn tapstack(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapstack"));
    command.args(arguments).env("TAPSTACK_DATA_DIR", dir).env("TZ", "UTC").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    tapstack(dir, arguments).output().expect("the program starts")
}

/// Runs it; it must succeed. Its standard output.
fn output(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs it; it must fail with this code. Its standard error.
fn failure(dir: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(dir, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn help_has_examples_and_a_wrong_use_exits_with_2() {
    let nowhere = Path::new("/nonexistent");
    for arguments in
        [&["--help"][..], &["tail", "--help"], &["find", "--help"], &["show", "--help"], &["explain", "--help"]]
    {
        let text = output(nowhere, arguments);
        assert!(text.contains("Examples:"), "{arguments:?}: {text}");
    }
    for arguments in
        [&[][..], &["fnd"], &["find", "--status", "20"], &["find", "--since", "soon"], &["show"], &["explain", "0"]]
    {
        failure(nowhere, arguments, 2);
    }
    assert!(failure(nowhere, &["show", "--json", "--har", "abcdef"], 2).contains("cannot be used with"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let text = output(Path::new("/nonexistent"), &["completions", shell]);
        assert!(text.contains("tapstack") && text.contains("find") && text.contains("data-dir"), "{shell}");
    }
}

#[test]
fn without_an_archive_one_line_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    for arguments in [&["find"][..], &["show", "abcdef"]] {
        let text = failure(dir.path(), arguments, 1);
        assert!(text.starts_with("tapstack: there is no archive in ") && text.contains("tapstack up"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn the_folder_of_the_option_goes_before_that_of_the_variable() {
    let dir = tempfile::tempdir().expect("a folder");
    let other = tempfile::tempdir().expect("a folder");
    samples::fill(dir.path(), 1);
    let text = output(other.path(), &["find", "--data-dir", dir.path().to_str().expect("a plain path")]);
    assert_eq!(text.lines().count(), 1, "{text}");
}
