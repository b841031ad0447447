//! The system calls of a run, recorded by strace and read back.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::home::Home;
use super::tool::{Run, Tool, finish, in_home, start_with};

/// Every call that changes a file or a directory, or makes such a change durable. A question mark: strace
/// does not know the name on every architecture.
pub const CHANGING: &str = "?open,openat,?openat2,?creat,write,pwrite64,writev,pwritev,?pwritev2,\
    ?sendfile,?sendfile64,copy_file_range,splice,?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?rename,\
    ?renameat,renameat2,?link,linkat,?symlink,symlinkat,truncate,ftruncate,fallocate,fsync,fdatasync,\
    ?sync_file_range,syncfs,sync,utimensat,?utimes,?futimesat,fchmod,?chmod,fchmodat,fchown,?chown,\
    ?lchown,fchownat,setxattr,fsetxattr,?ioctl";

/// Stops the process for the traced calls only. Not with `signal=`: strace 6.1 then delivers no signal.
pub const QUICK: &str = "--seccomp-bpf";

/// One finished or interrupted system call.
#[derive(Clone, Debug)]
pub struct Call {
    pub thread: u32,
    pub name: String,
    arguments: Vec<String>,
    /// The line on which the call was entered, and the one on which it returned. What counts as "before"
    /// is: returned before the other was entered.
    pub begin: usize,
    pub end: usize,
    pub succeeded: bool,
    /// Whether strace made up the result.
    pub injected: bool,
    /// What it returned, if that was a number.
    pub returned: Option<u64>,
}

/// What a call does to the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Open {
        path: PathBuf,
        creates: bool,
    },
    Write {
        path: PathBuf,
        text: String,
    },
    Sync {
        path: PathBuf,
    },
    SyncAll,
    Rename {
        from: PathBuf,
        to: PathBuf,
        replaces: bool,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Mkdir {
        path: PathBuf,
    },
    Metadata {
        path: PathBuf,
    },
    Nothing,
}

impl Effect {
    /// The path whose state the call changes.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Open { path, .. }
            | Self::Write { path, .. }
            | Self::Sync { path }
            | Self::Unlink { path }
            | Self::Mkdir { path }
            | Self::Metadata { path } => Some(path),
            Self::Rename { to, .. } | Self::Link { to, .. } => Some(to),
            Self::SyncAll | Self::Nothing => None,
        }
    }
}

impl Call {
    pub fn effect(&self) -> Effect {
        let effect = match self.name.as_str() {
            "open" | "creat" => self.open(0, 1),
            "openat" | "openat2" => self.open(1, 2),
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => {
                self.fd(0).map(|path| Effect::Write {
                    path,
                    text: self.argument(1).to_owned(),
                })
            }
            "sendfile" | "sendfile64" => self.written(0),
            "copy_file_range" | "splice" => self.written(2),
            "truncate" => self.path(0).map(|path| Effect::Write {
                path,
                text: String::new(),
            }),
            "ftruncate" | "fallocate" => self.written(0),
            "fsync" | "fdatasync" => self.fd(0).map(|path| Effect::Sync { path }),
            "sync" | "syncfs" => Some(Effect::SyncAll),
            "rename" => self.rename(0, 1),
            "renameat" => self.rename(1, 3),
            "renameat2" => self.rename(1, 3),
            "link" => self.link(0, 1),
            "linkat" => self.link(1, 3),
            "symlink" => self.path(1).map(|to| Effect::Link {
                from: PathBuf::new(),
                to,
            }),
            "symlinkat" => self.path(2).map(|to| Effect::Link {
                from: PathBuf::new(),
                to,
            }),
            "unlink" | "rmdir" => self.path(0).map(|path| Effect::Unlink { path }),
            "unlinkat" => self.path(1).map(|path| Effect::Unlink { path }),
            "mkdir" => self.path(0).map(|path| Effect::Mkdir { path }),
            "mkdirat" => self.path(1).map(|path| Effect::Mkdir { path }),
            "fchmod" | "fchown" | "fsetxattr" => self.fd(0).map(|path| Effect::Metadata { path }),
            "chmod" | "chown" | "lchown" | "utimes" | "setxattr" => {
                self.path(0).map(|path| Effect::Metadata { path })
            }
            "utimensat" | "fchmodat" | "fchownat" | "futimesat" => self
                .path(1)
                .or_else(|| self.fd(0))
                .map(|path| Effect::Metadata { path }),
            // Of all controls only a clone of file contents changes a file.
            "ioctl" if self.argument(1).starts_with("FICLONE") => self.written(0),
            _ => None,
        };
        effect.unwrap_or(Effect::Nothing)
    }

