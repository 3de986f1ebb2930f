//! Who the server's processes are: `uid`, `gid`, `cap`, `chroot` and their like, in the order that matters.
//!
//! The master gives root away once its sockets are bound, or keeps it (`master-as-root`,
//! `drop-after-apps`); a zygote that finds itself root gives it away before the application is loaded, or
//! after that. Workers are forked afterwards and have nothing to give. Names are looked up inside the
//! `chroot`, as uWSGI does. [`rights`] tells beforehand what the user to be will not be able to do, [`limits`]
//! what it may have of the machine.

use crate::boot::StartContext;
use crate::config::{Config, Credentials};
use crate::sys::cap::Rights;
use crate::sys::cred::{self, Identity};
use crate::sys::process::{self, Signal};

mod child;
pub mod limits;
pub mod rights;

/// Something that cannot be done, and the option that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The option.
    pub option: &'static str,
    /// Path, user, reason and what to do, as far as they are known.
    pub message: String,
}

impl Refusal {
    fn new(option: &'static str, message: impl std::fmt::Display) -> Self {
        Refusal { option, message: message.to_string() }
    }

    /// The line for the operator, with the place of the option.
    pub fn told(self, config: &Config) -> String {
        format!("{}: {}{}", self.option, self.message, config.place(self.option))
    }
}

/// Whom to become and what to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    identity: Identity,
    /// What `cap` and `cap-ambient` name; `None` when neither was given.
    keep: Option<Rights>,
    no_new_privs: bool,
}

impl Plan {
    /// What the configuration asks for.
    ///
    /// # Errors
    /// Names the option and the user or group that does not exist.
    pub fn of(config: &Config) -> Result<Plan, Refusal> {
        let wanted = &config.credentials;
        let own_groups = !wanted.no_initgroups;
        // Each on its own first, so that the one that is wrong can be named.
        let (uid, gid) = (wanted.uid.as_deref(), wanted.gid.as_deref());
        cred::resolve(uid, None, &[], own_groups).map_err(|error| Refusal::new("uid", error))?;
        cred::resolve(None, gid, &[], own_groups).map_err(|error| Refusal::new("gid", error))?;
        cred::resolve(None, None, &wanted.add_gid, own_groups)
            .map_err(|error| Refusal::new("add-gid", error))?;
        let identity = cred::resolve(uid, gid, &wanted.add_gid, own_groups)
            .map_err(|error| Refusal::new("uid", error))?;
        Ok(Plan { identity, keep: kept(wanted), no_new_privs: wanted.no_new_privs })
    }

    /// True when a process that does it is another one afterwards.
    pub fn changes_anything(&self) -> bool {
        self.gives_root_up() || self.no_new_privs
    }

    /// True when root that does it can do less afterwards.
    pub fn gives_root_up(&self) -> bool {
        self.identity != Identity::default() || self.keep.is_some()
    }

    /// Does it in the master, which passes what it keeps on to the images that follow it.
    ///
    /// # Errors
    /// When that needs rights this process does not have.
    pub fn follow_in_master(&self) -> Result<(), Refusal> {
        let keep = self.keep.as_ref();
        let keep = keep.map(|rights| Rights { passed_on: rights.held.clone(), ..rights.clone() });
        self.follow(&self.identity, keep.as_ref())
    }

    /// Does it in a zygote, from which workers inherit it.
    ///
    /// One that is not root comes from a master that has done it: of its identity nothing is left to
    /// change, nor does a reload change it.
    ///
    /// # Errors
    /// When that needs rights this process does not have, and when the master died meanwhile.
    pub fn follow_in_zygote(&self) -> Result<(), Refusal> {
        let none = Identity::default();
        let identity = if cred::is_root() { &self.identity } else { &none };
        let master = process::parent();
        self.follow(identity, self.keep.as_ref())?;
        // A change of user takes that from a process.
        process::set_parent_death_signal(Some(Signal::SIGKILL))
            .map_err(|error| Refusal::new(self.reason(), error))?;
        if process::parent() != master {
            return Err(Refusal::new(self.reason(), "the master is gone"));
        }
        Ok(())
    }

