//! The application of the black-box tests: it waits, spins, streams, leaks and dies on request.
//!
//! | Path | What it does |
//! |---|---|
//! | `/` | `hello VERSION`, the version read when the application was loaded |
//! | `/pid` | the worker's pid |
//! | `/info` | JSON: what the worker process looks like from inside |
//! | `/sleep?ms=N` | answers after N ms, waiting: occupies its slot, not the worker |
//! | `/wait?PATH` | answers when the test lets it pass the gate on that socket: occupies its slot, not the worker |
//! | `/spin?ms=N` | answers after N ms, computing: blocks the whole worker |
//! | `/stream?chunks=N&ms=M&size=K` | N pieces of K bytes, one every M ms, then the line `end` |
//! | `/echo` | the request body, streamed; with `?sum=1` its length and checksum as JSON |
//! | `/file?PATH` | that file as the body; `/file-as-chunks?PATH` claims to be chunked |
//! | `/memory` | [`file::MEMORY`] bytes from a file that sendfile(2) refuses |
//! | `/exit?code=N`, `/abort`, `/kill9` | three ways for a worker to die |
//! | `/openfd?n=K` | leaks a descriptor without close-on-exec, numbered from K up; answers the number |
//! | `/grow?mb=N` | leaks N MiB; with `&untouched=1` address space only |
//! | `/reload`, `/stop` | asks the master |
//! | `/become?uid=N` | tries to become that user; what came of it |
//! | `/program` | `/proc/self/status` of a program that the application executes |
//! | `/fail` | 500 |
//!
//! Each answer tells the worker's pid in the header `x-pid`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use appserver::app::{App, AppCommand, Reply, Request, RequestBody, Response, ResponseBody, WorkerInfo};
use appserver::config::Config;
use bytes::Bytes;
use http_body_util::BodyExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

mod body;
mod checksum;
mod file;
mod gate;
mod info;
mod leak;
mod settings;

use checksum::Checksum;
use settings::{Settings, WorkerStart};

fn main() -> ExitCode {
    appserver::run(build)
}

fn build(_config: &Config) -> Result<Box<dyn App>, Box<dyn Error>> {
    let settings = Settings::read()?;
    settings.act_on_load()?;
    Ok(Box::new(TestApp { settings, worker: None }))
}

struct TestApp {
    settings: Settings,
    worker: Option<WorkerInfo>,
}

impl App for TestApp {
    fn worker_started(&mut self, worker: &WorkerInfo) {
        self.worker = Some(worker.clone());
        gate::pass(self.settings.worker_gate.as_deref());
        match self.settings.worker_start {
            WorkerStart::Ok => {}
            WorkerStart::Crash => std::process::abort(),
            WorkerStart::Hang => settings::hang(),
        }
    }

    fn call(&self, request: Request) -> Reply {
        let uri = request.head.uri.clone();
        let query = Query(uri.query().unwrap_or_default());
        match uri.path() {
            "/" => text(format!("hello {}\n", self.settings.version)),
            "/pid" => text(format!("{}\n", std::process::id())),
            "/info" => json(&info::describe(&self.settings.version, self.worker.as_ref())),
            "/sleep" => sleep(query.millis("ms")),
            "/wait" => wait(query.0.to_owned()),
            "/spin" => spin(query.millis("ms")),
            "/stream" => {
                let (count, size) = (query.number("chunks", 10), query.number("size", 16));
                answer(200, ResponseBody::Stream(Box::pin(body::pieces(count, size, query.millis("ms")))))
            }
            "/echo" if query.number("sum", 0) == 1 => Reply::Later(Box::pin(sum(request.body))),
            "/echo" => answer(200, ResponseBody::Stream(Box::pin(request.body))),
            "/file" => Reply::Now(file::whole(query.0)),
            "/file-as-chunks" => Reply::Now(file::as_chunks(query.0)),
            "/memory" => Reply::Now(file::memory()),
            "/exit" => std::process::exit(i32::try_from(query.number("code", 0)).unwrap_or(1)),
            "/abort" => std::process::abort(),
            "/kill9" => {
                kill(Pid::this(), Signal::SIGKILL).expect("a process may kill itself");
                text("still here\n".to_owned())
            }
            "/openfd" => leak_descriptor(query.number("n", 100)),
            "/grow" => {
                leak::memory(query.number("mb", 1), query.number("untouched", 0) == 0);
                text("grown\n".to_owned())
            }
            "/reload" => self.ask(AppCommand::Reload),
            "/stop" => self.ask(AppCommand::Stop),
            "/become" => become_user(query.number("uid", 0)),
            "/program" => program(),
            "/fail" => answer(500, ResponseBody::Full(Bytes::from_static(b"failed as asked\n"))),
            _ => answer(404, ResponseBody::Full(Bytes::from_static(b"no such test\n"))),
        }
    }
}

