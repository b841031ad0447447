//! Where a recovering PostgreSQL gets its WAL from.

use super::{FileOutlet, Form, Notice, Request, RestoreError, Retriever};
use crate::wal::WalName;

/// Where a recovering PostgreSQL gets its WAL from.
pub trait WalSource: Sync {
    /// Delivers a file as PostgreSQL wrote it, checked.
    ///
    /// `partial` allows an incomplete segment. The outlet is finished on success only.
    fn fetch(
        &self,
        name: &WalName,
        partial: bool,
        outlet: &mut FileOutlet,
    ) -> Result<(), RestoreError>;
}

impl WalSource for Retriever<'_> {
    fn fetch(
        &self,
        name: &WalName,
        partial: bool,
        outlet: &mut FileOutlet,
    ) -> Result<(), RestoreError> {
        let request = Request {
            name,
            form: Form::Plain,
            partial,
        };
        self.get(&request, outlet, &mut |notice| match notice {
            Notice::Sending(name) => tracing::info!("Sending WAL '{name}'"),
            Notice::Unusable(error) => tracing::warn!("{error}"),
        })
    }
}
