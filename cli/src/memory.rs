//! The allocator, and in what pages it gets memory from the system.
//!
//! A stream's work is many small arrays that come and go: the system's allocator took a third of it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a process uses memory.
#[derive(Debug, Clone, Copy)]
pub enum Use {
    /// A little, for as long as it runs: in small pages, which it can give back one by one.
    Steady,
    /// Much, once, and then it ends: in huge pages where the system has them (Linux, unless it says `never`). Small ones took a fifth of a training
    /// set's time. It gives back no less than a huge page: what is given back in pieces is zeroed again by the kernel with its whole page.
    Once,
}

/// Says how this process uses memory. Before it uses much.
pub fn use_memory(how: Use) {
    match how {
        // A system without such pages, or without the switch, has small ones anyhow.
        #[cfg(target_os = "linux")]
        Use::Steady => _ = rustix::thread::disable_transparent_huge_pages(true),
        #[cfg(not(target_os = "linux"))]
        Use::Steady => {}
        Use::Once => give_back_at_least(2 * 1024),
    }
}

/// mimalloc's `minimal_purge_size`, in KiB. The bindings have no name for it; its place is that of the version whose last option this is.
const MINIMAL_PURGE_SIZE: libmimalloc_sys::mi_option_t = 44;
const _: () =
    assert!(libmimalloc_sys::_mi_option_last == 47, "another mimalloc: look up `mi_option_minimal_purge_size`");

#[expect(unsafe_code, reason = "the allocator's options are only reachable through C")]
fn give_back_at_least(kibibytes: std::ffi::c_long) {
    // SAFETY: the function writes a number into a table of static size, at a place that is within (above), and touches no memory of ours. What
    // it reads is the number alone, and any is valid.
    unsafe { libmimalloc_sys::mi_option_set(MINIMAL_PURGE_SIZE, kibibytes) };
}
