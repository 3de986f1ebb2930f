//! Python applications: the interpreter the operator chose, where its code is, the plugin that
//! drives it, and what the plugin is told.
//!
//! The server neither links Python nor guesses where it is. The chosen executable is asked, once
//! (`query.rs`); a virtual environment, a version manager's shim and a relocated installation all
//! know better than any rule about directories what they are.

mod choice;
mod elf;
mod error;
pub mod interpreter;
mod library;
mod load;
pub mod plugin_library;
mod query;

pub use choice::Choice;
pub use error::{FindError, Trouble};
pub use interpreter::{Code, Interpreter, find};
pub use load::{Found, find_once, load, use_found};
pub use plugin_library::{PluginNotFound, guest_library, plugin_library};
