//! Black-box tests: the real binary, real processes, real sockets; one file per promise.

mod support;

mod bed;
mod broken_reload;
mod descriptors;
mod fifo;
mod fifo_accidents;
mod http_rules;
mod main_job;
mod pidfile;
mod races;
mod reload;
mod reload_storm;
mod signals;
mod stop;
mod stop_patience;
mod supervision;
mod takeover;
