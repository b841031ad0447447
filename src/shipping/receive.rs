//! put-wal: a tar stream becomes durable files in `incoming`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checksum::{self, Algorithm, CopyError};
use super::existing::{Existing, Judge, Verdict};
use super::members::{
    FILE_SIZE_MAX_BYTES, Member, cut_short, for_each_member, printable, read_whole,
};
use super::receive_error::ReceiveError;
use super::sweep;
use crate::archiver;
use crate::codec::{Decoder, HEAD_SIZE_BYTES};
use crate::config::ServerConfig;
use crate::durable::{self, LockFile, Publication, Temporary, Wait};
use crate::storage::{Recognition, SetAside, Validation};
use crate::wal::{WalName, judged_bytes};

/// How many files one stream may hold; senders put one into it.
const FILES_MAX: usize = 64;

/// How long a list of checksums may be.
const CHECKSUMS_SIZE_MAX_BYTES: u64 = 64 << 10;

/// How long another put-wal that settles what becomes of a file is waited for. Comparing two files of 1 GiB takes
/// seconds; a sender gives up after two minutes without an answer.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// As Barman creates them; the process's umask has the last word.
const MODE: u32 = 0o666;

/// What happens while a stream is received, for whoever keeps a log.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// A line in the list of checksums is none.
    BadChecksumLine(&'a str),
    /// A file arrived as it was sent.
    Received {
        /// The file.
        name: &'a str,
        /// Its checksum.
        checksum: &'a str,
    },
    /// The same file waits to be archived already.
    AlreadyThere {
        /// The file.
        name: &'a WalName,
    },
    /// A file that could not be restored from made way for the good one.
    Replaced {
        /// The file.
        name: &'a WalName,
        /// Where the damaged one is now; `None` if it was the mere beginning of the good one.
        moved_to: Option<&'a Path>,
    },
}

/// The `incoming` directory of a server, as put-wal fills it.
pub struct Inbox {
    incoming: PathBuf,
    errors: PathBuf,
    lock: PathBuf,
    judge: Judge,
}

/// A file that lies, durable, under a name that nobody looks at.
struct Arrived {
    name: WalName,
    temporary: Temporary,
    file: File,
    size_bytes: u64,
    head: Vec<u8>,
    sha256: String,
}

/// What a stream held.
#[derive(Default)]
struct Contents {
    files: Vec<Arrived>,
    checksums: BTreeMap<String, (Algorithm, String)>,
}

impl Inbox {
    /// Touches nothing. `validation` is `None` where segments are not to be judged.
    pub fn new(server: &ServerConfig, validation: Option<Validation>) -> Self {
        Inbox {
            incoming: server.incoming_wals_directory.clone(),
            errors: server.errors_directory.clone(),
            lock: server
                .lock_directory
                .join(format!(".{}-put-wal.lock", server.name)),
            judge: Judge {
                // What waits in `incoming` was made by others, too.
                decoder: Decoder::new(server).sparing(),
                recognition: Recognition::new(server),
                validation,
            },
        }
    }

    /// Takes in the files of a stream.
    ///
    /// Success means that each of them is durable in `incoming` under its name, with exactly the bytes of its checksum
    /// (or, where the same WAL waited there already, with that). Otherwise nothing is left of what the stream brought,
    /// but for files that were complete before the one that failed. Nothing is overwritten but what a good file
    /// begins with.
    ///
    /// # Errors
    ///
    /// See [`ReceiveError`].
    pub fn receive(
        &self,
        stream: &mut dyn Read,
        notice: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), ReceiveError> {
        let incoming = &self.incoming;
        durable::create_directories(incoming).map_err(ReceiveError::about("create", incoming))?;
        sweep::remove_leftovers(incoming);
        let mut contents = Contents::default();
        for_each_member(
            stream,
            &mut |member, bytes| match Algorithm::of_file(&member.name) {
                Some(algorithm) => contents.take_checksums(algorithm, member, bytes, notice),
                None => {
                    let arrived = self.store(member, bytes, &contents.files)?;
                    contents.files.push(arrived);
                    Ok(())
                }
            },
        )?;
        contents.verify(notice)?;
        for arrived in &contents.files {
            let fault = self
                .judge
                .fault(&arrived.name, arrived.size_bytes, &arrived.head);
            if let Some(fault) = fault {
                let name = arrived.name.to_string();
                return Err(ReceiveError::Invalid { name, fault });
            }
        }
        for arrived in contents.files {
            self.deliver(arrived, notice)?;
        }
        durable::sync_directory(incoming).map_err(ReceiveError::about("synchronise", incoming))
    }