    fn follow(&self, identity: &Identity, keep: Option<&Rights>) -> Result<(), Refusal> {
        cred::drop_privileges(identity, keep)
            .map_err(|error| Refusal::new(self.reason(), format!("cannot drop privileges: {error}")))?;
        if self.no_new_privs {
            cred::refuse_new_privileges().map_err(|error| Refusal::new("no-new-privs", error))?;
        }
        Ok(())
    }

    /// The option that has most to do with it.
    fn reason(&self) -> &'static str {
        match &self.identity {
            Identity { uid: Some(_), .. } => "uid",
            Identity { gid: Some(_), .. } => "gid",
            Identity { groups: Some(_), .. } => "add-gid",
            _ => "cap",
        }
    }
}

fn kept(wanted: &Credentials) -> Option<Rights> {
    if wanted.capabilities.is_none() && wanted.ambient.is_empty() {
        return None;
    }
    let named = wanted.capabilities.iter().flatten().chain(&wanted.ambient);
    Some(Rights { held: named.copied().collect(), passed_on: wanted.ambient.iter().copied().collect() })
}

/// `immediate-uid` and `immediate-gid`, before anything is opened.
///
/// # Errors
/// When there is no such user or group, and when this process cannot become it.
pub fn drop_at_once(config: &Config) -> Result<(), Refusal> {
    let wanted = &config.credentials;
    let (uid, gid) = (wanted.immediate_uid.as_deref(), wanted.immediate_gid.as_deref());
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    let option = if uid.is_some() { "immediate-uid" } else { "immediate-gid" };
    let failed = |error: &dyn std::fmt::Display| Refusal::new(option, error);
    let identity = cred::resolve(uid, gid, &[], !wanted.no_initgroups).map_err(|error| failed(&error))?;
    cred::drop_privileges(&identity, None).map_err(|error| failed(&error))
}

/// Enters the `chroot`, if there is one; all paths from then on are inside.
///
/// # Errors
/// When it cannot be entered.
pub fn enter_root(config: &Config, start: &mut StartContext) -> Result<(), Refusal> {
    let Some(directory) = &config.credentials.chroot else { return Ok(()) };
    let directory = start.cwd.join(directory);
    let needs = if cred::is_root() { "" } else { "; only root may" };
    cred::change_root(&directory).map_err(|error| {
        Refusal::new("chroot", format!("cannot make {} the root: {error}{needs}", directory.display()))
    })?;
    rights::mounted(&directory)?;
    start.enter_root().map_err(|error| Refusal::new("chroot", format!("the binary: {error}")))
}

/// Looks, before anything is opened or bound, whether the server will be able to do what the configuration
/// asks for once it is who it asks to be: in a child that is thrown away.
///
/// # Errors
/// Everything that will not work, in one line.
pub fn check(config: &Config, start: &StartContext) -> Result<(), String> {
    let told = |refusal: Refusal| refusal.told(config);
    let confined = config.credentials.chroot.is_some();
    if !confined && !Plan::of(config).map_err(told)?.changes_anything() {
        return one_line(config, rights::lacks(config, start));
    }
    child::ask(|| {
        let mut start = start.clone();
        enter_root(config, &mut start).map_err(told)?;
        if confined {
            rights::inside(config, &start).map_err(told)?;
        }
        rights::socket_directories(config, &start)?;
        let plan = Plan::of(config).map_err(told)?;
        if !config.credentials.master_keeps_root() {
            plan.follow_in_master().map_err(told)?;
        }
        one_line(config, rights::lacks(config, &start))?;
        rights::configuration(&start)?;
        // By now it is so, or a zygote's part, which must be possible, too.
        plan.follow_in_master().map_err(told)
    })
}

fn one_line(config: &Config, refusals: Vec<Refusal>) -> Result<(), String> {
    let lines: Vec<_> = refusals.into_iter().map(|it| it.told(config)).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("; ")) }
}

/// Runs a job as the user to be, in a child that is thrown away: for a master that stays root.
///
/// # Errors
/// Those of the job, and those of becoming that user.
pub fn as_user(config: &Config, plan: &Plan, job: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    child::ask(|| {
        plan.follow_in_master().map_err(|refusal| refusal.told(config))?;
        job()
    })
}

/// The user that this process is, in words.
fn whoami() -> String {
    let uid = cred::effective_uid();
    cred::user_name(uid).map_or_else(|| format!("uid {uid}"), |name| format!("user {name}"))
}
