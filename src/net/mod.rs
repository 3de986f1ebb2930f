//! Listen addresses and the sockets behind them.
//!
//! [`addr`] reads what the operator wrote, without touching the system. [`listener`] turns it
//! into a listening socket, hands that over to the next image and takes it back; `unix_path`
//! owns the rules for sockets that have a name in the file system. [`inherited`] finds the socket that a
//! configuration means among those that are open already. [`backlog`] tells how many clients wait. [`zerg`] lends sockets to other
//! instances, and takes those that are lent.

pub mod addr;
pub mod backlog;
pub mod error;
pub mod inherited;
pub mod listener;
pub mod probe;
pub mod set;
mod unix_path;
pub mod zerg;

pub use addr::ListenAddr;
pub use error::BindError;
pub use inherited::Given;
pub use listener::{
    BindOptions, Listener, ListenerState, OwnedPath, Preparation, StdListener, VacuumOutcome,
    effective_backlog,
};
