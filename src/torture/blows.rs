//! What is done to the server while it serves: each way to change it, and accidents.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::account::{self, Excuse, Tally, What};
use super::broken::Broken;
use super::clients::Stage;
use super::held;
use super::probe::Targets;
use super::random::Random;
use super::server::{Server, Worker};
use super::wire::Connection;
use crate::control::narrator::Verdict;
use crate::master::answer::Kind;
use crate::scoreboard::WorkerState;
use crate::sys::process::{self, Pid, Signal};

/// A connection that takes longer does not fit the listen queue any more: on loopback it is made at once.
const QUEUED: Duration = Duration::from_millis(100);
/// More than the listen queue holds.
const MANY: usize = 1000;

/// One way to hit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGHUP.
    Hup,
    /// FIFO `r`.
    Fifo,
    /// A touched `touch-reload` file.
    Touch,
    /// `--reload PIDFILE --wait`.
    Wait,
    /// FIFO `w`.
    Workers,
    /// FIFO `c`.
    Chain,
    /// FIFO `u`, where `snapshots` keeps a generation to go back to.
    Rollback,
    /// The signal of a brutal reload.
    Brutal,
    /// SIGHUP, and at once kill -9 of an old worker.
    KillInReload,
    /// kill -9 of a worker.
    KillWorker,
    /// kill -9 of what the master runs beside its workers: the zygote.
    KillZygote,
    /// Nonsense in a file of the application, and a reload that has to be refused.
    Break,
    /// Nobody accepts until the listen queue is full.
    Backlog,
}

impl Blow {
    /// All of them.
    pub const ALL: [Blow; 13] = [
        Blow::Hup,
        Blow::Fifo,
        Blow::Touch,
        Blow::Wait,
        Blow::Workers,
        Blow::Chain,
        Blow::Rollback,
        Blow::Brutal,
        Blow::KillInReload,
        Blow::KillWorker,
        Blow::KillZygote,
        Blow::Break,
        Blow::Backlog,
    ];

    /// As the command line and the table call it.
    pub fn name(self) -> &'static str {
        match self {
            Blow::Hup => "hup",
            Blow::Fifo => "fifo",
            Blow::Touch => "touch",
            Blow::Wait => "wait",
            Blow::Workers => "workers",
            Blow::Chain => "chain",
            Blow::Rollback => "rollback",
            Blow::Brutal => "brutal",
            Blow::KillInReload => "kill-in-reload",
            Blow::KillWorker => "kill-worker",
            Blow::KillZygote => "kill-zygote",
            Blow::Break => "break",
            Blow::Backlog => "backlog",
        }
    }

    /// Whether `--reloads` counts it: new workers serve afterwards.
    pub fn is_reload(self) -> bool {
        !matches!(self, Blow::KillWorker | Blow::KillZygote | Blow::Break | Blow::Backlog)
    }
}

/// Who hits the server, and what that may cost.
#[derive(Debug)]
pub struct Striker<'a> {
    server: &'a Server,
    stage: &'a Stage,
    targets: &'a Targets,
    /// What [`Blow::Break`] breaks.
    breakable: Option<&'a Path>,
    /// Workers there have to be.
    workers: usize,
    /// What may be lost.
    pub excuses: Vec<Excuse>,
    /// The requests of [`Blow::Backlog`].
    pub queued: Tally,
}

impl<'a> Striker<'a> {
    /// For a server at rest.
    pub fn new(
        server: &'a Server,
        stage: &'a Stage,
        targets: &'a Targets,
        breakable: Option<&'a Path>,
    ) -> Self {
        let workers = server.serving().len();
        Striker { server, stage, targets, breakable, workers, excuses: Vec::new(), queued: Tally::default() }
    }

    /// Hits it and waits until it is over: until the new workers serve, or the dead are replaced.
    ///
    /// # Errors
    /// What became of it that must not.
    pub fn strike(&mut self, blow: Blow, random: &mut Random) -> Result<(), String> {
        let server = self.server;
        match blow {
            Blow::Hup => self.reload(|| server.signal(Signal::SIGHUP)),
            Blow::Fifo => self.reload(|| server.letter("r")),
            Blow::Touch => self.reload(|| server.touch()),
            Blow::Wait => server.command_reload(),
            Blow::Workers => self.replace("w"),
            Blow::Chain => self.replace("c"),
            Blow::Rollback => self.roll_back(),
            Blow::Brutal => self.brutal(),
            Blow::KillInReload => self.kill_in_reload(random),
            Blow::KillWorker => self.kill_worker(random),
            Blow::KillZygote => self.kill_zygote(),
            Blow::Break => self.break_code(),
            Blow::Backlog => self.fill_backlog(),
        }
    }

    fn reload(&self, ask: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        self.await_answer(Kind::Reload, ask)
    }

    fn await_answer(&self, kind: Kind, ask: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        match self.server.answer_to(kind, ask)? {
            Verdict::Done(_) => self.complete(),
            Verdict::Failed(text) => Err(text),
        }
    }

    /// Back from a reload, and there again. It begins with a reload because the last snapshot may be used up; it
    /// ends with one because a zygote that was woken is not replaced when it dies.
    fn roll_back(&self) -> Result<(), String> {
        let reload = || self.reload(|| self.server.signal(Signal::SIGHUP));
        reload()?;
        self.await_answer(Kind::Rollback, || self.server.letter("u"))?;
        reload()
    }

    /// Waits for as many workers as there were at the beginning.
    fn complete(&self) -> Result<(), String> {
        let complete = || (self.server.serving().len() >= self.workers).then_some(());
        self.server.until("all workers serve", complete)
    }

