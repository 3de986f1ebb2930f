//! The command line of `appserver torture`.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use crate::config::value;
use crate::torture::account::Kind;
use crate::torture::blows::Blow;
use crate::torture::probe::Paths;
use crate::torture::{Group, Plan, Subject};

/// The word that asks for it, first of the arguments.
pub const NAME: &str = "torture";

/// How long it takes when nothing is said about it.
const SECONDS: Duration = Duration::from_secs(30);

const ABOUT: &str = "Starts a server with these options, serves it real load, hits it in every way that must cost \
    no request, and counts what is lost. The exit status is 1 when something was lost that a kill -9 or a brutal \
    reload does not excuse, or when a reload did not end as it must.";

const EXAMPLES: &str = "Examples:\n  \
    appserver torture -- --processes 4 --static-dir public\n  \
    appserver torture --seconds 120 --path / --post /form --break app.py -- --wsgi-file app.py\n  \
    appserver torture --reloads 1000 --blow hup --load keep-alive=64,fresh=4 -- shop.ini\n  \
    appserver torture --against http://127.0.0.1:8000/ --reload-command 'kill -HUP 4711' --pause 2s";

const LOAD: &str = "Kinds of client, without it all that the server serves: keep-alive, fresh (a connection for each \
    request), pipelined, post, upload (slowly), stream (read slowly), upgrade (to a WebSocket)";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Do it.
    Run(Box<Plan>),
    /// Print this text to standard output and exit.
    Print(String),
}

