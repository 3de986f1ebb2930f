//! Bodies that are files.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use appserver::app::{Response, ResponseBody};
use http::HeaderValue;
use http::header::TRANSFER_ENCODING;

use crate::response;

/// Length of the answer to `/memory`.
pub const MEMORY: usize = 3 * 1024 * 1024 + 1;

/// A file of the directory the server was started in.
pub fn whole(path: &str) -> Response {
    let file = File::open(path).expect("the test has written it");
    let length = file.metadata().expect("an open file").len();
    response(200, ResponseBody::File { file: Arc::new(file), offset: 0, length })
}

/// The same with a header field that contradicts it.
pub fn as_chunks(path: &str) -> Response {
    let mut response = whole(path);
    response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    response
}

/// Memory of this process; each byte tells its place modulo 251.
pub fn memory() -> Response {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| (0..MEMORY).map(|at| (at % 251) as u8).collect());
    let file = Arc::new(File::open("/proc/self/mem").expect("/proc is mounted"));
    response(200, ResponseBody::File { file, offset: bytes.as_ptr() as u64, length: MEMORY as u64 })
}
