//! How the C library's allocator shares memory between threads.
//!
//! glibc gives each thread an arena of its own, up to eight per processor, and an arena keeps what its threads have freed.
//! A node has many threads that take turns at large buffers (queries, uploads, compaction), so that each arena comes to hold
//! what the largest job needs once. One arena per processor holds a third less at the peak, and costs nothing that could
//! be measured.
//!
//! It refuses to know who allocates what. On other C libraries it does nothing.

/// Buffers up to this size stay with the process when they are freed: giving back pages to the kernel and asking for them
/// again costs more than what is done with most of them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEEP_BYTES: libc::c_int = 32 << 20;

/// Takes effect for what is allocated afterwards: called first thing in the program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn share_arenas() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = libc::c_int::try_from(processors.max(2)).unwrap_or(libc::c_int::MAX);
    let choices = [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_TRIM_THRESHOLD, KEEP_BYTES),
        (libc::M_MMAP_THRESHOLD, KEEP_BYTES),
    ];
    for (choice, value) in choices {
        // SAFETY: mallopt takes two integers and touches the allocator's own settings only, under its lock. What it does
        // not know it refuses, which changes nothing.
        if unsafe { libc::mallopt(choice, value) } == 0 {
            tracing::debug!(choice, value, "the allocator does not take this setting");
        }
    }
}

/// There is nothing to set.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_arenas() {}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_had_afterwards_too() {
        super::share_arenas();
        let threads: Vec<_> = (0..8_usize)
            .map(|n| std::thread::spawn(move || vec![n; 1 << 20].into_iter().filter(|m| *m == n).count()))
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 1 << 20));
    }
}
