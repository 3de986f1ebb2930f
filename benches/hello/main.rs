//! The smallest native application: every request gets the same ten bytes.
//!
//! It is a server like any other that is built on the library, so that `benches/figures` can tell
//! the cost of the server from the cost of an application.

use std::error::Error;
use std::process::ExitCode;

use appserver::app::{App, Reply, Request, Response, ResponseBody};
use appserver::config::Config;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};

struct Hello;

impl App for Hello {
    fn call(&self, _request: Request) -> Reply {
        let mut response = Response::new(ResponseBody::Full(Bytes::from_static(b"Hello wor\n")));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Reply::Now(response)
    }
}

fn build(_config: &Config) -> Result<Box<dyn App>, Box<dyn Error>> {
    Ok(Box::new(Hello))
}

fn main() -> ExitCode {
    appserver::run(build)
}