    /// Makes a file durable under its temporary name.
    fn store(
        &self,
        member: &Member,
        bytes: &mut dyn Read,
        former: &[Arrived],
    ) -> Result<Arrived, ReceiveError> {
        let name = || member.name.clone();
        let wal_name = WalName::parse(&member.name)
            .map_err(|_| ReceiveError::UnsupportedName { name: name() })?;
        if member.size_bytes > FILE_SIZE_MAX_BYTES {
            return Err(ReceiveError::UnsupportedSize {
                name: name(),
                size_bytes: member.size_bytes,
            });
        }
        if former.len() >= FILES_MAX || former.iter().any(|arrived| arrived.name == wal_name) {
            return Err(ReceiveError::UnexpectedFile { name: name() });
        }
        let path = sweep::temporary_path(&self.incoming, &wal_name);
        let (temporary, mut file) =
            Temporary::create(path.clone(), MODE).map_err(ReceiveError::about("create", &path))?;
        sweep::mark_in_use(&file);
        let mut sha256 = Algorithm::Sha256.start();
        let mut head = Vec::new();
        let head_size_bytes = HEAD_SIZE_BYTES.max(judged_bytes(&wal_name));
        let copied = checksum::copy(bytes, |piece| {
            let wanted = head_size_bytes.saturating_sub(head.len());
            head.extend_from_slice(piece.get(..wanted).unwrap_or(piece));
            sha256.update(piece);
            file.write_all(piece)
        });
        match copied {
            Ok(size_bytes) if size_bytes == member.size_bytes => {}
            Ok(_) => return Err(ReceiveError::Stream(cut_short())),
            Err(CopyError::Read(error)) => return Err(ReceiveError::Stream(error)),
            Err(CopyError::Write(error)) => return Err(ReceiveError::about("write", &path)(error)),
        }
        if let Some(modified) = member.modified {
            let set = file.set_modified(modified);
            set.map_err(ReceiveError::about("write", &path))?;
        }
        durable::sync_file(&file, &path).map_err(ReceiveError::about("synchronise", &path))?;
        Ok(Arrived {
            name: wal_name,
            temporary,
            file,
            size_bytes: member.size_bytes,
            head,
            sha256: sha256.finish(),
        })
    }

    /// Gives a file its final name, unless a good one has it.
    fn deliver(
        &self,
        arrived: Arrived,
        notice: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), ReceiveError> {
        let goal = self.incoming.join(arrived.name.as_str());
        let existing = Existing::open(&goal).map_err(ReceiveError::about("read", &goal))?;
        if existing.is_some() {
            // Two senders of one name must not both find it damaged and replace each other's.
            let lock = LockFile::acquire(&self.lock, Wait::AtMost(LOCK_PATIENCE))
                .map_err(ReceiveError::about("lock", &self.lock))?;
            let Some(_lock) = lock else {
                let path = self.lock.clone();
                return Err(ReceiveError::Busy { path });
            };
            return self.deliver_beside(arrived, &goal, notice);
        }
        publish(arrived.temporary, &goal)
    }

