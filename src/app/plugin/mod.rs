//! Applications in other languages, through a plugin that is loaded at run time.
//!
//! The border is `appserver_plugin_abi`. With one application slot the plugin is called right on the
//! worker's thread, which then holds the language's runtime lock except while it waits for events;
//! with more there is a `pool` of threads. Either way a request body has arrived before the
//! application is called (`upload`), and a response that comes in pieces is taken from the
//! application as fast as it makes them (`outlet`): a slow client never occupies it.
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::ffi::c_void;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

use appserver_plugin_abi as abi;
use http_body::Body;

use super::slots::Pinned;
use super::stray::turn_away;
use super::{App, Reply, Request, Side, WaitHooks, WorkerInfo, text};
use crate::signals;
use crate::sys::dl::{Library, Visibility};
use crate::sys::process::ThreadsPrepared;

mod ask;
mod draft;
mod exceptions;
mod exchange;
mod facts;
mod familiar;
mod job;
mod lent;
mod outlet;
mod place;
mod pool;
mod queue;
mod shared;
mod upload;

use exchange::{Exchange, Rest};
use job::Job;
use outlet::End;
use pool::Pool;
pub use shared::{Shared, share};
use upload::{Upload, UploadError};

static HOST: abi::Host = abi::Host {
    version: abi::VERSION,
    log: ask::log,
    ask: ask::ask,
    head: exchange::head,
    piece: exchange::piece,
    file: exchange::file,
    flush: exchange::flush,
    cache: shared::cache,
    lock: shared::lock,
};

/// The plugin. There is one runtime in a process, so there is one plugin.
static PLUGIN: OnceLock<&'static abi::Plugin> = OnceLock::new();

fn table() -> &'static abi::Plugin {
    PLUGIN.get().expect("invariant: set before an application exists")
}

/// What the application is loaded with.
pub struct Settings {
    /// `threads`: requests at a time.
    pub threads: u32,
    /// Bytes of a request body that are kept in memory; more go to a file.
    pub body_in_memory: usize,
    /// The plugin's own, in the form it wants.
    pub plugin: String,
    /// `skip-atexit`: the worker leaves without a word to the application.
    pub skip_atexit: bool,
}

/// An application behind a plugin.
pub struct PluginApp {
    inner: Rc<Inner>,
    /// This thread holds the runtime. (With a pool, only before it is started.)
    holding: Cell<bool>,
}

struct Inner {
    settings: Settings,
    /// With `threads` = 1 there is none.
    pool: OnceCell<Pool>,
}

/// A response that the application has not finished.
struct Started {
    response: abi::Response,
    rest: Rest,
}

// SAFETY: the plugin demands no thread, only that its runtime is held.
unsafe impl Send for Started {}

impl Started {
    /// Has the application make the next piece, or hear of the end; `None` when it has finished. The
    /// runtime must be held.
    fn go_on(mut self) -> Option<Self> {
        let closed = match &self.rest {
            Rest::Outlet(outlet) => outlet.closed(),
            Rest::Full(_) => false,
            Rest::Closing => true,
        };
        if closed {
            (table().close)(self.response);
            return None;
        }
        let mut exchange = Exchange::continued(&self.rest);
        let step = (table().next)(self.response, exchange.pointer());
        turn_away("in a response");
        if let Rest::Outlet(outlet) = &self.rest {
            match step {
                abi::Step::More => {}
                abi::Step::Done | abi::Step::Ended => outlet.end(End::Complete),
                abi::Step::Failed => outlet.end(End::Broken),
            }
        }
        match step {
            abi::Step::More => Some(self),
            abi::Step::Ended => {
                self.rest = Rest::Closing;
                Some(self)
            }
            abi::Step::Done | abi::Step::Failed => None,
        }
    }
}

