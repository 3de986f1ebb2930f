//! The border between the server and its language plugins, as plain C.
//!
//! Server and plugin are built apart and may have different allocators, so nothing that is owned
//! crosses: only functions, numbers, and bytes that the caller keeps alive for the length of a call.
//! A plugin is a shared library with one symbol, [`ENTRY`], of type [`Entry`]; it gets the server's
//! functions ([`Host`]) and returns its own ([`Plugin`]). Both tables begin with [`VERSION`], and a
//! plugin of another version is refused.
//!
//! # The life of a plugin
//! Zygote: `init`, `load`; then for each worker `before_fork`, fork, `after_fork`. Worker: `worker_started`,
//! then requests, then `stop`. With `lazy-apps` the worker does all of it and there is no fork.
//! With `settle` in place of `stop` a worker becomes a zygote, and what follows `load` begins again.
//!
//! # Threads
//! The runtime of the plugin's language may allow one thread at a time (Python's GIL). It is held when
//! `load` and `after_fork(CHILD)` return; `release` lets go of it and `acquire` takes it back. Every
//! other function but `init`, `thread_started` and `thread_stopped` is called with it held.

use std::ffi::c_void;

/// Version of everything below. Changes whenever any of it does.
pub const VERSION: u32 = 4;

/// Name of the symbol a plugin exports.
pub const ENTRY: &std::ffi::CStr = c"appserver_plugin";

/// Type of that symbol. A null pointer means that the plugin cannot work with this server.
pub type Entry = unsafe extern "C" fn(host: *const Host) -> *const Plugin;

/// Bytes that belong to the caller and live as long as the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    /// First byte; dangling, but not null, when there are none.
    pub pointer: *const u8,
    /// How many.
    pub length: usize,
}

impl Bytes {
    /// No bytes.
    pub const EMPTY: Bytes = Bytes::of(&[]);

    /// Borrows `bytes`; valid as long as they are.
    pub const fn of(bytes: &[u8]) -> Self {
        Bytes { pointer: bytes.as_ptr(), length: bytes.len() }
    }

    /// The bytes again.
    ///
    /// # Safety
    /// What [`Bytes::of`] was given must still be alive, for as long as the result is used.
    #[expect(unsafe_code, reason = "raw parts back to a slice")]
    pub const unsafe fn slice<'a>(self) -> &'a [u8] {
        // SAFETY: made from a slice that is still alive, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

/// A header field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Field {
    /// Its name; in lower case in requests.
    pub name: Bytes,
    /// Its value, without white space around it.
    pub value: Bytes,
}

/// One request with its whole body.
#[repr(C)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: Bytes,
    /// The request target as sent, without scheme and authority.
    pub target: Bytes,
    /// The part of it before the question mark, not decoded.
    pub path: Bytes,
    /// The part behind the question mark; empty if there is none.
    pub query: Bytes,
    /// `HTTP/1.1`
    pub protocol: Bytes,
    /// `http` or `https`, as the client sees it.
    pub scheme: Bytes,
    /// Address of the client as text; empty on a Unix socket.
    pub remote_address: Bytes,
    /// Port of the client as text; empty on a Unix socket.
    pub remote_port: Bytes,
    /// Port of the listener as text; empty on a Unix socket.
    pub server_port: Bytes,
    /// Header fields; those of the same name are neighbours.
    pub fields: *const Field,
    /// How many.
    pub field_count: usize,
    /// The body, when it is in memory.
    pub body: Bytes,
    /// The file with the body, when it is not; else -1. The plugin owns it from here on.
    pub body_file: i32,
    /// Bytes of the body, wherever it is.
    pub body_length: u64,
    /// The request has a body: it declared a length, be it zero, or was chunked.
    pub has_body: bool,
    /// Number of the slot it runs in, 0-based.
    pub core: u32,
}

/// The server's side of a request in the plugin's hands; opaque.
pub type Exchange = *mut c_void;