    /// Whether the call changes files or directories, or makes a change durable.
    pub fn changes(&self) -> bool {
        !matches!(
            self.effect(),
            Effect::Nothing | Effect::Open { creates: false, .. }
        )
    }

    /// Whether the call takes a lock that keeps others out (the trace must ask for `flock`).
    pub fn locks_out(&self) -> bool {
        self.name == "flock" && self.argument(1).contains("LOCK_EX")
    }

    /// All strings by which `strace -P` would select this call: paths as they were passed, and the paths of
    /// its descriptors.
    pub fn selectors(&self) -> Vec<String> {
        let carries_data = matches!(self.effect(), Effect::Write { .. });
        // strace 6.1 looks at only the first path of a plain rename.
        let looked_at = if self.name == "rename" {
            1
        } else {
            self.arguments.len()
        };
        let mut selectors: Vec<String> = self
            .arguments
            .iter()
            .take(looked_at)
            .filter_map(|argument| {
                descriptor(argument)
                    .map(|path| path.to_str().unwrap().to_owned())
                    .or_else(|| if carries_data { None } else { quoted(argument) })
            })
            .filter(|selector| !selector.is_empty())
            .collect();
        selectors.sort();
        selectors.dedup();
        selectors
    }

    /// A number among the arguments.
    pub fn number(&self, index: usize) -> Option<u64> {
        self.argument(index).parse().ok()
    }

    /// The bytes of an argument that strace shows in quotation marks, as many as it shows.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        let text = self.argument(index).trim_end_matches("...");
        let text = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        unescaped(text.unwrap_or_default())
    }

    fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    fn open(&self, path: usize, flags: usize) -> Option<Effect> {
        let flags = self.argument(flags);
        let creates =
            self.name == "creat" || flags.contains("O_CREAT") || flags.contains("O_TRUNC");
        self.path(path).map(|path| Effect::Open { path, creates })
    }

    fn written(&self, fd: usize) -> Option<Effect> {
        self.fd(fd).map(|path| Effect::Write {
            path,
            text: String::new(),
        })
    }

    fn rename(&self, from: usize, to: usize) -> Option<Effect> {
        let replaces = !self.argument(4).contains("RENAME_NOREPLACE");
        Some(Effect::Rename {
            from: self.path(from)?,
            to: self.path(to)?,
            replaces,
        })
    }

    fn link(&self, from: usize, to: usize) -> Option<Effect> {
        Some(Effect::Link {
            from: self.path(from)?,
            to: self.path(to)?,
        })
    }

    /// The path behind a descriptor among the arguments.
    pub fn fd(&self, index: usize) -> Option<PathBuf> {
        descriptor(self.argument(index))
    }

    /// The path in this argument; a relative one starts at the directory in the argument before.
    fn path(&self, index: usize) -> Option<PathBuf> {
        let path = PathBuf::from(quoted(self.argument(index))?);
        let base = index.checked_sub(1).and_then(|before| self.fd(before));
        match base {
            // An empty path means the descriptor itself.
            Some(base) if path.as_os_str().is_empty() => Some(base),
            Some(base) => Some(base.join(path)),
            None => Some(path),
        }
    }
}

/// The path behind `5</path>` or `AT_FDCWD</path>`.
fn descriptor(argument: &str) -> Option<PathBuf> {
    let (number, rest) = argument.split_once('<')?;
    let is_fd =
        number == "AT_FDCWD" || (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    let (path, _) = rest.rsplit_once('>')?;
    (is_fd && path.starts_with('/')).then(|| PathBuf::from(path))
}

/// The text within quotation marks, with its escapes resolved.
fn quoted(argument: &str) -> Option<String> {
    let text = argument.strip_prefix('"')?;
    let text = &text[..text.rfind('"')?];
    Some(
        text.replace("\\t", "\t")
            .replace("\\n", "\n")
            .replace("\\\"", "\""),
    )
}

/// What C's escape sequences stand for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::new();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let octal = after
            .iter()
            .take(3)
            .take_while(|byte| matches!(byte, b'0'..=b'7'));
        let digits = octal.count();
        let (escape, after) = after.split_at(digits.max(1));
        rest = after;
        bytes.push(match escape {
            b"n" => b'\n',
            b"r" => b'\r',
            b"t" => b'\t',
            b"v" => 0x0B,
            b"f" => 0x0C,
            digits if digits[0].is_ascii_digit() => digits
                .iter()
                .fold(0, |byte, digit| byte << 3 | (digit - b'0')),
            other => other[0],
        });
    }
    bytes
}

