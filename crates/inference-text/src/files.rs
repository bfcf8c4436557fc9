//! A checkpoint's small files, which are hostile until they are parsed: read up to a limit, and only if they are files.

use inference_core::{Error, Result};
use serde_json::{Map, Value};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::Path,
};

/// The content of `file`, at most `most` bytes; `None` if there is no such file.
///
/// # Errors
/// [`Error::InvalidFile`] for one that is longer, or is no regular file (a pipe would be waited for forever);
/// [`Error::Io`].
pub fn read(file: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let kind = match fs::metadata(file) {
        Ok(kind) => kind,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io(file, e)),
    };
    if !kind.is_file() {
        return Err(Error::file(file, "not a regular file"));
    }
    let opened = File::open(file).map_err(|e| Error::io(file, e))?;
    let mut bytes = Vec::new();
    opened.take(most + 1).read_to_end(&mut bytes).map_err(|e| Error::io(file, e))?;
    if bytes.len() as u64 > most {
        return Err(Error::file(file, format!("larger than {most} bytes")));
    }
    Ok(Some(bytes))
}

/// The JSON object in `file`, at most `most` bytes long; `None` if there is no such file.
///
/// # Errors
/// As [`read`]; [`Error::InvalidFile`] for anything but an object.
pub fn object(file: &Path, most: u64) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read(file, most)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(Error::file(file, "not a JSON object")),
        Err(e) => Err(Error::file(file, format!("not JSON: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_right_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        fs::write(&file, "{}").unwrap();
        assert_eq!(read(&file, 2).unwrap().unwrap(), b"{}");
        assert!(read(&file, 1).unwrap_err().to_string().ends_with("larger than 1 bytes"));
        assert!(read(dir.path(), 9).unwrap_err().to_string().ends_with("not a regular file"));
        assert!(read(&dir.path().join("b.json"), 9).unwrap().is_none());
        assert!(read(&file.join("c.json"), 9).unwrap().is_none());
        assert!(object(&file, 2).unwrap().unwrap().is_empty());
    }
}