/// A response in the making: the plugin's side, opaque to the server.
pub type Response = *mut c_void;

/// What became of a request after a step.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The response is complete and the plugin has forgotten the request.
    Done,
    /// There may be more: `next` goes on, and `close` ends it early.
    More,
    /// The response is complete, but the application wants to hear of its end: `close` is called once the
    /// response is on its way, so that the client does not wait for what is done there.
    Ended,
    /// It failed and the plugin has forgotten it. The cause has been logged.
    Failed,
}

/// What the server says to a piece of a response.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Go on.
    Yes,
    /// The client is gone: nobody will see what follows.
    Gone,
    /// The response is not what it claims to be; the plugin should raise an error.
    Refused,
}

/// Which side of a fork this is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that goes on as before.
    Parent,
    /// The new process, a worker.
    Child,
}

/// How much a log line matters.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something may not be what the operator expects.
    Warning,
    /// Nice to know.
    Info,
}

/// What to do with a lock that all workers share.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockCall {
    /// Take it, waiting for it. The runtime should be released meanwhile.
    Take,
    /// Give it back, on the thread that took it.
    GiveBack,
    /// Find out whether somebody has it.
    Look,
}

/// What became of a [`LockCall`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockAnswer {
    /// Done; to a look: nobody has it.
    Done,
    /// Taken from a worker that died with it: what it protects may be half done.
    FromTheDead,
    /// To a look: somebody has it.
    Busy,
    /// This thread has it already.
    HeldHere,
    /// This thread does not have it.
    NotHeldHere,
    /// There is no lock of that number.
    Unknown,
}

/// What to do with a cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheWhat {
    /// Answer with the value.
    Get,
    /// Store a value where there is none.
    Set,
    /// Store a value.
    Update,
    /// Take a value away.
    Delete,
    /// Find out whether there is a value.
    Exists,
    /// Take all values away.
    Clear,
    /// Answer with all keys.
    Keys,
    /// Add `number` to a number.
    Add,
    /// Multiply a number by `number`.
    Multiply,
    /// Divide a number by `number`; by zero it fails.
    Divide,
}

/// Something to do with a cache.
#[repr(C)]
pub struct CacheCall {
    /// What.
    pub what: CacheWhat,
    /// Name of the cache; empty is the first.
    pub cache: Bytes,
    /// The key.
    pub key: Bytes,
    /// The value to store.
    pub value: Bytes,
    /// The number to calculate with.
    pub number: i64,
    /// Seconds until the value expires; 0 is never.
    pub expires: u64,
}

/// What became of a [`CacheCall`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheAnswer {
    /// Done, or yes.
    Done,
    /// No, or it was not possible.
    No,
    /// There is no such cache.
    Unknown,
}

/// What the server gives to the plugin.
#[repr(C)]
pub struct Host {
    /// [`VERSION`]
    pub version: u32,
    /// Writes a log line.
    pub log: extern "C" fn(level: Level, text: Bytes),
    /// Asks for something that is not on the path of every request: `name` says what, `argument` and the
    /// answer are JSON. The answer is handed to `answer` before this returns; an error is
    /// `{"error": "..."}`. `exchange` is null outside a request.
    pub ask: extern "C" fn(
        exchange: Exchange,
        name: Bytes,
        argument: Bytes,
        answer: extern "C" fn(context: *mut c_void, text: Bytes),
        context: *mut c_void,
    ),
    /// The head of the response, before any piece of the body. Called again, it takes the place of all that
    /// was said before, unless that is out already. An empty `reason` is the usual one.
    pub head: extern "C" fn(
        exchange: Exchange,
        status: u16,
        reason: Bytes,
        fields: *const Field,
        field_count: usize,
    ) -> Taken,
    /// A piece of the body. With `owner`, the bytes live until the server gives it to
    /// [`Plugin::release_bytes`]; if that is null they are copied.
    pub piece: extern "C" fn(exchange: Exchange, bytes: Bytes, owner: *mut c_void) -> Taken,
    /// The body is `length` bytes of the file `fd` from `offset` on; the server makes a descriptor of its own.
    /// If that is refused, the bytes are to be given as pieces.
    pub file: extern "C" fn(exchange: Exchange, fd: i32, offset: u64, length: u64) -> Taken,
    /// Sends what there is now, before the call returns if it can: for `write()` of WSGI.
    pub flush: extern "C" fn(exchange: Exchange) -> Taken,
    /// A cache that all workers share. What it gives is handed to `answer` before this returns, once for
    /// each key or value. The runtime should be released meanwhile.
    pub cache: extern "C" fn(
        call: *const CacheCall,
        answer: extern "C" fn(context: *mut c_void, bytes: Bytes),
        context: *mut c_void,
    ) -> CacheAnswer,
    /// Locks that all workers share.
    pub lock: extern "C" fn(what: LockCall, index: u32) -> LockAnswer,
}

