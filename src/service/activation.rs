//! Sockets that a service manager has opened before it started this process: which descriptors they are,
//! and what they are called.
//!
//! | Who | How it tells |
//! |---|---|
//! | systemd | `LISTEN_PID`, `LISTEN_FDS` descriptors from 3 on, their names in `LISTEN_FDNAMES` (sd_listen_fds(3)); those of the descriptor store are among them |
//! | Upstart | the word `socket` in `UPSTART_EVENTS`, the number in `UPSTART_FDS` (socket-event(7)) |
//! | inetd, xinetd | descriptor 0, without a word |
//!
//! The first image reads that, once. What follows knows the sockets by what is kept with each listener:
//! the variables are removed, so that neither zygote nor application take the sockets for theirs.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;

use log::warn;

use crate::boot::StartContext;
use crate::config::Config;
use crate::net::Listener;
use crate::net::inherited::{self, Given, Giver, STDIN_NAME};
use crate::sys::{env, fd, process};

use super::store;

const LISTEN_PID: &str = "LISTEN_PID";
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
const UPSTART_EVENTS: &str = "UPSTART_EVENTS";
const UPSTART_FDS: &str = "UPSTART_FDS";

/// What must not reach anybody else.
const VARIABLES: [&str; 6] =
    [LISTEN_PID, "LISTEN_PIDFDID", LISTEN_FDS, LISTEN_FDNAMES, UPSTART_EVENTS, UPSTART_FDS];
/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;
/// More are a mistake: a process cannot have as many by default.
const MOST: RawFd = 4096;
/// What systemd calls a descriptor without a name.
const NAMELESS: &str = "unknown";

/// What the variables offer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    sockets: Vec<Given>,
    /// What is wrong with them.
    complaint: Option<String>,
}

impl Offer {
    fn none_because(complaint: String) -> Self {
        Offer { sockets: Vec::new(), complaint: Some(complaint) }
    }
}

/// Reads the variables for the process with this pid.
fn read<'a>(var: impl Fn(&str) -> Option<&'a OsStr>, pid: u32) -> Offer {
    let text = |name| var(name).map(OsStr::to_string_lossy);
    if let Some(count) = text(LISTEN_FDS) {
        return match text(LISTEN_PID).map(|owner| owner.parse::<u32>()) {
            Some(Ok(owner)) if owner == pid => from_systemd(&count, text(LISTEN_FDNAMES).as_deref()),
            Some(Ok(owner)) => Offer::none_because(format!(
                "the sockets of {LISTEN_FDS} are for process {owner} and this is {pid}: they are not used; a \
                 script in between has to start the server with exec"
            )),
            _ => Offer::none_because(format!("{LISTEN_FDS} is not used: there is no {LISTEN_PID} with it")),
        };
    }
    let is_socket_event =
        text(UPSTART_EVENTS).is_some_and(|events| events.split_whitespace().any(|it| it == "socket"));
    match text(UPSTART_FDS).filter(|_| is_socket_event) {
        Some(numbers) => from_upstart(&numbers),
        None => Offer::default(),
    }
}

fn from_systemd(count: &str, names: Option<&str>) -> Offer {
    let Some(count) = count.parse().ok().filter(|count| (0..=MOST).contains(count)) else {
        return Offer::none_because(format!(
            "{LISTEN_FDS} = {count:?} is not used: it is no number of sockets"
        ));
    };
    let mut names = names.unwrap_or_default().split(':').filter(|name| !name.is_empty());
    let given = (FIRST..FIRST + count).map(|number| {
        let name = names.next().unwrap_or(NAMELESS).to_owned();
        Given { name, number, giver: Giver::Systemd }
    });
    Offer { sockets: given.collect(), complaint: None }
}

fn from_upstart(numbers: &str) -> Offer {
    let parsed = numbers.split_whitespace().map(|it| it.parse().ok().filter(|number| *number >= FIRST));
    match parsed.collect::<Option<Vec<RawFd>>>() {
        Some(numbers) => {
            let given = numbers.into_iter().map(|number| Given {
                name: "upstart".to_owned(),
                number,
                giver: Giver::Upstart,
            });
            Offer { sockets: given.collect(), complaint: None }
        }
        None => Offer::none_because(format!("{UPSTART_FDS} = {numbers:?} is not used: it is no descriptor")),
    }
}

/// The sockets that this process was started with. The originals stay open until they are released, for a
/// `fallback-config` that starts anew; all clones are of the same.
#[derive(Debug, Clone, Default)]
pub struct Activation {
    originals: Rc<RefCell<Vec<(Given, OwnedFd)>>>,
    /// What the manager has told in the environment.
    variables: Vec<(OsString, OsString)>,
    complaint: Option<String>,
}

impl Activation {
    /// Takes them, and the variables out of `start` and of the environment of this process. Where inetd has
    /// made standard output and error the same socket as standard input, both lead to `/dev/null` from now on.
    pub fn take(start: &mut StartContext) -> Self {
        let Offer { sockets, mut complaint } = read(|name| start.var(name), std::process::id());
        let variables = start.take_vars(&VARIABLES);
        for (name, _) in &variables {
            env::remove_var(name);
        }
        let mut originals = Vec::new();
        for given in sockets {
            match fd::claim(given.number) {
                Ok(fd) => originals.push((given, fd)),
                Err(error) => complaint = Some(format!("a socket of the service manager is lost: {error}")),
            }
        }
        if let Some(stdin) = inherited::socket_on_stdin() {
            originals.push((Given { name: STDIN_NAME.to_owned(), number: 0, giver: Giver::Stdin }, stdin));
        }
        Activation { originals: Rc::new(RefCell::new(originals)), variables, complaint }
    }

