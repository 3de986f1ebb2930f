//! One request of each kind before the load: what is served, and what answer to expect from then on.

use std::sync::Arc;

use super::Group;
use super::account::{Kind, Loss};
use super::clients::Stage;
use super::websocket;
use super::wire::{Answer, Connection};

/// A URL and how it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Path and query.
    pub path: String,
    /// First digit of the status.
    pub class: u16,
}

impl Target {
    /// An answer of the usual class; any other is a loss.
    pub fn accept(&self, answer: Answer) -> Result<Answer, Loss> {
        match answer.status / 100 == self.class {
            true => Ok(answer),
            false => Err(Loss::Status(answer.status)),
        }
    }
}

/// What the clients ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// The Host field.
    pub host: String,
    /// Never empty once it is probed.
    pub get: Vec<Target>,
    /// Where bodies go.
    pub post: Option<Target>,
    /// The long answer.
    pub stream: Option<Target>,
    /// The WebSocket.
    pub upgrade: Option<Target>,
}

impl Targets {
    /// A request as bytes.
    pub fn request(&self, method: &str, target: &Target, fields: &str, body: &[u8]) -> Vec<u8> {
        let length = match method {
            "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let head =
            format!("{method} {} HTTP/1.1\r\nHost: {}\r\n{length}{fields}\r\n", target.path, self.host);
        [head.as_bytes(), body].concat()
    }
}

/// The URLs to be tried, as the command line names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// For GET.
    pub get: Vec<String>,
    /// For POST; without it the first of `get`.
    pub post: Option<String>,
    /// The long answer, if there is one.
    pub stream: Option<String>,
    /// The WebSocket; without it the first of `get`.
    pub upgrade: Option<String>,
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Findings {
    /// What to ask for.
    pub targets: Arc<Targets>,
    /// Clients that the server serves.
    pub groups: Vec<Group>,
    /// Those that it does not, and why.
    pub left_out: Vec<String>,
}

/// Asks for everything once.
///
/// # Errors
/// When not even a GET is answered without an error.
pub fn probe(stage: &Stage, host: &str, paths: &Paths, groups: &[Group]) -> Result<Findings, String> {
    let mut targets = Targets { host: host.to_owned(), ..Targets::default() };
    for path in &paths.get {
        let target = ask(stage, &targets, "GET", path, "").map_err(|why| format!("GET {path}: {why}"))?;
        if target.class == 5 {
            return Err(format!("GET {path} is answered with an error of the server"));
        }
        targets.get.push(target);
    }
    let first = paths.get.first().ok_or("no URL is given")?;
    let mut found = Findings::default();
    for group in groups.iter().copied() {
        match probe_kind(stage, &mut targets, paths, first, group.kind) {
            Ok(()) => found.groups.push(group),
            Err(why) => found.left_out.push(format!("{}: {why}", group.kind.name())),
        }
    }
    if found.groups.is_empty() {
        return Err(format!("nothing of what is asked for is served: {}", found.left_out.join("; ")));
    }
    found.targets = Arc::new(targets);
    Ok(found)
}

fn probe_kind(
    stage: &Stage,
    targets: &mut Targets,
    paths: &Paths,
    first: &str,
    kind: Kind,
) -> Result<(), String> {
    match kind {
        Kind::KeepAlive | Kind::Fresh | Kind::Pipelined | Kind::Backlog => {}
        Kind::Post | Kind::Upload => {
            let path = paths.post.as_deref().unwrap_or(first);
            let target = ask(stage, targets, "POST", path, "")?;
            if target.class > 3 {
                return Err(format!("POST {path} is answered with {}xx", target.class));
            }
            targets.post = Some(target);
        }
        Kind::Stream => {
            let path = paths.stream.as_deref().ok_or("--stream names no URL of a long answer")?;
            let target = ask(stage, targets, "GET", path, "")?;
            if target.class > 3 {
                return Err(format!("GET {path} is answered with {}xx", target.class));
            }
            targets.stream = Some(target);
        }
        Kind::Upgrade => {
            let path = paths.upgrade.as_deref().unwrap_or(first);
            let target = ask(stage, targets, "GET", path, websocket::FIELDS)?;
            if target.class != 1 {
                return Err(format!("{path} is answered with {}xx instead of an upgrade", target.class));
            }
            targets.upgrade = Some(target);
        }
    }
    Ok(())
}

fn ask(stage: &Stage, targets: &Targets, method: &str, path: &str, fields: &str) -> Result<Target, String> {
    let mut target = Target { path: path.to_owned(), class: 0 };
    let answer = Connection::open(stage.address, stage.patience, stage.now()).and_then(|mut connection| {
        connection.send(&targets.request(method, &target, fields, b""))?;
        connection.receive()
    });
    target.class = answer.map_err(|loss| loss.to_string())?.status / 100;
    Ok(target)
}
