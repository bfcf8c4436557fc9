//! Writes the text of every library of kernels to a folder, for a compiler to read: `cargo run --example sources -- FOLDER`.

use inference_metal::Library;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("which folder?")?);
    fs::create_dir_all(&folder)?;
    for library in Library::all() {
        let name: String =
            format!("{library:?}").chars().filter(char::is_ascii_alphanumeric).collect();
        fs::write(folder.join(name).with_extension("metal"), library.source())?;
    }
    Ok(())
}
