//! `environ`: what an application is told about a request (PEP 3333).
//!
//! A template is copied, which is three times faster than filling a new dictionary. It says what never
//! changes, and of the last request what the next is likely to say too. Keys are made once, and so are
//! values that come again and again.

use std::borrow::Cow;
use std::sync::atomic::{AtomicPtr, Ordering};

use appserver_plugin_abi::{Field, Request};
use pyo3_ffi as ffi;
use rustc_hash::FxHashMap;

use crate::app::{self, Helper, Mounted};
use crate::object::{self, Owned};

/// Header names that keep a key; names beyond that get one for each request, so that a client cannot
/// fill the memory with inventions.
const KNOWN_NAMES: usize = 256;
/// Longest value that is kept for the next request.
const KEPT_VALUE: usize = 256;

/// Everything that is made once. Used with the GIL held.
struct Cache {
    template: Owned,
    /// How often the template was changed.
    changes: u64,
    keys: Keys,
    names: FxHashMap<Box<[u8]>, Name>,
    methods: FxHashMap<Box<[u8]>, Owned>,
    values: Values,
    bytes_io: Owned,
    open: Owned,
    /// `threads` is more than one.
    has_cores: bool,
}

/// Keys of what every request sets.
struct Keys {
    method: Owned,
    uri: Owned,
    path: Owned,
    query: Owned,
    script: Owned,
    port: Owned,
    protocol: Owned,
    remote_address: Owned,
    remote_port: Owned,
    scheme: Owned,
    input: Owned,
    content_length: Owned,
    core: Owned,
    https: Owned,
}

/// What seldom changes from one request to the next.
#[derive(Default)]
struct Values {
    uri: Told,
    path: Told,
    port: Told,
    remote_address: Told,
    protocol: Told,
    /// Not in the template: a client on a Unix socket has none.
    remote_port: Kept,
}

/// What the template was told last under one key, if it was.
#[derive(Default)]
struct Told(Option<Vec<u8>>);

impl Told {
    fn is(&self, value: &[u8]) -> bool {
        self.0.as_deref() == Some(value)
    }

    /// Has the template say `value`; false if that is too long to be kept. `None` with an exception set.
    fn tell(&mut self, template: &Owned, changes: &mut u64, key: &Owned, value: &[u8]) -> Option<bool> {
        if self.is(value) {
            return Some(true);
        }
        if value.len() > KEPT_VALUE {
            return Some(false);
        }
        set(template, key, &object::latin1(value)?)?;
        *changes += 1;
        let told = self.0.get_or_insert_default();
        told.clear();
        told.extend_from_slice(value);
        Some(true)
    }

    /// Has `environ`, a copy of the template, say `value` if the template does not.
    fn correct(&self, environ: &Owned, key: &Owned, value: &[u8]) -> Option<()> {
        if self.is(value) { Some(()) } else { set(environ, key, &object::latin1(value)?) }
    }
}

/// A header name.
struct Name {
    /// `None` when the field is not shown to applications.
    key: Option<Owned>,
    last: Kept,
    /// Its value is nobody's business but the request's.
    secret: bool,
}

/// A value that may come again.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    object: Option<Owned>,
}

impl Kept {
    /// The object for `bytes`: the last one, if they are the same.
    fn get(&mut self, bytes: &[u8]) -> Option<Owned> {
        if let Some(object) = &self.object
            && self.bytes == bytes
        {
            // SAFETY: a live object.
            return unsafe { Owned::borrowed(object.as_ptr()) };
        }
        let object = object::latin1(bytes)?;
        if bytes.len() <= KEPT_VALUE {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
            // SAFETY: a live object.
            self.object = unsafe { Owned::borrowed(object.as_ptr()) };
        }
        Some(object)
    }
}

static CACHE: AtomicPtr<Cache> = AtomicPtr::new(std::ptr::null_mut());

/// Makes template and keys. `None` with an exception set.
/// `settings` is the dictionary of the bootstrap module.
pub(crate) fn prepare(settings: &Owned) -> Option<()> {
    let key = object::interned;
    let io = import(c"io")?;
    let template = object::call(app::helper(Helper::EnvironTemplate), &[app::helper(Helper::FileWrapper)])?;
    let cache = Cache {
        template,
        changes: 0,
        keys: Keys {
            method: key(c"REQUEST_METHOD")?,
            uri: key(c"REQUEST_URI")?,
            path: key(c"PATH_INFO")?,
            query: key(c"QUERY_STRING")?,
            script: key(c"SCRIPT_NAME")?,
            port: key(c"SERVER_PORT")?,
            protocol: key(c"SERVER_PROTOCOL")?,
            remote_address: key(c"REMOTE_ADDR")?,
            remote_port: key(c"REMOTE_PORT")?,
            scheme: key(c"wsgi.url_scheme")?,
            input: key(c"wsgi.input")?,
            content_length: key(c"CONTENT_LENGTH")?,
            core: key(c"uwsgi.core")?,
            https: key(c"HTTPS")?,
        },
        names: FxHashMap::default(),
        methods: FxHashMap::default(),
        values: Values::default(),
        bytes_io: object::attribute(&io, c"BytesIO")?,
        open: object::attribute(&io, c"open")?,
        has_cores: object::is_true_item(settings, c"has_cores"),
    };
    CACHE.store(Box::into_raw(Box::new(cache)), Ordering::Relaxed);
    Some(())
}