impl PluginApp {
    /// Loads `libraries` and the plugin, starts its runtime, loads the application.
    ///
    /// # Errors
    /// What the dynamic loader or the plugin says.
    pub fn load(runtime: Option<&Path>, plugin: &Path, settings: Settings) -> Result<Self, Box<dyn Error>> {
        if PLUGIN.get().is_none() {
            // The runtime first, and for all to see: plugin and extension modules name no library.
            if let Some(runtime) = runtime {
                Library::open(runtime, Visibility::Global)?;
            }
            let plugin_library = Library::open(plugin, Visibility::Local)?;
            let entry = plugin_library.symbol(abi::ENTRY)?;
            // SAFETY: the symbol has this type in every version of the border.
            let entry = unsafe { std::mem::transmute::<*mut c_void, abi::Entry>(entry.as_ptr()) };
            // SAFETY: a static table.
            let table = unsafe { entry(&raw const HOST).as_ref() };
            let table = table.filter(|table| table.version == abi::VERSION).ok_or_else(|| {
                format!("{}: made for another release of the server; install both from one", plugin.display())
            })?;
            PLUGIN.get_or_init(|| table);
        }
        let mut report = Report::default();
        let plugin_settings = abi::Bytes::of(settings.plugin.as_bytes());
        if !(table().init)(plugin_settings, Report::take, report.context()) {
            return Err(report.text.into());
        }
        let loaded = (table().load)(Report::take, report.context());
        // Threads that the application has started want it too.
        (table().release)();
        if !loaded {
            return Err(report.text.into());
        }
        Ok(PluginApp { inner: Rc::new(Inner { settings, pool: OnceCell::new() }), holding: Cell::new(false) })
    }
}

/// Collects what a plugin reports.
#[derive(Default)]
struct Report {
    text: String,
}

impl Report {
    fn context(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }

    extern "C" fn take(context: *mut c_void, text: abi::Bytes) {
        // SAFETY: the context is a `Report` that outlives the call, and so does the text.
        let (report, text) = unsafe { (&mut *context.cast::<Report>(), text.slice()) };
        report.text.push_str(&String::from_utf8_lossy(text));
    }
}

impl App for PluginApp {
    fn call(&self, request: Request) -> Reply {
        if request.body.is_end_stream() {
            return self.inner.start(request, None);
        }
        let inner = Rc::clone(&self.inner);
        Reply::Later(Box::pin(async move {
            let mut request = request;
            let body = std::mem::replace(&mut request.body, super::RequestBody::empty());
            match Upload::receive(body, inner.settings.body_in_memory).await {
                Ok(upload) => match inner.start(request, Some(upload)) {
                    Reply::Now(response) => response,
                    Reply::Later(later) => later.await,
                },
                Err(UploadError::Client(error)) => {
                    // The request log has it; the answer is for a client that only closed its side.
                    log::debug!("{} {}: {error}", request.head.method, request.head.uri);
                    text(http::StatusCode::BAD_REQUEST, "the request body is incomplete\n")
                }
                Err(UploadError::Server(error)) => {
                    log::error!("{} {}: {error}", request.head.method, request.head.uri);
                    text(http::StatusCode::INTERNAL_SERVER_ERROR, "the request body cannot be kept\n")
                }
            }
        }))
    }

    fn before_fork(&self) -> Option<ThreadsPrepared> {
        self.hold();
        (table().before_fork)();
        // SAFETY: the plugin has its runtime's locks in hands, and what the child runs before
        // `after_fork` uses nothing that a thread of the application could have held.
        Some(unsafe { ThreadsPrepared::new() })
    }

    fn after_fork(&self, side: Side) {
        match side {
            Side::Parent => {
                (table().after_fork)(abi::Side::Parent);
                self.let_go();
            }
            Side::Child => (table().after_fork)(abi::Side::Child),
        }
    }

    fn worker_started(&mut self, worker: &WorkerInfo) {
        self.hold();
        ask::set_worker(worker);
        let mut report = Report::default();
        if !(table().worker_started)(worker.slot, Report::take, report.context()) {
            log::error!("a hook of the application for new workers failed: {}", report.text);
        }
        if self.inner.settings.threads > 1 {
            self.let_go();
            match Pool::start(self.inner.settings.threads) {
                Ok(pool) => {
                    lent::set_return(pool.give_back());
                    let _ = self.inner.pool.set(pool);
                    return;
                }
                Err(error) => log::error!("threads: {error}; requests are served one at a time"),
            }
            self.hold();
        }
        lent::set_return(|owner| (table().release_bytes)(owner.into_pointer()));
    }

