//! How the C library's allocator keeps the agent's heap.

/// Lets threads allocate from two arenas only. To be called before threads are started.
///
/// The GNU C library gives up to eight arenas a CPU to threads that allocate (mallopt(3), `M_ARENA_MAX`), each with free memory of its
/// own that the others cannot use: what a reader has allocated and the exporter frees stays in the reader's. An arena other than the
/// first also grows by a page at a time, by a system call each (`grow_heap` in `malloc/arena.c`). With one only, readers that name a
/// large module together wait for each other. Other C libraries have no such arenas, and nothing happens there.
pub fn use_few_arenas() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: a setting of the allocator, which keeps what it has. It fails only for values out of range.
        let _set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}
