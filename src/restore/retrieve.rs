//! From the stored form of a WAL file to the form that was asked for.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use super::checked::Validation;
use super::delivery::Delivery;
use super::error::{Origin, RestoreError};
use super::in_memory::{Attempt, deliver_in_memory};
use super::outlet::Outlet;
use super::places::{Candidate, Places};
use super::plain::{HELD_SIZE_BYTES, Opened, Plain};
use crate::catalog::Catalog;
use crate::codec::{CodecError, Decoder};
use crate::config::Compression;
use crate::storage::{Recognition, WalStorageStrategy};
use crate::wal::{WalKind, WalName};

/// Finds and decodes the WAL files of one server.
pub struct Retriever<'a> {
    /// For messages.
    pub server_name: &'a str,
    /// The archive.
    pub storage: &'a dyn WalStorageStrategy,
    /// The directory that it is in, if it is one of this host.
    pub root: Option<&'a Path>,
    /// What it should hold.
    pub catalog: &'a Catalog,
    /// `incoming_wals_directory`
    pub incoming: &'a Path,
    /// `streaming_wals_directory`
    pub streaming: &'a Path,
    /// Look into the archive alone, once, and not into the queues.
    pub only_archive: bool,
    /// What undoes the stored form.
    pub decoder: &'a Decoder,
    /// What tells how a sender compressed a file that waits in a queue.
    pub recognition: &'a Recognition,
    /// How segments are judged; `None` judges only what is empty or cannot be decoded.
    pub validation: Option<Validation>,
}

/// The form in which a file is delivered. Never encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As PostgreSQL wrote it.
    Plain,
    /// With this compression.
    Compressed(Compression),
    /// With the compression it has.
    AsStored,
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The file.
    pub name: &'a WalName,
    /// The form it shall have.
    pub form: Form,
    /// Whether an incomplete segment will do where there is no complete one. It is filled up with zeros.
    pub partial: bool,
}

