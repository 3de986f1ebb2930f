//! The yardstick of `benches/figures`: hyper on a tokio thread and nothing else.
//!
//! ```text
//! floor BODY_FILE [NAME:VALUE ...] < listening socket
//! ```
//!
//! One process is one worker: it accepts on the socket it finds as its standard input and answers
//! every request with the same header fields and the same body. It has no master, no limits, no
//! time-outs, no statistics and no log: a bound, not a server.

use std::convert::Infallible;
use std::error::Error;
use std::net::TcpListener;
use std::os::fd::AsFd;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::{LocalSet, spawn_local};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let body = Bytes::from(std::fs::read(args.next().ok_or("which file is the body?")?)?);
    let fields = args.map(|field| parse(&field)).collect::<Result<HeaderMap, _>>()?;
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, serve(listener, &fields, &body))
}

fn parse(field: &str) -> Result<(HeaderName, HeaderValue), Box<dyn Error>> {
    let (name, value) = field.split_once(':').ok_or("a header field is NAME:VALUE")?;
    Ok((name.parse()?, value.trim().parse()?))
}

async fn serve(listener: TcpListener, fields: &HeaderMap, body: &Bytes) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    // Answers to pipelined requests leave together; the fastest setting for small answers.
    http.pipeline_flush(true);
    loop {
        // Only a connection that is gone again, or too many of them: the next one may do better.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (fields, body) = (fields.clone(), body.clone());
        let answer = service_fn(move |_: Request<Incoming>| {
            let mut response = Response::new(Full::new(body.clone()));
            *response.headers_mut() = fields.clone();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = http.serve_connection(TokioIo::new(stream), answer);
        spawn_local(async move {
            // How a client leaves is of no interest here.
            let _ = connection.await;
        });
    }
}
