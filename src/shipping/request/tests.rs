use super::*;
use proptest::prelude::*;

fn parsed(line: &str) -> (String, Option<String>, String) {
    let request = Request::parse(line).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
    (request.server, request.config, request.words.join(" "))
}

#[test]
fn what_barman_s_clients_send_is_understood() {
    let wal = "000000010000000000000001";
    let main = |words: &str| ("main".to_owned(), None, words.to_owned());
    assert_eq!(parsed("barman put-wal main"), main("put-wal main"));
    assert_eq!(
        parsed("barman put-wal main --test"),
        main("put-wal --test main")
    );
    assert_eq!(
        parsed(&format!("barman get-wal 'main' '{wal}'")),
        main(&format!("get-wal main {wal}"))
    );
    assert_eq!(
        parsed(&format!(
            "barman get-wal --peek '8' --gzip --partial 'main' '{wal}'"
        )),
        main(&format!("get-wal --peek 8 --gzip --partial main {wal}"))
    );
    assert_eq!(
        parsed("barman get-wal --test 'main' 'dummy_wal_name'"),
        main("get-wal --test main dummy_wal_name")
    );
}

#[test]
fn a_configuration_file_is_told_apart() {
    for line in [
        "barman --config='/etc/b c.conf' put-wal main",
        "/usr/bin/walarch --config '/etc/b c.conf' put-wal main",
        "walarch -c '/etc/b c.conf' put-wal main",
    ] {
        let (_, config, words) = parsed(line);
        assert_eq!(config.as_deref(), Some("/etc/b c.conf"), "{line}");
        assert_eq!(words, "put-wal main");
    }
}

#[test]
fn everything_else_is_refused() {
    let character = Refusal::Character;
    for (line, refusal) in [
        ("", Refusal::Nothing),
        ("   ", Refusal::Nothing),
        ("barman", Refusal::Nothing),
        ("barman -c", Refusal::Arguments),
        ("sh -c id", Refusal::Program("sh".to_owned())),
        ("sftp-server", Refusal::Program("sftp-server".to_owned())),
        (
            "barman/ put-wal main",
            Refusal::Program("barman/".to_owned()),
        ),
        ("barman put-wal main; id", character(';')),
        ("barman put-wal main\nid", character('\n')),
        ("barman put-wal main && id", character('&')),
        ("barman put-wal $(id)", character('$')),
        ("barman put-wal `id`", character('`')),
        ("barman put-wal main > /etc/passwd", character('>')),
        ("barman put-wal \"main\"", character('"')),
        ("barman put-wal ma\\in", character('\\')),
        ("barman put-wal ma*", character('*')),
        ("barman put-wal 'a\nb'", character('\n')),
        ("barman put-wal 'main", Refusal::Quote),
        (
            "barman delete main all",
            Refusal::Command("delete".to_owned()),
        ),
        ("barman -d put-wal main", Refusal::Option("-d".to_owned())),
        ("barman put-wal -d main", Refusal::Option("-d".to_owned())),
        (
            "barman put-wal --forced-command=main",
            Refusal::Option("--forced-command".to_owned()),
        ),
        (
            "barman get-wal -o /tmp main 0",
            Refusal::Option("-o".to_owned()),
        ),
        (
            "barman get-wal --output-directory=/tmp main 0",
            Refusal::Option("--output-directory".to_owned()),
        ),
        ("barman get-wal --peek -1 main 0", Refusal::Arguments),
        ("barman get-wal --peek= main 0", Refusal::Arguments),
        ("barman get-wal main", Refusal::Arguments),
        ("barman put-wal", Refusal::Arguments),
        ("barman put-wal ''", Refusal::Arguments),
        ("barman put-wal main other", Refusal::Arguments),
        ("barman get-wal main ../../etc/passwd", Refusal::Arguments),
    ] {
        assert_eq!(Request::parse(line), Err(refusal), "{line:?}");
    }
    let long = format!("barman put-wal {}", "m".repeat(LINE_SIZE_MAX_BYTES));
    assert_eq!(Request::parse(&long), Err(Refusal::TooLong));
}

const WAL: &str = "000000010000000000000001";

