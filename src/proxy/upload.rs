//! The request's body on its way to Mercado Pago: held if small, so that it can be sent again; streamed if not.
//!
//! Guarantees that the bytes go unchanged, that no more than the limit passes, and that a caller who stops sending does not
//! hold a connection for ever. Trailers are dropped: they belong to the caller's connection.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::idle::IdleTimer;

/// Bodies up to this size are read whole before anything is sent, and can be sent again.
pub(super) const HELD: usize = 64 * 1024;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body cannot be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UploadError {
    /// More than `PROXY_MAX_BODY`.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// Nothing came for `PROXY_IDLE_TIMEOUT`.
    #[error("the body stopped coming")]
    Stalled,
    /// The caller's connection broke.
    #[error("the body broke off")]
    BrokeOff,
}

/// What bounds a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most bytes.
    pub(super) max: u64,
    /// Longest wait between two reads.
    pub(super) idle: Duration,
}

/// A body that is ready to be sent. Clones are the same body, for another attempt.
#[derive(Clone)]
pub(super) enum Upload {
    /// Whole, and at hand for any number of attempts.
    Held(Bytes),
    /// Streamed: at hand until something was taken from it.
    Streamed(Arc<Mutex<Stream>>),
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held(_) => "Upload::Held",
            Self::Streamed(_) => "Upload::Streamed",
        })
    }
}

/// A body that is taken from its caller as fast as Mercado Pago takes it.
pub(super) struct Stream {
    /// What was read before it was clear that the body is large.
    prefix: Option<Bytes>,
    rest: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    /// Bytes that may still come from the rest.
    left: u64,
    idle: IdleTimer,
    touched: bool,
    error: Option<UploadError>,
}

impl Upload {
    /// Reads a small body whole, and prepares a large one for streaming.
    pub(super) async fn take<B>(mut body: B, bounds: Bounds) -> Result<Self, UploadError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Ok(Self::Held(Bytes::new()));
        }
        if body.size_hint().lower() > bounds.max {
            return Err(UploadError::TooLarge);
        }
        let mut held = BytesMut::new();
        while body.size_hint().lower() + held.len() as u64 <= HELD as u64 && held.len() <= HELD {
            let frame = tokio::time::timeout(bounds.idle, body.frame())
                .await
                .map_err(|_| UploadError::Stalled)?;
            let data = match frame {
                None => return finish(held.freeze(), bounds),
                Some(frame) => frame
                    .map_err(|_| UploadError::BrokeOff)?
                    .into_data()
                    .unwrap_or_default(),
            };
            if body.is_end_stream() && held.is_empty() {
                return finish(data, bounds);
            }
            held.extend_from_slice(&data);
            if body.is_end_stream() {
                return finish(held.freeze(), bounds);
            }
        }
        let left = bounds
            .max
            .checked_sub(held.len() as u64)
            .ok_or(UploadError::TooLarge)?;
        Ok(Self::Streamed(Arc::new(Mutex::new(Stream {
            prefix: (!held.is_empty()).then(|| held.freeze()),
            rest: Box::pin(body.map_err(Into::into)),
            left,
            idle: IdleTimer::new(bounds.idle),
            touched: false,
            error: None,
        }))))
    }

    /// Whether it can be sent (again).
    pub(super) fn is_at_hand(&self) -> bool {
        match self {
            Self::Held(_) => true,
            Self::Streamed(stream) => !lock(stream).touched,
        }
    }

    /// Why the body itself made an attempt fail, if it did.
    pub(super) fn error(&self) -> Option<UploadError> {
        match self {
            Self::Held(_) => None,
            Self::Streamed(stream) => lock(stream).error,
        }
    }
}

fn finish(whole: Bytes, bounds: Bounds) -> Result<Upload, UploadError> {
    if whole.len() as u64 > bounds.max {
        Err(UploadError::TooLarge)
    } else {
        Ok(Upload::Held(whole))
    }
}

fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Held(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Held(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(stream) => lock(stream).poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(bytes) => bytes.is_empty(),
            Self::Streamed(stream) => {
                let stream = lock(stream);
                stream.prefix.is_none() && stream.rest.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(stream) => {
                let stream = lock(stream);
                let prefix = stream.prefix.as_ref().map_or(0, Bytes::len) as u64;
                match stream.rest.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(prefix + rest),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

impl Stream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.touched = true;
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        loop {
            let Poll::Ready(frame) = self.rest.as_mut().poll_frame(context) else {
                ready!(self.idle.poll_elapsed(context));
                return self.fail(UploadError::Stalled);
            };
            self.idle.progress();
            match frame {
                None => return Poll::Ready(None),
                Some(Err(_)) => return self.fail(UploadError::BrokeOff),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    match self.left.checked_sub(data.len() as u64) {
                        None => return self.fail(UploadError::TooLarge),
                        Some(left) => self.left = left,
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn fail(&mut self, error: UploadError) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.error = Some(error);
        Poll::Ready(Some(Err(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::Full;

    use super::*;

    /// A body of given pieces, of unknown length; a `None` piece never comes.
    struct Pieces(VecDeque<Option<Bytes>>);

    impl Pieces {
        fn of(sizes: &[usize]) -> Self {
            Self(
                sizes
                    .iter()
                    .map(|size| Some(Bytes::from(vec![b'x'; *size])))
                    .collect(),
            )
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            match self.0.front() {
                Some(None) => Poll::Pending,
                _ => Poll::Ready(self.0.pop_front().flatten().map(|bytes| Ok(Frame::data(bytes)))),
            }
        }
    }

    fn bounds(max: u64) -> Bounds {
        Bounds {
            max,
            idle: Duration::from_millis(20),
        }
    }

    async fn drain(upload: Upload) -> Result<usize, UploadError> {
        upload.collect().await.map(|whole| whole.to_bytes().len())
    }

    #[tokio::test]
    async fn a_small_body_is_held_and_can_be_sent_twice() {
        for sizes in [&[][..], &[5], &[HELD], &[10, 20, 30]] {
            let upload = Upload::take(Pieces::of(sizes), bounds(1 << 20)).await.unwrap();
            assert!(matches!(upload, Upload::Held(_)), "{sizes:?}");
            let total = sizes.iter().sum();
            assert_eq!(drain(upload.clone()).await, Ok(total));
            assert!(upload.is_at_hand());
            assert_eq!(upload.size_hint().exact(), Some(total as u64));
        }
    }

    #[tokio::test]
    async fn a_large_body_is_streamed_once() {
        for sizes in [&[HELD + 1][..], &[HELD, 1], &[40_000, 40_000, 40_000]] {
            let upload = Upload::take(Pieces::of(sizes), bounds(1 << 20)).await.unwrap();
            assert!(
                matches!(upload, Upload::Streamed(_)) && upload.is_at_hand(),
                "{sizes:?}"
            );
            assert_eq!(drain(upload.clone()).await, Ok(sizes.iter().sum()));
            assert!(!upload.is_at_hand() && upload.error().is_none());
        }
        let known = Upload::take(Full::new(Bytes::from(vec![0; HELD + 1])), bounds(1 << 20))
            .await
            .unwrap();
        assert!(matches!(known, Upload::Streamed(_)));
        assert_eq!(known.size_hint().exact(), Some(HELD as u64 + 1));
    }

    #[tokio::test]
    async fn no_more_than_the_limit_passes() {
        let too_large = |result: Result<Upload, UploadError>| result.unwrap_err() == UploadError::TooLarge;
        assert!(too_large(Upload::take(Pieces::of(&[11]), bounds(10)).await));
        assert!(too_large(
            Upload::take(Full::new(Bytes::from_static(b"12345678901")), bounds(10)).await
        ));
        assert!(
            Upload::take(Full::new(Bytes::from_static(b"1234567890")), bounds(10))
                .await
                .is_ok()
        );
        let upload = Upload::take(Pieces::of(&[HELD, HELD, HELD]), bounds(2 * HELD as u64))
            .await
            .unwrap();
        assert_eq!(drain(upload.clone()).await, Err(UploadError::TooLarge));
        assert_eq!(upload.error(), Some(UploadError::TooLarge));
    }

    #[tokio::test]
    async fn a_caller_who_stops_sending_is_not_waited_for() {
        let stalled = Pieces([Some(Bytes::from_static(b"x")), None].into());
        assert_eq!(
            Upload::take(stalled, bounds(1 << 20)).await.unwrap_err(),
            UploadError::Stalled
        );
        let mut later = Pieces::of(&[HELD, HELD]);
        later.0.push_back(None);
        let upload = Upload::take(later, bounds(1 << 20)).await.unwrap();
        assert_eq!(drain(upload).await, Err(UploadError::Stalled));
    }
}
