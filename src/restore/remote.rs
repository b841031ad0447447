//! WAL from a backup host, over ssh, given by a walarch or a Barman there.

use super::checked::Validation;
use super::delivery::Delivery;
use super::outlet::FileOutlet;
use super::plain::{Clear, Plain};
use super::{RestoreError, WalSource};
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
        let mut words = vec!["get-wal"];
        words.extend(self.transfer);
        words.extend(partial.then_some("--partial"));
        words.extend([self.server_name, name.as_str()]);
        let command = self.host.command(&words);
        let output = RemoteOutput::start(command, &self.host.program, self.host.timeout)?;
        let location = format!("{name} from {}", self.host.host);
        let failed = |error| RestoreError::decoding(&location, name, false, error);
        let (head, stream) = peek_head(Box::new(output)).map_err(failed)?;
        let clear = Clear {
            location: location.clone(),
            is_locked: false,
            head,
            stream,
        };
        let compression = identify_compression(&clear.head, None);
        let validation = Some(Validation {
            system_identifier: self.system_identifier,
        });
        let decoder = Decoder::with_options(CodecOptions::default());
        // Barman sends an incomplete segment as it is.
        let fills = partial && name.kind() == WalKind::Segment;
        let mut plain = Plain::new(&decoder, validation, clear, compression, fills, name)?;
        plain.pump(&mut Delivery::new(outlet))
    }
}
