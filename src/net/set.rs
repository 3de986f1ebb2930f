//! The listeners of a configuration: those that are there already are kept, the others are bound.
//!
//! They are matched by the address as configured, not by position: a configuration with its lines in
//! another order finds its sockets, and their queues of waiting clients.

use std::io;
use std::os::fd::OwnedFd;

use log::warn;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::sys::cred;

use super::{BindError, BindOptions, Listener, ListenerState, effective_backlog, inherited, zerg};

/// One listener of a set, told to a process that has the kept ones already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announced {
    /// The receiver has it under this name.
    Kept(String),
    /// New; its descriptor comes along, in the order of the set.
    Fresh(ListenerState),
}

/// The members of a set, each with whether it is new, for the next image of the process that has it.
pub type SetState = Vec<(ListenerState, bool)>;

/// Binds what the configuration asks for and `inherited` does not have.
#[derive(Debug)]
pub struct ListenerSet {
    /// In the order of the configuration, each with whether it is new.
    members: Vec<(Listener, bool)>,
    /// At hand and not configured.
    left: Vec<Listener>,
}

impl ListenerSet {
    /// Matches and binds. Sockets of a service manager are what is served on when nothing is configured.
    ///
    /// # Errors
    /// The first address that cannot be had, with where it was configured; sockets made for the
    /// others are gone again.
    pub fn bind(config: &Config, mut inherited: Vec<Listener>) -> Result<Self, String> {
        // Made when first needed: what it has to say about the backlog is said once then.
        let mut options = None;
        let mut set = ListenerSet { members: Vec::new(), left: Vec::new() };
        let borrowed = set.borrow(config, &mut inherited)?;
        // With zerg-fallback they are what is served on without the other server.
        let mut own = if config.zerg_fallback && borrowed { &[][..] } else { &config.listeners[..] };
        if config.listens_by_default() {
            let given = inherited.extract_if(.., |it| it.given.is_some());
            set.members.extend(given.map(|listener| (listener, false)));
            if !set.members.is_empty() {
                own = &[];
            }
        }
        for spec in own {
            let found = inherited::take(&spec.address, &mut inherited).map_err(|reason| {
                set.undo();
                let address = spec.address.clone();
                format!("{} ({})", BindError::Inherited { address, reason }, spec.origin)
            })?;
            let taken: Vec<&Listener> = set.members.iter().map(|(listener, _)| listener).collect();
            if !found.is_empty() || inherited::covered(&spec.address, &taken) {
                set.members.extend(found.into_iter().map(|listener| (listener, false)));
                continue;
            }
            let options = match &mut options {
                Some(options) => options,
                none => none.insert(bind_options(config)?),
            };
            match Listener::bind(&spec.address, options) {
                Ok(listener) => set.members.push((listener, true)),
                Err(error) => {
                    set.undo();
                    return Err(format!("{error} ({})", spec.origin));
                }
            }
        }
        for (listener, _) in &set.members {
            listener.prepare(config.preparation());
        }
        set.left = inherited;
        Ok(set)
    }

    /// What [`ListenerSet::adopt`] wants to know. The caller clears close-on-exec.
    pub fn state(&self) -> SetState {
        self.members.iter().map(|(listener, fresh)| (listener.state(), *fresh)).collect()
    }

    /// The set that [`ListenerSet::state`] tells of.
    ///
    /// # Errors
    /// Those of [`Listener::adopt`].
    pub fn adopt(states: SetState) -> io::Result<Self> {
        let adopt = |(state, fresh)| Ok((Listener::adopt(state)?, fresh));
        let members = states.into_iter().map(adopt).collect::<io::Result<_>>()?;
        Ok(ListenerSet { members, left: Vec::new() })
    }