    /// Waits until none of these serves, and as many others do.
    fn replaced(&self, old: &[Worker]) -> Result<(), String> {
        self.server.until("other workers serve", || {
            let serving = self.server.serving();
            let fresh = serving.iter().all(|it| !old.iter().any(|old| old.pid == it.pid));
            (fresh && serving.len() >= self.workers).then_some(())
        })
    }

    fn replace(&self, letter: &str) -> Result<(), String> {
        let old = self.server.serving();
        self.server.letter(letter)?;
        self.replaced(&old)
    }

    fn brutal(&mut self) -> Result<(), String> {
        let from = self.stage.now();
        let old = self.server.workers(|state| state != WorkerState::Free);
        self.reload(|| self.server.signal_brutal())?;
        self.server.until("the old workers are gone", || {
            let there = self.server.workers(|state| state != WorkerState::Free);
            there.iter().all(|it| !old.contains(it)).then_some(())
        })?;
        self.excuses.push(Excuse { why: Blow::Brutal.name(), from, until: self.stage.now(), ports: None });
        Ok(())
    }

    fn kill_in_reload(&mut self, random: &mut Random) -> Result<(), String> {
        let old = self.server.serving();
        let victim = one_of(&old, random)?;
        let mut excuse = None;
        let outcome = self.reload(|| {
            self.server.signal(Signal::SIGHUP)?;
            excuse = Some(self.kill(victim.pid, Blow::KillInReload)?);
            Ok(())
        });
        self.excuses.extend(excuse);
        outcome?;
        self.replaced(&old)
    }

    fn kill_worker(&mut self, random: &mut Random) -> Result<(), String> {
        let victim = one_of(&self.server.serving(), random)?;
        let excuse = self.kill(victim.pid, Blow::KillWorker)?;
        self.excuses.push(excuse);
        self.server.until("the dead worker is replaced", || {
            let serving = self.server.serving();
            (serving.len() >= self.workers && !serving.contains(&victim)).then_some(())
        })
    }

    /// kill -9, and which connections went with it: it is stopped before, so that it has no others by then.
    fn kill(&self, pid: Pid, blow: Blow) -> Result<Excuse, String> {
        let failed = |error: std::io::Error| format!("process {pid} cannot be killed: {error}");
        let from = self.stage.now();
        process::kill(pid, Signal::SIGSTOP).map_err(failed)?;
        self.server.until("a worker stops", || held::is_stopped(pid).then_some(()))?;
        let ports = held::client_ports(pid, self.server.address.port()).map_err(failed)?;
        process::kill(pid, Signal::SIGKILL).map_err(failed)?;
        Ok(Excuse { why: blow.name(), from, until: self.stage.now(), ports: Some(ports) })
    }

    fn kill_zygote(&mut self) -> Result<(), String> {
        self.complete()?;
        let before =
            self.server.until("a zygote is there", || Some(self.zygotes()).filter(|it| !it.is_empty()))?;
        let victim = before[before.len() - 1];
        process::kill(victim, Signal::SIGKILL).map_err(|error| format!("process {victim}: {error}"))?;
        self.server.until("the zygote is replaced", || {
            let zygotes = self.zygotes();
            (zygotes.iter().any(|it| !before.contains(it)) && !zygotes.contains(&victim)).then_some(())
        })
    }

    /// Children of the master that are no workers, the newest last.
    fn zygotes(&self) -> Vec<Pid> {
        let workers: BTreeSet<Pid> =
            self.server.workers(|state| state != WorkerState::Free).iter().map(|worker| worker.pid).collect();
        let mut others = held::children(self.server.pid());
        others.retain(|pid| !workers.contains(pid));
        others.sort_by_key(|pid| process::start_time(*pid).unwrap_or_default());
        others
    }

    fn break_code(&mut self) -> Result<(), String> {
        let Some(path) = self.breakable else { return Ok(()) };
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let broken = Broken::new(path).map_err(failed)?;
        let verdict = self.server.answer_to(Kind::Reload, || self.server.signal(Signal::SIGHUP))?;
        broken.mend().map_err(failed)?;
        match verdict {
            Verdict::Failed(_) => self.complete(),
            Verdict::Done(text) => Err(format!("{} was broken, and: {text}", path.display())),
        }
    }

    fn fill_backlog(&mut self) -> Result<(), String> {
        self.stage.toggle_pause();
        self.server.letter("p")?;
        self.server.until("nobody accepts", || self.server.serving().is_empty().then_some(()))?;
        let request = self.targets.request("GET", &self.targets.get[0], "Connection: close\r\n", b"");
        let mut waiting = Vec::new();
        while waiting.len() < MANY {
            let begun = self.stage.now();
            let Ok(mut connection) = Connection::open(self.stage.address, QUEUED, begun) else { break };
            connection
                .set_patience(self.stage.patience)
                .and_then(|()| connection.send(&request))
                .map_err(|loss| format!("a connection that waits to be accepted: {loss}"))?;
            waiting.push(connection);
        }
        self.server.letter("p")?;
        self.complete()?;
        self.stage.toggle_pause();
        for mut connection in waiting {
            self.queued.clients += 1;
            self.queued.sent += 1;
            match connection.receive().and_then(|answer| self.targets.get[0].accept(answer)) {
                Ok(_) => {
                    self.queued.answer(connection.opened, self.stage.now() - connection.opened, true);
                }
                Err(loss) => {
                    let incident =
                        connection.incident(account::Kind::Backlog, What::Lost(loss), self.stage.now());
                    self.queued.incidents.push(incident);
                }
            }
        }
        Ok(())
    }
}

fn one_of(workers: &[Worker], random: &mut Random) -> Result<Worker, String> {
    workers.get(random.below(workers.len())).copied().ok_or_else(|| "no worker serves".to_owned())
}
