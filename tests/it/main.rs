//! Black-box tests: the real binary, real processes, real sockets; one file per promise.

mod support;

mod bed;
mod broken_reload;
mod check_config;
mod command_line;
mod config_files;
mod daemonize;
mod descriptors;
mod differential;
mod environment;
mod fifo;
mod fifo_accidents;
mod http_limits;
mod http_rules;
mod listen;
mod loading;
mod logs;
mod main_job;
mod options;
mod pidfile;
mod privileges;
mod races;
mod reload;
mod reload_storm;
mod sendfile;
mod shipped_config;
mod signals;
mod slots;
mod static_files;
mod stop;
mod stop_patience;
mod supervision;
mod takeover;
mod touch;
mod welcome;
