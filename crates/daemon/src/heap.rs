//! What the allocator keeps of freed memory. The only unsafe code of the crate.
#![allow(unsafe_code)]

/// Freed memory at the end of a heap, of which a thread has one, that is kept for what comes next, in bytes. Streams free
/// and allocate some megabytes each time the other end has acknowledged; what is given back to the system meanwhile costs a
/// page fault for each 4 KiB when it is needed again.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 2 * 1024 * 1024;
/// Blocks from this size on are apart, and go back to the system at once, in bytes. Above the largest read of a stream.
#[cfg(target_env = "gnu")]
const APART: libc::c_int = 512 * 1024;

/// Has the allocator keep what streams free (mallopt(3)); says whether it does. glibc finds such limits by itself, but from
/// the first large block that happens to be freed, and lower ones than these.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_freed() -> bool {
    // SAFETY: it takes two integers; the process has one thread yet, so nobody allocates meanwhile.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, APART) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) == 1 }
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_freed() -> bool {
    false
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    #[test]
    fn the_allocator_takes_both_limits() {
        assert!(super::keep_freed());
    }
}
