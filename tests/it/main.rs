//! Black-box tests: the real binary, real processes, real sockets; one file per promise.

mod support;

mod bed;
mod broken_reload;
mod daemonize;
mod environment;
mod fifo;
mod http_rules;
mod listen;
mod loading;
mod logs;
mod main_job;
mod pidfile;
mod privileges;
mod reload;
mod signals;
mod slots;
mod stop;
mod takeover;
mod touch;
