//! Files that gpg, or another program, has to open.

use super::*;

fn encrypted(options: &[(&str, &str)]) -> Home {
    let home = Home::with(&[&GPG, options].concat()).gpg_key();
    home.incoming_segments([1]);
    home.archive().exits(0);
    home
}

/// No word that gpg uses.
const PASSPHRASE: &str = "horse-battery";

#[test]
fn encrypted_files_are_delivered_and_the_passphrase_is_seen_nowhere() {
    let command = [("encryption_passphrase_command", "{root}/ask")];
    let home = Home::with(&[&GPG[..], &command].concat()).gpg_key_with_passphrase(PASSPHRASE);
    home.script("ask", &format!("echo {PASSPHRASE}"));
    home.incoming_segments([1]);
    home.archive().exits(0);
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stderr.as_str()), (0, ""));
    assert!(got.stdout == segment(1));
    assert_eq!(got, get(Barman, &home, &["main", FIRST]));
    let kept = get(Walarch, &home, &["--keep-compression", "main", FIRST]);
    assert!(filter(&home, "gzip", &["-dc"], kept.stdout) == segment(1));
    let calls = traced_calls(&home);
    assert!(calls.lines().any(|call| call.contains("gpg")));
    // From the command to walarch, from there to gpg, and on to its agent.
    let with_passphrase: Vec<_> = calls
        .lines()
        .filter(|call| call.contains(PASSPHRASE))
        .collect();
    assert!(with_passphrase.len() > 1, "{with_passphrase:#?}");
    for call in with_passphrase {
        assert!(goes_to_a_process(call), "{call}");
    }
    assert!(!home.log().contains(PASSPHRASE));
}

/// All system calls of all processes that could let others see it: arguments and environments, names, whatever is
/// written.
fn traced_calls(home: &Home) -> String {
    const CALLS: &str = "trace=execve,open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg";
    let trace = home.root().join("trace");
    let mut strace = in_home(Command::new("strace"), home);
    let status = strace
        .args(["-f", "-qq", "-yy", "-v", "-s", "4096", "-e", CALLS, "-o"])
        .args([&trace, &Walarch.program()])
        .arg("-c")
        .arg(home.config_file())
        .args(["-d", "get-wal", "-o", home.root().to_str().unwrap()])
        .args(["main", FIRST])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned()
}

/// Whether a call writes to a pipe or to a socket of this host, as strace's -yy shows its first argument.
fn goes_to_a_process(call: &str) -> bool {
    let call = call.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let Some((name, arguments)) = call.split_once('(') else {
        return false;
    };
    let descriptor = arguments.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_between_processes = ["<pipe:[", "<UNIX-STREAM:[", "<UNIX:["]
        .iter()
        .any(|kind| descriptor.starts_with(kind));
    (name.starts_with("write") || name.starts_with("send")) && is_between_processes
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
