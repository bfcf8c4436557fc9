//! What llama.cpp says of how it was built: the one thing that its bindings have no safe function for.

use std::ffi::CStr;

/// The instructions and kernels that were built in, such as `AVX512 = 1 | REPACK = 1`.
#[expect(unsafe_code, reason = "a text of a foreign library can't be had without")]
pub(crate) fn info() -> String {
    // SAFETY: the function takes nothing and gives a text that lives as long as the process, or null.
    let text = unsafe {
        let text = llama_cpp_sys_2::llama_print_system_info();
        if text.is_null() { return String::new() } else { CStr::from_ptr(text) }
    };
    // Devices stand before, as `CPU : `; the list ends with a separator.
    text.to_string_lossy().trim().trim_end_matches('|').trim().to_owned()
}
