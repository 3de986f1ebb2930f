//! What a service manager such as systemd is told: sd_notify(3), and its watchdog.
//!
//! [`notice`] is the pure part: from the master's state to the text of a datagram. [`watchdog`] decides
//! whether the server is alive enough to say so. [`manager`] has the socket. The master alone notifies; it
//! keeps the variables for its next image, and no other process of the server ever sees them. [`readiness`]
//! is for managers that only want to know when the start is over.

pub mod manager;
pub mod notice;
pub mod readiness;
pub mod watchdog;
