//! Timeline history files.

use super::lsn::Lsn;

/// The timelines that a history file lists, oldest first, each with the position at which the next
/// one branched off (`readTimeLineHistory` in PostgreSQL's `timeline.c`). Lines that say something
/// else, comments, are passed over.
pub fn read_history(text: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_lists_where_each_timeline_ended() {
        let text = "1\t0/5000108\tno recovery target specified\n\n# a comment\n\
                    2\t1/A0\tbefore 2026-01-01\n";
        assert_eq!(
            read_history(text),
            [(1, Lsn(0x500_0108)), (2, Lsn(0x1_0000_00A0))]
        );
        assert_eq!(read_history("nonsense"), []);
    }
}
