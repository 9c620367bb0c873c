//! The kinds of programs that are used here, as one.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::programs::{PerfEvent, ProgramError, ProgramInfo, UProbe};

/// What the kinds of programs that are used here have in common.
pub(super) trait Loadable {
    fn load(&mut self) -> Result<(), ProgramError>;
    fn descriptor(&self) -> Result<BorrowedFd<'_>, ProgramError>;
    fn info(&self) -> Result<ProgramInfo, ProgramError>;
}

macro_rules! loadable {
    ($($kind:ty),*) => {$(
        impl Loadable for $kind {
            fn load(&mut self) -> Result<(), ProgramError> {
                <$kind>::load(self)
            }

            fn descriptor(&self) -> Result<BorrowedFd<'_>, ProgramError> {
                Ok(self.fd()?.as_fd())
            }

            fn info(&self) -> Result<ProgramInfo, ProgramError> {
                <$kind>::info(self)
            }
        }
    )*};
}

loadable!(PerfEvent, UProbe);
