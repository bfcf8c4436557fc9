//! Values of the metadata, as a file has them and as a caller asks for them.
//!
//! Layout: `gguf_metadata_value_t` of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::source::Source;
use std::io::{self, Read, Write};

/// Most arrays in one another; published files have none.
pub(super) const MOST_DEPTH: usize = 4;

/// Something a value may be: how it is read and written.
pub(super) trait Item: Sized {
    /// Fewest bytes that one takes.
    const LEAST: u64;

    /// Reads one, `depth` arrays deep.
    fn read(source: &mut Source<impl Read>, depth: usize) -> Result<Self, String>;

    /// Writes one.
    fn write(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Defines the kinds of values: code, variant, type.
macro_rules! kinds {
    ($($code:literal $name:ident $type:ty;)*) => {
        /// A value of the metadata.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "named after their types")]
        pub enum Value {
            $($name($type),)*
        }

        /// An array of the metadata: all its values are of one type.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "named after their types")]
        pub enum Array {
            $($name(Vec<$type>),)*
        }

        impl Value {
            /// What a file calls its type.
            fn code(&self) -> u32 {
                match self { $(Self::$name(_) => $code,)* }
            }

            /// Reads a value of the type `code`.
            pub(super) fn read(code: u32, source: &mut Source<impl Read>) -> Result<Self, String> {
                match code {
                    $($code => <$type as Item>::read(source, 0).map(Self::$name),)*
                    _ => Err(format!("has the unknown type {code}")),
                }
            }

            /// Writes type and value.
            pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
                out.write_all(&self.code().to_le_bytes())?;
                match self { $(Self::$name(value) => Item::write(value, out),)* }
            }
        }

        impl Array {
            /// How many values it has.
            pub fn len(&self) -> usize {
                match self { $(Self::$name(values) => values.len(),)* }
            }

            /// Whether it has no values.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl Item for Array {
            const LEAST: u64 = 12;

            fn read(source: &mut Source<impl Read>, depth: usize) -> Result<Self, String> {
                if depth >= MOST_DEPTH {
                    return Err(format!("has arrays more than {MOST_DEPTH} deep"));
                }
                let code = source.u32()?;
                let count = source.u64()?;
                match code {
                    $($code => values(source, count, depth + 1).map(Self::$name),)*
                    _ => Err(format!("is an array of the unknown type {code}")),
                }
            }

            fn write(&self, out: &mut dyn Write) -> io::Result<()> {
                let (code, count): (u32, usize) = match self { $(Self::$name(v) => ($code, v.len()),)* };
                out.write_all(&code.to_le_bytes())?;
                out.write_all(&(count as u64).to_le_bytes())?;
                match self { $(Self::$name(v) => v.iter().try_for_each(|v| v.write(out)),)* }
            }
        }

        $(
            impl From<$type> for Value {
                fn from(value: $type) -> Self {
                    Self::$name(value)
                }
            }

            impl From<Vec<$type>> for Value {
                fn from(values: Vec<$type>) -> Self {
                    Self::Array(Array::$name(values))
                }
            }
        )*
    };
}

kinds! {
    0 U8 u8;
    1 I8 i8;
    2 U16 u16;
    3 I16 i16;
    4 U32 u32;
    5 I32 i32;
    6 F32 f32;
    7 Bool bool;
    8 String String;
    9 Array Array;
    10 U64 u64;
    11 I64 i64;
    12 F64 f64;
}

/// The values of an array.
fn values<T: Item>(
    source: &mut Source<impl Read>,
    count: u64,
    depth: usize,
) -> Result<Vec<T>, String> {
    source.expect("values", count, T::LEAST)?;
    // Grown as they are read: a count alone makes no memory.
    let mut values = Vec::with_capacity(count.min(1024) as usize);
    for _ in 0..count {
        values.push(T::read(source, depth)?);
    }
    values.shrink_to_fit();
    Ok(values)
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Item for $type {
            const LEAST: u64 = size_of::<$type>() as u64;

            fn read(source: &mut Source<impl Read>, _: usize) -> Result<Self, String> {
                source.array().map(<$type>::from_le_bytes)
            }

            fn write(&self, out: &mut dyn Write) -> io::Result<()> {
                out.write_all(&self.to_le_bytes())
            }
        }
    )*};
}

numbers! { u8 i8 u16 i16 u32 i32 f32 u64 i64 f64 }

impl Item for bool {
    const LEAST: u64 = 1;

    fn read(source: &mut Source<impl Read>, _: usize) -> Result<Self, String> {
        match source.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(format!("is a boolean of {byte}")),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&[u8::from(*self)])
    }
}

impl Item for String {
    const LEAST: u64 = 8;

    fn read(source: &mut Source<impl Read>, _: usize) -> Result<Self, String> {
        source.text(u64::MAX)
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.len() as u64).to_le_bytes())?;
        out.write_all(self.as_bytes())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<Vec<&str>> for Value {
    fn from(texts: Vec<&str>) -> Self {
        Self::Array(Array::String(texts.into_iter().map(str::to_owned).collect()))
    }
}

/// What a caller may ask a value to be.
pub trait Typed<'a>: Sized {
    /// In words, for messages.
    const WHAT: &'static str;

    /// The value as this type; `None` if it is of another, or does not fit.
    fn of(value: &'a Value) -> Option<Self>;
}

impl Value {
    /// The whole number that it is, of whatever width.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => n.into(),
            Self::I64(n) => n.into(),
            _ => return None,
        })
    }
}

macro_rules! typed {
    ($($type:ty, $what:literal, |$value:ident| $of:expr;)*) => {$(
        impl<'a> Typed<'a> for $type {
            const WHAT: &'static str = $what;

            fn of($value: &'a Value) -> Option<Self> {
                $of
            }
        }
    )*};
}

typed! {
    u32, "a whole number of 32 bits", |value| value.integer()?.try_into().ok();
    u64, "a whole number of 64 bits", |value| value.integer()?.try_into().ok();
    bool, "a boolean", |value| match value { Value::Bool(v) => Some(*v), _ => None };
    f64, "a number", |value| match value {
        Value::F32(v) => Some(f64::from(*v)),
        Value::F64(v) => Some(*v),
        _ => Some(value.integer()? as f64),
    };
    &'a str, "a text", |value| match value { Value::String(v) => Some(v), _ => None };
    &'a [String], "an array of texts",
        |value| match value { Value::Array(Array::String(v)) => Some(v), _ => None };
    &'a [f32], "an array of numbers of 32 bits",
        |value| match value { Value::Array(Array::F32(v)) => Some(v), _ => None };
    Vec<u32>, "an array of whole numbers of 32 bits", |value| {
        let Value::Array(array) = value else { return None };
        match array {
            Array::U8(v) => Some(v.iter().map(|n| (*n).into()).collect()),
            Array::U16(v) => Some(v.iter().map(|n| (*n).into()).collect()),
            Array::U32(v) => Some(v.clone()),
            Array::I32(v) => v.iter().map(|n| u32::try_from(*n).ok()).collect(),
            Array::U64(v) => v.iter().map(|n| u32::try_from(*n).ok()).collect(),
            Array::I64(v) => v.iter().map(|n| u32::try_from(*n).ok()).collect(),
            _ => None,
        }
    };
}
