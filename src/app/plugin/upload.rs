//! A request body, received before the application is called.
//!
//! An application that reads a body from its client is occupied for as long as the client sends. So
//! bodies are received first, small ones in memory, larger ones in a file without a name; the
//! application reads at its own pace, and may seek.

use std::fs::File;
use std::io::{self, Write};
use std::pin::Pin;

use bytes::Bytes;
use http_body::Body;

use crate::app::{BodyError, RequestBody};

/// A whole request body.
pub(super) enum Upload {
    /// In memory.
    Memory(Bytes),
    /// In a file, whose position is its start, with this many bytes.
    File(File, u64),
}

/// Why a body cannot be received.
pub(super) enum UploadError {
    /// The client left, or was too slow.
    Client(BodyError),
    /// There is no place for the file.
    Server(io::Error),
}

impl Upload {
    /// Receives `body`; more than `in_memory` bytes of it go to a file.
    ///
    /// # Errors
    /// When the client leaves, or there is no place for the file.
    pub(super) async fn receive(mut body: RequestBody, in_memory: usize) -> Result<Self, UploadError> {
        let Some(first) = next(&mut body).await? else { return Ok(Upload::Memory(Bytes::new())) };
        // Nearly always that was all of it.
        if body.is_end_stream() && first.len() <= in_memory {
            return Ok(Upload::Memory(first));
        }
        let expected = body.size_hint().exact().and_then(|rest| usize::try_from(rest).ok());
        let mut memory = Vec::with_capacity(first.len() + expected.unwrap_or(0).min(in_memory));
        memory.extend_from_slice(&first);
        drop(first);
        while memory.len() <= in_memory {
            match next(&mut body).await? {
                Some(piece) => memory.extend_from_slice(&piece),
                None => return Ok(Upload::Memory(memory.into())),
            }
        }
        Self::spool(memory, body).await
    }

    async fn spool(memory: Vec<u8>, mut body: RequestBody) -> Result<Self, UploadError> {
        let mut file = tempfile::tempfile().map_err(no_room)?;
        let mut length = memory.len() as u64;
        file.write_all(&memory).map_err(no_room)?;
        drop(memory);
        while let Some(piece) = next(&mut body).await? {
            file.write_all(&piece).map_err(no_room)?;
            length += piece.len() as u64;
        }
        io::Seek::rewind(&mut file).map_err(no_room)?;
        Ok(Upload::File(file, length))
    }
}

fn no_room(error: io::Error) -> UploadError {
    let directory = std::env::temp_dir();
    UploadError::Server(io::Error::new(
        error.kind(),
        format!("the request body cannot be kept in {} (TMPDIR): {error}", directory.display()),
    ))
}

/// The next data of the body; trailers are of no interest to applications.
async fn next(body: &mut RequestBody) -> Result<Option<Bytes>, UploadError> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        match frame.transpose().map_err(UploadError::Client)? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
