//! Values that a template keeps in a variable: plain, and within bounds.
//!
//! Only by keeping values can a template nest them without end, or build a list that holds one list many times over
//! and is exponentially long when it is written. Everything that walks through values, dropping included, recurses;
//! so each assignment is checked.

use super::python::{BYTES_PER_FUEL, items, pairs};
use minijinja::{
    Error, ErrorKind, State, Value,
    value::{DynObject, Tuple, ValueKind},
};

/// Most levels of lists and dictionaries in a variable.
const MOST_LEVELS: usize = 150;

/// Values that one unit of fuel pays for.
const VALUES_PER_FUEL: u64 = 4;

/// The filter behind each `{% set %}`: gives `value` with views of lists (slices and the like) turned to lists. `inside`
/// is the namespace that is assigned to.
pub(super) fn kept(state: &mut State, value: Value, inside: Option<Value>) -> Result<Value, Error> {
    let mut check = Check { state, inside, values: 0 };
    Ok(check.changed(&value, MOST_LEVELS)?.unwrap_or(value))
}

struct Check<'a, 'b, 'c> {
    state: &'a mut State<'b, 'c>,
    inside: Option<Value>,
    values: u64,
}

impl Check<'_, '_, '_> {
    /// What `value` is replaced with, if it is.
    fn changed(&mut self, value: &Value, levels: usize) -> Result<Option<Value>, Error> {
        self.values += 1;
        if self.values.is_multiple_of(VALUES_PER_FUEL) {
            self.state.consume_fuel(1)?;
        }
        if let Some(text) = value.as_str() {
            self.state.consume_fuel(text.len() as u64 / BYTES_PER_FUEL)?;
            return Ok(None);
        }
        let too_deep =
            || Error::new(ErrorKind::InvalidOperation, "a variable has too many levels of lists");
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
                self.changed_list(value, levels)
            }
            ValueKind::Map => {
                let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
                self.changed_map(value, levels)
            }
            _ => Ok(None),
        }
    }

    fn changed_list(&mut self, value: &Value, levels: usize) -> Result<Option<Value>, Error> {
        let tuple = value.is_tuple();
        let mut changed = !tuple && value.downcast_object_ref::<Vec<Value>>().is_none();
        let mut list = Vec::new();
        for item in items(value)? {
            let item = item?;
            let new = self.changed(&item, levels)?;
            changed |= new.is_some();
            list.push(new.unwrap_or(item));
        }
        Ok(match (changed, tuple) {
            (false, _) => None,
            (true, true) => Some(Value::from(Tuple::new(list))),
            (true, false) => Some(Value::from(list)),
        })
    }

    fn changed_map(&mut self, value: &Value, levels: usize) -> Result<Option<Value>, Error> {
        if let Some(inside) = self.inside.clone()
            && self.state.perform_test("sameas", &[value.clone(), inside])?
        {
            return Err(Error::new(ErrorKind::InvalidOperation, "a namespace can't hold itself"));
        }
        let mut changed = false;
        let mut map = Vec::new();
        for (key, item) in pairs(value) {
            let new = self.changed(&item, levels)?;
            changed |= new.is_some();
            map.push((key, new.unwrap_or(item)));
        }
        // A loop or a namespace must stay what it is.
        Ok(if changed && is_dictionary(value) { Some(Value::from_pairs(map)) } else { None })
    }
}

fn is_dictionary(value: &Value) -> bool {
    let plain = Value::from_pairs([("", "")]);
    let name = |value: &Value| value.as_object().map(DynObject::type_name);
    name(value) == name(&plain)
}
