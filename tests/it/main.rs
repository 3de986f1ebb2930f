//! Black-box tests: the real binary, real processes, real sockets; one file per promise.

mod support;

mod bed;
mod broken_reload;
mod config_files;
mod fifo;
mod http_rules;
mod main_job;
mod pidfile;
mod reload;
mod signals;
mod stop;
mod takeover;
