//! The answer's body on its way to the caller: byte for byte as it comes, at flat memory. Broken off by Mercado Pago, it is
//! broken off here too, never ended cleanly; an answer that stops coming is broken off after `PROXY_IDLE_TIMEOUT`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::idle::IdleTimer;
use super::record::Record;
use super::upstream::Lease;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Mercado Pago's connection broke.
    #[error("Mercado Pago's answer broke off: {0}")]
    BrokeOff(#[source] hyper::Error),
    /// Nothing came for `PROXY_IDLE_TIMEOUT`.
    #[error("Mercado Pago's answer stopped coming")]
    Stalled,
}

/// The body of a proxied call's answer.
#[derive(Debug)]
pub struct ProxyBody {
    content: Content,
    /// Told when it is dropped, which is at the end of the body.
    record: Option<Record>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Streamed {
        incoming: Incoming,
        lease: Lease,
        idle: IdleTimer,
    },
}

impl ProxyBody {
    /// A body that is at hand.
    pub(super) fn whole(bytes: Bytes, record: Record) -> Self {
        Self {
            content: Content::Whole(bytes),
            record: Some(record),
        }
    }

    /// A body that is passed on as it comes.
    pub(super) fn streamed(incoming: Incoming, lease: Lease, idle: Duration, record: Record) -> Self {
        let content = Content::Streamed {
            incoming,
            lease,
            idle: IdleTimer::new(idle),
        };
        Self {
            content,
            record: Some(record),
        }
    }

    fn finish(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.completed();
        }
        if let Content::Streamed { lease, .. } = &mut self.content {
            lease.give_back();
        }
    }

    fn cut(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.cut();
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let (incoming, idle) = match &mut this.content {
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.finish();
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Content::Streamed { incoming, idle, .. } => (incoming, idle),
        };
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(context) else {
                if idle.poll_elapsed(context).is_pending() {
                    return Poll::Pending;
                }
                this.cut();
                return Poll::Ready(Some(Err(BodyError::Stalled)));
            };
            idle.progress();
            match frame {
                None => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    this.cut();
                    return Poll::Ready(Some(Err(BodyError::BrokeOff(error))));
                }
                Some(Ok(frame)) => {
                    // Trailers belong to Mercado Pago's connection.
                    let Ok(data) = frame.into_data() else { continue };
                    // A server that knows the length does not ask again after the last byte.
                    if incoming.is_end_stream() {
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Streamed { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed { incoming, .. } => incoming.size_hint(),
        }
    }
}
