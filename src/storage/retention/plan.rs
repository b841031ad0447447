//! Which files a retention takes, and which it must leave.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::super::{Contents, WalStorageStrategy};
use super::DeletionError;
use crate::catalog::{Backup, Catalog, CatalogError, WalFileInfo};
use crate::wal::{WalKind, WalName};

/// How much WAL to keep.
#[derive(Clone, Debug, PartialEq)]
pub enum Retention {
    /// Everything from this segment on; younger timelines are not touched.
    Before(WalName),
    /// Everything from the first file on that was last modified at this time (seconds since 1970) or
    /// later.
    Since(f64),
    /// The newest files that together have no more than this size as they are stored.
    KeepSize(u64),
}

/// What a retention comes to for an archive.
///
/// WAL is of use only without a gap, so everything before one position goes, on all timelines that
/// the retention is about. Partial segments and backup labels go with their segment. What stays, always:
///
/// - everything from the first segment on that a base backup needs;
/// - the newest segment of the newest timeline, so that the archive knows where it ends;
/// - the history of the oldest timeline of which anything stays, and of every younger one:
///   PostgreSQL reads a timeline's own file and, looking for the latest timeline, one after the other.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Files of segments before this one go, compared by [`WalName::ordinal`].
    before: u64,
    /// Only files of this timeline and older ones go.
    timeline_max: u32,
    /// Timeline and ordinal of the newest segment, as xlogdb knows it and as the archive has it: xlogdb may have
    /// lost lines.
    newest: [Option<(u32, u64)>; 2],
    /// History files of timelines below this one go.
    history_before: u32,
    /// The base backup without which more would go.
    pub limited_by: Option<Backup>,
    /// How many of the listed files go.
    pub files: u64,
    /// Their size together, as they are stored.
    pub size_bytes: u64,
    /// The oldest segment that stays.
    pub oldest_kept: Option<WalName>,
    /// Lines of xlogdb that cannot be read. They stay as they are.
    pub unreadable_lines: u64,
}

impl Plan {
    /// Looks through xlogdb and the names in the archive, in constant memory.
    pub fn new(
        retention: &Retention,
        storage: &dyn WalStorageStrategy,
        catalog: &Catalog,
        backups: &[Backup],
    ) -> Result<Self, DeletionError> {
        let listing = Listing { storage, catalog };
        let newest = listing.newest()?;
        let (before, timeline_max) = match retention {
            Retention::Before(name) => (name.ordinal().unwrap_or(0), name.timeline()),
            Retention::Since(since_s) => (cut_at_time(*since_s, &listing)?, u32::MAX),
            Retention::KeepSize(size_bytes) => (cut_at_size(*size_bytes, &listing)?, u32::MAX),
        };
        let is_explicit = matches!(retention, Retention::Before(_));
        // What xlogdb does not know (its end may have been lost) has no age and no size.
        let known = newest.map_or(0, |(_, ordinal)| ordinal.saturating_add(1));
        let mut plan = Plan {
            before: if is_explicit {
                before
            } else {
                before.min(known)
            },
            timeline_max,
            newest: [newest, None],
            history_before: 0,
            limited_by: None,
            files: 0,
            size_bytes: 0,
            oldest_kept: None,
            unreadable_lines: 0,
        };
        plan.respect(backups);
        let oldest_timeline = plan.oldest_timeline(storage, backups)?;
        plan.count(&listing, oldest_timeline)?;
        Ok(plan)
    }

    /// Whether a file goes.
    pub fn takes(&self, name: &WalName) -> bool {
        match name.ordinal() {
            Some(ordinal) => {
                ordinal < self.before
                    && name.timeline() <= self.timeline_max
                    && !self.newest.contains(&Some((name.timeline(), ordinal)))
            }
            None => name.timeline() < self.history_before,
        }
    }

    /// Passes what xlogdb lists of the files that go to `visit`.
    pub fn visit(
        &self,
        storage: &dyn WalStorageStrategy,
        catalog: &Catalog,
        visit: &mut dyn FnMut(&WalFileInfo),
    ) -> Result<(), CatalogError> {
        let listing = Listing { storage, catalog };
        let going = &mut |info: WalFileInfo| {
            if self.takes(&info.name) {
                visit(&info);
            }
        };
        listing.visit(going).map(drop)
    }

    fn respect(&mut self, backups: &[Backup]) {
        let first = |backup: &Backup| backup.first_wal.as_ref().and_then(WalName::ordinal);
        let oldest = backups
            .iter()
            .filter_map(|backup| Some((first(backup)?, backup)))
            .min_by_key(|(ordinal, _)| *ordinal);
        if let Some((ordinal, backup)) = oldest.filter(|(ordinal, _)| *ordinal < self.before) {
            self.before = ordinal;
            self.limited_by = Some(backup.clone());
        }
    }