fn import(name: &std::ffi::CStr) -> Option<Owned> {
    // SAFETY: a C string; the result is new.
    unsafe { Owned::new(ffi::PyImport_ImportModule(name.as_ptr())) }
}

/// A fresh `environ` for `request` and the application it is for; `None` with an exception set.
/// Without an application the request is for none of the mount points.
pub(crate) fn build(request: &Request) -> Option<(Owned, Option<&'static Mounted>)> {
    let cache = CACHE.load(Ordering::Relaxed);
    // SAFETY: the server keeps the request's bytes alive for the call.
    let (method, target, path, query) = unsafe {
        (request.method.slice(), request.target.slice(), request.path.slice(), request.query.slice())
    };
    // SAFETY: as above.
    let (port, protocol, address, remote_port, scheme) = unsafe {
        (
            request.server_port.slice(),
            request.protocol.slice(),
            request.remote_address.slice(),
            request.remote_port.slice(),
            request.scheme.slice(),
        )
    };
    let port = if port.is_empty() { b"80" } else { port };
    // `OPTIONS *` is about the server: no path of any application.
    let path = if path == b"*" { Cow::Borrowed(&b""[..]) } else { decoded(path) };
    let (mounted, split) = choose(&path);
    let rest = &path[split..];
    let (environ, complete) = loop {
        // SAFETY: made by `prepare`; the GIL is held, and nothing called below runs code that could come
        // here again: no garbage is collected while strings are made and dictionaries filled.
        let Cache { template, changes, keys, values, .. } = unsafe { &mut *cache };
        let complete = values.uri.tell(template, changes, &keys.uri, target)?
            & values.path.tell(template, changes, &keys.path, rest)?
            & values.port.tell(template, changes, &keys.port, port)?
            & values.remote_address.tell(template, changes, &keys.remote_address, address)?
            & values.protocol.tell(template, changes, &keys.protocol, protocol)?;
        let (template, told) = (template.as_ptr(), *changes);
        // SAFETY: a live dictionary; the result is new. This may collect garbage, and with it run any
        // code, but nothing of the cache is borrowed meanwhile.
        let environ = unsafe { Owned::new(ffi::PyDict_Copy(template))? };
        // SAFETY: as above. The template may have been told of another request before it was copied.
        if unsafe { (*cache).changes } == told {
            break (environ, complete);
        }
    };
    // SAFETY: as above.
    let cache = unsafe { &mut *cache };
    let set = |key: &Owned, value: &Owned| set(&environ, key, value);
    let Cache { keys, values, .. } = cache;
    if method != b"GET" {
        let method = known(&mut cache.methods, method)?;
        set(&keys.method, &method)?;
    }
    if !complete {
        values.uri.correct(&environ, &keys.uri, target)?;
        values.path.correct(&environ, &keys.path, rest)?;
        values.port.correct(&environ, &keys.port, port)?;
        values.remote_address.correct(&environ, &keys.remote_address, address)?;
        values.protocol.correct(&environ, &keys.protocol, protocol)?;
    }
    if !query.is_empty() {
        set(&keys.query, &object::latin1(query)?)?;
    }
    if split > 0 {
        set(&keys.script, &object::latin1(&path[..split])?)?;
    }
    if !address.is_empty() {
        set(&keys.remote_port, &values.remote_port.get(remote_port)?)?;
    }
    if scheme != b"http" {
        set(&keys.scheme, &object::latin1(scheme)?)?;
        if scheme == b"https" {
            set(&keys.https, &object::latin1(b"on")?)?;
        }
    }
    if cache.has_cores {
        // SAFETY: the result is new.
        let core = unsafe { Owned::new(ffi::PyLong_FromLong(request.core.into()))? };
        set(&keys.core, &core)?;
    }
    // SAFETY: the server gives a pointer to that many fields.
    let fields = unsafe { std::slice::from_raw_parts(request.fields, request.field_count) };
    set_fields(&mut cache.names, &environ, fields)?;
    if request.has_body {
        set(&keys.content_length, &object::latin1(request.body_length.to_string().as_bytes())?)?;
        if request.body_length > 0 {
            // From here on any code may run, and come here again for another request.
            let (bytes_io, open, key) =
                (cache.bytes_io.another(), cache.open.another(), keys.input.another());
            set(&key, &input(&bytes_io, &open, request)?)?;
        }
    }
    Some((environ, mounted))
}