/// What happens on the way.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A file was found and is about to be delivered; its name in its place.
    Sending(&'a WalName),
    /// The file in one place is of no use; the next place is tried.
    Unusable(&'a RestoreError),
}

impl Retriever<'_> {
    pub(super) fn places(&self) -> Places<'_> {
        Places {
            storage: self.storage,
            incoming: self.incoming,
            streaming: self.streaming,
            only_archive: self.only_archive,
        }
    }

    /// Delivers the first good file among those that are in the server's places.
    ///
    /// # Errors
    ///
    /// [`RestoreError::NotFound`] when there is none and none should be there; what is wrong with the first one when
    /// there are only bad ones. The outlet is not finished then.
    pub fn get(
        &self,
        request: &Request<'_>,
        outlet: &mut dyn Outlet,
        notice: &mut dyn FnMut(&Notice<'_>),
    ) -> Result<(), RestoreError> {
        let mut delivery = Delivery::new(outlet);
        let mut first_error = None;
        let mut unusable: Vec<Candidate> = Vec::new();
        let mut is_missed = None;
        for candidate in self.places().of(request.name, request.partial) {
            // An incomplete one would end a recovery where a complete one, which cannot be read now, goes on.
            let is_complete = |candidate: &Candidate| candidate.name == *request.name;
            let is_no_substitute = !is_complete(&candidate)
                && (unusable.iter().any(is_complete)
                    || *is_missed.get_or_insert_with(|| self.loss_of(request.name).is_some()));
            if is_no_substitute || unusable.contains(&candidate) {
                continue;
            }
            let delivered = match self.deliver(&candidate, request, &mut delivery, notice) {
                // What PostgreSQL is told of a partial segment that is not there yet is true of this one, too.
                Err(error @ RestoreError::NothingReceived { .. }) if !delivery.is_spoiled => {
                    notice(&Notice::Unusable(&error));
                    Ok(false)
                }
                delivered => delivered,
            };
            let is_over = match &delivered {
                Ok(is_there) => *is_there,
                Err(RestoreError::Outlet { .. } | RestoreError::Encoder { .. }) => true,
                Err(_) => delivery.is_spoiled,
            };
            match delivered {
                outcome if is_over => {
                    if let Some(error) = &first_error {
                        notice(&Notice::Unusable(error));
                    }
                    return outcome.map(drop);
                }
                // Not there, or just moved to a place that comes later.
                Ok(_) => {}
                Err(error) => {
                    unusable.push(candidate);
                    // The first one is the result, unless a later place helps.
                    match &first_error {
                        None => first_error = Some(error),
                        Some(_) => notice(&Notice::Unusable(&error)),
                    }
                }
            }
        }
        Err(first_error.unwrap_or_else(|| self.absence_of(request.name)))
    }

    /// Why a file is in no place. To PostgreSQL "not found" is the end of the archive, so it is said only of what was
    /// never there.
    fn absence_of(&self, name: &WalName) -> RestoreError {
        self.loss_of(name)
            .or_else(|| self.emptiness())
            .unwrap_or_else(|| RestoreError::NotFound {
                name: name.clone(),
                server: self.server_name.to_owned(),
            })
    }

    /// Why a file that is not in the archive should be, as far as that can be told.
    fn loss_of(&self, name: &WalName) -> Option<RestoreError> {
        if let Some(root) = self.root.filter(|root| !root.is_dir()) {
            return Some(RestoreError::NoArchive {
                directory: root.to_owned(),
            });
        }
        // What a bucket is asked for on a database host is listed, if anywhere, on another one.
        if self.only_archive {
            return None;
        }
        let mut is_listed = false;
        let visited = self
            .catalog
            .visit_names(|listed| is_listed |= listed == name.as_str());
        match visited {
            Err(error) => Some(RestoreError::Uncertain(error)),
            Ok(()) if is_listed => Some(RestoreError::Vanished {
                location: self.storage.location(name),
                catalog: self.catalog.path().to_owned(),
            }),
            Ok(()) => None,
        }
    }

    /// An archive without anything in it, its xlogdb included: what a file system that is not mounted leaves.
    fn emptiness(&self) -> Option<RestoreError> {
        let root = self.root?;
        let is_empty = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
        (is_empty && !self.catalog.path().exists()).then(|| RestoreError::EmptyArchive {
            directory: root.to_owned(),
        })
    }

    /// False when the candidate is not there.
    fn deliver(
        &self,
        candidate: &Candidate,
        request: &Request<'_>,
        delivery: &mut Delivery<'_>,
        notice: &mut dyn FnMut(&Notice<'_>),
    ) -> Result<bool, RestoreError> {
        let Some(mut opened) = self.open(candidate, request.name)? else {
            return Ok(false);
        };
        notice(&Notice::Sending(&candidate.name));
        let compressions = match &candidate.queued {
            None => self.decoder.compressions_to_try(&opened.head),
            Some(_) => vec![self.recognition.of_source(&opened.head)],
        };
        let mut attempts = compressions.into_iter().peekable();
        while let Some(compression) = attempts.next() {
            match self.convert(opened, compression, candidate, request, delivery) {
                Err(RestoreError::Damaged { .. })
                    if attempts.peek().is_some() && !delivery.is_spoiled =>
                {
                    let Some(again) = self.open(candidate, request.name)? else {
                        return Ok(false);
                    };
                    opened = again;
                }
                outcome => return outcome,
            }
        }
        Ok(false)
    }

    fn open(&self, candidate: &Candidate, name: &WalName) -> Result<Option<Opened>, RestoreError> {
        let Some(found) = self.places().open(candidate)? else {
            return Ok(None);
        };
        let location = found.location;
        let without_passphrase = !self.decoder.can_decrypt();
        let clear = self
            .decoder
            .clear(found.stored)
            .map_err(|error| RestoreError::decoding(&location, name, without_passphrase, error))?;
        Ok(Some(Opened {
            location,
            origin: Origin::Archive,
            is_locked: clear.was_encrypted && without_passphrase,
            head: clear.head,
            stream: clear.stream,
        }))
    }

    fn plain<'n>(
        &self,
        opened: Opened,
        compression: Option<Compression>,
        candidate: &Candidate,
        request: &Request<'n>,
    ) -> Result<Plain<'n>, RestoreError> {
        let is_incomplete = candidate.name.kind() == WalKind::Partial;
        let (decoder, validation) = (self.decoder, self.validation);
        Plain::new(
            decoder,
            validation,
            opened,
            compression,
            is_incomplete,
            request.name,
        )
    }

    /// False when the file has vanished.
    fn convert(
        &self,
        opened: Opened,
        compression: Option<Compression>,
        candidate: &Candidate,
        request: &Request<'_>,
        delivery: &mut Delivery<'_>,
    ) -> Result<bool, RestoreError> {
        let is_to_be_plain = request.form == Form::Plain
            && request.name.kind() == WalKind::Segment
            && candidate.name == *request.name;
        let opened = match compression {
            Some(Compression::Zstd) if is_to_be_plain => {
                match deliver_in_memory(opened, request.name, self.validation, delivery)? {
                    Attempt::Delivered => return Ok(true),
                    Attempt::Ordinary(opened) => opened,
                }
            }
            _ => opened,
        };
        let mut plain = self.plain(opened, compression, candidate, request)?;
        match request.form {
            Form::Compressed(wanted) if compression != Some(wanted) => {
                self.recompress(plain, wanted, compression, candidate, request, delivery)
            }
            Form::Compressed(_) | Form::AsStored if compression.is_some() => {
                // First to the end, because what is sent is not what is checked.
                plain.drain()?;
                let Some(mut again) = self.open(candidate, request.name)? else {
                    return Ok(false);
                };
                delivery.copy(&mut again.stream, |error| {
                    let error = CodecError::from_read(error);
                    RestoreError::decoding(&again.location, request.name, again.is_locked, error)
                })?;
                Ok(true)
            }
            _ => {
                plain.pump(delivery)?;
                Ok(true)
            }
        }
    }

    fn recompress(
        &self,
        mut plain: Plain<'_>,
        wanted: Compression,
        compression: Option<Compression>,
        candidate: &Candidate,
        request: &Request<'_>,
        delivery: &mut Delivery<'_>,
    ) -> Result<bool, RestoreError> {
        // At once: a vector that grows would hold two copies for a moment.
        let mut held = Vec::with_capacity(HELD_SIZE_BYTES);
        plain.fill(&mut held)?;
        if held.len() < HELD_SIZE_BYTES {
            plain.judge()?;
            let size_bytes = held.len() as u64;
            delivery.encode(wanted, &mut Cursor::new(held), size_bytes, request.name)?;
            return Ok(true);
        }
        drop(held);
        // A compressor must be told the size before it begins.
        plain.drain()?;
        let size_bytes = plain.checked.size_bytes();
        let Some(again) = self.open(candidate, request.name)? else {
            return Ok(false);
        };
        let mut again = self.plain(again, compression, candidate, request)?;
        delivery.encode(wanted, &mut again.checked, size_bytes, request.name)?;
        Ok(true)
    }
}
