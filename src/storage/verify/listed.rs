//! xlogdb in the order of the archive, without holding all of it.

use std::ops::ControlFlow;
use std::vec::IntoIter;

use super::{DOUBTS_MAX, Verification};
use crate::catalog::CatalogError;
use crate::storage::Contents;
use crate::wal::WalName;

/// How many lines are held at a time. Each time that they are used up, xlogdb is read once more.
const WINDOW_MAX: usize = 64 << 10;

/// A name in the form in which names are compared: digits may be of either case.
pub(super) fn key(name: &WalName) -> Box<str> {
    name.as_str().to_ascii_uppercase().into_boxed_str()
}

/// What xlogdb says of a file.
struct Line {
    key: Box<str>,
    name: WalName,
    size_bytes: u64,
    /// Another line is of the same name.
    is_repeated: bool,
}

/// The lines of a part of xlogdb, sorted by name.
pub(super) struct Listed<'a> {
    verification: &'a Verification<'a>,
    window: std::iter::Peekable<IntoIter<Line>>,
    /// The last name of the window, if there may be more lines behind it.
    more_behind: Option<Box<str>>,
}

impl<'a> Listed<'a> {
    pub(super) fn new(verification: &'a Verification<'a>) -> Self {
        Listed {
            verification,
            window: Vec::new().into_iter().peekable(),
            more_behind: Some("".into()),
        }
    }

    /// The size that xlogdb says a file has; `None` if it is not listed. Names must come in order; what is
    /// listed between them is added to what is missing.
    pub(super) fn look_up(
        &mut self,
        name: &WalName,
        differences: &mut Differences,
    ) -> Result<Option<u64>, CatalogError> {
        let wanted = key(name);
        while self.fill(differences)? {
            let Some(line) = self.window.next_if(|line| line.key <= wanted) else {
                break;
            };
            differences.note_repeated(&line);
            if line.key == wanted {
                return Ok(Some(line.size_bytes));
            }
            differences.missing.add(line.name);
        }
        Ok(None)
    }

    /// Adds everything that is left to what is missing.
    pub(super) fn finish(&mut self, differences: &mut Differences) -> Result<(), CatalogError> {
        while self.fill(differences)? {
            if let Some(line) = self.window.next() {
                differences.note_repeated(&line);
                differences.missing.add(line.name);
            }
        }
        Ok(())
    }

    /// Makes sure that there is a next line; false at the end.
    fn fill(&mut self, differences: &mut Differences) -> Result<bool, CatalogError> {
        if self.window.peek().is_none()
            && let Some(after) = self.more_behind.take()
        {
            // Each look shows all of them.
            differences.unreadable_lines = self.load(&after)?;
        }
        Ok(self.window.peek().is_some())
    }

    /// Returns how many lines cannot be read.
    fn load(&mut self, after: &str) -> Result<u64, CatalogError> {
        let mut lines: Vec<Line> = Vec::new();
        let mut is_cut = false;
        let mut unreadable = 0;
        let contents = Contents(self.verification.plain.storage);
        self.verification.catalog.visit(&contents, &mut |line| {
            match line {
                Ok(info) if self.verification.range.contains(&info.name) => {
                    let key = key(&info.name);
                    if *key > *after {
                        lines.push(Line {
                            key,
                            name: info.name,
                            size_bytes: info.size_bytes,
                            is_repeated: false,
                        });
                    }
                }
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
            if lines.len() >= 2 * WINDOW_MAX {
                is_cut |= cut(&mut lines);
            }
            ControlFlow::Continue(())
        })?;
        is_cut |= cut(&mut lines);
        let last = lines.last().map(|line| line.key.clone());
        self.more_behind = last.filter(|_| is_cut);
        self.window = lines.into_iter().peekable();
        Ok(unreadable)
    }
}

/// Sorts lines, makes one of those of the same name, and drops those behind the window. Returns whether there were
/// any.
fn cut(lines: &mut Vec<Line>) -> bool {
    lines.sort_unstable_by(|a, b| (&a.key, a.size_bytes).cmp(&(&b.key, b.size_bytes)));
    lines.dedup_by(|next, kept| {
        let is_same = next.key == kept.key;
        kept.is_repeated |= is_same;
        is_same
    });
    let is_cut = lines.len() > WINDOW_MAX;
    lines.truncate(WINDOW_MAX);
    is_cut
}

/// How archive and xlogdb differ, and what is wrong with xlogdb itself.
#[derive(Default)]
pub(super) struct Differences {
    /// What xlogdb lists and the archive does not have.
    pub(super) missing: Names,
    /// What xlogdb lists more than once.
    pub(super) repeated: Names,
    pub(super) unreadable_lines: u64,
}

impl Differences {
    fn note_repeated(&mut self, line: &Line) {
        if line.is_repeated {
            self.repeated.add(line.name.clone());
        }
    }
}

/// Names of files: bounded, like all that is held.
#[derive(Default)]
pub(super) struct Names {
    pub(super) names: Vec<WalName>,
    /// How many there are besides.
    pub(super) more: u64,
}

impl Names {
    fn add(&mut self, name: WalName) {
        match self.names.len() < DOUBTS_MAX {
            true => self.names.push(name),
            false => self.more += 1,
        }
    }
}