    /// Takes the sockets that other servers lend, or keeps those that came from them before; false
    /// when there are none.
    fn borrow(&mut self, config: &Config, inherited: &mut Vec<Listener>) -> Result<bool, String> {
        for spec in &config.zergs {
            let prefix = zerg::name_prefix(spec);
            let before = self.members.len();
            let kept = inherited.extract_if(.., |it| it.name.starts_with(&prefix));
            self.members.extend(kept.map(|listener| (listener, false)));
            if self.members.len() > before {
                continue;
            }
            let lent = zerg::borrow(spec).and_then(|fds| {
                let named = fds.into_iter().enumerate();
                named
                    .map(|(number, fd)| Listener::lent(format!("{prefix}{number}"), fd))
                    .collect::<Result<Vec<_>, _>>()
            });
            let told = |error| {
                format!(
                    "cannot take the sockets of the zerg server {}: {error} ({})",
                    spec.address, spec.origin
                )
            };
            match lent {
                Ok(lent) => self.members.extend(lent.into_iter().map(|listener| (listener, true))),
                Err(error) if config.zerg_fallback => warn!("{}; serving on sockets of our own", told(error)),
                Err(error) => return Err(told(error)),
            }
        }
        Ok(!self.members.is_empty())
    }

    /// The listeners, in the order of the configuration.
    pub fn into_listeners(self) -> Vec<Listener> {
        self.members.into_iter().map(|(listener, _)| listener).collect()
    }

    /// Takes out what was at hand and is not configured.
    pub fn take_left(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.left)
    }

    /// The set for a process that has the inherited ones.
    pub fn announce(&self) -> Vec<Announced> {
        let announce = |(listener, fresh): &(Listener, bool)| match fresh {
            true => Announced::Fresh(listener.state()),
            false => Announced::Kept(listener.name.clone()),
        };
        self.members.iter().map(announce).collect()
    }

    /// The new ones, whose descriptors go with [`ListenerSet::announce`].
    pub fn fresh(&self) -> impl Iterator<Item = &Listener> {
        self.members.iter().filter(|(_, fresh)| *fresh).map(|(listener, _)| listener)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.members.iter().map(|(listener, _)| listener)
    }

    /// Removes the socket files that [`ListenerSet::bind`] has made.
    pub fn undo(&self) {
        for listener in self.fresh() {
            // Made a moment ago; whatever keeps it from being removed, the next bind tells.
            let _ = listener.remove_if_ours();
        }
    }
}

/// Puts an announced set together from the listeners at hand, which keep those that are in it no
/// more, and the descriptors that came along.
///
/// # Errors
/// When something announced is not there; then everything stays at hand.
pub fn assemble(
    announced: Vec<Announced>,
    passed: Vec<OwnedFd>,
    at_hand: &mut Vec<Listener>,
) -> Result<Vec<Listener>, String> {
    let mut passed = passed.into_iter();
    let mut left: Vec<Option<Listener>> = std::mem::take(at_hand).into_iter().map(Some).collect();
    let mut set = Vec::new();
    let mut missing = None;
    for member in announced {
        let (name, found) = match member {
            Announced::Kept(name) => {
                let place =
                    left.iter_mut().find(|it| it.as_ref().is_some_and(|listener| listener.name == name));
                (name, place.and_then(Option::take))
            }
            Announced::Fresh(state) => {
                (state.name.clone(), passed.next().map(|fd| Listener::receive(state, fd)))
            }
        };
        match found {
            Some(listener) => set.push(listener),
            None => missing = Some(name),
        }
    }
    at_hand.extend(left.into_iter().flatten());
    match missing {
        None => Ok(set),
        Some(name) => {
            at_hand.extend(set);
            Err(format!("listener {name} is not there"))
        }
    }
}

fn bind_options(config: &Config) -> Result<BindOptions, String> {
    let (backlog, note) = effective_backlog(config.backlog);
    if let Some(note) = note {
        warn!("{note}");
    }
    let chown = match &config.chown_socket {
        Some(owner) => Some(
            cred::parse_owner(owner)
                .map_err(|error| format!("chown-socket: {error}{}", config.place("chown-socket")))?,
        ),
        None => None,
    };
    Ok(BindOptions { backlog, reuse_port: config.reuse_port, chmod: config.chmod_socket, chown })
}
