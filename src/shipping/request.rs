//! What a client asked sshd to run, where sshd runs something else: the forced command of a key (sshd(8),
//! AUTHORIZED_KEYS FILE FORMAT).

#[cfg(test)]
mod tests;

/// No client sends more.
const LINE_SIZE_MAX_BYTES: usize = 4096;

/// The programs that clients name. Whichever it is, it is this one that does what they ask for.
const PROGRAMS: [&str; 2] = ["barman", "walarch"];

/// Options of either command that stand alone, in every spelling.
const TEST: [&str; 2] = ["-t", "--test"];

/// Further options of get-wal that stand alone.
const GET_WAL_FLAGS: [&str; 8] = [
    "-z",
    "-x",
    "--gzip",
    "-j",
    "--bzip2",
    "--keep-compression",
    "-P",
    "--partial",
];

/// Options of get-wal that take a number.
const GET_WAL_NUMBERS: [&str; 2] = ["-p", "--peek"];

/// A command that a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The server it is about.
    pub server: String,
    /// The configuration file that the client named.
    pub config: Option<String>,
    /// The command and everything after it, word by word.
    pub words: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A terminal, a file transfer without a command, or a shell.
    #[error("this key runs put-wal and get-wal, and nothing was asked for")]
    Nothing,
    /// More than one could mean.
    #[error("the request is longer than {LINE_SIZE_MAX_BYTES} bytes")]
    TooLong,
    /// Something that a shell would treat as more than a word.
    #[error("{0:?} is not allowed in a request")]
    Character(char),
    /// A word that begins and does not end.
    #[error("the request ends within a quoted word")]
    Quote,
    /// Another program than ours.
    #[error("'{0}' is not a program that this key runs")]
    Program(String),
    /// Another command than put-wal and get-wal.
    #[error("'{0}' is not a command that this key runs: it runs put-wal and get-wal")]
    Command(String),
    /// An option that clients do not send.
    #[error("'{0}' is not an option that this key may use")]
    Option(String),
    /// Too few words, too many, or one that is neither a server nor a file.
    #[error("the request names no server and file as put-wal and get-wal want them")]
    Arguments,
}

impl Request {
    /// Understands a command line as Barman's clients and ours send it, and nothing else. No shell looks at it.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] for every other line.
    pub fn parse(line: &str) -> Result<Self, Refusal> {
        if line.len() > LINE_SIZE_MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        let mut words = words(line)?.into_iter();
        let program = words.next().ok_or(Refusal::Nothing)?;
        let called = program.rsplit('/').next().unwrap_or_default();
        if !PROGRAMS.contains(&called) {
            return Err(Refusal::Program(program));
        }
        let (config, command) = config_and_command(&mut words)?;
        let (flags, numbers, names): (&[&str], &[&str], usize) = match command.as_str() {
            "put-wal" => (&[], &[], 1),
            "get-wal" => (&GET_WAL_FLAGS, &GET_WAL_NUMBERS, 2),
            option if option.starts_with('-') => return Err(Refusal::Option(command)),
            _ => return Err(Refusal::Command(command)),
        };
        let mut request = Request {
            server: String::new(),
            config,
            words: vec![command],
        };
        let mut named = Vec::new();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                named.push(word);
            } else if TEST.contains(&word.as_str()) || flags.contains(&word.as_str()) {
                request.words.push(word);
            } else {
                request
                    .words
                    .extend(number_option(word, numbers, &mut words)?);
            }
        }
        if named.len() != names || !named.iter().all(|name| is_name(name)) {
            return Err(Refusal::Arguments);
        }
        request.server = named.first().cloned().unwrap_or_default();
        request.words.extend(named);
        Ok(request)
    }
}

/// The command, and the configuration file that is named before it.
fn config_and_command(
    words: &mut dyn Iterator<Item = String>,
) -> Result<(Option<String>, String), Refusal> {
    let mut config = None;
    loop {
        let word = words.next().ok_or(Refusal::Nothing)?;
        match word.as_str() {
            "-c" | "--config" => config = Some(words.next().ok_or(Refusal::Arguments)?),
            _ => match word.strip_prefix("--config=") {
                Some(path) => config = Some(path.to_owned()),
                None => return Ok((config, word)),
            },
        }
    }
}

/// An option with its number, as `--peek 3` or `--peek=3`.
fn number_option(
    word: String,
    known: &[&str],
    rest: &mut dyn Iterator<Item = String>,
) -> Result<[String; 2], Refusal> {
    let (option, number) = match word.split_once('=') {
        Some((option, number)) => (option.to_owned(), Some(number.to_owned())),
        None => (word, None),
    };
    if !known.contains(&option.as_str()) {
        return Err(Refusal::Option(option));
    }
    let number = number.or_else(|| rest.next()).ok_or(Refusal::Arguments)?;
    match !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok([option, number]),
        false => Err(Refusal::Arguments),
    }
}

/// The name of a server or of a file: no path, no option, no blank.
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+=:,.@".contains(&byte);
    !text.is_empty() && !text.starts_with(['-', '.']) && text.bytes().all(is_allowed)
}

/// Takes a line apart: words of harmless characters and of single-quoted pieces, with blanks between them.
fn words(line: &str) -> Result<Vec<String>, Refusal> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().ok_or(Refusal::Quote)? {
                        '\'' => break,
                        inner if inner.is_control() => return Err(Refusal::Character(inner)),
                        inner => word.push(inner),
                    }
                }
            }
            _ if character.is_ascii_alphanumeric() || "_-+=:,./@%".contains(character) => {
                word.get_or_insert_default().push(character);
            }
            _ => return Err(Refusal::Character(character)),
        }
    }
    words.extend(word);
    Ok(words)
}