/// What the plugin gives to the server. Texts handed to `report` are errors for the operator; the first
/// line says it all.
#[repr(C)]
pub struct Plugin {
    /// [`VERSION`]
    pub version: u32,
    /// Starts the language's runtime. `settings` are JSON. False after a `report`.
    pub init: extern "C" fn(settings: Bytes, report: Report, context: *mut c_void) -> bool,
    /// Loads the applications that the settings name. False after a `report`. The runtime is held afterwards.
    pub load: extern "C" fn(report: Report, context: *mut c_void) -> bool,
    /// Before a fork; the runtime is held.
    pub before_fork: extern "C" fn(),
    /// After a fork, on both sides.
    pub after_fork: extern "C" fn(side: Side),
    /// The process is now the worker of this number. False after a `report`.
    pub worker_started: extern "C" fn(worker: u32, report: Report, context: *mut c_void) -> bool,
    /// First thing in each thread that is to call applications. The runtime is not held.
    pub thread_started: extern "C" fn(core: u32),
    /// Takes the runtime.
    pub acquire: extern "C" fn(),
    /// Lets others have the runtime.
    pub release: extern "C" fn(),
    /// Begins a request; with `Step::More` and `Step::Ended`, `response` is set.
    pub call: extern "C" fn(request: *const Request, exchange: Exchange, response: *mut Response) -> Step,
    /// Goes on with a response: one piece, or its end. After `More` it is called again.
    pub next: extern "C" fn(response: Response, exchange: Exchange) -> Step,
    /// The response has ended, by itself or before: the plugin forgets the request.
    pub close: extern "C" fn(response: Response),
    /// The owner of a piece is no longer needed.
    pub release_bytes: extern "C" fn(owner: *mut c_void),
    /// Calls the function that the application has registered for a signal of the master, between requests.
    pub signal: extern "C" fn(number: u8),
    /// The worker leaves: runs what the application wanted to be run at its exit.
    pub stop: extern "C" fn(),
    /// Last thing in a thread that said `thread_started`. The runtime is not held.
    pub thread_stopped: extern "C" fn(),
    /// Whether the process could be forked once the `server_threads` beside this one have ended. False after
    /// a `report`.
    pub may_fork: extern "C" fn(server_threads: u32, report: Report, context: *mut c_void) -> bool,
    /// In place of `stop` in a worker that becomes a zygote: other threads of the server have ended. False after
    /// a `report`; then `stop` follows.
    pub settle: extern "C" fn(report: Report, context: *mut c_void) -> bool,
}

/// Takes an error message of the plugin.
pub type Report = extern "C" fn(context: *mut c_void, text: Bytes);

#[expect(unsafe_code, reason = "tables of functions and constants, shared between threads")]
// SAFETY: nothing in it can change.
unsafe impl Sync for Plugin {}
#[expect(unsafe_code, reason = "tables of functions and constants, shared between threads")]
// SAFETY: nothing in it can change.
unsafe impl Sync for Host {}
