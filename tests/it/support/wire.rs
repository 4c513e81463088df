//! HTTP/1.1 as bytes on a socket, read by a parser of our own: nothing is normalised, and no bug of the library that the
//! service is built on can hide behind the same library here.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};

/// A request or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Request line or status line.
    pub(crate) line: String,
    /// Names in lower case and values without the space around them, in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// The content, without its framing.
    pub(crate) body: Vec<u8>,
}

/// How the end of a body is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body, and nothing that says so.
    Nothing,
    Length,
    /// Chunks of these sizes, over and over, with an extension and a trailer as every recipient must bear them (the first
    /// chunk's alone: recipients bound what they bear).
    Chunks(Vec<usize>),
    /// The end of the connection (answers only).
    Close,
}

/// What is being read: it decides what a missing length means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Request,
    Answer,
}

impl Message {
    /// The values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        let same = self.fields.iter().filter(|(key, _)| key == name);
        same.map(|(_, value)| value.as_slice()).collect()
    }

    /// The value of a field that stands there at most once.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        match self.values(name)[..] {
            [] => None,
            [one] => Some(String::from_utf8_lossy(one).into_owned()),
            _ => panic!("{name} stands there more than once: {self:?}"),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(key, _)| key == name)
    }

    /// The message as it goes over the wire.
    pub(crate) fn bytes(&self, framing: &Framing) -> Vec<u8> {
        let mut bytes = self.line.clone().into_bytes();
        bytes.extend(b"\r\n");
        for (name, value) in &self.fields {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        match framing {
            Framing::Nothing | Framing::Close => {
                bytes.extend(b"\r\n");
                bytes.extend(&self.body);
            }
            Framing::Length => {
                bytes.extend(format!("content-length: {}\r\n\r\n", self.body.len()).into_bytes());
                bytes.extend(&self.body);
            }
            Framing::Chunks(sizes) => {
                bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
                let mut rest = self.body.as_slice();
                let mut extension = ";of=it";
                for size in sizes.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (chunk, after) = rest.split_at(rest.len().min(*size));
                    bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
                    bytes.extend([chunk, b"\r\n"].concat());
                    (rest, extension) = (after, "");
                }
                bytes.extend(b"0\r\nx-trailer: 1\r\n\r\n");
            }
        }
        bytes
    }

    /// Reads one message; none if the peer closed before it began.
    pub(crate) async fn read<R>(reader: &mut R, reading: Reading) -> io::Result<Option<Self>>
    where
        R: AsyncBufRead + AsyncRead + Unpin,
    {
        let Some(line) = read_line(reader).await? else {
            return Ok(None);
        };
        let mut message = Self {
            line: text(&line),
            fields: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let field = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if field.is_empty() {
                break;
            }
            let colon = field.iter().position(|byte| *byte == b':');
            let (name, value) = field.split_at(colon.ok_or(io::ErrorKind::InvalidData)?);
            let value = value[1..].trim_ascii().to_vec();
            message.fields.push((text(name).to_ascii_lowercase(), value));
        }
        let length = message.value("content-length");
        if message.has("transfer-encoding") {
            assert!(length.is_none(), "two framings: {message:?}");
            message.body = read_chunks(reader).await?;
        } else if let Some(length) = length {
            message.body = vec![0; length.parse().map_err(|_| io::ErrorKind::InvalidData)?];
            reader.read_exact(&mut message.body).await?;
        } else if reading == Reading::Answer && !matches!(message.status(), 204 | 304) {
            reader.read_to_end(&mut message.body).await?;
        }
        Ok(Some(message))
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.line
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line without its end; none at the end of the stream.
async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if !line.ends_with(b"\r\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.len() - 2);
    Ok(Some(line))
}

async fn read_chunks<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = text(line.split(|byte| *byte == b';').next().unwrap_or_default());
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        let begin = body.len();
        body.resize(begin + size, 0);
        reader.read_exact(&mut body[begin..]).await?;
        read_line(reader).await?;
    }
    while !read_line(reader)
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?
        .is_empty()
    {}
    Ok(body)
}
