//! Where the texts come from: lines, columns of CSV, fields of JSON lines; read as they are needed.

use crate::{
    args::{Classify, Format},
    failure::{Failure, Result},
};
use csv::ByteRecord;
use inference::Error;
use serde_json::Value;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// Bytes of input that are held: what is at hand decides how many lines make a batch.
const BUFFER: usize = 1 << 20;

/// Bytes of the longest line or record of CSV that is read, which no context holds.
const LONGEST: usize = 8 << 20;

type Source = BufReader<Box<dyn Read>>;

/// One text of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    /// For the output: the text, or as much of a bad line as can be shown.
    pub(super) shown: String,
    /// Why it is not classified.
    pub(super) fault: Option<String>,
}

impl Text {
    fn new(shown: impl Into<String>) -> Self {
        let shown = shown.into();
        let fault = shown.trim().is_empty().then(|| "the text is empty".to_owned());
        Self { shown, fault }
    }

    fn bad(shown: &[u8], fault: impl Into<String>) -> Self {
        Self { shown: String::from_utf8_lossy(shown).into_owned(), fault: Some(fault.into()) }
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::new(text),
            Err(_) => Self::bad(bytes, "the text is not UTF-8"),
        }
    }
}

/// A file of texts.
pub(super) struct Input {
    path: PathBuf,
    kind: Kind,
    /// Bytes; `None`: nobody knows.
    len: Option<u64>,
}

enum Kind {
    Lines {
        source: Source,
        /// Bytes that were read.
        read: u64,
        /// Where the text is in the JSON of each line; `None`: the line is the text.
        field: Option<String>,
    },
    Csv {
        source: csv::Reader<Bounded>,
        /// From 0.
        column: usize,
    },
}

impl Input {
    /// Opens what the arguments name.
    pub(super) fn open(args: &Classify) -> Result<Self> {
        let path = args.file.clone();
        if path == Path::new("-") {
            return Self::new(args, path, Box::new(io::stdin()), None);
        }
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let len = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
        Self::new(args, path, Box::new(file), len)
    }

