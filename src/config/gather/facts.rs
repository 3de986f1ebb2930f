//! What blocks and directives ask of the world: options so far, files, names.

use std::net::ToSocketAddrs;
use std::path::Path;

use super::Gatherer;
use crate::config::logic::{self, Facts, Test};
use crate::config::source;

impl Facts for Gatherer<'_> {
    fn option(&self, name: &str) -> Option<String> {
        self.items.value_of(name).map(str::to_owned)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.items.variable(name, self.context)
    }

    fn path_is(&self, test: Test, path: &str) -> bool {
        let path = self.context.cwd.join(path);
        match test {
            Test::File => path.is_file(),
            Test::Directory => path.is_dir(),
            _ => path.exists(),
        }
    }

    fn is_reload(&self) -> bool {
        self.context.is_reload
    }

    fn plugin(&self, name: &str) -> bool {
        self.items.asks_for_plugin(name)
    }

    fn hostname(&self) -> String {
        self.context.fixed.hostname.clone()
    }

    fn glob(&self, pattern: &str) -> Result<Vec<String>, String> {
        glob_in(&self.context.cwd, pattern)
    }

    fn lines(&self, path: &str) -> Result<Vec<String>, String> {
        let bytes = source::fetch(path, &self.context.cwd)?;
        let text = source::decode(bytes).map_err(|(line, problem)| format!("line {line} has {problem}"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

fn glob_in(cwd: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let base = format!("{}/", glob::Pattern::escape(&cwd.to_string_lossy()));
    let whole = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{base}{pattern}") };
    let paths = glob::glob_with(&whole, options).map_err(|error| format!("is not a pattern: {error}"))?;
    let mut found = Vec::new();
    for path in paths.flatten().take(logic::MAX_ROUNDS + 1) {
        let shown = if pattern.starts_with('/') { &path } else { path.strip_prefix(cwd).unwrap_or(&path) };
        let mark = if path.is_dir() { "/" } else { "" };
        found.push(format!("{}{mark}", shown.to_string_lossy()));
    }
    if found.is_empty() {
        found.push(pattern.to_owned());
    }
    Ok(found)
}

/// The IPv4 address of a host, for `NAME=HOST`.
pub(super) fn resolve(text: &str) -> Result<(String, String), String> {
    let (name, host) = text.split_once('=').ok_or("has no `=`; write NAME=HOST")?;
    let addresses = (host, 0).to_socket_addrs().map_err(|error| format!("cannot be resolved: {error}"))?;
    let address = addresses.map(|address| address.ip()).find(std::net::IpAddr::is_ipv4);
    Ok((name.to_owned(), address.ok_or("has no IPv4 address")?.to_string()))
}
