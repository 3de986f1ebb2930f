//! Options from the environment: `UWSGI_HTTP_SOCKET` is `http-socket`.

use super::Gatherer;
use crate::config::{Entry, options};

/// Beginnings of variables that are options.
const PREFIXES: [&str; 2] = ["UWSGI_", "APPSERVER_"];
/// Rests of such variables that mean something else.
const NO_OPTIONS: [&str; 9] = [
    "RELOADS",
    "VASSALS_DIR",
    "EMPEROR_FD",
    "BROODLORD_NUM",
    "EMPEROR_FD_CONFIG",
    "EMPEROR_PROXY",
    "JAIL_PID",
    "ORIGINAL_PROC_NAME",
    "LOG",
];

impl Gatherer<'_> {
    /// Takes up every variable that is an option.
    pub(super) fn environment(&mut self) {
        for prefix in PREFIXES {
            for (variable, value) in &self.context.env {
                let Some(rest) = variable.to_str().and_then(|name| name.strip_prefix(prefix)) else {
                    continue;
                };
                let name = option_of_variable(rest);
                if NO_OPTIONS.contains(&rest) || rest.is_empty() || is_service_link(rest, &name) {
                    continue;
                }
                let origin = format!("environment {prefix}{rest}");
                let entry = Entry { name, value: value.to_str().map(str::to_owned), origin };
                if entry.value.is_none() {
                    self.problem(&entry, "is not valid UTF-8");
                } else {
                    self.feed(entry);
                }
            }
        }
        self.close_block();
    }
}

/// `HTTP_SOCKET` to `http-socket`; a few names have an underscore themselves.
fn option_of_variable(rest: &str) -> String {
    let lower = rest.to_ascii_lowercase();
    if options::find(&lower).is_some() { lower } else { lower.replace('_', "-") }
}

/// Kubernetes and Docker describe a service called `appserver` in variables that begin like ours.
fn is_service_link(rest: &str, name: &str) -> bool {
    let link = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
    link && options::find(name).is_none()
}
