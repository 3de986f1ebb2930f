//! What is served: plugins, and the languages other than Python.

use crate::config::schema::Group::Applications;
use crate::config::schema::{Kind, OptionSpec, Shape, accepted, not_yet, row};

pub(super) const ROWS: &[OptionSpec] = &[
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
    accepted(
        Applications,
        "plugin",
        Shape::Text,
        "Load a plugin.",
        "the plugin that an application needs is found by itself",
    )
    .and(&["plugins", "need-plugin", "need-plugins"])
    .repeatable(),
    row(
        Applications,
        "plugin-dir",
        Kind::Path(|c, path| c.plugin_dirs.push(path)),
        "Directory of plugins, searched before those beside the server.",
    )
    .aliases(&["plugins-dir"])
    .metavar("DIR")
    .repeatable(),
    not_yet(Applications, "cgi-mode", Shape::Flag, "Let plugins answer as CGI does.", "there is no CGI")
        .short('c'),
];