    fn wait_hooks(&self) -> Option<WaitHooks> {
        let inline = self.inner.pool.get().is_none();
        inline.then_some(WaitHooks { before: || (table().release)(), after: || (table().acquire)() })
    }

    fn takes_more(&self) -> Option<Box<dyn Fn() -> bool>> {
        self.inner.pool.get().map(|pool| Box::new(pool.is_quick()) as Box<dyn Fn() -> bool>)
    }

    fn requests_to_master(&self) -> Vec<signals::Request> {
        ask::take_early()
    }

    fn signal(&self, number: u8) -> Pin<Box<dyn Future<Output = ()>>> {
        match self.inner.pool.get() {
            Some(pool) => {
                let handled = pool.signal(number);
                Box::pin(async move { drop(handled.await) })
            }
            None => {
                // On the worker's thread, which holds the runtime while it does not wait.
                (table().signal)(number);
                Box::pin(std::future::ready(()))
            }
        }
    }

    fn worker_stops(&self) {
        if self.inner.settings.skip_atexit {
            return;
        }
        self.hold();
        (table().stop)();
    }

    fn fork_obstacle(&self, server_threads: u32) -> Option<String> {
        let threads = server_threads + self.inner.pool.get().map_or(0, Pool::threads);
        let was_held = self.holding.get();
        self.hold();
        let mut report = Report::default();
        let may_fork = (table().may_fork)(threads, Report::take, report.context());
        if !was_held {
            self.let_go();
        }
        (!may_fork).then_some(report.text)
    }

    fn become_zygote(&mut self) -> Result<(), String> {
        let inner = Rc::get_mut(&mut self.inner).ok_or("a request has not ended")?;
        if let Some(pool) = inner.pool.take() {
            pool.end();
        }
        self.hold();
        let mut report = Report::default();
        if !(table().settle)(Report::take, report.context()) {
            return Err(report.text);
        }
        ask::forget_worker();
        // As after it was loaded.
        self.let_go();
        Ok(())
    }
}

impl PluginApp {
    fn hold(&self) {
        if !self.holding.replace(true) {
            (table().acquire)();
        }
    }

    fn let_go(&self) {
        if self.holding.replace(false) {
            (table().release)();
        }
    }
}

impl Inner {
    fn start(&self, request: Request, body: Option<Upload>) -> Reply {
        if let Some(sheet) = place::sheet().filter(|_| body.is_some()) {
            // The client had its own time limit for that.
            sheet.restart(request.claim.core(), Instant::now());
        }
        match self.pool.get() {
            Some(pool) => {
                let pinned = request.claim.pin();
                let delivered = pool.submit(Job::new(request, body));
                Reply::Later(Box::pin(pool::Awaited::new(delivered, pinned)))
            }
            None => {
                let Request { head, connection, claim, .. } = &request;
                let (mut exchange, core) = (Exchange::new(&head.method), claim.core());
                let call = || job::call(head, body, connection.origin(), core, &mut exchange);
                let (draft, started) = place::at(core, call);
                let draft = draft.expect("invariant: only threads pass on early");
                if let Some(started) = started {
                    tokio::task::spawn_local(go_on(started, core, claim.pin()));
                }
                Reply::Now(draft.into_response())
            }
        }
    }
}

/// Takes the rest of a response from the application, on the worker's thread.
///
/// Between two pieces the connection gets to send: PEP 3333 wants each on its way before the next is
/// asked for.
async fn go_on(started: Started, row: u32, pinned: Option<Pinned>) {
    let mut left = Some(started);
    tokio::task::yield_now().await;
    while let Some(started) = left.take() {
        if let Rest::Outlet(outlet) = &started.rest
            && outlet.is_full()
        {
            let suspended = place::sheet().and_then(|sheet| Some((sheet, sheet.suspend(row)?)));
            std::future::poll_fn(|cx| outlet.poll_room(cx)).await;
            if let Some((sheet, suspended)) = suspended {
                sheet.resume(row, &suspended);
            }
        }
        left = place::at(row, || started.go_on());
        tokio::task::yield_now().await;
    }
    drop(pinned);
}
