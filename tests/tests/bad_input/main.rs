//! Every file, prompt and option is hostile until parsed. Each malformed one gives its own typed error that names the
//! thing, on the path that programs use: no panic, no hang, no memory beyond the file's size.

mod calls;
mod config;
mod loading;
mod packed;
mod quantised;
mod support;
mod text;
mod weights;
