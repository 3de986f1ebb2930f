//! What is served: the application and the language it is written in.

use crate::config::schema::Group::Applications;
use crate::config::schema::{OptionSpec, Shape, accepted, not_yet};

const PLUGIN: &str = "needs a language plugin, which this release does not have";
const NO_PYTHON: &str = "needs the Python plugin, which this release does not have";

pub(super) const ROWS: &[OptionSpec] = &[
    not_yet(Applications, "module", Shape::Name, "Python module and callable of the application.", PLUGIN)
        .short('w')
        .aliases(&["wsgi"])
        .metavar("MODULE[:CALLABLE]")
        .application(),
    not_yet(Applications, "wsgi-file", Shape::Path, "Python file of the application.", PLUGIN)
        .aliases(&["file"])
        .application(),
    not_yet(Applications, "eval", Shape::Name, "Python code of the application.", PLUGIN).application(),
    not_yet(Applications, "paste", Shape::Name, "Application of PasteDeploy.", PLUGIN).application(),
    not_yet(
        Applications,
        "ini-paste",
        Shape::Path,
        "The same, with this file read as configuration too.",
        PLUGIN,
    )
    .and(&["ini-paste-logged"])
    .application(),
    not_yet(Applications, "pecan", Shape::Path, "Application of Pecan.", PLUGIN).application(),
    not_yet(Applications, "web3", Shape::Name, "Application with the web3 interface.", PLUGIN).application(),
    not_yet(Applications, "pump", Shape::Name, "Application with the pump interface.", PLUGIN).application(),
    not_yet(Applications, "wsgi-lite", Shape::Name, "Application with the wsgi-lite interface.", PLUGIN)
        .application(),
    not_yet(Applications, "cgi", Shape::Name, "Directory or program of CGI scripts.", "there is no CGI")
        .repeatable()
        .application(),
    not_yet(
        Applications,
        "php-docroot",
        Shape::Path,
        "Directory of PHP scripts.",
        "there is no PHP; use php-fpm",
    )
    .application(),
    not_yet(
        Applications,
        "php-app",
        Shape::Path,
        "PHP script for all requests.",
        "there is no PHP; use php-fpm",
    )
    .application(),
    not_yet(Applications, "psgi", Shape::Path, "Perl application.", "there is no Perl plugin").application(),
    not_yet(Applications, "rack", Shape::Path, "Ruby application.", "there is no Ruby plugin")
        .and(&["rails"])
        .application(),
    not_yet(Applications, "lua", Shape::Path, "Lua application.", "there is no Lua plugin").application(),
    not_yet(Applications, "callable", Shape::Name, "Name of the application in its module.", NO_PYTHON)
        .default("application"),
    not_yet(Applications, "virtualenv", Shape::Path, "Virtual environment of the application.", NO_PYTHON)
        .short('H')
        .aliases(&["venv", "home", "pyhome"])
        .metavar("DIR"),
    not_yet(Applications, "pythonpath", Shape::Name, "Directory of Python modules.", NO_PYTHON)
        .aliases(&["python-path", "pp"])
        .metavar("DIR")
        .repeatable(),
    not_yet(Applications, "import", Shape::Name, "Python module to load in each worker.", NO_PYTHON)
        .aliases(&["pyimport", "py-import", "python-import"])
        .repeatable(),
    not_yet(Applications, "shared-import", Shape::Name, "Python module to load in every process.", NO_PYTHON)
        .aliases(&["shared-pyimport", "shared-py-import", "shared-python-import"])
        .repeatable(),
    not_yet(Applications, "spooler-import", Shape::Name, "Python module to load in spoolers.", NO_PYTHON)
        .aliases(&["spooler-pyimport", "spooler-py-import", "spooler-python-import"])
        .repeatable(),
    not_yet(
        Applications,
        "py-autoreload",
        Shape::Seconds,
        "How often to look for changed modules.",
        "use touch-reload",
    )
    .aliases(&["python-autoreload", "py-auto-reload"])
    .bare("1")
    .default("0"),
    not_yet(Applications, "py-auto-reload-ignore", Shape::Name, "Module not to look at.", "use touch-reload")
        .aliases(&["py-autoreload-ignore", "python-auto-reload-ignore"])
        .repeatable(),
    not_yet(Applications, "py-tracebacker", Shape::Path, "Sockets that print Python stacks.", "use py-spy")
        .aliases(&["python-tracebacker"]),
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
        "single-interpreter",
        Shape::Flag,
        "One Python interpreter for all applications.",
        "there is one application",
    )
    .short('i'),
    not_yet(
        Applications,
        "wsgi-env-behavior",
        Shape::Name,
        "Whether requests share their environ.",
        NO_PYTHON,
    )
    .aliases(&["wsgi-env-behaviour"])
    .default("holy"),
    not_yet(Applications, "wsgi-disable-file-wrapper", Shape::Flag, "Offer no wsgi.file_wrapper.", NO_PYTHON),
    not_yet(Applications, "wsgi-accept-buffer", Shape::Flag, "Accept buffers as bodies.", NO_PYTHON)
        .aliases(&["wsgi-accept-buffers"]),
    not_yet(Applications, "wsgi-strict", Shape::Flag, "Refuse what WSGI does not allow.", NO_PYTHON),
    not_yet(
        Applications,
        "start_response-nodelay",
        Shape::Flag,
        "Send headers with start_response.",
        NO_PYTHON,
    )
    .aliases(&["start-response-nodelay"]),
    not_yet(Applications, "reload-os-env", Shape::Flag, "Load os.environ anew in each worker.", NO_PYTHON),
    not_yet(
        Applications,
        "catch-exceptions",
        Shape::Flag,
        "Show exceptions to the client.",
        "exceptions are logged only",
    ),
    not_yet(Applications, "pyargv", Shape::Text, "The application's sys.argv.", NO_PYTHON),
    not_yet(Applications, "optimize", Shape::Int, "Optimization level of Python.", NO_PYTHON)
        .short('O')
        .default("0"),
    not_yet(Applications, "no-site", Shape::Flag, "Do not load Python's site module.", NO_PYTHON),
    not_yet(Applications, "py-executable", Shape::Path, "The application's sys.executable.", NO_PYTHON)
        .aliases(&["python-executable"]),
    not_yet(Applications, "pymodule-alias", Shape::Pair, "Second name of a Python module.", NO_PYTHON)
        .repeatable(),
    not_yet(Applications, "symimport", Shape::Name, "Python module in the binary.", NO_PYTHON).repeatable(),
    accepted(Applications, "plugin", Shape::Text, "Load a plugin.", "what the server can do is built in")
        .and(&["plugins", "need-plugin", "need-plugins"])
        .repeatable(),
    accepted(
        Applications,
        "plugin-dir",
        Shape::Path,
        "Directory of plugins.",
        "what the server can do is built in",
    )
    .aliases(&["plugins-dir"])
    .repeatable(),
    not_yet(Applications, "cgi-mode", Shape::Flag, "Let plugins answer as CGI does.", "there is no CGI")
        .short('c'),
];