    /// Copies of the sockets as listeners, those of the descriptor store among them.
    ///
    /// # Errors
    /// When one is of no use; says which, and why.
    pub fn listeners(&self, config: &Config) -> Result<Offered, String> {
        if let Some(complaint) = &self.complaint {
            warn!("{complaint}");
        }
        let mut offered = Offered::default();
        for (given, original) in self.originals.borrow().iter() {
            // A client on standard input is a mistake only if there is no other address to serve on.
            let ours = config.listens_by_default() || inherited::listens(original);
            if given.giver == Giver::Stdin && (config.skip_zero || !ours) {
                continue;
            }
            let copy = fd::duplicate(original.as_fd()).map_err(|error| error.to_string())?;
            match store::read(&given.name) {
                Some(kept) => match kept.into_listener(copy) {
                    Ok(listener) => offered.listeners.push(listener),
                    Err(reason) => {
                        warn!("{reason}");
                        offered.stale.push(given.name.clone());
                    }
                },
                None => offered.listeners.push(Listener::given(given.clone(), copy)?),
            }
        }
        Ok(offered)
    }

    /// The start has succeeded: closes the originals, so that a listener that is given up is closed.
    pub fn release(&self) {
        self.originals.borrow_mut().clear();
    }

    /// Makes descriptors and variables what they were, for another image in this process.
    pub fn give_back(&self, start: &mut StartContext) {
        let originals = self.originals.borrow();
        if originals.is_empty() {
            return;
        }
        for (given, original) in originals.iter() {
            if let Err(error) = fd::replace(original.as_fd(), given.number) {
                warn!("the socket on descriptor {} is lost: {error}", given.number);
            }
        }
        for (name, value) in &self.variables {
            start.set_var(&name.to_string_lossy(), value.to_string_lossy().into_owned());
        }
        if originals.iter().any(|(given, _)| given.giver == Giver::Systemd) {
            // It may have gone to the background meanwhile.
            start.set_var(LISTEN_PID, process::this().to_string());
        }
    }
}

/// What [`Activation::listeners`] has found.
#[derive(Debug, Default)]
pub struct Offered {
    /// Sockets to serve on.
    pub listeners: Vec<Listener>,
    /// Names in the descriptor store of what is of no use any more.
    pub stale: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(variables: &[(&str, &str)]) -> Offer {
        read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, it)| OsStr::new(*it)), 7)
    }

    fn given(name: &str, number: RawFd, giver: Giver) -> Given {
        Given { name: name.to_owned(), number, giver }
    }

    #[test]
    fn sockets_of_systemd_begin_at_three_and_have_names() {
        let offer = offer(&[(LISTEN_PID, "7"), (LISTEN_FDS, "3"), (LISTEN_FDNAMES, "web:admin")]);
        let expected = [("web", 3), ("admin", 4), (NAMELESS, 5)];
        assert_eq!(offer.sockets, expected.map(|(name, number)| given(name, number, Giver::Systemd)));
        assert_eq!(offer.complaint, None);
    }

    #[test]
    fn what_is_for_another_process_is_not_ours_and_that_is_said() {
        let other = offer(&[(LISTEN_PID, "8"), (LISTEN_FDS, "1")]);
        assert_eq!(other.sockets, []);
        assert!(other.complaint.unwrap().contains("for process 8 and this is 7"));
        assert!(offer(&[(LISTEN_FDS, "1")]).complaint.unwrap().contains("no LISTEN_PID"));
    }

    #[test]
    fn nonsense_is_no_socket() {
        for count in ["", "-1", "x", "99999999999", "5000"] {
            let offer = offer(&[(LISTEN_PID, "7"), (LISTEN_FDS, count)]);
            assert_eq!(offer.sockets, [], "{count}");
            assert!(offer.complaint.is_some(), "{count}");
        }
        assert_eq!(offer(&[]), Offer::default());
        assert_eq!(offer(&[(LISTEN_PID, "7"), (LISTEN_FDS, "0")]), Offer::default());
    }

    #[test]
    fn upstart_passes_a_socket_with_a_socket_event_only() {
        let one = offer(&[(UPSTART_EVENTS, "socket"), (UPSTART_FDS, "9")]);
        assert_eq!(one.sockets, [given("upstart", 9, Giver::Upstart)]);
        let among = offer(&[(UPSTART_EVENTS, "net-device-up socket"), (UPSTART_FDS, "9")]);
        assert_eq!(among.sockets.len(), 1);
        assert_eq!(offer(&[(UPSTART_EVENTS, "runlevel"), (UPSTART_FDS, "9")]), Offer::default());
        for wrong in ["", "x", "1"] {
            let offer = offer(&[(UPSTART_EVENTS, "socket"), (UPSTART_FDS, wrong)]);
            assert_eq!(offer.sockets, [], "{wrong}");
        }
    }
}
