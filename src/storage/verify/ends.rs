//! The last segment of a timeline that was left, as a standby archives it.
//!
//! With `archive_mode = always` a standby whose upstream is promoted archives the segment that it was receiving, under
//! its full name: up to the position at which the timeline was left there is WAL, behind it are the pages of whatever
//! segment had the file before. PostgreSQL goes on with the younger timeline there, so it never reads them. Which
//! position that is stands in a history file, and these come last.

use std::collections::{BTreeMap, BTreeSet};

use super::{Collected, Problem, Progress, Verification};
use crate::wal::{Coverage, Lsn, PageFault, SegmentSize, TimelineHistory, WalName};

/// The faults that a history may explain, and what the histories say.
///
/// Only the last segment of a timeline can be such a one, so what is held does not grow with the damage.
#[derive(Default)]
pub(super) struct TimelineEnds {
    /// Where timelines were left.
    left: BTreeSet<(u32, Lsn)>,
    held: BTreeMap<u32, Held>,
}

/// A page fault in the last segment of a timeline so far.
struct Held {
    name: WalName,
    fault: PageFault,
}

impl Held {
    fn into_problem(self) -> Problem {
        let Held { name, fault } = self;
        Problem::Page { name, fault }
    }
}

impl TimelineEnds {
    pub(super) fn add_history(&mut self, history: &TimelineHistory) {
        let ends = history.ancestors.iter();
        self.left
            .extend(ends.map(|ancestor| (ancestor.timeline, ancestor.end)));
    }

    /// Keeps a page fault in the last segment of a timeline; returns what is to be reported now.
    pub(super) fn hold_back(&mut self, problem: Problem, coverage: &Coverage) -> Option<Problem> {
        match problem {
            Problem::Page { name, fault } if is_last(&name, coverage) => {
                // The digits of a name may be of either case: two files, one segment.
                let other = self.held.insert(name.timeline(), Held { name, fault });
                other.map(Held::into_problem)
            }
            problem => Some(problem),
        }
    }

    /// What was held back although its timeline goes on, as is known by now.
    pub(super) fn release(&mut self, timeline: u32, coverage: &Coverage) -> Option<Problem> {
        let held = self.held.get(&timeline)?;
        match is_last(&held.name, coverage) {
            true => None,
            false => self.held.remove(&timeline).map(Held::into_problem),
        }
    }

    fn explain(&self, held: &Held, segment_size: SegmentSize) -> bool {
        let timeline = held.name.timeline();
        let start = held.name.start(segment_size);
        start.is_some_and(|start| {
            let before_fault = |(_, end): &(u32, Lsn)| *end <= held.fault.position();
            let mut ends = self.left.range((timeline, start)..);
            ends.next()
                .is_some_and(|end| end.0 == timeline && before_fault(end))
        })
    }
}

fn is_last(name: &WalName, coverage: &Coverage) -> bool {
    let end = next(name, coverage.segment_size());
    end.is_some() && end == coverage.end_on(name.timeline())
}

/// Where the segment behind begins.
fn next(name: &WalName, segment_size: SegmentSize) -> Option<Lsn> {
    let end = name
        .start(segment_size)?
        .0
        .checked_add(segment_size.bytes());
    end.map(Lsn)
}

impl Verification<'_> {
    /// Reports what was held back, but for what lies behind the end of a timeline.
    pub(super) fn settle_ends(
        &self,
        collected: &mut Collected,
        notice: &mut dyn FnMut(&Progress<'_>),
    ) {
        let segment_size = collected.coverage.segment_size();
        for held in std::mem::take(&mut collected.ends.held).into_values() {
            if self.range.to.is_some() {
                self.look_behind_the_range(&held, &mut collected.ends);
            }
            let is_never_read = collected.ends.explain(&held, segment_size)
                && !self.goes_on_behind(&held.name, segment_size);
            if !is_never_read {
                collected.report(&held.into_problem(), notice);
            }
        }
    }

    /// The histories of the timelines that follow, one after the other, as PostgreSQL looks for the newest one.
    fn look_behind_the_range(&self, held: &Held, ends: &mut TimelineEnds) {
        for timeline in held.name.timeline().saturating_add(1)..=u32::MAX {
            let name = WalName::parse(&format!("{timeline:08X}.history")).ok();
            let Some(history) = name.and_then(|name| self.plain.history_of(&name)) else {
                return;
            };
            if let Ok(history) = history {
                ends.add_history(&history);
            }
        }
    }

    /// Whether the archive has the next segment of the same timeline, perhaps outside of the range: its WAL went on
    /// then, whoever left it.
    fn goes_on_behind(&self, name: &WalName, segment_size: SegmentSize) -> bool {
        next(name, segment_size).is_some_and(|position| {
            let next = WalName::of_segment(name.timeline(), position, segment_size);
            !matches!(self.plain.storage.find(&next), Ok(None))
        })
    }
}
