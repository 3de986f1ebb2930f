//! Finding what a Python application needs, before anything of it is loaded: the interpreter the
//! operator chose, its shared library, and the plugin that drives it.
//!
//! The server neither links Python nor guesses where it is. The chosen executable is asked, once
//! (`query.rs`); a virtual environment, a version manager's shim and a relocated installation all
//! know better than any rule about directories what they are.

mod choice;
mod elf;
mod error;
pub mod interpreter;
mod library;
pub mod plugin_library;
mod query;

pub use choice::Choice;
pub use error::{FindError, Trouble};
pub use interpreter::{Interpreter, find};
pub use plugin_library::{PluginNotFound, plugin_library};
