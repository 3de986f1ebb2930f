//! What a service manager such as systemd passes and is told: sockets, sd_notify(3), and its watchdog.
//!
//! [`notice`] is the pure part: from the master's state to the text of a datagram. [`watchdog`] decides
//! whether the server is alive enough to say so. [`manager`] has the socket. The master alone notifies; it
//! keeps the variables for its next image, and no other process of the server ever sees them. [`readiness`]
//! is for managers that only want to know when the start is over. [`activation`] finds the sockets that were
//! passed, [`store`] has the names under which listeners of our own come back.

pub mod activation;
pub mod manager;
pub mod notice;
pub mod readiness;
pub mod store;
pub mod watchdog;