    fn new(
        args: &Classify,
        path: PathBuf,
        source: Box<dyn Read>,
        len: Option<u64>,
    ) -> Result<Self> {
        let lines = |source, field| Kind::Lines {
            source: BufReader::with_capacity(BUFFER, source),
            read: 0,
            field,
        };
        let kind = match args.format() {
            Format::Text => lines(source, None),
            Format::Jsonl => lines(source, Some(args.column.clone())),
            Format::Csv => {
                let mut source = csv::ReaderBuilder::new()
                    .has_headers(!args.no_header)
                    .flexible(true)
                    .delimiter(args.delimiter())
                    .buffer_capacity(BUFFER)
                    .from_reader(Bounded { source, read: 0, most: LONGEST as u64 });
                let header = match args.no_header {
                    true => None,
                    false => {
                        let read = source.byte_headers().cloned();
                        Some(read.map_err(|e| of_csv(&path, &source, 1, e))?)
                    }
                };
                let column = column(&args.column, header.as_ref())
                    .map_err(|e| Failure::Input(format!("{}: {e}", path.display())))?;
                Kind::Csv { source, column }
            }
        };
        Ok(Self { path, kind, len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in all, where that is known.
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// Bytes that have been read.
    pub(super) fn position(&self) -> u64 {
        match &self.kind {
            Kind::Lines { read, .. } => *read,
            Kind::Csv { source, .. } => source.position().byte(),
        }
    }

    /// The next text; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Text>> {
        match &mut self.kind {
            Kind::Lines { source, read, field } => {
                let line = line(source, *read == 0).map_err(|e| Error::io(&self.path, e))?;
                let Some(Line { bytes, len }) = line else { return Ok(None) };
                *read += len;
                Ok(Some(match field {
                    _ if bytes.len() > LONGEST => {
                        let reason = format!("the line has more than {} MiB", LONGEST >> 20);
                        Text::bad(&bytes[..1000], reason)
                    }
                    None => Text::of_bytes(&bytes),
                    Some(field) => of_json(&bytes, field),
                }))
            }
            Kind::Csv { source, column } => {
                let (mut record, line) = (ByteRecord::new(), source.position().line());
                source.get_mut().most = source.position().byte() + LONGEST as u64;
                let read = source.read_byte_record(&mut record);
                if !read.map_err(|e| of_csv(&self.path, source, line, e))? {
                    return Ok(None);
                }
                Ok(Some(record.get(*column).map_or_else(
                    || {
                        let all: Vec<&[u8]> = record.iter().collect();
                        let reason =
                            format!("the row has {} columns, not {}", all.len(), *column + 1);
                        Text::bad(&all.join(&b","[..]), reason)
                    },
                    Text::of_bytes,
                )))
            }
        }
    }

    /// The next texts, at most `most`; of lines no more than are at hand, so that nobody waits for one that is not
    /// written yet. Empty at the end.
    pub(super) fn batch(&mut self, most: usize) -> Result<Vec<Text>> {
        let mut texts = Vec::new();
        while texts.len() < most && (texts.is_empty() || self.is_at_hand()) {
            let Some(text) = self.next()? else { break };
            texts.push(text);
        }
        Ok(texts)
    }

    /// Whether there is one more without waiting.
    fn is_at_hand(&self) -> bool {
        match &self.kind {
            Kind::Lines { source, .. } => self.len.is_some() || source.buffer().contains(&b'\n'),
            Kind::Csv { .. } => true,
        }
    }
}

/// Bytes that end with an error where a record of CSV is too long: what an open quote would take in has no end.
struct Bounded {
    source: Box<dyn Read>,
    read: u64,
    /// Bytes after which no more are read: the record that is being read is too long already.
    most: u64,
}

impl Bounded {
    fn is_exceeded(&self) -> bool {
        self.read > self.most
    }
}

impl Read for Bounded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.is_exceeded() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.source.read(bytes)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// A line without its end; of one that is too long, one byte more than is allowed.
struct Line {
    bytes: Vec<u8>,
    /// Bytes in the file, its end included.
    len: u64,
}

/// The next line; `None` at the end. A mark of UTF-8 at the file's begin is no text.
fn line(source: &mut Source, first: bool) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let mut len = source.by_ref().take(LONGEST as u64 + 2).read_until(b'\n', &mut bytes)? as u64;
    if len == 0 {
        return Ok(None);
    }
    if bytes.len() > LONGEST && !bytes.ends_with(b"\n") {
        bytes.truncate(LONGEST + 1);
        len += source.skip_until(b'\n')? as u64;
        return Ok(Some(Line { bytes, len }));
    }
    for end in *b"\n\r" {
        bytes.pop_if(|last| *last == end);
    }
    if first && bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(Some(Line { bytes, len }))
}

/// The text in a line of JSON.
fn of_json(line: &[u8], field: &str) -> Text {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return Text::bad(line, format!("the line is not JSON: {error}")),
    };
    let found = value.get(field).or_else(|| value.pointer(field));
    match found.and_then(Value::as_str) {
        Some(text) => Text::new(text),
        None if found.is_some() => Text::bad(line, format!("the field {field:?} is no text")),
        None => Text::bad(line, format!("the line has no field {field:?}")),
    }
}

/// The place of a column, from 0, that is named or numbered from 1.
fn column(name: &str, header: Option<&ByteRecord>) -> std::result::Result<usize, String> {
    let number = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let Some(header) = header else {
        let reason = format!("--column {name}: without a header, columns are numbers from 1");
        return number.ok_or(reason);
    };
    let named = header.iter().position(|h| h.trim_ascii() == name.as_bytes());
    named.or(number.filter(|number| *number < header.len())).ok_or_else(|| {
        let all: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
        format!("no column {name:?} (--column) in the header, which has: {}", all.join(", "))
    })
}