impl TestApp {
    fn ask(&self, command: AppCommand) -> Reply {
        let worker = self.worker.as_ref().expect("workers are started before they serve");
        (worker.master)(command);
        text("asked\n".to_owned())
    }
}

fn become_user(uid: u64) -> Reply {
    let uid = u32::try_from(uid).expect("a user id");
    match nix::unistd::setuid(uid.into()) {
        Ok(()) => text(format!("now {}\n", nix::unistd::geteuid())),
        Err(errno) => text(format!("{errno}\n")),
    }
}

fn program() -> Reply {
    let output = std::process::Command::new("cat").arg("/proc/self/status").output();
    text(String::from_utf8_lossy(&output.expect("cat is everywhere").stdout).into_owned())
}

/// The query string of a request.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn number(&self, name: &str, default: u64) -> u64 {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok());
        value.unwrap_or(default)
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name, 0))
    }
}

fn response(status: u16, body: ResponseBody) -> Response {
    let builder = http::Response::builder().status(status).header("content-type", "text/plain");
    builder.header("x-pid", std::process::id()).body(body).expect("status and header are valid")
}

fn answer(status: u16, body: ResponseBody) -> Reply {
    Reply::Now(response(status, body))
}

fn text(text: String) -> Reply {
    answer(200, ResponseBody::Full(text.into()))
}

fn json(value: &serde_json::Value) -> Reply {
    text(value.to_string())
}

fn sleep(time: Duration) -> Reply {
    Reply::Later(Box::pin(async move {
        tokio::time::sleep(time).await;
        response(200, ResponseBody::Full(Bytes::from_static(b"slept\n")))
    }))
}

fn wait(gate: String) -> Reply {
    Reply::Later(Box::pin(async move {
        if let Ok(keeper) = tokio::net::UnixStream::connect(gate).await {
            let _ = keeper.readable().await;
        }
        response(200, ResponseBody::Full(Bytes::from_static(b"waited\n")))
    }))
}

fn spin(time: Duration) -> Reply {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
    text("spun\n".to_owned())
}

/// Reads the whole body and answers what arrived.
async fn sum(mut body: RequestBody) -> Response {
    let (mut length, mut checksum) = (0, Checksum::default());
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => {
                length += data.len();
                checksum.update(&data);
            }
            Ok(Err(_trailers)) => {}
            Err(error) => return response(400, ResponseBody::Full(format!("{error}\n").into())),
        }
    }
    let answer = serde_json::json!({ "length": length, "checksum": checksum.to_string() });
    response(200, ResponseBody::Full(answer.to_string().into()))
}

fn leak_descriptor(from: u64) -> Reply {
    let number = i32::try_from(from).ok().and_then(|from| leak::descriptor(from).ok());
    match number {
        Some(number) => text(format!("{number}\n")),
        None => answer(500, ResponseBody::Full(Bytes::from_static(b"no descriptor to be had\n"))),
    }
}