    /// The same where a file of that name was there a moment ago, with the lock held.
    fn deliver_beside(
        &self,
        arrived: Arrived,
        goal: &Path,
        notice: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), ReceiveError> {
        let about = |action| ReceiveError::about(action, goal);
        let name = &arrived.name;
        let Some(existing) = Existing::open(goal).map_err(about("read"))? else {
            return publish(arrived.temporary, goal);
        };
        let verdict = self
            .judge
            .weigh(name, &existing.file, &arrived.file)
            .map_err(about("compare the received file with"))?;
        let moved_to = match verdict {
            Verdict::Same => {
                durable::sync_file(&existing.file, goal).map_err(about("synchronise"))?;
                notice(Notice::AlreadyThere { name });
                return Ok(());
            }
            Verdict::Different => return Err(different(&existing, goal, arrived.sha256)),
            // An archiver may have taken it meanwhile, and somebody else may have brought another one.
            _ if !existing.identity.is_at(goal) => return Err(about("replace")(busy())),
            Verdict::Beginning => {
                let replaced = arrived.temporary.replace(goal);
                replaced.map_err(about("replace"))?;
                None
            }
            Verdict::Damaged => {
                let moved_to =
                    archiver::move_to_errors(goal, &self.errors, SetAside::Invalid.suffix())
                        .map_err(about("set aside"))?;
                publish(arrived.temporary, goal)?;
                Some(moved_to)
            }
        };
        let moved_to = moved_to.as_deref();
        notice(Notice::Replaced { name, moved_to });
        Ok(())
    }
}

fn publish(temporary: Temporary, goal: &Path) -> Result<(), ReceiveError> {
    let about = || ReceiveError::about("create", goal);
    match temporary.publish(goal).map_err(about())? {
        Publication::Created => Ok(()),
        Publication::AlreadyExists => Err(about()(busy())),
    }
}

fn busy() -> io::Error {
    io::Error::other("somebody else has just delivered a file of that name; try again")
}

fn different(existing: &Existing, goal: &Path, received: String) -> ReceiveError {
    let checksum = (&existing.file)
        .rewind()
        .and_then(|()| Algorithm::Sha256.of(&mut &existing.file));
    match checksum {
        Ok(existing) => ReceiveError::Different {
            path: goal.to_owned(),
            existing,
            received,
        },
        Err(error) => ReceiveError::about("read", goal)(error),
    }
}

impl Contents {
    fn take_checksums(
        &mut self,
        algorithm: Algorithm,
        member: &Member,
        bytes: &mut dyn Read,
        notice: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), ReceiveError> {
        if member.size_bytes > CHECKSUMS_SIZE_MAX_BYTES {
            return Err(ReceiveError::UnsupportedSize {
                name: member.name.clone(),
                size_bytes: member.size_bytes,
            });
        }
        let text = read_whole(bytes, member.size_bytes)?;
        for line in String::from_utf8_lossy(&text).lines() {
            let line = &printable(line.trim_end());
            match checksum::parse_line(line) {
                Some((checksum, name)) => {
                    let checksum = (algorithm, checksum.to_owned());
                    self.checksums.insert(name.to_owned(), checksum);
                }
                None => notice(Notice::BadChecksumLine(line)),
            }
        }
        Ok(())
    }

    /// Every file has its checksum, and every checksum its file.
    fn verify(&self, notice: &mut dyn FnMut(Notice<'_>)) -> Result<(), ReceiveError> {
        for (name, (algorithm, expected)) in &self.checksums {
            let named = |arrived: &&Arrived| arrived.name.as_str() == name;
            let Some(arrived) = self.files.iter().find(named) else {
                return Err(ReceiveError::ChecksumWithoutFile { name: name.clone() });
            };
            let found = arrived.checksum(*algorithm)?;
            if found != *expected {
                return Err(ReceiveError::BadChecksum {
                    name: name.clone(),
                    found,
                    expected: expected.clone(),
                });
            }
            notice(Notice::Received {
                name,
                checksum: expected,
            });
        }
        let has_none = |arrived: &&Arrived| !self.checksums.contains_key(arrived.name.as_str());
        match self.files.iter().find(has_none) {
            Some(arrived) => Err(ReceiveError::MissingChecksum {
                name: arrived.name.to_string(),
            }),
            None if self.files.is_empty() => Err(ReceiveError::Empty),
            None => Ok(()),
        }
    }
}

impl Arrived {
    /// Which algorithm the sender used is known only at the end of the stream: the rare one reads the file again.
    fn checksum(&self, algorithm: Algorithm) -> Result<String, ReceiveError> {
        if algorithm == Algorithm::Sha256 {
            return Ok(self.sha256.clone());
        }
        (&self.file)
            .rewind()
            .and_then(|()| algorithm.of(&mut &self.file))
            .map_err(ReceiveError::about("read", self.temporary.path()))
    }
}
