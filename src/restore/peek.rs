//! Which segments could be fetched next.

use std::io;

use super::Retriever;
use crate::wal::{WalKind, WalName};

impl Retriever<'_> {
    /// Passes up to `limit` names that are there to `visit`, from `name` on and without a gap; partial segments do not
    /// count.
    ///
    /// The segment size is unknown here, as it is to Barman: where a name is missing whose number could be the first of
    /// the next 4 GiB of WAL, the list goes on there.
    pub fn peek(
        &self,
        name: &WalName,
        limit: usize,
        visit: &mut dyn FnMut(&WalName) -> io::Result<()>,
    ) -> io::Result<()> {
        let places = self.places();
        let mut next = Some(name.clone());
        let mut count = 0;
        while let Some(name) = next.take().filter(|_| count < limit) {
            if places.hold(&name) {
                visit(&name)?;
                count += 1;
                next = following(&name);
            } else if let Some(name) = first_of_next_log(&name) {
                next = places.hold(&name).then_some(name);
            }
        }
        Ok(())
    }
}

/// The next name in the same 4 GiB of WAL, whether or not there can be such a segment. Only segments are followed by
/// others.
fn following(name: &WalName) -> Option<WalName> {
    let (timeline, log, segment) = numbers(name)?;
    WalName::parse(&format!(
        "{timeline:08X}{log:08X}{:08X}",
        segment.checked_add(1)?
    ))
    .ok()
}

/// The first segment behind the 4 GiB of WAL whose last segment would be the one before `name`.
fn first_of_next_log(name: &WalName) -> Option<WalName> {
    let (timeline, log, segment) = numbers(name)?;
    let log = log.checked_add(1).filter(|_| segment.is_power_of_two())?;
    WalName::parse(&format!("{timeline:08X}{log:08X}00000000")).ok()
}

fn numbers(name: &WalName) -> Option<(u32, u32, u32)> {
    if name.kind() != WalKind::Segment {
        return None;
    }
    let number = |at: usize| u32::from_str_radix(name.as_str().get(at..at + 8)?, 16).ok();
    Some((number(0)?, number(8)?, number(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_where_the_next_log_may_begin() {
        let next = |text: &str| {
            let name = WalName::parse(text).unwrap();
            (
                following(&name).map(|name| name.to_string()),
                first_of_next_log(&name).map(|name| name.to_string()),
            )
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            next("0000000a00000000000000ff"),
            (some("0000000A0000000000000100"), None)
        );
        assert_eq!(
            next("0000000A0000000000000100"),
            (
                some("0000000A0000000000000101"),
                some("0000000A0000000100000000")
            )
        );
        assert_eq!(next("0000000AFFFFFFFFFFFFFFFF"), (None, None));
        assert_eq!(next("0000000A.history"), (None, None));
    }
}
