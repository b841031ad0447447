//! Timeline history files: where a timeline left its ancestors.

use super::lsn::Lsn;

/// What `TTTTTTTT.history` says (PostgreSQL manual, "Timelines"; `readTimeLineHistory` in
/// PostgreSQL's `timeline.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline that the file is named after.
    pub timeline: u32,
    /// Its ancestors, oldest first; the last one is its parent.
    pub ancestors: Vec<Ancestor>,
}

/// A timeline and where its descendant left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The ancestor.
    pub timeline: u32,
    /// The position from which on the descendant has WAL of its own.
    pub end: Lsn,
}

/// Why PostgreSQL would not understand a history file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHistory {
    /// The file is not text: it has zero bytes in it.
    #[error("it is not text")]
    NotText,
    /// No line names an ancestor.
    #[error("it names no ancestor")]
    Empty,
    /// A line is not "timeline, position, reason".
    #[error("line {number} does not begin with a timeline and a position: {line:?}")]
    Line {
        /// From 1.
        number: usize,
        /// The line.
        line: String,
    },
    /// The timelines do not increase towards the file's own.
    #[error("line {number} is out of order: {line:?}")]
    Order {
        /// From 1.
        number: usize,
        /// The line.
        line: String,
    },
}

impl TimelineHistory {
    /// Reads the content of the history file of `timeline`.
    ///
    /// Comments (`#`) and empty lines are passed over. Timelines must increase and stay below
    /// `timeline`, as PostgreSQL demands. The reason at the end of a line is in any encoding: the name of a restore point
    /// is in that of the database where it was created.
    pub fn parse(timeline: u32, content: &[u8]) -> Result<Self, InvalidHistory> {
        if content.contains(&0) {
            return Err(InvalidHistory::NotText);
        }
        let text = String::from_utf8_lossy(content);
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_matches(is_blank);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let ancestor = ancestor(line).ok_or_else(|| InvalidHistory::Line {
                number,
                line: line.to_owned(),
            })?;
            let follows = ancestors
                .last()
                .is_none_or(|last| last.timeline < ancestor.timeline);
            if !follows || ancestor.timeline >= timeline {
                let line = line.to_owned();
                return Err(InvalidHistory::Order { number, line });
            }
            ancestors.push(ancestor);
        }
        if ancestors.is_empty() {
            return Err(InvalidHistory::Empty);
        }
        Ok(TimelineHistory {
            timeline,
            ancestors,
        })
    }
}

fn ancestor(line: &str) -> Option<Ancestor> {
    let mut columns = line.split(is_blank).filter(|column| !column.is_empty());
    Some(Ancestor {
        timeline: columns.next()?.parse().ok()?,
        end: columns.next()?.parse().ok()?,
    })
}

/// C's `isspace`, less the end of a line: Unicode has more, which PostgreSQL does not pass over.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\x0B' | '\x0C')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_history_is_read_as_postgresql_reads_it() {
        let text = "# a comment\n1\t0/3000000\tno recovery target specified\n\n\
                    2\t1/A0000098\tbefore 2026-01-01 00:00:00+00\n";
        let history = TimelineHistory::parse(4, text.as_bytes()).unwrap();
        assert_eq!(
            history.ancestors,
            [
                Ancestor {
                    timeline: 1,
                    end: Lsn(0x300_0000)
                },
                Ancestor {
                    timeline: 2,
                    end: Lsn(0x1_A000_0098)
                }
            ]
        );
    }

    #[test]
    fn the_reason_may_be_in_any_encoding() {
        let history = TimelineHistory::parse(2, b"1\t0/1\tat restore point \"B\xFCro\"\n");
        assert_eq!(history.unwrap().ancestors.len(), 1);
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        let parse = |text: &str| TimelineHistory::parse(3, text.as_bytes());
        assert_eq!(parse(""), Err(InvalidHistory::Empty));
        assert_eq!(parse("# 1\t0/1\n"), Err(InvalidHistory::Empty));
        for bad in ["x\t0/1\ty", "1", "1\t0", "-1\t0/1\tx", "1\u{85}0/1\tx"] {
            assert!(matches!(
                parse(bad),
                Err(InvalidHistory::Line { number: 1, .. })
            ));
        }
        for bad in [
            "1\t0/1\tx\n1\t0/2\tx",
            "2\t0/1\tx\n1\t0/2\tx",
            "2\t0/1\tx\n3\t0/2\tx",
        ] {
            assert!(matches!(
                parse(bad),
                Err(InvalidHistory::Order { number: 2, .. })
            ));
        }
        assert_eq!(parse("1\t0/1\t\0"), Err(InvalidHistory::NotText));
    }

    proptest! {
        #[test]
        fn reading_a_history_never_panics(timeline: u32, content: Vec<u8>) {
            let _ = TimelineHistory::parse(timeline, &content);
        }
    }
}
