//! Python applications: where they are, in which interpreter, how they are called.

use std::time::Duration;

use crate::config::python;
use crate::config::schema::Group::Applications;
use crate::config::schema::{Kind, OptionSpec, Shape, Status, accepted, not_yet, row};

const OBSOLETE: &str = "nobody uses this interface any more; name a WSGI application with module";
const PROFILER: &str = "use py-spy, or cProfile in the application";

pub(super) const ROWS: &[OptionSpec] = &[
    // What is loaded.
    row(
        Applications,
        "module",
        Kind::Parsed(|c, text| python::module(text).map(|spec| c.python.module = Some(spec))),
        "Python module of the application; with brackets, the callable is called and returns it.",
    )
    .short('w')
    .aliases(&["wsgi"])
    .metavar("MODULE[:CALLABLE[()]]"),
    row(
        Applications,
        "wsgi-file",
        Kind::Parsed(|c, text| python::file(text).map(|path| c.python.wsgi_file = Some(path))),
        "Python file of the application.",
    )
    .aliases(&["file"])
    .metavar("PATH"),
    row(
        Applications,
        "eval",
        Kind::Name(|c, code| c.python.eval = Some(code.to_owned())),
        "Python code that defines the application.",
    )
    .metavar("CODE"),
    row(
        Applications,
        "callable",
        Kind::Parsed(|c, text| python::callable(text).map(|callable| c.python.callable = callable)),
        "Name of the application where module or wsgi-file gives none; with brackets, it is called and returns it.",
    )
    .metavar("CALLABLE[()]")
    .default("application"),
    row(
        Applications,
        "import",
        Kind::Name(|c, module| c.python.imports.push(module.to_owned())),
        "Python module or file to load before the application; a failure is logged and no more.",
    )
    .aliases(&["pyimport", "py-import", "python-import"])
    .metavar("MODULE|FILE")
    .repeatable(),
    row(
        Applications,
        "shared-import",
        Kind::Name(|c, module| c.python.shared_imports.push(module.to_owned())),
        "The same, before import and for every process that runs Python.",
    )
    .aliases(&["shared-pyimport", "shared-py-import", "shared-python-import"])
    .metavar("MODULE|FILE")
    .repeatable(),
    not_yet(
        Applications,
        "spooler-import",
        Shape::Name,
        "Python module to load in spoolers.",
        "there are no spoolers",
    )
    .aliases(&["spooler-pyimport", "spooler-py-import", "spooler-python-import"])
    .repeatable(),
    // Where Python and its modules are.
    row(
        Applications,
        "virtualenv",
        Kind::Path(|c, path| c.python.virtualenv = Some(path)),
        "Virtual environment of the application: its bin/python is the interpreter.",
    )
    .short('H')
    .aliases(&["venv", "home", "pyhome"])
    .metavar("DIR"),
    row(
        Applications,
        "python",
        Kind::Parsed(|c, text| python::executable(text).map(|path| c.python.executable = Some(path))),
        "Executable of the interpreter, 3.9 or newer; without it and virtualenv, python3 in PATH.",
    )
    .aliases(&["py-programname"])
    .metavar("PROGRAM"),
    row(
        Applications,
        "pythonpath",
        Kind::Path(|c, path| c.python.path.push(path)),
        "Directory of Python modules, or pattern of such; put in front, so later ones are searched first.",
    )
    .aliases(&["python-path", "pp"])
    .metavar("DIR|PATTERN")
    .repeatable(),
    row(
        Applications,
        "pyargv",
        Kind::Str(|c, text| c.python.argv = text.split_ascii_whitespace().map(str::to_owned).collect()),
        "The application's sys.argv behind its first word; split at blanks, without quoting.",
    )
    .metavar("ARGUMENTS"),
    row(
        Applications,
        "py-executable",
        Kind::Path(|c, path| c.python.sys_executable = Some(path)),
        "The application's sys.executable, where it shall not be the interpreter's own.",
    )
    .aliases(&["python-executable", "py-sys-executable"]),
    row(
        Applications,
        "no-site",
        Kind::Flag(|c, on| c.python.no_site = on),
        "Do not load Python's site module.",
    ),
    row(
        Applications,
        "optimize",
        // In range, so it fits.
        Kind::Int { min: 0, max: 2, set: |c, level| c.python.optimize = level as u8 },
        "Python's -O: 1 leaves assertions out, 2 docstrings too.",
    )
    .short('O')
    .default("0"),
    row(
        Applications,
        "pymodule-alias",
        Kind::Parsed(|c, text| python::alias(text).map(|alias| c.python.module_aliases.push(alias))),
        "Second name of a Python module, made before anything is imported.",
    )
    .metavar("NAME=MODULE|FILE")
    .repeatable(),
    row(
        Applications,
        "post-pymodule-alias",
        Kind::Parsed(|c, text| python::alias(text).map(|alias| c.python.post_module_aliases.push(alias))),
        "The same, made after the application has been loaded.",
    )
    .metavar("NAME=MODULE|FILE")
    .repeatable(),
    not_yet(
        Applications,
        "symimport",
        Shape::Name,
        "Python module in the binary.",
        "put the module into a directory of pythonpath",
    )
    .repeatable(),
    // Requests.
    row(
        Applications,
        "wsgi-env-behavior",
        Kind::Parsed(|_, text| python::env_behavior(text)),
        "Whether requests share their environ: holy or cheat.",
    )
    .aliases(&["wsgi-env-behaviour"])
    .metavar("holy|cheat")
    .default("holy")
    .status(Status::AcceptedNoEffect("each request has an environ of its own")),
    row(
        Applications,
        "wsgi-disable-file-wrapper",
        Kind::FlagOff(|c, offered| c.python.file_wrapper = offered),
        "Offer no wsgi.file_wrapper.",
    ),
    row(
        Applications,
        "wsgi-accept-buffer",
        Kind::Flag(|c, on| c.python.accept_buffer = on),
        "Accept objects with the buffer interface, such as memoryview, as pieces of a body.",
    )
    .aliases(&["wsgi-accept-buffers"]),
    row(
        Applications,
        "wsgi-strict",
        Kind::Flag(|c, on| c.python.strict = on),
        "Take nothing but an iterable of bytes as a body, not bytes themselves.",
    ),
    row(
        Applications,
        "start_response-nodelay",
        Kind::Flag(|c, on| c.python.start_response_nodelay = on),
        "Send headers with start_response, not with the first piece of the body.",
    )
    .aliases(&["start-response-nodelay"]),
    accepted(
        Applications,
        "wsgi-manage-chunked-input",
        Shape::Flag,
        "Let the application read chunked bodies.",
        "wsgi.input ends where the body ends, chunked or not",
    ),
    row(
        Applications,
        "catch-exceptions",
        Kind::Flag(|c, on| c.python.catch_exceptions = on),
        "Show exceptions to the client, with all that is in environ; for development only.",
    ),
    // Processes.
    row(
        Applications,
        "reload-os-env",
        Kind::Flag(|c, on| c.python.reload_os_env = on),
        "Read os.environ anew when the application is loaded.",
    ),
    row(
        Applications,
        "py-autoreload",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.python.autoreload = time },
        "Reload when the file of a loaded module changes, looking this often; for development.",
    )
    .aliases(&["python-autoreload", "py-auto-reload", "python-auto-reload"])
    .bare("1"),
    row(
        Applications,
        "py-auto-reload-ignore",
        Kind::Name(|c, module| c.python.autoreload_ignore.push(module.to_owned())),
        "Module that py-autoreload does not look at.",
    )
    .aliases(&["py-autoreload-ignore", "python-auto-reload-ignore", "python-autoreload-ignore"])
    .metavar("MODULE")
    .repeatable(),
    accepted(
        Applications,
        "py-call-osafterfork",
        Shape::Flag,
        "Run Python's own hooks after a fork.",
        "a forked interpreter always runs them",
    )
    .aliases(&["py-call-os-after-fork"]),
    accepted(
        Applications,
        "py-call-uwsgi-fork-hooks",
        Shape::Flag,
        "Run the hooks of the uwsgi module after a fork.",
        "a forked interpreter always runs its hooks",
    ),
    accepted(
        Applications,
        "py-master-check-signals",
        Shape::Flag,
        "Let Python handle signals of the master.",
        "the master runs no Python",
    ),
    accepted(
        Applications,
        "early-python",
        Shape::Flag,
        "Start the interpreter early.",
        "the interpreter is ready before anything of the application is loaded",
    ),
    not_yet(
        Applications,
        "early-pyimport",
        Shape::Name,
        "Python module to load early.",
        "use shared-import",
    )
    .aliases(&["early-py-import", "early-python-import"])
    .repeatable(),
    not_yet(
        Applications,
        "early-pythonpath",
        Shape::Name,
        "Directory of modules to load early.",
        "use pythonpath",
    )
    .aliases(&["early-python-path"])
    .repeatable(),
    accepted(
        Applications,
        "single-interpreter",
        Shape::Flag,
        "One Python interpreter for all applications.",
        "all applications of a worker share one interpreter",
    )
    .short('i'),
    not_yet(Applications, "py-tracebacker", Shape::Path, "Sockets that print Python stacks.", "use py-spy")
        .aliases(&["python-tracebacker"]),
    not_yet(Applications, "profiler", Shape::Name, "Log calls or lines of Python.", PROFILER),
    not_yet(
        Applications,
        "py-sharedarea",
        Shape::Size,
        "Shared memory for Python.",
        "use multiprocessing.shared_memory",
    ),
    // Other ways to an application, and tools: without them something else would run.
    not_yet(
        Applications,
        "paste",
        Shape::Name,
        "Application of PasteDeploy.",
        "write a module with application = paste.deploy.loadapp(\"config:/path\") and name it with module",
    )
    .application(),
    not_yet(
        Applications,
        "ini-paste",
        Shape::Path,
        "The same, with this file read as configuration too.",
        "write a module with application = paste.deploy.loadapp(\"config:/path\") and name it with module",
    )
    .and(&["ini-paste-logged"])
    .application(),
    not_yet(
        Applications,
        "paste-name",
        Shape::Name,
        "Which application of PasteDeploy.",
        "give the name to loadapp in a module of your own",
    )
    .and(&["paste-logger"]),
    not_yet(
        Applications,
        "pecan",
        Shape::Path,
        "Application of Pecan.",
        "write a module with application = pecan.deploy.deploy(\"/path\") and name it with module",
    )
    .application(),
    not_yet(Applications, "web3", Shape::Name, "Application with the web3 interface.", OBSOLETE).application(),
    not_yet(Applications, "pump", Shape::Name, "Application with the pump interface.", OBSOLETE).application(),
    not_yet(Applications, "wsgi-lite", Shape::Name, "Application with the wsgi-lite interface.", OBSOLETE)
        .application(),
    not_yet(Applications, "python-raw", Shape::Path, "Python function for raw connections.", OBSOLETE)
        .application(),
    not_yet(
        Applications,
        "python-worker-override",
        Shape::Path,
        "Python script that replaces the worker.",
        "workers serve WSGI themselves; for asyncio run an ASGI server",
    )
    .application(),
    not_yet(
        Applications,
        "pyrun",
        Shape::Path,
        "Run a Python script.",
        "run it with the interpreter: python3 script.py",
    )
    .aliases(&["py"])
    .application(),
    not_yet(Applications, "pyshell", Shape::Text, "Start a Python prompt.", "run python3 -i").bare("1")
        .and(&["pyshell-oneshot"])
        .application(),
    not_yet(
        Applications,
        "test",
        Shape::Name,
        "Import a Python module and exit.",
        "run python3 -c 'import MODULE'",
    )
    .short('J')
    .application(),
];