    /// The oldest timeline of which the archive keeps anything, listed or not, or a base backup needs something. Finds
    /// the newest segment in the archive on the way.
    fn oldest_timeline(
        &mut self,
        storage: &dyn WalStorageStrategy,
        backups: &[Backup],
    ) -> Result<Option<u32>, DeletionError> {
        let of_backups = backups
            .iter()
            .filter_map(|backup| Some(backup.first_wal.as_ref()?.timeline()));
        let mut oldest = of_backups.min().unwrap_or(u32::MAX);
        let mut newest = None;
        storage
            .list_names(&mut |name| {
                let Some(ordinal) = name.ordinal() else {
                    return Ok(());
                };
                if name.kind() == WalKind::Segment {
                    newest = newest.max(Some((name.timeline(), ordinal)));
                }
                if !self.takes(&name) {
                    oldest = oldest.min(name.timeline());
                }
                Ok(())
            })
            .map_err(DeletionError::List)?;
        let of_newest = newest.map_or(u32::MAX, |(timeline, _)| timeline);
        let [listed, _] = self.newest;
        self.newest = [listed, newest];
        Ok(Some(oldest.min(of_newest)).filter(|&oldest| oldest < u32::MAX))
    }

    /// `oldest_timeline` is the one of which anything stays, as far as it is known without xlogdb.
    fn count(
        &mut self,
        listing: &Listing<'_>,
        mut oldest_timeline: Option<u32>,
    ) -> Result<(), CatalogError> {
        let mut histories: Vec<WalFileInfo> = Vec::new();
        let unreadable = listing.visit(&mut |info| {
            let name = &info.name;
            if name.kind() == WalKind::History {
                histories.push(info);
            } else if self.takes(name) {
                self.files += 1;
                self.size_bytes += info.size_bytes;
            } else {
                let older = oldest_timeline.is_none_or(|oldest| name.timeline() < oldest);
                oldest_timeline = oldest_timeline.filter(|_| !older).or(Some(name.timeline()));
                let age = |name: &WalName| (name.ordinal(), name.timeline());
                let oldest = self.oldest_kept.as_ref();
                if name.kind() == WalKind::Segment && oldest.is_none_or(|o| age(name) < age(o)) {
                    self.oldest_kept = Some(info.name);
                }
            }
        })?;
        self.unreadable_lines = unreadable;
        self.history_before = oldest_timeline.unwrap_or(0);
        histories.retain(|info| self.takes(&info.name));
        for info in histories {
            self.files += 1;
            self.size_bytes += info.size_bytes;
        }
        Ok(())
    }
}

/// xlogdb, or the archive where there is none.
struct Listing<'a> {
    storage: &'a dyn WalStorageStrategy,
    catalog: &'a Catalog,
}

impl Listing<'_> {
    /// Returns how many lines could not be read.
    fn visit(&self, visit: &mut dyn FnMut(WalFileInfo)) -> Result<u64, CatalogError> {
        let mut unreadable = 0;
        self.catalog.visit(&Contents(self.storage), &mut |line| {
            match line {
                Ok(info) => visit(info),
                Err(error) => {
                    tracing::warn!("xlogdb: {error}");
                    unreadable += 1;
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(unreadable)
    }

    fn newest(&self) -> Result<Option<(u32, u64)>, CatalogError> {
        let mut newest = None;
        self.visit(&mut |info| {
            if info.name.kind() == WalKind::Segment {
                let segment = info.name.ordinal().map(|o| (info.name.timeline(), o));
                newest = newest.max(segment);
            }
        })?;
        Ok(newest)
    }

    /// The stored size of all files by a part of their ordinals.
    fn sizes(&self, key: impl Fn(u64) -> Option<u32>) -> Result<BTreeMap<u32, u64>, CatalogError> {
        let mut sizes = BTreeMap::new();
        self.visit(&mut |info| {
            if let Some(key) = info.name.ordinal().and_then(&key) {
                *sizes.entry(key).or_default() += info.size_bytes;
            }
        })?;
        Ok(sizes)
    }
}

/// The ordinal of the first file that is not old.
fn cut_at_time(since_s: f64, listing: &Listing<'_>) -> Result<u64, CatalogError> {
    let mut first = u64::MAX;
    listing.visit(&mut |info| {
        // What has no sensible time counts as fresh.
        let is_old = info.modified_s < since_s;
        if let Some(ordinal) = info.name.ordinal().filter(|_| !is_old) {
            first = first.min(ordinal);
        }
    })?;
    Ok(first)
}

/// Looks for the place twice, coarsely and then in the 4 GiB of WAL where it lies, so that no list
/// of all files has to be held.
fn cut_at_size(size_bytes: u64, listing: &Listing<'_>) -> Result<u64, CatalogError> {
    let halves = |ordinal: u64| ((ordinal >> 32) as u32, ordinal as u32);
    let mut left = size_bytes;
    let logs = listing.sizes(|ordinal| Some(halves(ordinal).0))?;
    let Some(cut_log) = first_too_many(&logs, &mut left) else {
        return Ok(0);
    };
    let segments = listing.sizes(|ordinal| {
        let (log, segment) = halves(ordinal);
        (log == cut_log).then_some(segment)
    })?;
    let cut_segment = first_too_many(&segments, &mut left).unwrap_or(0);
    Ok((u64::from(cut_log) << 32 | u64::from(cut_segment)) + 1)
}

/// The newest entry that does not fit into what is left; `left` is less by those that do.
fn first_too_many(sizes: &BTreeMap<u32, u64>, left: &mut u64) -> Option<u32> {
    for (key, size_bytes) in sizes.iter().rev() {
        match left.checked_sub(*size_bytes) {
            Some(rest) => *left = rest,
            None => return Some(*key),
        }
    }
    None
}