/// Runs the tool under strace with these further options; the calls come in the order of their return.
pub fn traced(tool: Tool, home: &Home, arguments: &[&str], options: &[String]) -> (Run, Vec<Call>) {
    traced_with(tool, home, arguments, options, Stdio::null())
}

/// The same with a standard input.
pub fn traced_with(
    tool: Tool,
    home: &Home,
    arguments: &[&str],
    options: &[String],
    input: Stdio,
) -> (Run, Vec<Call>) {
    let mut command = traced_command(tool, home, arguments, options);
    let run = finish(start_with(&mut command, input), Duration::from_secs(180));
    (run, take_calls(home))
}

/// The tool under strace, for whoever starts it; afterwards, [`take_calls`].
pub fn traced_command(tool: Tool, home: &Home, arguments: &[&str], options: &[String]) -> Command {
    let mut command = in_home(Command::new("strace"), home);
    // 3000 characters show the whole of a group's xlogdb lines.
    command
        .args(["-f", "-y", "-qq", "-s", "3000", "-o"])
        .arg(trace_file(home));
    command.args(options);
    command
        .arg(tool.program())
        .arg("-c")
        .arg(home.config_file())
        .args(arguments);
    command
}

/// Where a traced command writes its calls while it runs.
pub fn trace_file(home: &Home) -> PathBuf {
    home.root().join("trace")
}

/// The calls of a traced command that has ended.
pub fn take_calls(home: &Home) -> Vec<Call> {
    let file = trace_file(home);
    let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    fs::remove_file(&file).unwrap();
    parse(&text)
}

/// Records every changing call of a run.
pub fn record(tool: Tool, home: &Home, arguments: &[&str]) -> (Run, Vec<Call>) {
    traced(
        tool,
        home,
        arguments,
        &["-e".to_owned(), format!("trace={CHANGING}")],
    )
}

fn parse(text: &str) -> Vec<Call> {
    let mut open: HashMap<u32, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let thread: u32 = thread
            .parse()
            .unwrap_or_else(|_| panic!("no thread id: {line}"));
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            open.insert(thread, (number, head.trim_end().to_owned()));
        } else if let Some(tail) = rest.strip_prefix("<... ") {
            let (_, tail) = tail.split_once(" resumed>").unwrap();
            let (begin, head) = open.remove(&thread).unwrap();
            calls.extend(call(thread, begin, number, &(head + tail)));
        } else {
            calls.extend(call(thread, number, number, rest));
        }
    }
    calls
}

fn call(thread: u32, begin: usize, end: usize, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?; // none: the end of a thread or a signal
    let (arguments, result) = split_arguments(rest);
    let result = result.trim_start_matches([')', ' ', '=']);
    let succeeded = result.starts_with(|first: char| first.is_ascii_digit());
    let injected = result.ends_with("(INJECTED)");
    let returned = result.split(['<', ' ']).next().unwrap().parse().ok();
    Some(Call {
        thread,
        name: name.to_owned(),
        arguments,
        begin,
        end,
        succeeded,
        injected,
        returned,
    })
}

/// The arguments up to the closing bracket, and what follows them.
fn split_arguments(text: &str) -> (Vec<String>, &str) {
    let mut arguments = vec![String::new()];
    let (mut depth, mut in_quotes, mut escaped, mut in_path) = (0, false, false, false);
    for (at, char) in text.char_indices() {
        let last = arguments.last_mut().unwrap();
        match char {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' if !in_path => in_quotes = !in_quotes,
            '<' if !in_quotes => in_path = true,
            '>' if !in_quotes => in_path = false,
            '(' | '[' | '{' if !in_quotes && !in_path => depth += 1,
            ')' if depth == 0 && !in_quotes && !in_path => return (arguments, &text[at..]),
            ')' | ']' | '}' if !in_quotes && !in_path => depth -= 1,
            ',' if depth == 0 && !in_quotes && !in_path => {
                arguments.push(String::new());
                continue;
            }
            ' ' if last.is_empty() => continue,
            _ => {}
        }
        last.push(char);
    }
    (arguments, "")
}
