//! A file that may be closed while nobody reads it, so that few are open at once and no mount is kept busy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::symbol::read_at::{FileAt, ReadAt};

/// A file that is open or closed.
#[derive(Debug)]
pub(super) struct ClosableFile(Mutex<Option<Arc<FileAt>>>);

impl ClosableFile {
    /// An open one.
    pub(super) fn new(file: FileAt) -> Self {
        Self(Mutex::new(Some(file.into())))
    }

    /// Lets `read` at the bytes. A closed file is opened again with `open`.
    pub(super) fn with<T, E>(
        &self,
        open: impl FnOnce() -> Result<FileAt, E>,
        read: impl FnOnce(&dyn ReadAt) -> T,
    ) -> Result<T, E> {
        let file = self.shared(open)?;
        Ok(read(&*file))
    }

    /// The open file, for somebody who reads it now and lets go of it then. A closed one is opened again with `open`.
    pub(super) fn shared<E>(&self, open: impl FnOnce() -> Result<FileAt, E>) -> Result<Arc<FileAt>, E> {
        // Neither opening nor reading happens under the lock: whoever closes the file must not wait for a file system.
        let known = self.lock().clone();
        if let Some(file) = known {
            return Ok(file);
        }
        let opened = Arc::new(open()?);
        Ok(self.lock().get_or_insert(opened).clone())
    }

    /// Closes the file until it is needed again.
    pub(super) fn close(&self) {
        let file = self.lock().take();
        drop(file);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<FileAt>>> {
        // A reader that panicked has not changed the file.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
