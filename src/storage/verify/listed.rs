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

/// The lines of a part of xlogdb, sorted by name.
pub(super) struct Listed<'a> {
    verification: &'a Verification<'a>,
    window: std::iter::Peekable<IntoIter<(Box<str>, WalName, u64)>>,
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
    /// listed between them is added to `missing`.
    pub(super) fn look_up(
        &mut self,
        name: &WalName,
        missing: &mut Missing,
    ) -> Result<Option<u64>, CatalogError> {
        let wanted = key(name);
        let mut found = None;
        while self.fill()? {
            let Some((listed, name, size_bytes)) = self.window.next_if(|l| l.0 <= wanted) else {
                break;
            };
            // A name may be listed twice.
            if listed == wanted {
                found = Some(size_bytes);
            } else {
                missing.add(name);
            }
        }
        Ok(found)
    }

    /// Adds everything that is left to `missing`.
    pub(super) fn finish(&mut self, missing: &mut Missing) -> Result<(), CatalogError> {
        while self.fill()? {
            if let Some((_, name, _)) = self.window.next() {
                missing.add(name);
            }
        }
        Ok(())
    }

    /// Makes sure that there is a next line; false at the end.
    fn fill(&mut self) -> Result<bool, CatalogError> {
        if self.window.peek().is_none()
            && let Some(after) = self.more_behind.take()
        {
            self.load(&after)?;
        }
        Ok(self.window.peek().is_some())
    }

    fn load(&mut self, after: &str) -> Result<(), CatalogError> {
        let mut lines: Vec<(Box<str>, WalName, u64)> = Vec::new();
        let mut is_cut = false;
        let mut cut = |lines: &mut Vec<(Box<str>, WalName, u64)>| {
            lines.sort_unstable();
            if lines.len() > WINDOW_MAX {
                lines.truncate(WINDOW_MAX);
                is_cut = true;
            }
        };
        let contents = Contents(self.verification.plain.storage);
        self.verification.catalog.visit(&contents, &mut |line| {
            if let Ok(info) = line
                && self.verification.range.contains(&info.name)
            {
                let key = key(&info.name);
                if *key > *after {
                    lines.push((key, info.name, info.size_bytes));
                }
            }
            if lines.len() >= 2 * WINDOW_MAX {
                cut(&mut lines);
            }
            ControlFlow::Continue(())
        })?;
        cut(&mut lines);
        let last = lines.last().map(|(key, ..)| key.clone());
        self.more_behind = last.filter(|_| is_cut);
        self.window = lines.into_iter().peekable();
        Ok(())
    }
}

/// What xlogdb lists and the archive does not have: bounded, like all that is held.
#[derive(Default)]
pub(super) struct Missing {
    pub(super) names: Vec<WalName>,
    /// How many there are besides.
    pub(super) more: u64,
}

impl Missing {
    fn add(&mut self, name: WalName) {
        match self.names.len() < DOUBTS_MAX {
            true => self.names.push(name),
            false => self.more += 1,
        }
    }
}
