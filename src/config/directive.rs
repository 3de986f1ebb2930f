//! Directives: the options that steer how a configuration is read, and are gone once it has been.

use super::document::Format;
use super::logic::BlockKind;

/// What a directive does. [`gather`](super::gather) carries them out in the order they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Reads a file in this format, or in the one its extension tells.
    Read(Option<Format>),
    /// Reads a file as part of this one.
    Include,
    /// Reads a file after everything else.
    Inherit,
    /// Gives an option by `NAME=VALUE`.
    Set,
    /// Gives a placeholder by `NAME=VALUE`.
    Placeholder,
    /// A placeholder from the address of a host: `NAME=HOST`.
    Resolve,
    /// Opens a block.
    Open(BlockKind),
    /// Turns the open block around.
    Else,
    /// Closes the open block.
    End,
    /// Defines an option by a template: `NAME=TEMPLATE`.
    Declare,
    /// Puts a text before or behind each file that is read from here on.
    Inject(Place),
    /// Sets a variable of the environment at once, for the lines that follow to refer to.
    Variable,
    /// Chooses the elements of XML files that have a `mode`.
    Mode,
    /// Ends the start with this status.
    Exit,
    /// Refuses these options from here on; `None` ends that.
    Deny(bool),
    /// Refuses all but these options from here on.
    AllowOnly(bool),
}

/// On which side of a file a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before its first line.
    Before,
    /// Behind its last one.
    After,
}

impl Directive {
    /// Whether it can stand alone, without a value.
    pub const fn is_bare(self) -> bool {
        matches!(
            self,
            Directive::Else
                | Directive::End
                | Directive::Exit
                | Directive::Deny(false)
                | Directive::AllowOnly(false)
        )
    }

    /// Placeholder for the value in help texts.
    pub const fn metavar(self) -> &'static str {
        match self {
            Directive::Read(_) | Directive::Include | Directive::Inherit => "FILE[:SECTION]",
            Directive::Set | Directive::Placeholder | Directive::Variable => "NAME=VALUE",
            Directive::Resolve => "NAME=HOST",
            Directive::Declare => "NAME=TEMPLATE",
            Directive::Inject(_) => "FILE",
            Directive::Mode => "NAME",
            Directive::Exit => "STATUS",
            Directive::Open(_) => "VALUE",
            Directive::Deny(true) | Directive::AllowOnly(true) => "NAMES",
            _ => "",
        }
    }
}
