//! Delivering a file that is decoded in memory and may be written in any order.

use std::io::Read;

use super::RestoreError;
use super::checked::Validation;
use super::delivery::Delivery;
use super::plain::{HELD_SIZE_BYTES, Opened};
use crate::codec::{CodecError, FileInMemory};
use crate::wal::{WalName, find_fault_of_plain, judged_bytes};

/// The first page of a segment. It is written last of all: without it nothing takes a file for a segment, whenever we
/// are killed.
const PAGE_SIZE_BYTES: usize = 8 << 10;

/// What became of it.
pub(super) enum Attempt {
    /// It is delivered.
    Delivered,
    /// It has to be delivered in the ordinary way, from the first byte on.
    Ordinary(Opened),
}

/// Delivers a segment of the usual size, a zstd file, where the outlet takes it in any order: that is faster, and if the file has two
/// parts, two threads work at it.
pub(super) fn deliver_in_memory(
    mut opened: Opened,
    name: &WalName,
    validation: Option<Validation>,
    delivery: &mut Delivery<'_>,
) -> Result<Attempt, RestoreError> {
    if !delivery.outlet.is_revocable() {
        return Ok(Attempt::Ordinary(opened));
    }
    let Some(mut file) = FileInMemory::new(&opened.head, HELD_SIZE_BYTES) else {
        return Ok(Attempt::Ordinary(opened));
    };
    delivery.begin()?;
    let outlet = delivery.outlet.location();
    let failed = |source| RestoreError::Outlet {
        location: outlet.clone(),
        source,
    };
    let size_bytes = file.content_bytes() as u64;
    let Some(place) = delivery.outlet.place(size_bytes).map_err(failed)? else {
        return Ok(Attempt::Ordinary(opened));
    };
    let mut write = |offset: usize, bytes: &[u8]| {
        let withheld_bytes = PAGE_SIZE_BYTES.saturating_sub(offset).min(bytes.len());
        let rest = bytes.get(withheld_bytes..).unwrap_or_default();
        place.write_at(rest, (offset + withheld_bytes) as u64)
    };
    match file.decode(&mut *opened.stream, &mut write) {
        Ok(true) => {}
        Ok(false) => {
            opened.stream = Box::new(file.into_read().chain(opened.stream));
            return Ok(Attempt::Ordinary(opened));
        }
        Err(CodecError::WriteSink(error)) => return Err(failed(error)),
        Err(error) => {
            let Opened {
                location,
                is_locked,
                ..
            } = opened;
            return Err(RestoreError::decoding(&location, name, is_locked, error));
        }
    }
    let head = file.beginning(judged_bytes(name));
    let fault = validation.and_then(|Validation { system_identifier }| {
        find_fault_of_plain(name, size_bytes, head, system_identifier)
    });
    if let Some(fault) = fault {
        return Err(RestoreError::Invalid {
            location: opened.location,
            name: name.clone(),
            origin: opened.origin,
            fault,
        });
    }
    let page = file.beginning(PAGE_SIZE_BYTES);
    place.write_at(page, 0).map_err(failed)?;
    delivery.finish()?;
    Ok(Attempt::Delivered)
}
