//! An open file as http-serve wants it: length, validators, and its bytes in pieces. Where a single
//! range is wanted, http-serve says which, and the pieces are never made: the file itself is the body.

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_core::Stream;
use http::header::{self, HeaderMap, HeaderValue};

use crate::app::{BodyError, Response, ResponseBody};

/// Bytes read from a file at once: small enough not to hold up other connections for long.
const PIECE: u64 = 64 * 1024;

/// One file, opened for one request.
pub(super) struct Entity {
    file: Arc<File>,
    /// The range http-serve asked for first.
    wanted: Arc<OnceLock<Range<u64>>>,
    length: u64,
    modified: Option<SystemTime>,
    tag: Option<HeaderValue>,
    media_type: HeaderValue,
}

impl Entity {
    pub(super) fn new(file: File, metadata: &Metadata, media_type: &str) -> Self {
        let tag = format!(
            "\"{:x}-{:x}-{:x}.{:x}\"",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        // Without the fraction of a second, which a client cannot send back.
        let modified =
            u64::try_from(metadata.mtime()).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Entity {
            file: Arc::new(file),
            wanted: Arc::default(),
            length: metadata.len(),
            modified,
            tag: HeaderValue::try_from(tag).ok(),
            media_type: HeaderValue::try_from(media_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream")),
        }
    }
}

/// Answers a request for `entity`: headers and choice of bytes are http-serve's.
pub(super) fn serve(entity: Entity, request: &http::Request<()>) -> Response {
    let (file, wanted) = (Arc::clone(&entity.file), Arc::clone(&entity.wanted));
    let (parts, body) = http_serve::serve(entity, request).into_parts();
    // A single range, which may be the whole file, has been asked for by now. Those of a multipart
    // answer are asked for one by one, while it is sent.
    let body = match wanted.get() {
        Some(range) => ResponseBody::File { file, offset: range.start, length: range.end - range.start },
        None => ResponseBody::Stream(Box::pin(body)),
    };
    Response::from_parts(parts, body)
}

impl http_serve::Entity for Entity {
    type Error = BodyError;
    type Data = Bytes;

    fn len(&self) -> u64 {
        self.length
    }

    fn get_range(
        &self,
        range: Range<u64>,
    ) -> Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + Sync>> {
        let _ = self.wanted.set(range.clone());
        Box::pin(Pieces { file: Arc::clone(&self.file), range })
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, self.media_type.clone());
    }

    fn etag(&self) -> Option<HeaderValue> {
        self.tag.clone()
    }

    fn last_modified(&self) -> Option<SystemTime> {
        self.modified
    }
}

/// A range of a file, piece by piece: one of several in an answer.
///
/// Reads on the worker's thread: from the page cache that is cheaper than handing the read to
/// another thread and being woken again.
struct Pieces {
    file: Arc<File>,
    range: Range<u64>,
}

impl Stream for Pieces {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let length = PIECE.min(self.range.end - self.range.start) as usize;
        if length == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; length];
        Poll::Ready(Some(match self.file.read_at(&mut piece, self.range.start) {
            Ok(0) => Err("the file became shorter while it was sent".into()),
            Ok(count) => {
                piece.truncate(count);
                self.range.start += count as u64;
                Ok(Bytes::from(piece))
            }
            Err(error) => Err(error.into()),
        }))
    }
}
