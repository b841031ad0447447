//! WAL from a backup host, over ssh, given by a walarch or a Barman there.

use std::fs::File;
use std::io::{self, Seek};

use super::checked::Validation;
use super::delivery::Delivery;
use super::outlet::FileOutlet;
use super::plain::{Opened, Plain};
use super::{Origin, RestoreError, Trouble, WalSource};
use crate::codec::{CodecOptions, Decoder, identify_compression, peek_head};
use crate::shipping::{BackupHost, RemoteOutput};
use crate::wal::{WalKind, WalName};

/// A server of a backup host.
pub struct Remote<'a> {
    /// How it is reached.
    pub host: &'a BackupHost,
    /// The server's section in the configuration there.
    pub server_name: &'a str,
    /// An option of `get-wal` that says in what form files travel: `--gzip`, `--bzip2`, `--keep-compression`.
    pub transfer: Option<&'static str>,
    /// The cluster that the WAL must be of, if it is known.
    pub system_identifier: Option<u64>,
}

impl WalSource for Remote<'_> {
    fn fetch(
        &self,
        name: &WalName,
        partial: bool,
        outlet: &mut FileOutlet,
    ) -> Result<(), RestoreError> {
        if !partial || name.kind() != WalKind::Segment {
            return self.ask(name, false, outlet, None);
        }
        // Barman does not say which of the two it sends, and what is filled up must not be a complete segment that was
        // cut. So the complete one is asked for first; why it is not there matters only if nothing else is.
        let complaints = tempfile::tempfile().ok();
        match self.ask(name, false, outlet, complaints.as_ref()) {
            Err(error) if error.trouble() == Trouble::Absent => self.ask(name, true, outlet, None),
            delivered => {
                if let Some(complaints) = complaints {
                    pass_on(complaints);
                }
                delivered
            }
        }
    }
}

impl Remote<'_> {
    /// Asks the backup host once. `complaints` is where it writes what else would go to our standard error.
    fn ask(
        &self,
        name: &WalName,
        partial: bool,
        outlet: &mut FileOutlet,
        complaints: Option<&File>,
    ) -> Result<(), RestoreError> {
        let mut words = vec!["get-wal"];
        words.extend(self.transfer);
        words.extend(partial.then_some("--partial"));
        words.extend([self.server_name, name.as_str()]);
        let mut command = self.host.command(&words);
        if let Some(file) = complaints.and_then(|file| file.try_clone().ok()) {
            command.stderr(file);
        }
        let output = RemoteOutput::start(command, &self.host.program, self.host.timeout)?;
        let location = format!("{name} from {}", self.host.host);
        let failed = |error| RestoreError::decoding(&location, name, false, error);
        let (head, stream) = peek_head(Box::new(output)).map_err(failed)?;
        let opened = Opened {
            location: location.clone(),
            origin: Origin::BackupHost,
            is_locked: false,
            head,
            stream,
        };
        let compression = identify_compression(&opened.head, None);
        let validation = Some(Validation {
            system_identifier: self.system_identifier,
        });
        let decoder = Decoder::with_options(CodecOptions::default());
        // Barman sends an incomplete segment as it is.
        let mut plain = Plain::new(&decoder, validation, opened, compression, partial, name)?;
        plain.pump(&mut Delivery::new(outlet))
    }
}

/// Lets the operator see what the backup host said.
fn pass_on(mut complaints: File) {
    let copied = complaints
        .rewind()
        .and_then(|()| io::copy(&mut complaints, &mut io::stderr()));
    if let Err(error) = copied {
        tracing::warn!("what the backup host said is lost: {error}");
    }
}