/// Understands the arguments from [`NAME`] on.
///
/// # Errors
/// What is wrong with them, for standard error.
pub fn parse(words: &[OsString]) -> Result<Asked, String> {
    match parser().try_get_matches_from(words) {
        Ok(matches) => plan(&matches).map(|plan| Asked::Run(Box::new(plan))),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Asked::Print(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

fn parser() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let seconds = |text: &str| value::duration(text, Duration::from_millis(1));
    let any = |text: &str| value::duration(text, Duration::ZERO);
    let count = || value_parser!(u64).range(1..);
    Command::new("appserver torture")
        .about(ABOUT)
        .after_help(EXAMPLES)
        .override_usage(
            "appserver torture [OPTIONS] -- [OPTIONS OF THE SERVER]\n       \
             appserver torture [OPTIONS] --against URL [--reload-command COMMAND]",
        )
        .max_term_width(100)
        .args([
            option("seed", "NUMBER", "Order of the blows and pauses of the clients [default: by chance]")
                .value_parser(value_parser!(u64)),
            option("seconds", "SECONDS", "No new blow after this time [default: 30s, without --reloads]")
                .value_parser(seconds),
            option("reloads", "NUMBER", "No new blow after so many reloads").value_parser(count()),
            option(
                "connections",
                "NUMBER",
                "Clients, over all kinds of load that have no number of their own",
            )
            .value_parser(value_parser!(u64).range(1..=10_000))
            .default_value("32"),
            option("think", "SECONDS", "What a client waits between two requests, on average")
                .value_parser(any)
                .default_value("20ms"),
            option("pause", "SECONDS", "What there is between two blows, on average")
                .value_parser(any)
                .default_value("200ms"),
            option("patience", "SECONDS", "A request without an answer for so long is lost")
                .value_parser(seconds)
                .default_value("30s"),
            option("load", "KIND[=CLIENTS],...", LOAD)
                .value_delimiter(',')
                .action(ArgAction::Append)
                .value_parser(group),
            option("path", "PATH", "URL for GET, repeatable [default: /]").action(ArgAction::Append),
            option("post", "PATH", "URL for POST and uploads [default: the first --path]"),
            option("stream", "PATH", "URL of a long answer, for slow readers"),
            option("upgrade", "PATH", "URL of a WebSocket [default: the first --path]"),
            option("blow", "BLOW,...", "What is done to the server; without it everything, or \"none\"")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .value_parser(names(Blow::ALL.map(Blow::name).into_iter().chain(["none"]))),
            option(
                "break",
                "FILE",
                "A file without which the application does not load: it is broken at times",
            )
            .value_parser(value_parser!(PathBuf)),
            option("directory", "DIR", "For log, pidfile and FIFO of the server [default: a temporary one]")
                .value_parser(value_parser!(PathBuf)),
            option(
                "against",
                "URL",
                "Drive load against a server that runs already, instead of starting one",
            )
            .value_parser(address)
            .conflicts_with_all(["break", "blow", "directory", "path", "server"]),
            option("reload-command", "COMMAND", "For sh, in place of the blows; it has to end with status 0")
                .requires("against")
                // clap does not ask for what something else rules out.
                .conflicts_with("server"),
        ])
        .arg(
            Arg::new("clients-first").long("clients-first").action(ArgAction::SetTrue).help(
                "Clients come before all else on this machine, as if they ran on another one (needs root)",
            ),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print JSON, times in milliseconds"),
        )
        .arg(
            Arg::new("verbose")
                .long("verbose")
                .short('v')
                .action(ArgAction::SetTrue)
                .help("Tell each blow on standard error"),
        )
        .arg(
            Arg::new("server")
                .action(ArgAction::Append)
                .num_args(0..)
                .last(true)
                .value_name("OPTIONS OF THE SERVER")
                .value_parser(value_parser!(OsString)),
        )
        .group(ArgGroup::new("subject").args(["against", "server"]).required(true))
}

fn names(names: impl IntoIterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(names)
}

fn group(text: &str) -> Result<Group, String> {
    let (name, clients) = text.split_once('=').map_or((text, None), |(name, clients)| (name, Some(clients)));
    let kind = Kind::CLIENTS.into_iter().find(|kind| kind.name() == name);
    let known = || Kind::CLIENTS.map(Kind::name).join(", ");
    Ok(Group {
        kind: kind.ok_or_else(|| format!("there are {}", known()))?,
        clients: clients.map(|clients| clients.parse().map_err(|_| "no number of clients")).transpose()?,
    })
}

/// Where to, the Host field, and the path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    address: SocketAddr,
    host: String,
    path: String,
}

fn address(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("http://").ok_or("only http:// can be spoken")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if port { host.to_owned() } else { format!("{host}:80") };
    let mut found = with_port.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    let address = found.next().ok_or_else(|| format!("{host} has no address"))?;
    Ok(Url { address, host: host.to_owned(), path })
}

fn plan(matches: &ArgMatches) -> Result<Plan, String> {
    let duration = |name| matches.get_one::<Duration>(name).copied();
    let required = |name| duration(name).unwrap_or_default();
    let text = |name| matches.get_one::<String>(name).cloned();
    let all = |name| matches.get_many::<String>(name).map(|them| them.cloned().collect::<Vec<_>>());
    let reloads = matches.get_one::<u64>("reloads").copied();
    let url = matches.get_one::<Url>("against");
    let get = all("path").unwrap_or_else(|| vec![url.map_or("/", |url| &url.path).to_owned()]);
    let groups = matches.get_many::<Group>("load").map(|groups| groups.copied().collect());
    Ok(Plan {
        // The keys of a hasher are as much chance as this needs.
        seed: matches
            .get_one::<u64>("seed")
            .copied()
            .unwrap_or_else(|| RandomState::new().build_hasher().finish() % 1_000_000),
        seconds: duration("seconds").or(reloads.is_none().then_some(SECONDS)),
        reloads,
        connections: matches.get_one::<u64>("connections").copied().unwrap_or_default() as usize,
        think: required("think"),
        pause: required("pause"),
        patience: required("patience"),
        groups: groups.unwrap_or_else(|| Kind::CLIENTS.map(|kind| Group { kind, clients: None }).into()),
        paths: Paths { get, post: text("post"), stream: text("stream"), upgrade: text("upgrade") },
        clients_first: matches.get_flag("clients-first"),
        json: matches.get_flag("json"),
        verbose: matches.get_flag("verbose"),
        subject: match url {
            Some(Url { address, host, .. }) => {
                Subject::Running { address: *address, host: host.clone(), command: text("reload-command") }
            }
            None => own(matches, all("blow"))?,
        },
    })
}

fn own(matches: &ArgMatches, names: Option<Vec<String>>) -> Result<Subject, String> {
    let breakable = matches.get_one::<PathBuf>("break").cloned();
    let chosen = |blow: &Blow| names.as_ref().is_none_or(|names| names.iter().any(|it| it == blow.name()));
    let mut blows: Vec<Blow> = Blow::ALL.into_iter().filter(chosen).collect();
    if breakable.is_none() {
        if names.is_some() && blows.contains(&Blow::Break) {
            return Err("error: --blow break needs --break FILE".to_owned());
        }
        blows.retain(|blow| *blow != Blow::Break);
    }
    let options = matches.get_many::<OsString>("server").into_iter().flatten().cloned().collect();
    let directory = matches.get_one::<PathBuf>("directory").cloned();
    Ok(Subject::Own { options, blows, breakable, directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(words: &str) -> Plan {
        match parse(&words.split(' ').map(OsString::from).collect::<Vec<_>>()) {
            Ok(Asked::Run(plan)) => *plan,
            other => panic!("{words}: {other:?}"),
        }
    }

    fn refused(words: &str) -> String {
        parse(&words.split(' ').map(OsString::from).collect::<Vec<_>>()).expect_err(words)
    }

    #[test]
    fn what_stands_behind_the_dashes_is_the_servers() {
        let plan =
            planned("torture --seed 7 --reloads 3 --blow hup,kill-worker -- --processes 2 --path=/x a.ini");
        let Subject::Own { options, blows, breakable: None, directory: None } = plan.subject else {
            panic!("{plan:?}")
        };
        assert_eq!(options, ["--processes", "2", "--path=/x", "a.ini"]);
        assert_eq!(blows, [Blow::Hup, Blow::KillWorker]);
        assert_eq!((plan.seed, plan.reloads, plan.seconds), (7, Some(3), None));
        assert_eq!(plan.paths.get, ["/"]);
        assert_eq!(plan.groups.iter().map(|group| group.kind).collect::<Vec<_>>(), Kind::CLIENTS);
    }

    #[test]
    fn a_file_is_broken_only_when_it_is_named() {
        let blows = |words| match planned(words).subject {
            Subject::Own { blows, .. } => blows,
            other => panic!("{other:?}"),
        };
        assert_eq!(blows("torture --break a.py -- -M"), Blow::ALL);
        assert!(!blows("torture -- -M").contains(&Blow::Break));
        assert_eq!(blows("torture --blow none -- -M"), []);
        assert!(refused("torture --blow break -- -M").contains("--break FILE"));
    }

    #[test]
    fn a_server_that_runs_is_named_by_its_url() {
        let plan = planned("torture --against http://127.0.0.1:8000/a?b --load fresh --reload-command true");
        let address = "127.0.0.1:8000".parse().expect("an address");
        let (host, command) = ("127.0.0.1:8000".to_owned(), Some("true".to_owned()));
        assert_eq!(plan.subject, Subject::Running { address, host, command });
        let fresh = Group { kind: Kind::Fresh, clients: None };
        assert_eq!((plan.paths.get, plan.groups), (vec!["/a?b".to_owned()], vec![fresh]));
        assert_eq!(plan.seconds, Some(SECONDS));
        assert!(refused("torture --against https://a/").contains("only http://"));
        assert!(refused("torture --against http://127.0.0.1/ --blow hup").contains("cannot be used with"));
        assert!(refused("torture --reload-command x -- -M").contains("cannot be used with"));
        assert!(refused("torture --seed 1").contains("required"));
    }

    #[test]
    fn kinds_of_load_may_have_a_number_of_clients() {
        let groups = planned("torture --load keep-alive=64,fresh --load post=2 -- -M").groups;
        let expected = [(Kind::KeepAlive, Some(64)), (Kind::Fresh, None), (Kind::Post, Some(2))];
        assert_eq!(groups, expected.map(|(kind, clients)| Group { kind, clients }));
        assert!(refused("torture --load fresh=x -- -M").contains("no number of clients"));
        assert!(refused("torture --load telepathy -- -M").contains("there are keep-alive, fresh"));
    }

    #[test]
    fn help_is_printed_and_the_parser_is_consistent() {
        parser().debug_assert();
        let help = parse(&[NAME.into(), "--help".into()]);
        assert!(matches!(help, Ok(Asked::Print(text)) if text.contains("kill-in-reload")));
    }
}