/// What is wrong with the record that begins in `line`.
fn of_csv(path: &Path, source: &csv::Reader<Bounded>, line: u64, error: csv::Error) -> Failure {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(_) if source.get_ref().is_exceeded() => Failure::Input(format!(
            "{}, line {line}: the record has more than {} MiB; a quote in it may have no end",
            path.display(),
            LONGEST >> 20
        )),
        csv::ErrorKind::Io(error) => Error::io(path, error).into(),
        _ => Failure::Input(format!("{}: {text}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        classify: Classify,
    }

    fn input(args: &[&str], bytes: &'static [u8]) -> Result<Input> {
        let line = ["classify", "model"].iter().chain(args);
        let args = Args::try_parse_from(line).unwrap().classify;
        Input::new(&args, args.file.clone(), Box::new(bytes), None)
    }

    /// All texts, in batches of two, and whether each is good.
    fn all(args: &[&str], bytes: &'static [u8]) -> Vec<(String, bool)> {
        let mut input = input(args, bytes).unwrap();
        let mut all = Vec::new();
        loop {
            let texts = input.batch(2).unwrap();
            if texts.is_empty() {
                assert_eq!(input.position(), bytes.len() as u64);
                return all;
            }
            assert!(texts.len() <= 2);
            all.extend(texts.into_iter().map(|t| (t.shown, t.fault.is_none())));
        }
    }

    fn owned(texts: &[(&str, bool)]) -> Vec<(String, bool)> {
        texts.iter().map(|(text, good)| ((*text).to_owned(), *good)).collect()
    }

    #[test]
    fn lines_keep_their_order_and_a_bad_one_is_its_own() {
        let bytes = b"\xef\xbb\xbfone\r\n\ntwo\n\xff\nlast";
        let want = [("one", true), ("", false), ("two", true), ("\u{fffd}", false), ("last", true)];
        assert_eq!(all(&["-"], bytes), owned(&want));
        assert_eq!(all(&["-"], b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_and_not_held() {
        let long: &'static [u8] = [&[b'x'; LONGEST + 5][..], b"\nshort\n"].concat().leak();
        let texts = all(&["-"], long);
        assert_eq!((texts.len(), texts[0].1), (2, false));
        assert_eq!(texts[1], ("short".to_owned(), true));
        let fits: &'static [u8] = [&[b'x'; LONGEST][..], b"\r\n"].concat().leak();
        assert!(all(&["-"], fits)[0].1);
    }

    #[test]
    fn a_column_is_found_by_its_name_or_its_number() {
        let bytes = b"id,text\n1,\"a \"\"b\"\",\nc\"\n2,d\n3\n4,,5\n";
        let want = [("a \"b\",\nc", true), ("d", true), ("3", false), ("", false)];
        for column in ["text", "2"] {
            assert_eq!(all(&["a.csv", "--column", column], bytes), owned(&want));
        }
        let tabs = b"1\tone\n2\ttwo\n";
        let args = ["a.tsv", "--no-header", "--column", "2"];
        assert_eq!(all(&args, tabs), owned(&[("one", true), ("two", true)]));
        for (column, reason) in [("body", "has: id, text"), ("3", "has:"), ("0", "has:")] {
            let error = input(&["a.csv", "--column", column], bytes).err().unwrap();
            assert!(error.line().unwrap().contains(reason), "{error:?}");
        }
        let error = input(&["a.csv", "--no-header"], bytes).err().unwrap();
        assert!(error.line().unwrap().contains("numbers"), "{error:?}");
    }

    #[test]
    fn a_record_whose_quote_has_no_end_is_an_error_that_names_its_line() {
        let lines = "1,fine\n".repeat(3);
        let open = format!("id,text\n{lines}2,\"open\n{}", lines.repeat(LONGEST / 10));
        let mut texts = input(&["a.csv"], open.into_bytes().leak()).unwrap();
        assert_eq!(texts.batch(3).unwrap().len(), 3);
        let reason = texts.next().err().unwrap().line().unwrap();
        assert!(reason.contains("a.csv, line 5: the record has more than 8 MiB"), "{reason}");
        let Kind::Csv { source, .. } = &texts.kind else { panic!("it is CSV") };
        assert!(source.get_ref().read < (LONGEST + 2 * BUFFER) as u64, "more was read");
        // So is a header; a long record that has an end is none.
        let header: &'static [u8] = [&b"\"id,text\n"[..], &[b'x'; 2 * LONGEST]].concat().leak();
        let reason = input(&["a.csv"], header).err().unwrap().line().unwrap();
        assert!(reason.contains("line 1:"), "{reason}");
        let long = format!("text\n\"{}\"\nshort\n", "x".repeat(LONGEST - 3));
        assert_eq!(all(&["a.csv"], long.into_bytes().leak()).len(), 2);
    }

    #[test]
    fn a_field_is_found_by_its_name_or_a_pointer() {
        let bytes = b"{\"text\": \"a\\nb\", \"m\": {\"n\": \"c\"}}\nno JSON\n{\"text\": 5}\n\n{}";
        let want = [
            ("a\nb", true),
            ("no JSON", false),
            ("{\"text\": 5}", false),
            ("", false),
            ("{}", false),
        ];
        assert_eq!(all(&["a.jsonl"], bytes), owned(&want));
        let first = all(&["-", "--format", "jsonl", "--field", "/m/n"], bytes).remove(0);
        assert_eq!(first, ("c".to_owned(), true));
    }
}