fn set(environ: &Owned, key: &Owned, value: &Owned) -> Option<()> {
    // SAFETY: live objects.
    (unsafe { ffi::PyDict_SetItem(environ.as_ptr(), key.as_ptr(), value.as_ptr()) } == 0).then_some(())
}

/// The method names of the standard are kept.
fn known(methods: &mut FxHashMap<Box<[u8]>, Owned>, method: &[u8]) -> Option<Owned> {
    const MOST: usize = 32;
    if let Some(object) = methods.get(method) {
        // SAFETY: a live object.
        return unsafe { Owned::borrowed(object.as_ptr()) };
    }
    let object = object::latin1(method)?;
    if methods.len() < MOST && method.len() <= MOST {
        // SAFETY: a live object.
        methods.insert(method.into(), unsafe { Owned::borrowed(object.as_ptr())? });
    }
    Some(object)
}

/// Fields of the same name are neighbours and become one value.
fn set_fields(names: &mut FxHashMap<Box<[u8]>, Name>, environ: &Owned, fields: &[Field]) -> Option<()> {
    let mut rest = fields;
    while let [first, others @ ..] = rest {
        // SAFETY: the server keeps the fields' bytes alive for the call.
        let (name, value) = unsafe { (first.name.slice(), first.value.slice()) };
        // SAFETY: as above.
        let same = others.iter().take_while(|other| unsafe { other.name.slice() } == name).count();
        rest = &others[same..];
        let values = (value, &others[..same]);
        match names.get_mut(name) {
            Some(known) => known.set(environ, name, values)?,
            None => {
                let mut new = Name::new(name)?;
                new.set(environ, name, values)?;
                if names.len() < KNOWN_NAMES {
                    names.insert(name.into(), new);
                }
            }
        }
    }
    Some(())
}

/// Repeated fields as one (RFC 9110 §5.3; RFC 6265 §5.4 for the one exception).
fn joined(name: &[u8], first: &[u8], others: &[Field]) -> Vec<u8> {
    let separator: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    let mut joined = first.to_vec();
    for other in others {
        joined.extend_from_slice(separator);
        // SAFETY: the server keeps the fields' bytes alive for the call.
        joined.extend_from_slice(unsafe { other.value.slice() });
    }
    joined
}

impl Name {
    fn set(&mut self, environ: &Owned, name: &[u8], (value, others): (&[u8], &[Field])) -> Option<()> {
        let Some(key) = &self.key else { return Some(()) };
        let value = match others {
            [] if self.secret => object::latin1(value)?,
            [] => self.last.get(value)?,
            _ => object::latin1(&joined(name, value, others))?,
        };
        set(environ, key, &value)
    }

    /// The key of header `name`, by CGI's rules (RFC 3875 §4.1.18).
    fn new(name: &[u8]) -> Option<Self> {
        const SECRET: [&[u8]; 3] = [b"cookie", b"authorization", b"proxy-authorization"];
        let key = match name {
            b"content-type" => Some(object::latin1(b"CONTENT_TYPE")?),
            // The body has its own length by now, and no framing.
            b"content-length" | b"transfer-encoding" => None,
            // HTTP_PROXY is a setting of many HTTP libraries (the "httpoxy" attack).
            b"proxy" => None,
            // `X_User` would be taken for `X-User`, which a proxy in front may vouch for.
            _ if name.contains(&b'_') => None,
            _ => {
                let upper =
                    name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
                let key: Vec<u8> = b"HTTP_".iter().copied().chain(upper).collect();
                Some(object::latin1(&key)?)
            }
        };
        Some(Name { key, last: Kept::default(), secret: SECRET.contains(&name) })
    }
}

/// `path` with its percent-encoded octets decoded, once.
fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let digit = |at: usize| path.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match (path[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

/// The application with the longest mount point that is a prefix of `path` by whole segments, and the
/// length of that prefix.
fn choose(path: &[u8]) -> (Option<&'static Mounted>, usize) {
    let mounted = app::mounted();
    if let [only] = mounted
        && only.prefix.is_empty()
    {
        return (Some(only), 0);
    }
    let below = |app: &&Mounted| {
        let rest = path.strip_prefix(app.prefix.as_slice());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    let found = mounted.iter().filter(below).max_by_key(|app| app.prefix.len());
    (found, found.map_or(0, |app| app.prefix.len()))
}

/// `wsgi.input`: a BytesIO, or the file that holds the body.
fn input(bytes_io: &Owned, open: &Owned, request: &Request) -> Option<Owned> {
    if request.body_file < 0 {
        // SAFETY: the server keeps the body alive for the call.
        let body = object::bytes(unsafe { request.body.slice() })?;
        return object::call(bytes_io, &[&body]);
    }
    // SAFETY: the result is new.
    let fd = unsafe { Owned::new(ffi::PyLong_FromLong(request.body_file.into()))? };
    object::call(open, &[&fd, &object::text("rb")?])
}
