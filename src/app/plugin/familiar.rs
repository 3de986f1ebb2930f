//! Header fields that come again and again.
//!
//! Most responses of an application begin with the same few fields. Reading a name and copying a value
//! costs more than seeing that they are those of the last response.

use std::cell::RefCell;

use http::header::{self, HeaderName, HeaderValue};

/// Fields at the beginning of a response that are remembered.
const PLACES: usize = 12;
/// Longest value that is remembered.
const LONGEST: usize = 128;

thread_local! {
    static LAST: RefCell<[Option<Field>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

struct Field {
    /// The name as the application writes it.
    written: Box<[u8]>,
    name: HeaderName,
    value: HeaderValue,
}

/// Field number `index` of a response; `None` if it is not valid in HTTP.
pub(super) fn field(index: usize, name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    LAST.with_borrow_mut(|last| {
        let place = last.get_mut(index);
        if let Some(Some(last)) = &place
            && *last.written == *name
            && last.value.as_bytes() == value
        {
            return Some((last.name.clone(), last.value.clone()));
        }
        let field = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        if let Some(place) = place
            && value.len() <= LONGEST
            && field.0 != header::SET_COOKIE
        {
            *place = Some(Field { written: name.into(), name: field.0.clone(), value: field.1.clone() });
        }
        Some(field)
    })
}