/// What clients send, and what they must not.
const WORDS: [&str; 44] = [
    "barman",
    "walarch",
    "/usr/bin/walarch",
    "sh",
    "put-wal",
    "get-wal",
    "delete",
    "cron",
    "receive-wal",
    "put-wal2",
    "main",
    "main",
    "other",
    WAL,
    "..",
    "../x",
    "/etc/passwd",
    "-",
    "--",
    "-t",
    "--test",
    "-z",
    "-x",
    "-P",
    "--partial",
    "--gzip",
    "-p",
    "--peek",
    "--peek=3",
    "--peek=-3",
    "3",
    "-c",
    "--config",
    "--config=/x",
    "-o",
    "-o/tmp",
    "--output-directory=/tmp",
    "--forced-command",
    "--forced-command=main",
    "-d",
    "-f",
    "json",
    "-tz",
    "''",
];

/// Which of their options may reach the command, besides numbers.
const OPTIONS: [&str; 9] = [
    "-t",
    "--test",
    "-z",
    "-x",
    "-P",
    "--partial",
    "--gzip",
    "-p",
    "--peek",
];

/// A line that is all right, as words.
fn good_line() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        Just("barman put-wal main"),
        Just("/usr/bin/walarch -c /x put-wal main --test"),
        Just("barman get-wal --peek 8 --gzip --partial main 000000010000000000000001"),
        Just("walarch --config=/x get-wal -P main 000000010000000000000001"),
    ]
    .prop_map(|line| line.split(' ').map(str::to_owned).collect())
}

/// What is done to one place of a line: another word in place of one or before it, one twice, none, a piece of
/// one, one in quotes, two without a blank, or a character within.
fn mutated(mut words: Vec<String>, at: usize, how: usize, other: usize, byte: u8) -> Vec<String> {
    let at = at % words.len();
    let other = WORDS[other % WORDS.len()].to_owned();
    let word = words[at].clone();
    let cut = usize::from(byte) % (word.len() + 1);
    match how {
        0 => words[at] = other,
        1 => words.insert(at, other),
        2 => words.insert(at, word),
        3 => drop(words.remove(at)),
        4 => words[at].truncate(cut),
        5 => words[at] = format!("'{word}'"),
        6 => words[at] = format!("{word}{other}"),
        7 => words[at] = format!("{word} '{other}"),
        _ => words[at].insert(cut, char::from(byte % 128)),
    }
    if words.is_empty() {
        words.push(String::new());
    }
    words
}

/// Everything in a request that was understood is a command, an option or a number that clients may send, or the
/// name of a server or file at its end.
fn is_harmless(request: &Request) -> bool {
    let (command, rest) = request.words.split_first().unwrap();
    let names = usize::from(command == "get-wal") + 1;
    let (options, named) = rest.split_at(rest.len() - names);
    let is_number = |word: &String| word.bytes().all(|byte| byte.is_ascii_digit());
    let is_file = |name: &String| !name.contains('/') && !name.starts_with(['-', '.']);
    ["put-wal", "get-wal"].contains(&command.as_str())
        && options
            .iter()
            .all(|word| OPTIONS.contains(&word.as_str()) || is_number(word))
        && named.iter().all(|name| !name.is_empty() && is_file(name))
        && named[0] == request.server
        && !request.words.concat().contains(char::is_control)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_line_gets_past_with_another_command(
        line in good_line(),
        mutations in prop::collection::vec((0..9usize, 0..9usize, 0..WORDS.len(), any::<u8>()), 0..4),
    ) {
        let is_good = mutations.is_empty();
        let line = mutations
            .into_iter()
            .fold(line, |line, (at, how, other, byte)| mutated(line, at, how, other, byte))
            .join(" ");
        let parsed = Request::parse(&line);
        prop_assert!(parsed.is_ok() || !is_good, "{line}: {parsed:?}");
        if let Ok(request) = parsed {
            prop_assert!(is_harmless(&request), "{line}: {request:?}");
        }
    }

    #[test]
    fn parsing_a_line_never_panics(line in "\\PC{0,64}") {
        let _ = Request::parse(&line);
    }
}
