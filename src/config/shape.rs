//! The forms of values that are checked and not used: an option that does not work yet is no place
//! for a typo either, it may work after the next upgrade.

use std::time::Duration;

use super::value::{self, ValueError};
use crate::net::addr::ListenAddr;

/// The form of a value that is checked but not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// On or off.
    Flag,
    /// A whole number.
    Int,
    /// Megabytes; the number may have a fraction.
    Megabytes,
    /// Bytes, with an optional unit.
    Size,
    /// Seconds, with an optional unit.
    Seconds,
    /// Octal permission bits.
    Mode,
    /// Text that may be empty.
    Text,
    /// Text that may not.
    Name,
    /// `NAME=VALUE`
    Pair,
    /// A file or directory.
    Path,
    /// A listen address.
    Address,
}

impl Shape {
    /// Placeholder for the value in help texts.
    pub(super) const fn placeholder(self) -> &'static str {
        match self {
            Shape::Flag => "BOOL",
            Shape::Int => "N",
            Shape::Megabytes => "MEGABYTES",
            Shape::Size => "BYTES",
            Shape::Seconds => "SECONDS",
            Shape::Mode => "MODE",
            Shape::Text | Shape::Name => "TEXT",
            Shape::Pair => "NAME=VALUE",
            Shape::Path => "PATH",
            Shape::Address => "ADDRESS",
        }
    }

    /// Reads a value as an option of this shape would.
    ///
    /// # Errors
    /// When the value is not of this shape.
    pub(super) fn check(self, text: &str) -> Result<(), ValueError> {
        match self {
            Shape::Flag => value::flag(text).map(drop),
            Shape::Int => value::int(text, 0, u64::MAX).map(drop),
            Shape::Megabytes => {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
                value::int(whole, 0, u64::MAX).and(value::int(fraction, 0, u64::MAX)).map(drop)
            }
            Shape::Size => value::size(text, 0, u64::MAX).map(drop),
            Shape::Seconds => value::duration(text, Duration::ZERO).map(drop),
            Shape::Mode => value::mode(text).map(drop),
            Shape::Pair if !text.contains('=') => Err(ValueError::refused("has no `=`; write NAME=VALUE")),
            Shape::Address => address(text),
            Shape::Text | Shape::Name | Shape::Pair | Shape::Path => Ok(()),
        }
    }
}

/// Reads a listen address, which is looked at again when it is bound.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn address(text: &str) -> Result<(), ValueError> {
    let told = |reason| ValueError::refused(format!("is not an address: {reason}"));
    ListenAddr::parse(text).map(drop).map_err(told)
}
