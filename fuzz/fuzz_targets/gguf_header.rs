//! Whatever the bytes, reading them as a GGUF file gives a model or an error: `cargo +nightly fuzz run gguf_header`.
#![no_main]

use inference_text::{ChatTemplate, Tokenizer, gguf::Gguf};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let Ok(gguf) = Gguf::parse(Path::new("fuzz.gguf"), content) else { return };
    let _ = (gguf.attention(), gguf.context_len(), gguf.vocab_size());
    let _ = (gguf.quantisation(), gguf.parameters(), gguf.weight_bytes());
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        let _ = ChatTemplate::from_gguf(&gguf, &tokenizer);
        let _ = tokenizer.encode("Hello, world!");
    }
});
