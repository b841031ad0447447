//! Files that gpg, or another program, has to open.

use super::*;

fn encrypted(options: &[(&str, &str)]) -> Home {
    let home = Home::with(&[&GPG, options].concat()).gpg_key();
    home.incoming_segments([1]);
    home.archive().exits(0);
    home
}

#[test]
fn encrypted_files_are_delivered_and_the_passphrase_is_seen_nowhere() {
    let home = encrypted(&[("encryption_passphrase_command", "{root}/secret")]);
    home.script("secret", "echo secret");
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stderr.as_str()), (0, ""));
    assert!(got.stdout == segment(1));
    assert_eq!(got, get(Barman, &home, &["main", FIRST]));
    let kept = get(Walarch, &home, &["--keep-compression", "main", FIRST]);
    assert!(filter(&home, "gzip", &["-dc"], kept.stdout) == segment(1));
    // All system calls of all processes: neither arguments nor files hold it.
    let trace = home.root().join("trace");
    let mut strace = in_home(Command::new("strace"), &home);
    let status = strace
        .args([
            "-f",
            "-qq",
            "-s",
            "100",
            "-e",
            "trace=execve,open,openat,creat",
            "-o",
        ])
        .args([&trace, &Walarch.program()])
        .arg("-c")
        .arg(home.config_file())
        .args([
            "-d",
            "get-wal",
            "-o",
            home.root().to_str().unwrap(),
            "main",
            FIRST,
        ])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let calls = fs::read_to_string(&trace).unwrap();
    let calls: Vec<_> = calls
        .lines()
        .filter(|call| !call.contains("/secret\""))
        .collect();
    assert!(calls.iter().any(|call| call.contains("gpg")));
    assert!(
        !calls.iter().any(|call| call.contains("secret")),
        "{calls:#?}"
    );
    assert!(!home.log().contains("secret"));
}

#[test]
fn what_cannot_be_decrypted_is_told_from_what_is_not_there() {
    let home = encrypted(&[("encryption_passphrase_command", "echo wrong")]);
    assert_refused(&home, FIRST, "cannot decrypt");
    let home = encrypted(&[]);
    assert_refused(
        &home,
        FIRST,
        "no 'encryption_passphrase_command' is configured",
    );
    let home = encrypted(&[("encryption_passphrase_command", "exit 3")]);
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (5, 0), "{}", got.stderr);
    let home = encrypted(&[("encryption_passphrase_command", "echo secret")]);
    damage(&home, FIRST, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert_refused(&home, FIRST, FIRST);
}

#[test]
fn a_key_without_a_passphrase_needs_no_command() {
    let home = Home::with(&GPG).gpg_key_with_passphrase("");
    home.incoming_segments([1]);
    home.archive().exits(0);
    let got = get(Walarch, &home, &["main", FIRST]);
    assert!(got.code == 0 && got.stdout == segment(1), "{}", got.stderr);
}

#[test]
fn a_missing_decoder_is_a_matter_of_configuration() {
    let home = Home::with(&[
        ("compression", "custom"),
        ("custom_compression_filter", "base64 -w 0"),
        ("custom_decompression_filter", "base64 -d"),
    ]);
    home.incoming_segments([1]);
    home.archive().exits(0);
    assert!(get(Walarch, &home, &["main", FIRST]).stdout == segment(1));
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("base64 -d", "/nonexistent/filter"));
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (5, 0), "{}", got.stderr);
    assert!(got.stderr.contains("/nonexistent/filter"), "{}", got.stderr);
}
